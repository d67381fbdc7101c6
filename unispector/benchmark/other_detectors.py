"""Stage `benchmark`: any detector that Python can call, judged by the protocol that judges UniSpector."""

import importlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from unispector.benchmark.judge import advance, read_pair, share_bar
from unispector.benchmark.plan import Evaluation, evaluations_of
from unispector.benchmark.row import evaluation_row
from unispector.benchmark.system_samples import samples_to_keep
from unispector.config import Config, Roi
from unispector.data.coco import BOX_SLACK, Annotations, ImageRecord
from unispector.data.combine import with_prompts
from unispector.data.defect_free import defect_free_for_tests, defect_free_for_training
from unispector.data.protocol.split_tree import SplitTree, TestPair
from unispector.detections import Detections
from unispector.errors import ConfigError, DataError
from unispector.evaluation.ground_truth import GroundTruth, Overlaps
from unispector.evaluation.results import EvaluationReport, EvaluationRow, ModelRecord
from unispector.evaluation.system_record import RECORD, Clock, SystemRecord
from unispector.evaluation.system_sample import SystemSample
from unispector.ops.files import atomic_write_text, read_image_size
from unispector.ops.rle import segmentation_to_rle
from unispector.project.paths import SPLITS
from unispector.systems.catalogue import BY_NAME, Learns, System
from unispector.systems.detector import BenchmarkDetector, TrainableDetector

logger = logging.getLogger(__name__)


def make_detector(detector: str, weights: str = "", roi: Roi | None = None) -> BenchmarkDetector:
    """Make a system of the catalogue, or call what an import path leads to.

    Args:
        detector: name of a system, or `package.module:callable`, which is called without arguments; modules
            of the current folder can be imported.
        weights: what the system's `--weights` takes.
        roi: what its prompts are; None = the first kind the system takes.

    Raises:
        ConfigError: there is no such system, the path leads nowhere or to no detector, or an option does not
            suit the system.
        CheckpointError: the weights cannot be read.
    """
    system = BY_NAME.get(detector)
    if system is None:
        if weights or roi:
            raise ConfigError(
                f"detector {detector!r}: --weights and --roi are for the systems of the catalogue"
            )
        made = _imported(detector)()
    else:
        made = _imported(system.make)(**_options(system, weights, roi))
    if not isinstance(made, BenchmarkDetector):
        raise ConfigError(
            f"detector {detector!r}: it returned {type(made).__name__}, which lacks encode_prompts or "
            "detect; docs/benchmark.md shows both"
        )
    return made


def _options(system: System, weights: str, roi: Roi | None) -> dict[str, str]:
    """What a system is made with; refuses what it does not take."""
    if weights and not system.weights:
        raise ConfigError(f"{system.name} takes no --weights")
    if system.weights and system.weights_needed and not weights:
        raise ConfigError(f"{system.name} needs --weights: {system.weights}")
    if roi and roi not in system.rois:
        taken = f"is prompted by {system.rois[0]}es alone" if system.rois else "is not prompted by an example"
        raise ConfigError(f"{system.name} {taken}; leave out --roi {roi}")
    options = {"weights": weights} if weights else {}
    return options | ({"roi": roi or system.rois[0]} if system.rois else {})


def _no_such(name: str) -> ConfigError:
    return ConfigError(f"detector {name!r}: give package.module:callable, or a system ({', '.join(BY_NAME)})")


def _imported(path: str) -> Callable[..., object]:
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise _no_such(path)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"detector {path!r}: {module_name} cannot be imported ({error}); "
            "install it, or run from the folder it lies in"
        ) from error
    make = getattr(module, attribute, None)
    if not callable(make):
        raise ConfigError(f"detector {path!r}: {module_name} has no callable {attribute!r}; check its name")
    return cast("Callable[..., object]", make)


