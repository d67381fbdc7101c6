"""Stage `report`: the evaluation as pages a person reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unispector.evaluation.page import html_page
from unispector.evaluation.report import markdown, terminal_table
from unispector.evaluation.results import EvaluationReport
from unispector.ops.files import atomic_write_text
from unispector.tracking.run import TrackingStore

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class ReportFiles:
    """What the stage wrote: the HTML page, and the same as Markdown."""

    page: Path
    markdown: Path


def report(reports: Path, tracking: TrackingStore) -> ReportFiles:
    """Write `index.html` and `report.md` from `evaluation.json` and `pictures/`, all in one folder.

    Args:
        reports: folder the evaluate stage wrote to.
        tracking: the experiment store the pages point to.

    Raises:
        DataError: `evaluation.json` is absent or damaged.
    """
    evaluation = EvaluationReport.read(reports / "evaluation.json")
    files = ReportFiles(reports / "index.html", reports / "report.md")
    atomic_write_text(files.markdown, markdown(evaluation, tracking.ui_command()))
    atomic_write_text(files.page, html_page(evaluation, tracking.ui_command()))
    return files


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
