"""The folder of split files: where each lies, how all of them are written, what they hold.

`<root>/in-domain/seen/InsA_train_seen_seed<S>.json` trains (file names relative to the data's root), images
without any instance among it;
`<root>/in-domain/{unseen,seen}/<set>/{prompt,target}/` and `<root>/out-domain/<set>/{prompt,target}/`
test (file names relative to the set's raw folder).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from unispector.data.coco import Annotations, ImageRecord
from unispector.data.protocol.splits import (
    Lost,
    PromptTargetSplit,
    SplitRules,
    TrainingRule,
    draw_prompts,
    merge_training,
    split_set,
    untestable,
)
from unispector.errors import DataError
from unispector.ops.files import atomic_write_json, replaced_folder

Part = Literal["unseen", "seen", "cross"]
NAIVE_NOTE = (
    "NAIVE TRAINING: images that show unseen classes may train, with these classes unlabelled, and are "
    "targets too"
)


@dataclass(frozen=True)
class BenchmarkSet:
    """A set that takes part."""

    name: str  # its name, also in file names
    folder: str  # its raw folder, a posix path relative to the data's root
    domain: Literal["in", "cross"]  # `in` trains with its seen classes, `cross` is only tested on
    annotations: Annotations  # its whole InsA file
    # Names and sizes of images without a defect that may train; their ids mean nothing.
    defect_free: tuple[ImageRecord, ...] = ()
    unseen: tuple[str, ...] | None = None  # classes to hold out, see `split_set`


@dataclass(frozen=True)
class TestPair:
    """The files of one draw's prompts and targets."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    set_name: str  # the set
    part: Part  # `unseen` or `seen` classes of an in-domain set, or a `cross`-domain set
    split_seed: int | None  # seed of the split; None for a cross-domain set, which has none
    prompt_seed: int  # seed of the draw
    # Annotation files.
    prompt: Path
    target: Path


@dataclass(frozen=True)
class SplitTree:
    """Names of the files below `root`."""

    root: Path

    @property
    def report(self) -> Path:
        """The split report."""
        return self.root / "report.json"

    def training(self, split_seed: int) -> Path:
        """The merged training file of one split seed."""
        return self.root / "in-domain" / "seen" / f"InsA_train_seen_seed{split_seed}.json"

    def in_domain(
        self, set_name: str, part: Literal["unseen", "seen"], split_seed: int, prompt_seed: int
    ) -> TestPair:
        """Prompts and targets of an in-domain set's unseen or seen classes."""
        folder = self.root / "in-domain" / part / set_name
        file_name = f"{set_name}_{part}_seed{split_seed}_prompt_seed{prompt_seed}.json"
        pair = folder / "prompt" / file_name, folder / "target" / file_name
        return TestPair(set_name, part, split_seed, prompt_seed, *pair)

    def cross_domain(self, set_name: str, prompt_seed: int) -> TestPair:
        """Prompts and targets of a cross-domain set."""
        folder = self.root / "out-domain" / set_name
        file_name = f"{set_name}_prompt_seed{prompt_seed}.json"
        pair = folder / "prompt" / file_name, folder / "target" / file_name
        return TestPair(set_name, "cross", None, prompt_seed, *pair)


@dataclass(frozen=True)
class DrawReport:
    """One draw: prompt images and target images per class, and target images in all."""

    part: Part
    prompt_seed: int
    prompt_images: dict[str, int]
    target_images_of: dict[str, int]
    target_images: int


@dataclass(frozen=True)
class SetReport:
    """One set under one split seed (None for a cross-domain set, whose classes are all unseen)."""

    name: str  # the set
    split_seed: int | None  # seed of the split
    # Class names.
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    untrained_seen: tuple[str, ...]  # seen classes none of whose images could train
    # Classes that are neither prompted nor looked for, each with why.
    untested_seen: dict[str, str]
    untested_unseen: dict[str, str]
    # What it adds to the training file.
    training_images: int
    training_instances: int
    training_defect_free: int  # images without a defect that it adds besides
    seen_test_images: int  # images of seen classes kept from training
    # Images and instances that the clean training rule costs, also counted where the naive one trains on
    # them; None where there is nothing to count (cross-domain) or it cannot be known.
    lost: Lost | None
    draws: tuple[DrawReport, ...]  # the draws of prompts


@dataclass(frozen=True)
class SplitReport:
    """All sets of the benchmark, in-domain ones once per split seed."""

    sets: tuple[SetReport, ...]  # set by set
    training_rule: TrainingRule  # whether images that show unseen classes may train
    scored_on_prompts: bool = False  # the targets are the prompt images themselves
    notes: tuple[str, ...] = ()  # what a reader of any figure must know, a sentence each

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        atomic_write_json(path, asdict(self))