def benchmark(
    detector: str,
    name: str,
    config: Config,
    root: Path,
    out: Path,
    *,
    weights: str = "",
    roi: Roi | None = None,
    sets: Sequence[str] = (),
) -> EvaluationReport:
    """Make a detector and run it; see `make_detector` and `run_benchmark`.

    Args:
        weights: `{seed}` in it stands for the split seed, where each has weights of its own.
    """

    def make(seed: int) -> BenchmarkDetector:
        return make_detector(detector, weights.replace("{seed}", str(seed)), roi)

    return run_benchmark(Entry(name, make, detector, roi, weights), config, root, out, sets)


@dataclass(frozen=True)
class Entry:
    """A detector that takes part."""

    name: str  # how the report calls it
    make: Callable[[int], BenchmarkDetector]  # by the split seed
    detector: str = ""  # name in the catalogue or import path
    roi: Roi | None = None  # as asked for; None = what the system takes first
    weights: str = ""  # as given

    @property
    def system(self) -> System | None:
        """Its place in the catalogue; None = it is somebody's own detector."""
        return BY_NAME.get(self.detector)

    @property
    def provenance(self) -> dict[str, str]:
        """What a report says of where it comes from."""
        known = {"detector": self.detector, "weights": self.weights}
        return {key: value for key, value in known.items() if value}

    def record(
        self, clock: Clock, root: Path, parameters: int | None, samples: tuple[SystemSample, ...]
    ) -> SystemRecord:
        """What its judging took, and what is to be drawn of it."""
        roi: str = self.roi or (self.system.rois[0] if self.system and self.system.rois else "")
        record = SystemRecord.of(self.detector, self.name, roi, self.weights, clock, root, parameters)
        return replace(record, samples=samples)


def run_benchmark(
    entry: Entry, config: Config, root: Path, out: Path, sets: Sequence[str] = ()
) -> EvaluationReport:
    """Judge a detector on every set, split seed, seen and unseen, and draw of prompts (InsA's protocol).

    A system that learns is trained before: on the seen classes of each split seed, or on each set's good
    images, those that no false alarm is counted on. Writes `evaluation.json` and `metrics.json`, in the form
    of the stage evaluate, and `system.json`, what it took.

    Args:
        sets: those of `config.data.sets` to judge on; empty = all.

    Returns:
        What was written to `evaluation.json`.

    Raises:
        ConfigError: there is no such set.
        DataError: a file of the splits is missing, a file or an image is unusable, or what the detector
            returned is.
    """
    if unknown := set(sets) - set(config.data.sets):
        raise ConfigError(f"{min(unknown)}: no such set; params.yaml has {', '.join(config.data.sets)}")
    _check_out(out, entry)
    seeds = config.train.seeds  # as the models that are trained here, so that rows compare
    if entry.system and entry.system.learns == "before" and len(seeds) > 1 and Path(entry.weights).is_dir():
        logger.warning(
            "%s: one model on several splits; the unseen classes of one may have trained it: write {seed}",
            entry.weights,
        )
    todo = evaluations_of(config, root, [(entry.name, seed, Path(entry.name)) for seed in seeds])
    todo = tuple(evaluation for evaluation in todo if not sets or evaluation.set_name in sets)
    if not todo:
        raise DataError("nothing to judge: no set has targets; see data.sets and the split stage")
    rows: list[EvaluationRow] = []
    samples: list[SystemSample] = []
    clock = Clock()
    with share_bar(sum(len(evaluation.tests) for evaluation in todo)) as bar:
        for detector, evaluation in _ready(entry, todo, config, root, out):
            bar.set_description(f"{entry.name} seed {evaluation.split_seed}, {evaluation.set_name}")
            for test in evaluation.tests:
                row, kept = _row(detector, evaluation, test, config, clock, advance(bar))
                rows.append(row)
                samples += kept
    models = tuple(ModelRecord(entry.name, seed, "", entry.provenance) for seed in seeds)
    report = EvaluationReport(tuple(rows), (), models, config.evaluate.include_prompts)
    record = entry.record(clock, root, getattr(detector, "parameters", None), tuple(samples))
    (out / RECORD).unlink(missing_ok=True)  # so that no row ever mixes two runs
    atomic_write_text(out / "evaluation.json", report.evaluation_json())
    atomic_write_text(out / "metrics.json", report.metrics_json())
    record.write(out / RECORD)
    return report


