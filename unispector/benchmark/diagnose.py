"""`unispector diagnose`: where a model loses its points, one class at a time.

All that the detector hands out is looked at; what it drops by itself, such as near-copies of a better
detection, is not.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from unispector.benchmark.judge import advance, share_bar
from unispector.benchmark.one_class import (
    ClassDraw,
    MarkedSet,
    OneClassSettings,
    draw_classes,
    draw_good,
)
from unispector.evaluation.diagnosis import DiagnosisReport, DiagnosisRow, diagnosis_row
from unispector.evaluation.ground_truth import GroundTruth
from unispector.inference.detector import UniSpector
from unispector.ops.files import atomic_write_json, atomic_write_text
from unispector.reporting.diagnosis_report import diagnosis_json, diagnosis_report
from unispector.reporting.render import markdown
from unispector.systems.own import PromptedDetector

EVERY_CANDIDATE = 100_000  # more than any detector hands out for an image


def diagnose(detector: UniSpector, marked: MarkedSet, settings: OneClassSettings) -> DiagnosisReport:
    """Ask oracles what order, merging and more candidates would be worth; prompts and targets as `measure`.

    Raises:
        DataError: no class can be measured, or an image is unusable.
    """
    draws, skipped = draw_classes(marked, settings)
    good = draw_good(marked, settings.targets)
    every = PromptedDetector(detector, settings.roi, EVERY_CANDIDATE)
    rows = []
    with share_bar(len(draws)) as bar:
        for draw in draws:
            bar.set_description(f"{marked.name}: {draw.class_name}, seed {draw.prompt_seed}")
            rows.append(_diagnose(every, draw, marked, good, advance(bar)))
    return DiagnosisReport(
        data_set=marked.name,
        roi=settings.roi,
        fingerprint=detector.fingerprint,
        target_limit=settings.targets,
        good_images=len(good),
        rows=tuple(rows),
        skipped=skipped,
    )


def _diagnose(
    detector: PromptedDetector,
    draw: ClassDraw,
    marked: MarkedSet,
    good: Sequence[Path],
    moved: Callable[[float], object],
) -> DiagnosisRow:
    images = draw.targets.images
    paths = [*(marked.images / image.file_name for image in images), *good]
    bank = detector.encode_prompts(draw.prompts, marked.images)
    found = []
    for detections in detector.detect(paths, bank):
        found.append(detections)
        moved(1 / len(paths))
    on_targets = {image.id: found[number] for number, image in enumerate(images)}
    return diagnosis_row(
        (draw.class_name, draw.prompt_seed),
        GroundTruth(draw.targets),
        on_targets,
        found[len(images) :],
        masks=marked.has_masks,
    )


def write_diagnosis(model: Path, marked: MarkedSet, settings: OneClassSettings, out: Path) -> DiagnosisReport:
    """Diagnose a saved model; writes `diagnose.json` and `diagnose.md` to `out`.

    Raises:
        CheckpointError: the model cannot be loaded.
        DataError: see `diagnose`.
    """
    report = diagnose(UniSpector.load(model), marked, settings)
    atomic_write_json(out / "diagnose.json", diagnosis_json(report))
    atomic_write_text(out / "diagnose.md", markdown(diagnosis_report(report)))
    return report
