"""Stage `report`: the evaluation as pages a person reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter, ValidationError

from unispector.data.checks.duplicates import COUNTS_FILE, NearDuplicates
from unispector.data.checks.expectations import CheckReport
from unispector.data.convert import ConversionFiles, ConversionReport
from unispector.data.protocol.split_tree import SplitReport, SplitTree
from unispector.data.statistics import Statistics
from unispector.errors import DataError
from unispector.evaluation.data_section import DataRecord, data_section
from unispector.evaluation.page import html_page
from unispector.evaluation.report import markdown, terminal_table
from unispector.evaluation.results import EvaluationReport
from unispector.ops.files import atomic_write_text
from unispector.stages.paths import (
    DATA_DOCS,
    SPLIT_CHECKS,
    SPLIT_DOCS,
    SPLITS,
    STATISTICS,
    STATISTICS_FIGURE,
    annotation_file,
    check_report,
)
from unispector.tracking.run import TrackingStore

if TYPE_CHECKING:
    from rich.console import Console

Record = TypeVar("Record")


@dataclass(frozen=True)
class ReportFiles:
    """What the stage wrote: the HTML page, and the same as Markdown."""

    page: Path
    markdown: Path


def report(reports: Path, tracking: TrackingStore) -> ReportFiles:
    """Write `index.html` and `report.md` from `evaluation.json` and `pictures/`, all in one folder.

    Where the statistics stage has run, the page also tells of the data; what it tells comes from the
    files that the stages of the same project wrote.

    Args:
        reports: the project's folder `reports`, which the evaluate stage wrote to.
        tracking: the experiment store the pages point to.

    Raises:
        DataError: `evaluation.json` or a file on the data is absent or damaged.
    """
    evaluation = EvaluationReport.read(reports / "evaluation.json")
    files = ReportFiles(reports / "index.html", reports / "report.md")
    ui_command, root = tracking.ui_command(), reports.parent
    data = data_section(_read_data(root)) if (root / STATISTICS).is_file() else ""
    atomic_write_text(files.markdown, markdown(evaluation, ui_command))
    atomic_write_text(files.page, html_page(evaluation, ui_command, data))
    return files


def _read_data(root: Path) -> DataRecord:
    """What the stages before told of the data."""
    statistics = Statistics.read(root / STATISTICS)
    names = [item.name for item in statistics.sets]
    conversions = [ConversionFiles.beside(root / annotation_file(name)).report for name in names]
    return DataRecord(
        statistics=statistics,
        figure=_read_bytes(root / STATISTICS_FIGURE),
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
    """Print the results, where the report and its pictures are, and how to look at the runs.

    Args:
        reports: folder of the reports.
        tracking: the experiment store.
        console: where to print; None = standard output.

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
        ("runs", tracking.ui_command()),
    ):
        target.print(f"  [bold]{name:<9}[/bold]", end="")
        target.print(text, markup=False, highlight=False, soft_wrap=True)
