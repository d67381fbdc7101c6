"""The models of the package, measured on real sets: `make reports-real`.

Takes hours on two CPU cores. The report is written anew after every set, so that a killed run leaves the
sets that are done.
"""

from collections.abc import Mapping
from pathlib import Path

from unispector.benchmark.measure import FLOOR, measure_detectors
from unispector.benchmark.one_class import OneClassSettings, read_raw_set
from unispector.config import Roi
from unispector.errors import DataError
from unispector.evaluation.one_class import OneClassReport
from unispector.inference.detector import UniSpector
from unispector.modeling.saved_model import SHIPPED
from unispector.ops.files import atomic_write_json, atomic_write_text
from unispector.reporting.one_class_report import one_class_json, real_report
from unispector.reporting.render import markdown
from unispector.systems.own import PromptedDetector
from unispector.systems.prototypes import PrototypeDetector

SETS = {"magnetic_tile": "magnetic_tile", "neu_det": "voc"}
"""Folder of a raw release -> the source that reads it."""


def shipped_models(folder: Path = SHIPPED) -> dict[str, Path]:
    """The models of the package by name, each in a folder of that name."""
    return {file.parent.name: file.parent for file in sorted(folder.glob("*/model.safetensors"))}


def measure_real_sets(
    data: Path, page: Path, models: Mapping[str, Path] | None = None, settings: OneClassSettings | None = None
) -> list[OneClassReport]:
    """Measure models and the floor on the real sets, with boxes and, where a set has masks, masks as prompts.

    Writes `page` and the same as JSON beside it.

    Args:
        data: folder with a release of `SETS` in a folder each; those that are absent are left out.
        models: name -> folder; None = those of the package.
        settings: draws and number of targets; `roi` plays no part. None = the defaults.

    Raises:
        CheckpointError: a model cannot be loaded.
        DataError: none of the sets is there, or a file of one is unusable.
    """
    present = {name: source for name, source in SETS.items() if (data / name).is_dir()}
    if not present:
        raise DataError(
            f"{data}: none of the real sets ({', '.join(SETS)}) is in this folder; name the one above"
        )
    detectors = {name: UniSpector.load(folder) for name, folder in (models or shipped_models()).items()}
    settings = settings or OneClassSettings()
    reports: list[OneClassReport] = []
    for name, source in present.items():
        marked = read_raw_set(data / name, source)
        rois: tuple[Roi, ...] = ("box", "mask") if marked.has_masks else ("box",)
        for roi in rois:
            tried = {called: PromptedDetector(detector, roi) for called, detector in detectors.items()}
            own = OneClassSettings(settings.prompt_seeds, settings.targets, roi)
            reports.append(measure_detectors({**tried, FLOOR: PrototypeDetector(roi=roi)}, marked, own))
        atomic_write_json(page.with_suffix(".json"), [one_class_json(report) for report in reports])
        atomic_write_text(page, markdown(real_report(reports)))
    return reports
