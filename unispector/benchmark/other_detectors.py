"""Stage `benchmark`: any detector that Python can call, judged by the protocol that judges UniSpector."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unispector.benchmark.judge import advance, read_pair, share_bar
from unispector.benchmark.plan import Evaluation, evaluations_of
from unispector.benchmark.row import evaluation_row
from unispector.config import Config
from unispector.data.coco import Annotations, ImageRecord
from unispector.data.combine import with_prompts
from unispector.data.defect_free import defect_free_for_tests
from unispector.data.protocol.split_tree import TestPair
from unispector.detections import Detections
from unispector.errors import ConfigError, DataError
from unispector.evaluation.ground_truth import GroundTruth, Overlaps
from unispector.evaluation.results import EvaluationReport, EvaluationRow, ModelRecord
from unispector.ops.files import atomic_write_text
from unispector.ops.rle import segmentation_to_rle

BUILT_IN = {"prototype": "unispector.benchmark.prototype:PrototypeDetector"}
"""Detectors that come with the project, and their import paths."""


@runtime_checkable
class BenchmarkDetector(Protocol):
    """The interface the benchmark needs of a detector."""

    def encode_prompts(self, prompts: Annotations, images: Path) -> Any:
        """Learn what to look for; called once per draw of prompts.

        Args:
            prompts: all instances are prompts of their category; all categories are looked for together.

        Returns:
            Whatever `detect` needs.
        """

    def detect(self, images: Sequence[Path], prompts: Any) -> Iterator[Detections]:
        """Look for all prompted classes on every image.

        Returns:
            One `Detections` per image, in order; `class_names` are names of the prompts' categories,
            scores lie in [0, 1], masks are COCO run-length codes of the image's size.
        """


def import_path(detector: str) -> str:
    """The import path of a detector: that of a built-in one by its name, else as it is."""
    return BUILT_IN.get(detector, detector)


def make_detector(path: str) -> BenchmarkDetector:
    """Call what an import path leads to; modules of the current folder can be imported.

    Args:
        path: `package.module:callable`; called without arguments, it returns the detector.

    Raises:
        ConfigError: the path has another form or leads nowhere, or what it makes is no detector.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        known = ", ".join(BUILT_IN)
        raise ConfigError(f"detector {path!r}: give package.module:callable, or a built-in one ({known})")
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
    detector = make()
    if not isinstance(detector, BenchmarkDetector):
        raise ConfigError(
            f"detector {path!r}: it returned {type(detector).__name__}, which lacks encode_prompts or "
            "detect; docs/benchmark.md shows both"
        )
    return detector


def benchmark(detector: str, name: str, config: Config, root: Path, out: Path) -> EvaluationReport:
    """Make a detector and run it; see `make_detector` and `run_benchmark`."""
    path = import_path(detector)
    return run_benchmark(make_detector(path), name, config, root, out, {"detector": path})


def run_benchmark(
    detector: BenchmarkDetector,
    name: str,
    config: Config,
    root: Path,
    out: Path,
    provenance: dict[str, str] | None = None,
) -> EvaluationReport:
    """Judge a detector on every set, split seed, seen and unseen, and draw of prompts (InsA's protocol).

    Writes `evaluation.json` and `metrics.json`, in the form of the stage evaluate.

    Args:
        detector: what to judge; one for all split seeds.

    Returns:
        What was written.

    Raises:
        DataError: a file of the splits is missing, a file or an image is unusable, or what the detector
            returned is.
    """
    seeds = config.split.seeds
    todo = evaluations_of(config, root, [(name, seed, Path(name)) for seed in seeds])
    rows: list[EvaluationRow] = []
    with share_bar(sum(len(evaluation.tests) for evaluation in todo)) as bar:
        for evaluation in todo:
            bar.set_description(f"{name} seed {evaluation.split_seed}, {evaluation.set_name}")
            rows += [_row(detector, evaluation, test, config, advance(bar)) for test in evaluation.tests]
    models = tuple(ModelRecord(name, seed, "", provenance or {}) for seed in seeds)
    report = EvaluationReport(tuple(rows), (), models, config.evaluate.include_prompts)
    atomic_write_text(out / "evaluation.json", report.evaluation_json())
    atomic_write_text(out / "metrics.json", report.metrics_json())
    return report


def _row(
    detector: BenchmarkDetector,
    todo: Evaluation,
    test: TestPair,
    config: Config,
    moved: Callable[[float], object],
) -> EvaluationRow:
    """One draw of prompts on one set: its targets, then its defect-free images."""
    settings = config.evaluate
    prompts, targets = read_pair(test.prompt, test.target)
    if settings.include_prompts:
        targets = with_prompts(targets, prompts)
    truth, wanted = GroundTruth(targets), targets.images
    good = defect_free_for_tests(todo.dropped, settings.good_images)
    paths = [todo.images / file for file in (*(image.file_name for image in wanted), *good)]
    overlaps: dict[int, Overlaps] = {}
    good_scores = []
    stream = _one_each(detector.detect(paths, detector.encode_prompts(prompts, todo.images)), paths)
    for number, (path, found) in enumerate(stream):
        _check(path, found, prompts.class_names)
        if number < len(wanted):
            image = wanted[number]
            overlaps[image.id] = truth.overlaps(image.id, _of_size(path, found, image))
        else:
            good_scores.append(found.scores.cpu().numpy())
        moved(1 / len(paths))
    return evaluation_row(todo, test, truth, overlaps, good_scores, settings)[0]


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
        raise DataError(f"{path}: a score is not in [0, 1]; scale the scores")


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
