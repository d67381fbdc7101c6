"""Stage `split`: the tree of training, prompt and target files, checked for leaks."""

import logging
from pathlib import Path, PurePosixPath

from unispector.config import Config
from unispector.data.checks.duplicates import report_near_duplicates
from unispector.data.checks.expectations import DataDocs, check_splits
from unispector.data.coco import Annotations, ImageRecord
from unispector.data.defect_free import defect_free_for_training
from unispector.data.protocol.official import write_official
from unispector.data.protocol.split_tree import BenchmarkSet, SplitReport, SplitTree, write_splits
from unispector.data.protocol.splits import SplitRules
from unispector.data.survey import read_survey
from unispector.errors import DataError
from unispector.ops.files import read_image_size
from unispector.project.paths import (
    SPLIT_CHECKS,
    SPLIT_DOCS,
    SPLITS,
    annotation_file,
    dropped_file,
    survey_file,
)

logger = logging.getLogger(__name__)


def split(config: Config, root: Path = Path()) -> SplitReport:
    """Write `data/splits/` from all InsA files or from the official ones, then read it back and check it.

    Returns:
        The report, also in `data/splits/report.json`; that of the checks is `data/splits/checks.json`,
        near-duplicates across the split are in `data/splits/near-duplicates.csv`, the pages of the checks
        in `reports/data_docs_splits/`.

    Raises:
        DataError: a set's InsA file or survey is missing, a set cannot be split, an official file is
            unusable, or a file leaks.
    """
    section = config.split
    seeds, prompt_seeds = section.seeds, section.prompt_seeds
    if section.official is None:
        sets = _own_sets(config, root)
        report = write_splits(sets, _rules(config), seeds, prompt_seeds, root / SPLITS)
    else:
        raw, official = root / config.data.root, root / section.official
        report, sets = write_official(official, config.data, raw, section, root / SPLITS)
    for note in report.notes:
        logger.warning(note)
    tree = SplitTree(root / SPLITS)
    docs = DataDocs()
    checks = check_splits(
        sets,
        tree,
        seeds,
        prompt_seeds,
        naive=section.training_rule == "naive",
        official=section.official is not None,
        scored_on_prompts=report.scored_on_prompts,
        docs=docs,
    )
    checks.write(root / SPLIT_CHECKS)
    docs.write(root / SPLIT_DOCS, [checks])
    if not checks.passed:
        raise DataError(f"{checks.summary()}; all of it is in {root / SPLIT_CHECKS}")
    surveys = {name: read_survey(root / survey_file(name)) for name in config.data.sets}
    logger.info(report_near_duplicates(sets, surveys, tree, seeds, prompt_seeds).summary())
    return report


def _own_sets(config: Config, root: Path) -> list[BenchmarkSet]:
    sets = []
    for name, member in config.data.sets.items():
        annotations = Annotations.read(root / annotation_file(name))
        defect_free: tuple[ImageRecord, ...] = ()
        if member.domain == "in":
            # No more than images with a defect: some releases have a hundred times as many without.
            files = defect_free_for_training(root / dropped_file(name), len(annotations.images))
            raw = root / config.data.root / member.path
            defect_free = tuple(ImageRecord(0, file, *read_image_size(raw / file)) for file in files)
        folder = PurePosixPath(member.path).as_posix()
        sets.append(BenchmarkSet(name, folder, member.domain, annotations, defect_free, member.unseen))
    return sets


def _rules(config: Config) -> SplitRules:
    section = config.split
    return SplitRules(
        unseen_fraction=section.unseen_fraction,
        prompts_per_class=section.prompts_per_class,
        tail_images=section.tail_images,
        seen_test_fraction=section.seen_test_fraction,
        training_rule=section.training_rule,
    )