def write_splits(
    sets: Sequence[BenchmarkSet],
    rules: SplitRules,
    split_seeds: Sequence[int],
    prompt_seeds: Sequence[int],
    root: Path,
) -> SplitReport:
    """Write all split files and the report; what lay below `root` before is replaced as a whole.

    Each split seed gives a training file, each prompt seed a draw of prompts per test; the sets are merged in
    their order.

    Raises:
        DataError: no in-domain set, or a set cannot be split or prompted; then `root` is untouched.
    """
    inside = [member for member in sets if member.domain == "in"]
    if not inside:
        raise DataError("no in-domain set to train on; give one set under data.sets the domain: in")
    reports: list[SetReport] = []
    with replaced_folder(root) as temporary:
        tree = SplitTree(temporary)
        for seed in split_seeds:
            training = {}
            for member in inside:
                report, annotations = _write_in_domain(tree, member, rules, seed, prompt_seeds)
                training[member.name] = (member.folder, annotations.with_images(member.defect_free))
                reports.append(report)
            merge_training(training).write(tree.training(seed))
        outside = [member for member in sets if member.domain == "cross"]
        reports += [_write_cross_domain(tree, member, rules, prompt_seeds) for member in outside]
        result = SplitReport(tuple(reports), rules.training_rule, notes=tuple(_notes(rules, reports)))
        result.write(tree.report)
    return result


def _notes(rules: SplitRules, reports: Sequence[SetReport]) -> Iterator[str]:
    if rules.training_rule == "naive":
        yield NAIVE_NOTE
    for report in reports:
        where = report.name if report.split_seed is None else f"{report.name}, split seed {report.split_seed}"
        for class_name, reason in report.untested_unseen.items():
            yield f"{where}: class {class_name} is not tested: {reason}"


def _write_in_domain(
    tree: SplitTree, member: BenchmarkSet, rules: SplitRules, seed: int, prompt_seeds: Sequence[int]
) -> tuple[SetReport, Annotations]:
    name = member.name
    split = split_set(name, member.annotations, rules, seed, member.unseen)
    if split.unseen and not split.tested_unseen:
        raise _nothing_to_test(f"{name}: split seed {seed}", split.untested_unseen, "use another split seed")
    draws = []
    for prompt_seed in prompt_seeds:
        if split.unseen:
            draw = draw_prompts(name, member.annotations, split.tested_unseen, rules, prompt_seed)
            draws.append(write_pair(draw, tree.in_domain(name, "unseen", seed, prompt_seed)))
        if split.tested_seen:
            draw = draw_prompts(name, split.seen_test, split.tested_seen, rules, prompt_seed)
            draws.append(write_pair(draw, tree.in_domain(name, "seen", seed, prompt_seed)))
    report = SetReport(
        name=name,
        split_seed=seed,
        seen=split.seen,
        unseen=split.unseen,
        untrained_seen=tuple(sorted(set(split.seen) - set(split.training.class_names))),
        untested_seen=split.untested_seen,
        untested_unseen=split.untested_unseen,
        training_images=len(split.training.images),
        training_instances=len(split.training.instances),
        training_defect_free=len(member.defect_free),
        seen_test_images=len(split.seen_test.images),
        lost=split.lost,
        draws=tuple(draws),
    )
    return report, split.training


def _write_cross_domain(
    tree: SplitTree, member: BenchmarkSet, rules: SplitRules, prompt_seeds: Sequence[int]
) -> SetReport:
    classes = tuple(sorted(member.annotations.class_names))
    untested = untestable(member.annotations, classes)
    tested = [class_name for class_name in classes if class_name not in untested]
    if not tested:
        raise _nothing_to_test(member.name, untested, "add images")
    draws = [
        write_pair(
            draw_prompts(member.name, member.annotations, tested, rules, prompt_seed),
            tree.cross_domain(member.name, prompt_seed),
        )
        for prompt_seed in prompt_seeds
    ]
    return SetReport(member.name, None, (), classes, (), {}, untested, 0, 0, 0, 0, None, tuple(draws))


def _nothing_to_test(where: str, untested: dict[str, str], remedy: str) -> DataError:
    reasons = "; ".join(f"{class_name}: {reason}" for class_name, reason in untested.items())
    return DataError(f"{where} leaves no unseen class that can be tested ({reasons}); {remedy}")


def write_pair(draw: PromptTargetSplit, pair: TestPair) -> DrawReport:
    """Write a draw's two files and count what is in them."""
    draw.prompt.write(pair.prompt)
    draw.target.write(pair.target)
    return DrawReport(
        part=pair.part,
        prompt_seed=pair.prompt_seed,
        prompt_images=_images_per_class(draw.prompt),
        target_images_of=_images_per_class(draw.target),
        target_images=len(draw.target.images),
    )


def _images_per_class(annotations: Annotations) -> dict[str, int]:
    labels = Counter(label for image in annotations.images for label in annotations.labels_of(image.id))
    return {category.name: labels[category.id] for category in annotations.categories}
