"""The report of a diagnosis, and its plain numbers for JSON."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from unispector.evaluation.diagnosis import SURE, DiagnosisReport, Loss, Oracles
from unispector.evaluation.results import Spread
from unispector.reporting.model import Block, Bullets, Cell, Column, Report, Section, Span, Table, Text
from unispector.reporting.one_class_report import MARKS

Of = Callable[[str], Spread | None]
"""A figure, of one class or as the mean."""

_ORACLES = {
    "as_is": Column("as is"),
    "recall": Column("recall of all candidates"),
    "ordered": Column("perfect order"),
    "merged": Column("pieces merged"),
    "cover": Column("best IoU, median %"),
}
_OTHERS = {
    "candidates": Column("candidates an image", 0),
    "pieces_found": Column("pieces of a found defect"),
    "pieces_missed": Column("of a missed one"),
    "true_score": Column("score of true finds", 3),
    "false_score": Column("of false ones", 3),
    "first_right": Column("first find right, %", 0),
    "sure_findings": Column(f"finds from {SURE:g} on, an image"),
    "sure_alarms": Column("on a defect-free one"),
}
_EXPLAINED = {
    "as is": "AP50 of the candidates in the detector's own order.",
    "recall of all candidates": "instances that any candidate overlaps by 0.5 or more.",
    "perfect order": "AP50 of the same candidates, those that find an instance first.",
    "pieces merged": "AP50 when the candidates of which 70 % lie inside one instance are joined to one.",
    "best IoU": "of an instance with the candidate that overlaps it most.",
    "pieces": (
        "candidates of which 70 % lie inside an instance; found = a candidate's box overlaps it by 0.5."
    ),
    "true and false finds": "by their boxes at IoU 0.5; a second find of an instance is false.",
}


def largest_loss(report: DiagnosisReport) -> str:
    """The cause that costs most, in one sentence."""
    loss = report.losses[0]
    return f"Largest loss: {_gain(loss)} ({loss.meaning})."


def diagnosis_report(report: DiagnosisReport) -> Report:
    """The diagnosis for people."""
    rows = report.rows
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(row.prompt_seed for row in rows))
    kinds = "boxes / masks" if rows[0].masks is not None else "boxes"
    protocol = (
        f"Prompts are marked by {MARKS[report.roi]}, one class at a time; prompt seeds {seeds}; at most "
        f"{report.target_limit} targets a class; {report.good_images or 'no'} defect-free images. AP50, "
        "recall and IoU in percent, means over the prompt seeds."
    )
    blocks: list[Block] = [
        Text(protocol),
        _table(report, f"class ({kinds})", _ORACLES.values(), _oracles),
        _table(report, "class", _OTHERS.values(), _others),
        Bullets(tuple((Span(term, "strong"), f": {meaning}") for term, meaning in _EXPLAINED.items())),
    ]
    if report.skipped:
        left_out = tuple(f"{skipped.class_name}: {skipped.reason}" for skipped in report.skipped)
        blocks += [Text("Left out:"), Bullets(left_out)]
    return Report(
        f"{report.data_set}: where the points are lost",
        lead=(Span(largest_loss(report), "strong"), f" Then {'; '.join(map(_gain, report.losses[1:]))}."),
        sections=(Section("", tuple(blocks)),),
    )


def diagnosis_json(report: DiagnosisReport) -> dict[str, Any]:
    """Every figure as plain numbers: losses and means first."""
    oracles = [f"{kind}.{field.name}" for kind in ("boxes", "masks") for field in fields(Oracles)]
    means = {figure: report.mean(figure) for figure in (*oracles, *_OTHERS)}
    return {
        "largest_loss": largest_loss(report),
        "losses": [asdict(loss) for loss in report.losses],
        "mean": {figure: spread and asdict(spread) for figure, spread in means.items()},
        **asdict(report),
    }


def _table(
    report: DiagnosisReport, head: str, columns: Iterable[Column], cells: Callable[[Of], Iterable[Cell]]
) -> Table:
    """Classes, then their mean."""
    rows = [(name, *cells(partial(report.of_class, name))) for name in report.class_names]
    return Table.of([head], columns, [*rows, ("mean", *cells(report.mean))])


def _oracles(of: Of) -> Iterator[Cell]:
    for figure in _ORACLES:
        spreads = (of(f"boxes.{figure}"), of(f"masks.{figure}"))
        yield " / ".join(f"{spread.mean:.1f}" for spread in spreads if spread is not None)


def _others(of: Of) -> Iterator[Cell]:
    for figure in _OTHERS:
        spread = of(figure)
        yield None if spread is None else spread.mean


def _gain(loss: Loss) -> str:
    masks = "" if loss.masks is None else f", {loss.masks:+.1f} masks"
    return f"{loss.cause} {loss.boxes:+.1f} boxes{masks}"
