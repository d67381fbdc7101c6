"""`unispector measure`: a model judged one class at a time, beside the training-free floor.

From Python, with `unispector.benchmark.one_class`:
`measure(UniSpector.load(folder), read_coco_set(file, images), OneClassSettings())`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unispector.benchmark.judge import advance, share_bar
from unispector.benchmark.one_class import (
    PROMPT_IMAGES,
    ClassDraw,
    MarkedSet,
    OneClassSettings,
    draw_classes,
    draw_good,
    timed,
)
from unispector.evaluation.coco_metrics import evaluate_overlaps
from unispector.evaluation.failures import FalseAlarm, Miss, worst_false_alarms, worst_misses
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import Matches, match
from unispector.evaluation.one_class import (
    ClassRow,
    DetectorFigures,
    FailureImage,
    OneClassReport,
    alarms_from,
    box_fit,
    half_found_score,
    score_bins,
)
from unispector.inference.detector import UniSpector
from unispector.ops.drawing import side_by_side, write_image
from unispector.ops.files import atomic_write_json, atomic_write_text
from unispector.reporting.evaluation_images import Shown, failure_strips, file_stem
from unispector.reporting.one_class_report import one_class_json, one_class_report
from unispector.reporting.render import markdown
from unispector.scores import DEFAULT_SCORE
from unispector.systems.detector import BenchmarkDetector
from unispector.systems.own import PromptedDetector
from unispector.systems.prototypes import PrototypeDetector

MODEL, FLOOR = "model", "floor"


@dataclass(frozen=True)
class _Judged:
    """One draw's figures, and what the detections' boxes found."""

    draw: ClassDraw
    row: ClassRow
    boxes: Matches


def measure(
    detector: UniSpector,
    marked: MarkedSet,
    settings: OneClassSettings,
    *,
    floor: bool = True,
    name: str = MODEL,
    out: Path | None = None,
) -> OneClassReport:
    """Judge a model one class at a time.

    Of each class and prompt seed five images are marked, all their instances of the class by boxes or masks;
    other images that show the class are targets. The class is prompted alone.

    Args:
        floor: judge nearest-prototype matching without training too, with the same prompts and targets.
        out: folder to write images of a false alarm and a miss of each class to, in `pictures/`; None =
            none are drawn.

    Returns:
        AP50, false alarms, box fit, reliability and processor time, by class and draw.

    Raises:
        DataError: no class can be measured, or an image is unusable.
    """
    detectors: dict[str, BenchmarkDetector] = {name: PromptedDetector(detector, settings.roi)}
    if floor:
        detectors[FLOOR] = PrototypeDetector(roi=settings.roi)
    return measure_detectors(detectors, marked, settings, out)


def measure_detectors(
    detectors: Mapping[str, BenchmarkDetector],
    marked: MarkedSet,
    settings: OneClassSettings,
    out: Path | None = None,
) -> OneClassReport:
    """Judge any detectors one class at a time, with the same prompts, targets and defect-free images.

    Args:
        detectors: by the name the report calls them; images are drawn of the first.
        settings: what is drawn and marked; the detectors must take prompts of this kind.

    Raises:
        DataError: no class can be measured, or an image is unusable.
    """
    draws, skipped = draw_classes(marked, settings)
    good = draw_good(marked, settings.targets)
    judged: dict[str, list[_Judged]] = {}
    with share_bar(len(draws) * len(detectors)) as bar:
        for name, detector in detectors.items():
            judged[name] = []
            for draw in draws:
                bar.set_description(f"{marked.name}, {name}: {draw.class_name}, seed {draw.prompt_seed}")
                judged[name].append(_judge(detector, draw, marked, good, advance(bar)))
    figures = tuple(
        DetectorFigures(name, getattr(detector, "fingerprint", ""), tuple(one.row for one in judged[name]))
        for name, detector in detectors.items()
    )
    pictures: list[FailureImage] = []
    if out is not None:
        name, detector = next(iter(detectors.items()))
        first = [one for one in judged[name] if one.draw.prompt_seed == settings.prompt_seeds[0]]
        pictures = _pictures(detector, marked, first, out)
    return OneClassReport(
        data_set=marked.name,
        roi=settings.roi,
        prompt_images=PROMPT_IMAGES,
        target_limit=settings.targets,
        good_images=len(good),
        detectors=figures,
        skipped=skipped,
        pictures=tuple(pictures),
    )


def _judge(
    detector: BenchmarkDetector,
    draw: ClassDraw,
    marked: MarkedSet,
    good: Sequence[Path],
    moved: Callable[[float], object],
) -> _Judged:
    """One draw: its targets, its own prompt images, and the defect-free images."""
    truth, own = GroundTruth(draw.targets), GroundTruth(draw.prompts)
    images, prompted = draw.targets.images, draw.prompts.images
    paths = [*(marked.images / image.file_name for image in (*images, *prompted)), *good]
    bank = detector.encode_prompts(draw.prompts, marked.images)
    overlaps, given_back, seconds = {}, {}, []
    good_scores: list[npt.NDArray[np.float32]] = []
    for number, (found, taken) in enumerate(timed(detector.detect(paths, bank))):
        if number < len(images):
            overlaps[images[number].id] = truth.overlaps(images[number].id, found)
            seconds.append(taken)
        elif number < len(images) + len(prompted):
            image_id = prompted[number - len(images)].id
            given_back[image_id] = own.overlaps(image_id, found)
        else:
            good_scores.append(found.scores.cpu().numpy())
        moved(1 / len(paths))
    metrics, boxes = evaluate_overlaps(truth, overlaps), match(truth, overlaps, "bbox")
    half = half_found_score(boxes)
    row = ClassRow(
        class_name=draw.class_name,
        prompt_seed=draw.prompt_seed,
        prompt_images=len(prompted),
        prompts=len(draw.prompts.instances),
        targets=len(images),
        possible_targets=draw.possible_targets,
        instances=metrics.instances,
        box_ap50=metrics.bbox.AP50,
        mask_ap50=metrics.segm.AP50 if marked.has_masks else None,
        box_fit_50=box_fit(own, given_back, 0.5),
        box_fit_80=box_fit(own, given_back, 0.8),
        half_score=half,
        false_alarms=alarms_from(good_scores, half),
        seconds=tuple(seconds),
        bins=score_bins(boxes),
    )
    return _Judged(draw, row, boxes)


def _pictures(
    detector: BenchmarkDetector, marked: MarkedSet, judged: Sequence[_Judged], out: Path
) -> list[FailureImage]:
    """The surest false alarm and the worst miss of each class; their images are looked at once more."""
    records = []
    for one in judged:
        worst: tuple[FalseAlarm | Miss, ...] = (
            *worst_false_alarms(one.boxes, 1, DEFAULT_SCORE),
            *worst_misses(one.boxes, 1, DEFAULT_SCORE),
        )
        wanted = {failure.image_id for failure in worst}
        images = [image for image in one.draw.targets.images if image.id in wanted]
        bank = detector.encode_prompts(one.draw.prompts, marked.images)
        found = detector.detect([marked.images / image.file_name for image in images], bank)
        detections = dict(zip((image.id for image in images), found, strict=True))
        shown = Shown(one.draw.prompts, one.draw.targets, detections, marked.images)
        for suffix, strip in failure_strips(shown, worst, DEFAULT_SCORE):
            file = f"pictures/{file_stem(f'{marked.name}-{one.draw.class_name}-{suffix}')}.jpg"
            title = f"{strip.kind.capitalize()}, {one.draw.class_name}: {strip.note}"
            picture = side_by_side(strip.panels, f"{title} · {marked.name} · {strip.image}")
            write_image(out / file, picture)
            records.append(FailureImage(file, one.draw.class_name, strip.image, strip.note))
    return records


def write_measurement(
    model: Path, marked: MarkedSet, settings: OneClassSettings, out: Path, *, floor: bool = True
) -> OneClassReport:
    """Measure a saved model; writes `measure.json`, `measure.md` and `pictures/` to `out`.

    Raises:
        CheckpointError: the model cannot be loaded.
        DataError: see `measure`.
    """
    report = measure(UniSpector.load(model), marked, settings, floor=floor, out=out)
    atomic_write_json(out / "measure.json", one_class_json(report))
    atomic_write_text(out / "measure.md", markdown(one_class_report(report)))
    return report
