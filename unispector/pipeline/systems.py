"""Stage `systems`: the systems of the comparison that need no download, by the benchmark's protocol."""

import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from unispector.benchmark.other_detectors import benchmark
from unispector.config import Config, Roi
from unispector.config.training import RIVALS
from unispector.evaluation.results import MAIN_VARIANT, EvaluationReport
from unispector.evaluation.system_record import RECORD, SystemRecord
from unispector.ops.files import atomic_write_text, replaced_folder
from unispector.project.paths import BENCHMARKED, MODELS, SYSTEM_RECORDS, SYSTEMS_PAGE
from unispector.reporting.model import Report
from unispector.reporting.render import markdown
from unispector.reporting.systems import MeasuredSystem, systems_section
from unispector.reporting.systems_figure import write_comparison

logger = logging.getLogger(__name__)


def systems(config: Config, root: Path = Path()) -> list[EvaluationReport]:
    """Judge `systems.measure` on `systems.sets` and write the page of all systems.

    A set that `data.sets` lacks is told and left out: the embedded one is, where others have taken its place.
    Each runs in a process of its own, so that its memory is its own. Writes a folder for each below
    `reports/systems`.

    Raises:
        ConfigError: there is no such system, or a system does not take such prompts.
        CheckpointError: a model that was trained here is missing.
        DataError: a file of the splits or an image is unusable.
    """
    trained = config.model_copy(
        update={"split": config.split.model_copy(update={"seeds": config.train.seeds})}
    )
    wanted = config.systems.of(config.data.sets)
    sets = [name for name in wanted if name in config.data.sets]
    if absent := set(wanted) - set(sets):
        logger.warning("systems.sets: %s is not among data.sets; nothing is measured on it", min(absent))
    reports = []
    with replaced_folder(root / SYSTEM_RECORDS) as folder:
        for entry in config.systems.measure if sets else ():
            name, roi = _entry(entry)
            weights = str(root / MODELS / name / "seed{seed}") if name in (MAIN_VARIANT, *RIVALS) else ""
            out = folder / entry.replace("/", "-")
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                done = alone.submit(
                    benchmark, name, entry, trained, root, out, weights=weights, roi=roi, sets=sets
                )
                reports.append(done.result())
    write_systems_page(root)
    return reports


def _entry(entry: str) -> tuple[str, Roi | None]:
    """Name and prompts of `name` or `name/mask`; the parameters allow nothing else."""
    name, _, roi = entry.partition("/")
    return name, "mask" if roi == "mask" else "box" if roi == "box" else None


def write_systems_page(root: Path = Path()) -> Path:
    """Write the table of all systems, with what was measured by the stage and by `unispector benchmark`.

    Draws each beside UniSpector, where both were shown the same targets.

    Raises:
        DataError: a record is damaged.
    """
    page = root / SYSTEMS_PAGE
    section = systems_section(list(measured_systems(root)))
    atomic_write_text(page, markdown(Report(title="All systems", lead="", sections=(section,))))
    return page


def measured_systems(root: Path) -> Iterator[MeasuredSystem]:
    """What lies in `reports/systems` and `reports/benchmark`, by folder, each with its figure.

    Raises:
        DataError: a record is damaged.
    """
    files = [file for place in (SYSTEM_RECORDS, BENCHMARKED) for file in (root / place).glob(f"*/{RECORD}")]
    records = {file.parent: SystemRecord.read(file) for file in sorted(files)}
    own = [
        sample for record in records.values() if record.system == MAIN_VARIANT for sample in record.samples
    ]
    for folder, record in records.items():
        one = MeasuredSystem(record, EvaluationReport.read(folder / "evaluation.json"))
        figure = folder / "beside.jpg"
        rival = record.system != MAIN_VARIANT
        if rival and write_comparison(own, record.samples, one.title, root, figure):
            one = replace(one, figure=figure.relative_to((root / SYSTEMS_PAGE).parent).as_posix())
        yield one