def _ready(
    entry: Entry, todo: Sequence[Evaluation], config: Config, root: Path, out: Path
) -> Iterator[tuple[BenchmarkDetector, Evaluation]]:
    """Each evaluation with the detector that is to be judged, trained where it learns."""
    learns = entry.system.learns if entry.system else "nothing"
    known: str | None = None
    if learns == "good":  # a set's good images are the same in all splits: what they teach is learnt once
        todo = sorted(todo, key=lambda evaluation: evaluation.set_name)
    for evaluation in todo:
        lesson = evaluation.set_name if learns == "good" else str(evaluation.split_seed)
        if lesson != known:
            known, detector = lesson, entry.make(evaluation.split_seed)
            if learns in ("seen", "good") and isinstance(detector, TrainableDetector):
                detector.fit(*_lesson(learns, evaluation, config, root), out / "trained" / lesson)
        yield detector, evaluation


def _lesson(learns: Learns, evaluation: Evaluation, config: Config, root: Path) -> tuple[Annotations, Path]:
    """What a system learns from before an evaluation, and the folder of the images."""
    if learns == "seen":
        annotations = Annotations.read(SplitTree(root / SPLITS).training(evaluation.split_seed))
        _check_sizes(annotations, root / config.data.root)
        return annotations, root / config.data.root
    good = defect_free_for_training(evaluation.dropped, config.evaluate.good_images)
    if not good:
        raise DataError(f"{evaluation.set_name}: no good image to learn from; leave the set out (--sets)")
    sizes = [read_image_size(evaluation.images / name) for name in good]
    records = [ImageRecord(i, name, *size) for i, (name, size) in enumerate(zip(good, sizes, strict=True), 1)]
    return Annotations(tuple(records), (), ()), evaluation.images


def _row(
    detector: BenchmarkDetector,
    todo: Evaluation,
    test: TestPair,
    config: Config,
    clock: Clock,
    moved: Callable[[float], object],
) -> tuple[EvaluationRow, list[SystemSample]]:
    """One draw of prompts on one set: its targets, then its defect-free images; what is to be drawn of it."""
    settings = config.evaluate
    prompts, targets = read_pair(test.prompt, test.target)
    if settings.include_prompts:
        targets = with_prompts(targets, prompts)
    truth, wanted = GroundTruth(targets), targets.images
    samples = samples_to_keep(todo, test, prompts, targets, config)
    good = defect_free_for_tests(todo.dropped, settings.good_images)
    paths = [todo.images / file for file in (*(image.file_name for image in wanted), *good)]
    overlaps: dict[int, Overlaps] = {}
    good_scores = []
    _check_sizes(prompts, todo.images)
    results = detector.detect(paths, detector.encode_prompts(prompts, todo.images))
    stream = _one_each(clock.timed(iter(results)), paths)
    for number, (path, found) in enumerate(stream):
        _check(path, found, prompts.class_names)
        if number < len(wanted):
            image = wanted[number]
            judged = _of_size(path, found, image)
            _check_boxes(path, judged)
            overlaps[image.id] = truth.overlaps(image.id, judged)
            if image.id in samples:
                samples[image.id] = samples[image.id].with_found(found)
        else:
            _check_boxes(path, found)
            good_scores.append(found.scores.cpu().numpy())
        moved(1 / len(paths))
    row, _ = evaluation_row(todo, test, truth, overlaps, good_scores, settings)
    return row, list(samples.values())


