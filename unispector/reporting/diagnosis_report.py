"""A diagnosis as Markdown and as plain numbers for JSON."""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from unispector.evaluation.diagnosis import SURE, DiagnosisReport, Loss, Oracles
from unispector.evaluation.results import Spread
from unispector.reporting.one_class_report import MARKS, NOTHING
from unispector.reporting.tables import escaped, markdown_table

_ORACLES = (
    ("as is", "as_is"),
    ("recall of all candidates", "recall"),
    ("perfect order", "ordered"),
    ("pieces merged", "merged"),
    ("best IoU, median %", "cover"),
)
_OTHERS = (
    ("candidates an image", "candidates", 0),
    ("pieces of a found defect", "pieces_found", 1),
    ("of a missed one", "pieces_missed", 1),
    ("score of true finds", "true_score", 3),
    ("of false ones", "false_score", 3),
    ("first find right, %", "first_right", 0),
    (f"finds from {SURE:g} on, an image", "sure_findings", 1),
    ("on a defect-free one", "sure_alarms", 1),
)
_EXPLAINED = """
- **as is**: AP50 of the candidates in the detector's own order.
- **recall of all candidates**: instances that any candidate overlaps by 0.5 or more.
- **perfect order**: AP50 of the same candidates, those that find an instance first.
- **pieces merged**: AP50 when the candidates of which 70 % lie inside one instance are joined to one.
- **best IoU**: of an instance with the candidate that overlaps it most.
- **pieces**: candidates of which 70 % lie inside an instance; found = a candidate's box overlaps it by 0.5.
- **true and false finds**: by their boxes at IoU 0.5; a second find of an instance is false.
"""


def largest_loss(report: DiagnosisReport) -> str:
    """The cause that costs most, in one sentence."""
    loss = report.losses[0]
    return f"Largest loss: {_gain(loss)} ({loss.meaning})."


def diagnosis_markdown(report: DiagnosisReport) -> str:
    """The diagnosis as a page."""
    rows = report.rows
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(row.prompt_seed for row in rows))
    masks = rows[0].masks is not None
    kinds = "boxes / masks" if masks else "boxes"
    lines = [
        f"# {escaped(report.data_set)}: where the points are lost",
        "",
        f"**{largest_loss(report)}** Then {'; '.join(map(_gain, report.losses[1:]))}.",
        "",
        f"Prompts are marked by {MARKS[report.roi]}, one class at a time; prompt seeds {seeds}; at most "
        f"{report.target_limit} targets a class; {report.good_images or 'no'} defect-free images. AP50, "
        "recall and IoU in percent, means over the prompt seeds.",
        "",
        *_table(report, f"class ({kinds})", _ORACLES, _pair),
        "",
        *_table(report, "class", [(head, (figure, digits)) for head, figure, digits in _OTHERS], _single),
        "",
        _EXPLAINED.strip(),
    ]
    if report.skipped:
        lines += ["", "Left out:", ""]
        lines += [f"- {escaped(skipped.class_name)}: {skipped.reason}" for skipped in report.skipped]
    return "\n".join(lines) + "\n"


def diagnosis_json(report: DiagnosisReport) -> dict[str, Any]:
    """Every figure as plain numbers: losses and means first."""
    oracles = [f"{kind}.{field.name}" for kind in ("boxes", "masks") for field in fields(Oracles)]
    means = {figure: report.mean(figure) for figure in (*oracles, *(figure for _, figure, _ in _OTHERS))}
    return {
        "largest_loss": largest_loss(report),
        "losses": [asdict(loss) for loss in report.losses],
        "mean": {figure: spread and asdict(spread) for figure, spread in means.items()},
        **asdict(report),
    }


Of = Callable[[str], Spread | None]


def _table(report: DiagnosisReport, head: str, columns: Any, cell: Callable[[Of, Any], str]) -> list[str]:
    """Classes, then their mean, against columns of (heading, what `cell` takes)."""

    def of(class_name: str) -> Of:
        return lambda figure: report.of_class(class_name, figure)

    sources = [(name, of(name)) for name in report.class_names]
    sources.append(("mean", report.mean))
    rows = [[name, *(cell(source, figure) for _, figure in columns)] for name, source in sources]
    return markdown_table([head], [escaped(heading) for heading, _ in columns], rows)


def _pair(of: Of, figure: str) -> str:
    spreads = (of(f"boxes.{figure}"), of(f"masks.{figure}"))
    return " / ".join(f"{spread.mean:.1f}" for spread in spreads if spread is not None)


def _single(of: Of, figure: tuple[str, int]) -> str:
    name, digits = figure
    spread = of(name)
    return NOTHING if spread is None else f"{spread.mean:.{digits}f}"


def _gain(loss: Loss) -> str:
    masks = "" if loss.masks is None else f", {loss.masks:+.1f} masks"
    return f"{loss.cause} {loss.boxes:+.1f} boxes{masks}"
