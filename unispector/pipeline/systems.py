"""Stage `systems`: the systems of the comparison that need no download, by the benchmark's protocol."""

import ctypes
import logging
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from unispector.benchmark.other_detectors import benchmark, check_entry
from unispector.config import Config, Roi
from unispector.config.training import RIVALS
from unispector.errors import DataError
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
    wanted = config.systems.of(config.data.sets)
    sets = [name for name in wanted if name in config.data.sets]
    if absent := set(wanted) - set(sets):
        logger.warning("systems.sets: %s is not among data.sets; nothing is measured on it", min(absent))
    for entry in config.systems.measure:
        name, roi = _entry(entry)
        check_entry(name, _weights(name, root), roi)
    reports = []
    with replaced_folder(root / SYSTEM_RECORDS) as folder:
        for entry in config.systems.measure if sets else ():
            name, roi = _entry(entry)
            weights = _weights(name, root)
            out = folder / entry.replace("/", "-")
            reports.append(_alone(name, entry, config, root, out, weights=weights, roi=roi, sets=sets))
    write_systems_page(root)
    return reports


def _alone(name: str, entry: str, *given: Any, **options: Any) -> EvaluationReport:
    """Run `benchmark` in a process that ends with this one."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_end_with_parent) as alone:
        done = alone.submit(benchmark, name, entry, *given, **options)
        try:
            return done.result()
        except BrokenProcessPool as error:
            raise DataError(
                f"{entry}: the process that measured it was killed, for want of memory perhaps"
            ) from error
        except KeyboardInterrupt:
            for child in active_children():
                child.kill()
            raise


def _end_with_parent() -> None:
    """Leave Ctrl+C to the parent, and on Linux end when it ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _weights(name: str, root: Path) -> str:
    """Where the stage train puts the models of a system; empty where it trains none."""
    return str(root / MODELS / name / "seed{seed}") if name in (MAIN_VARIANT, *RIVALS) else ""


def _entry(entry: str) -> tuple[str, Roi | None]:
    """Name and prompts of `name` or `name/mask`; the parameters allow nothing else."""
    name, _, roi = entry.partition("/")
    return name, "mask" if roi == "mask" else "box" if roi == "box" else None


def write_systems_page(root: Path = Path()) -> Path:
    """Write the table of all systems, with what was measured by the stage and by `unispector benchmark`.

    Draws each beside UniSpector, where both were shown the same targets.
    """
    page = root / SYSTEMS_PAGE
    section = systems_section(list(measured_systems(root)))
    atomic_write_text(page, markdown(Report(title="All systems", lead="", sections=(section,))))
    return page


def measured_systems(root: Path) -> Iterator[MeasuredSystem]:
    """What lies in `reports/systems` and `reports/benchmark`, by folder, each with its figure.

    A record that cannot be read is told and left out: it must not hide the others.
    """
    known = dict(_records(root))
    own = [
        sample for one in known.values() if one.record.system == MAIN_VARIANT for sample in one.record.samples
    ]
    for folder, one in known.items():
        figure = folder / "beside.jpg"
        rival = one.record.system != MAIN_VARIANT
        try:
            if rival and write_comparison(own, one.record.samples, one.title, root, figure):
                yield replace(one, figure=figure.relative_to((root / SYSTEMS_PAGE).parent).as_posix())
                continue
        except OSError as error:
            logger.warning("%s: not drawn: %s", figure, error)
        yield one


def _records(root: Path) -> Iterator[tuple[Path, MeasuredSystem]]:
    """Each folder with what lies in it."""
    for place in (SYSTEM_RECORDS, BENCHMARKED):
        for file in sorted((root / place).glob(f"*/{RECORD}")):
            try:
                str(file).encode()
                report = EvaluationReport.read(file.with_name("evaluation.json"))
                yield file.parent, MeasuredSystem(SystemRecord.read(file), report)
            except (DataError, UnicodeEncodeError) as error:
                logger.warning("left out of the table: %s", error)
