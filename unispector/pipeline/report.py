"""Stage `report`: the evaluation as pages a person reads, and as plain numbers."""

import io
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image
from pydantic import TypeAdapter, ValidationError

from unispector.benchmark.runs import track_report
from unispector.data.checks.duplicates import COUNTS_FILE, NearDuplicates
from unispector.data.checks.expectations import CheckReport
from unispector.data.convert import ConversionFiles, ConversionReport
from unispector.data.protocol.split_tree import SplitReport, SplitTree
from unispector.data.statistics import Statistics
from unispector.errors import DataError
from unispector.evaluation.results import EvaluationReport
from unispector.evaluation.sweeps import SweepReport
from unispector.ops.files import (
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    read_image,
    replaced_folder,
)
from unispector.project.paths import (
    DATA_DOCS,
    SPLIT_CHECKS,
    SPLIT_DOCS,
    SPLITS,
    STATISTICS,
    STATISTICS_FIGURE,
    SWEEPS,
    SYSTEMS_PAGE,
    annotation_file,
    check_report,
)
from unispector.project.timings import read_timings
from unispector.reporting.charts import png
from unispector.reporting.data_section import DataRecord, data_section
from unispector.reporting.model import Section
from unispector.reporting.prompt_space import prompt_space_section, read_records
from unispector.reporting.render import charts_of, html, markdown, plain_numbers
from unispector.reporting.report import Sources, evaluation_report, terminal_table
from unispector.reporting.sweep_section import robustness_section
from unispector.tracking.run import TrackingStore

if TYPE_CHECKING:
    from rich.console import Console

Record = TypeVar("Record")

CHARTS = "robustness"
"""Folder of the Markdown page's charts, beside it."""

SCORED_ON_PROMPTS = (
    "Scored on prompts: the official files have no targets, so the models are judged on the very images they "
    "were prompted with. The figures are higher than on other images."
)
PROMPTS_JUDGED = (
    "Prompt images are targets too (evaluate.include_prompts), against the protocol: the figures are higher "
    "than on other images."
)
_IMAGE_QUALITY = 78  # WebP; the drawn lines stay crisp at a quarter of the JPEG's size


@dataclass(frozen=True)
class ReportFiles:
    """The files of the stage: the HTML page, the same as Markdown, and its numbers as JSON."""

    page: Path
    markdown: Path
    numbers: Path


def report(reports: Path, tracking: TrackingStore) -> ReportFiles:
    """Write `index.html`, `report.md` and `report.json` from what the stages before left.

    The page needs no other file. The Markdown links `pictures/` and, where there are sweeps, the charts
    written to `robustness/`. Parts whose stage has not run (statistics, sweep) are left out. The page is
    kept with the evaluation's MLflow run, too.

    Raises:
        DataError: `evaluation.json`, an image it names or a file of another stage is absent or damaged.
    """
    evaluation = EvaluationReport.read(reports / "evaluation.json")
    root = reports.parent
    record = _read_data(root) if (root / STATISTICS).is_file() else None
    spaces = reports / "prompt_space.json"
    sweeps = SweepReport.read(root / SWEEPS) if (root / SWEEPS).is_file() else SweepReport(())
    content = evaluation_report(
        Sources(
            evaluation=evaluation,
            ui_command=tracking.ui_command(),
            robustness=_robustness(sweeps, reports),
            prompt_space=prompt_space_section(read_records(spaces)) if spaces.is_file() else None,
            data=data_section(record) if record else None,
            timings=read_timings(root),
            warnings=tuple(_warnings(evaluation, record)),
        )
    )
    files = ReportFiles(reports / "index.html", reports / "report.md", reports / "report.json")
    images = {picture.file: _data_uri(reports / picture.file) for picture in evaluation.pictures}
    if record:
        images[record.figure] = _uri(_read_bytes(root / STATISTICS_FIGURE), "png")
    page = html(content, images)
    atomic_write_json(files.numbers, plain_numbers(content))
    atomic_write_text(files.markdown, markdown(content))
    atomic_write_text(files.page, page)
    track_report(tracking, evaluation.models, files.page)
    return files


def _warnings(evaluation: EvaluationReport, record: DataRecord | None) -> Iterator[str]:
    if evaluation.prompts_judged:
        yield PROMPTS_JUDGED
    if record and record.splits.scored_on_prompts:
        yield SCORED_ON_PROMPTS


def _robustness(sweeps: SweepReport, reports: Path) -> Section | None:
    """The section on the sweeps, and the charts of its Markdown; nothing but an empty folder without any."""
    section = robustness_section(sweeps, CHARTS) if sweeps.rows else None
    with replaced_folder(reports / CHARTS) as folder:
        for name, chart in charts_of(section).items() if section else ():
            atomic_write_bytes(folder / f"{name}.png", png(chart))
    return section


def _data_uri(path: Path) -> str:
    buffer = io.BytesIO()
    Image.fromarray(read_image(path)).save(buffer, format="WEBP", quality=_IMAGE_QUALITY)
    return _uri(buffer.getvalue(), "webp")


def _uri(content: bytes, form: str) -> str:
    return f"data:image/{form};base64,{b64encode(content).decode('ascii')}"


def _read_data(root: Path) -> DataRecord:
    """Read the earlier stages' records of the data."""
    statistics = Statistics.read(root / STATISTICS)
    names = [item.name for item in statistics.sets]
    conversions = [ConversionFiles.beside(root / annotation_file(name)).report for name in names]
    return DataRecord(
        statistics=statistics,
        figure=STATISTICS_FIGURE.name,
        conversions=tuple(_read(ConversionReport, path) for path in conversions),
        splits=_read(SplitReport, SplitTree(root / SPLITS).report),
        near_duplicates=_read(NearDuplicates, root / SPLITS / COUNTS_FILE),
        checks=tuple(_read(CheckReport, root / path) for path in (*map(check_report, names), SPLIT_CHECKS)),
        docs=(f"{DATA_DOCS.name}/index.html", f"{SPLIT_DOCS.name}/index.html"),
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run make repro") from error


def _read(record: type[Record], path: Path) -> Record:
    try:
        return TypeAdapter(record).validate_json(_read_bytes(path))
    except ValidationError as error:
        raise DataError(f"{path}: not a {record.__name__}; run make repro") from error


def show(reports: Path, tracking: TrackingStore, console: "Console | None" = None) -> None:
    """Print the results, where the report and its images are, and how to look at the runs.

    Raises:
        DataError: `evaluation.json` is absent or damaged.
    """
    from rich.console import Console

    evaluation = EvaluationReport.read(reports / "evaluation.json")
    target = console or Console()
    target.print(terminal_table(evaluation))
    for name, text in (
        ("report", str(reports / "index.html")),
        ("pictures", str(reports / "pictures")),
        ("rivals", str(reports / SYSTEMS_PAGE.name)),
        ("runs", tracking.ui_command()),
    ):
        target.print(f"  [bold]{name:<9}[/bold]", end="")
        target.print(text, markup=False, highlight=False, soft_wrap=True)
