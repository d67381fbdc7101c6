"""All systems of the comparison in one table: what was measured, what is published, what each costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unispector.evaluation.results import EvaluationReport
from unispector.evaluation.system_record import SystemRecord
from unispector.reporting.measured import measured, spread_of
from unispector.reporting.model import BoxesMasks, Cell, Column, Row, Section, Table, Text
from unispector.reporting.published import IN_CONTEXT, MAIN_TABLE, RESULTS_SOURCE
from unispector.systems.catalogue import SYSTEMS, System

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NOT_MEASURED = "not measured here"
_LEARNS = {
    "nothing": "nothing",
    "before": "the seen classes",
    "seen": "the seen classes",
    "good": "the set's good images",
}


@dataclass(frozen=True)
class MeasuredSystem:
    """What `unispector benchmark` wrote of a system."""

    record: SystemRecord
    report: EvaluationReport


def systems_section(known: Sequence[MeasuredSystem]) -> Section:
    """The table of all systems; one that was measured several times has a row of each."""
    sets = list(dict.fromkeys(name for one in known for name in one.report.data_sets))
    columns: list[str | Column] = [
        *sets,
        "published mean",
        Column("false alarms", 2),
        Column("s an image", 2),
        Column("MiB", 0),
    ]
    texts = ("system", "prompts", "learns from", "code", "weights", "measured")
    rows = []
    for system in SYSTEMS:
        own = [one for one in known if one.record.system == system.name]
        rows += [_row(system, one, sets) for one in own] or [_row(system, None, sets)]
    return Section(
        "Every system under one protocol", (Text(_LEGEND, True), Table.of(texts, columns, rows)), "systems"
    )


_LEGEND = (
    "AP50 in percent of unseen classes, boxes / masks, mean over split and prompt seeds. False alarms: "
    "detections of at least the score that counts, on a defect-free image. Seconds: wall clock, median of "
    "all images; MiB: most memory of the whole process. The published mean is over other sets, the seven of "
    f"InsA ({RESULTS_SOURCE}); it stands beside what was measured and never in its place."
)


def _row(system: System, one: MeasuredSystem | None, sets: Sequence[str]) -> Row:
    published = [
        method.mean
        for method in (*MAIN_TABLE, *IN_CONTEXT)
        if system.published == (method.name, method.tuned)
    ]
    mean = published[0] if published else None
    licences = (system.code, system.weights_licence)
    if one is None:
        title = (system.title, " or ".join(system.rois), _LEARNS[system.learns], *licences, NOT_MEASURED)
        return Row((*title, *(None for _ in sets), mean, None, None, None))
    record, report = one.record, one.report
    figures: list[Cell] = []
    for name in sets:
        rows = [row for row in report.rows if (row.data_set, row.subset) == (name, "unseen")]
        boxes, masks = measured(rows, "bbox.AP50"), measured(rows, "segm.AP50")
        figures.append(BoxesMasks(boxes.mean, masks.mean) if boxes and masks else None)
    alarms = spread_of(
        row.alarms.false_alarms for row in report.rows if row.alarms and row.subset == "unseen"
    )
    size = "" if record.parameters is None else f", {record.parameters / 1e6:.1f} M parameters"
    when = f"{record.date[:10]}, {record.commit[:9]}{size}"
    texts = (system.title, record.roi, _LEARNS[system.learns], *licences, when)
    return Row((*texts, *figures, mean, alarms and alarms.mean, record.seconds, record.peak_mib))


def catalogue_table() -> "RichTable":
    """What `unispector benchmark` takes, for a rich console."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("system", "what it is", "prompts", "--weights", "licences: code; weights", "needs"):
        table.add_column(heading, overflow="fold")
    for system in SYSTEMS:
        needs = f"pip install 'unispector[{system.extra}]'" if system.extra else ""
        licences = f"{system.code}; {system.weights_licence}"
        texts = (system.name, system.title, " or ".join(system.rois), system.weights, licences, needs)
        table.add_row(*map(escape, texts))
    return table
