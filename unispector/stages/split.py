"""Stage `split`: the tree of training, prompt and target files, checked for leaks."""

from pathlib import Path, PurePosixPath

from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.expectations import check_splits
from unispector.data.split_tree import BenchmarkSet, SplitReport, SplitTree, write_splits
from unispector.data.splits import SplitRules
from unispector.errors import DataError
from unispector.stages.paths import SPLIT_CHECKS, SPLITS, annotation_file


def split(config: Config, root: Path = Path()) -> SplitReport:
    """Write `data/splits/` from all InsA files, then read it back and check it.

    Args:
        config: its sections `data` and `split` are read.
        root: the project's folder.

    Returns:
        The report, also in `data/splits/report.json`; that of the checks is `data/splits/checks.json`.

    Raises:
        DataError: a set's InsA file is missing, a set cannot be split, or a file leaks.
    """
    sets = [
        BenchmarkSet(
            name=name,
            folder=PurePosixPath(member.path).as_posix(),
            domain=member.domain,
            annotations=Annotations.read(root / annotation_file(name)),
        )
        for name, member in config.data.sets.items()
    ]
    section = config.split
    rules = SplitRules(
        unseen_fraction=section.unseen_fraction,
        prompts_per_class=section.prompts_per_class,
        tail_images=section.tail_images,
        seen_test_fraction=section.seen_test_fraction,
    )
    report = write_splits(sets, rules, section.seeds, section.prompt_seeds, root / SPLITS)
    checks = check_splits(sets, SplitTree(root / SPLITS), section.seeds, section.prompt_seeds)
    checks.write(root / SPLIT_CHECKS)
    if not checks.passed:
        raise DataError(f"{checks.summary()}; all of it is in {root / SPLIT_CHECKS}")
    return report