def _one_each(results: Iterator[Detections], paths: Sequence[Path]) -> Iterator[tuple[Path, Detections]]:
    """Images with what was found on them."""
    found = iter(results)
    for path in paths:
        try:
            result = next(found)
        except StopIteration:
            raise DataError(f"{path}: the detector returned nothing for it; return one result each") from None
        yield path, result
    if next(found, None) is not None:
        raise DataError(
            f"{paths[-1]}: the detector returned more after this last image; return one result each"
        )


def _check(path: Path, found: Detections, class_names: Sequence[str]) -> None:
    """A foreign detector's result must be one that can be judged."""
    if not isinstance(found, Detections):
        raise DataError(f"{path}: the detector returned a {type(found).__name__}; return a Detections")
    if unknown := sorted(set(found.class_names) - set(class_names)):
        raise DataError(
            f"{path}: the detector found class {unknown[0]!r}, which was not prompted "
            f"({', '.join(class_names)}); name the prompts' categories"
        )
    count = len(found.scores)
    shapes = (found.boxes_xyxy.shape, found.labels.shape, len(found.masks_rle))
    if found.scores.ndim != 1 or shapes != ((count, 4), (count,), count):
        raise DataError(f"{path}: scores, boxes [n, 4], labels and masks differ in number; give one each")
    labels = found.labels
    if labels.is_floating_point() or ((labels < 0) | (labels >= len(found.class_names))).any():
        raise DataError(f"{path}: a label is no position in class_names; count from 0")
    if not ((found.scores >= 0) & (found.scores <= 1)).all():
        raise DataError(f"{path}: a score is not in [0, 1]; scale the scores, or mend the weights")


def _check_boxes(path: Path, found: Detections) -> None:
    """Boxes of another form would be judged as wrong places."""
    height, width = found.image_hw
    left, top, right, bottom = found.boxes_xyxy.float().unbind(1)
    inside = (left >= -BOX_SLACK) & (top >= -BOX_SLACK)
    inside &= (right <= width + BOX_SLACK) & (bottom <= height + BOX_SLACK)
    if not (inside & (left <= right) & (top <= bottom)).all():
        raise DataError(
            f"{path}: a box is no left, top, right, bottom in {width}x{height} pixels; return xyxy"
        )


def _check_sizes(annotations: Annotations, images: Path) -> None:
    """Marks lie where they should only on images of the size that their record says, upright."""
    for image in annotations.images:
        file = images / image.file_name
        image.check_size(file, *read_image_size(file))


def _check_out(out: Path, entry: Entry) -> None:
    """Refuse before the measurement what could not be written after it."""
    try:
        "".join((entry.name, entry.detector, entry.weights)).encode()
    except UnicodeEncodeError as error:
        raise ConfigError("the weights or the name are no UTF-8; rename the file") from error
    out.mkdir(parents=True, exist_ok=True)
    for name in ("evaluation.json", "metrics.json", RECORD):
        if (out / name).is_dir():
            raise DataError(
                f"{out / name}: a folder lies where a file is to be written; choose another --out"
            )
    with tempfile.TemporaryFile(dir=out):
        pass


def check_entry(name: str, weights: str, roi: Roi | None) -> None:
    """Refuse a name, weights or prompts that the catalogue lacks, without loading anything.

    Raises:
        ConfigError: as `make_detector`.
    """
    if name not in BY_NAME:
        raise _no_such(name)
    _options(BY_NAME[name], weights, roi)


def _of_size(path: Path, found: Detections, image: ImageRecord) -> Detections:
    """Detections with mask codes that are safe to measure: pycocotools checks none."""
    height, width = image.height, image.width
    if tuple(found.image_hw) != (height, width):
        raise DataError(
            f"{path}: the detector's image_hw is {tuple(found.image_hw)}, the image's {(height, width)}; "
            "return boxes and masks in the image's own pixels"
        )
    try:
        masks = tuple(segmentation_to_rle(code, height, width) for code in found.masks_rle)
    except DataError as error:
        raise DataError(f"{path}: a detection's mask: {error}") from error
    return replace(found, masks_rle=masks)
