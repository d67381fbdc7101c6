"""All systems of the comparison in one table: what was measured, what is published, what each costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unispector.evaluation.results import SUBSETS, EvaluationReport, EvaluationRow, Subset
from unispector.evaluation.system_record import SystemRecord
from unispector.reporting.measured import measured, spread_of
from unispector.reporting.model import (
    Block,
    BoxesMasks,
    Cell,
    Column,
    Figure,
    Row,
    Section,
    Subheading,
    Table,
    Text,
    coded,
    counted,
)
from unispector.reporting.published import IN_CONTEXT, MAIN_TABLE, RESULTS_SOURCE
from unispector.systems.catalogue import BY_NAME, SYSTEMS, System

if TYPE_CHECKING:
    from rich.table import Table as RichTable

NOT_MEASURED = "not measured here"
_LEARNS = {
    "nothing": "nothing",
    "before": "what its weights were trained on",
    "seen": "the seen classes",
    "good": "the set's good images",
}


@dataclass(frozen=True)
class MeasuredSystem:
    """What `unispector benchmark` wrote of a system."""

    record: SystemRecord
    report: EvaluationReport
    figure: str = ""  # image beside UniSpector, relative to the reports; empty = there is none

    @property
    def title(self) -> str:
        """The system's with its weights, or how its maker calls a detector that is not in the catalogue."""
        system = BY_NAME.get(self.record.system)
        weights = f", weights {self.record.weights}" if self.record.weights else ""
        return system.title + weights if system else self.record.name


def systems_section(known: Sequence[MeasuredSystem]) -> Section:
    """The table of all systems, then each beside UniSpector in images.

    One that was measured several times has a row of each; a detector outside the catalogue has one too.
    """
    sets = dict.fromkeys((row.data_set, row.subset) for one in known for row in one.report.rows)
    order = sorted(sets, key=lambda one: one[1] == "seen")  # else as they come
    rates = " or ".join(
        sorted({f"{row.alarms.rate:g}" for one in known for row in one.report.rows if row.alarms})
    )
    columns: list[str | Column] = [
        *(name if subset == "unseen" else f"{name}, {SUBSETS[subset]}" for name, subset in order),
        "published mean",
        Column("false alarms", 2),
        f"found at {rates or 'few'} alarms",
        Column("s an image", 2),
        Column("MiB", 0),
    ]
    texts = ("system", "prompts", "learns from", "code", "weights", "measured")
    rows = []
    for system in SYSTEMS:
        measurements = [one for one in known if one.record.system == system.name]
        rows += [_measured(one, order) for one in measurements] or [_not_measured(system, len(order))]
    rows += [_measured(one, order) for one in known if one.record.system not in BY_NAME]
    figures = [
        Figure(one.figure, one.title, f"{one.title}{f', {one.record.roi} prompts' if one.record.roi else ''}")
        for one in known
        if one.figure
    ]
    beside: tuple[Block, ...] = (
        (Subheading("Beside UniSpector"), Text(_FIGURE_LEGEND, True), *figures) if figures else ()
    )
    blocks = (Text(coded(_LEGEND), True), Table.of(texts, columns, rows), *beside)
    return Section("Every system under one protocol", blocks, "systems")


_LEGEND = (
    "AP50 in percent of unseen classes and of seen ones, boxes / masks, mean over split and prompt seeds. "
    "False alarms: detections of at least `evaluate.alarm_score` on a defect-free image, under prompts of "
    "unseen classes; scores of two systems do not compare, so beside it stands the share of the defects that "
    "are found, in percent, at the score that leaves `evaluate.alarm_rate` alarms. Seconds: wall clock, the "
    "median of all images, with whatever else the machine did; MiB: most memory of the whole process. Rows "
    "compare where splits, draws and targets are the same. The published mean is of the published model on "
    f"unseen classes of other sets, the seven of InsA ({RESULTS_SOURCE}); it stands beside what was measured "
    "and never in its place."
)
_FIGURE_LEGEND = (
    "Random targets of unseen classes, the same for all. Of each system the surest findings of the prompted "
    "class, as many as there are instances of it: scores of two systems do not compare. Of several "
    "measurements of UniSpector the first of the table's is drawn; of several prompt images one."
)


def _published_mean(system: System) -> BoxesMasks | None:
    means = [
        method.mean
        for method in (*MAIN_TABLE, *IN_CONTEXT)
        if system.published == (method.name, method.tuned)
    ]
    return means[0] if means else None


def _not_measured(system: System, sets: int) -> Row:
    texts = (system.title, " or ".join(system.rois), _LEARNS[system.learns])
    licences = (system.code, system.weights_licence)
    return Row((*texts, *licences, NOT_MEASURED, *(None,) * sets, _published_mean(system), *(None,) * 4))


def _measured(one: MeasuredSystem, sets: Sequence[tuple[str, Subset]]) -> Row:
    record, rows = one.record, one.report.rows
    system = BY_NAME.get(record.system)
    known = (_LEARNS[system.learns], system.code, system.weights_licence) if system else ("", "", "")
    size = "" if record.parameters is None else f", {record.parameters / 1e6:.1f} M parameters"
    device = counted(record.threads, "thread", "threads") if record.threads else "GPU"
    dirty = "-dirty" if record.commit.endswith("-dirty") else ""
    when = f"{record.date[:10]}, {record.commit[:9]}{dirty}, {device}{size}; {_extent(rows)}"
    figures: list[Cell] = []
    for place in sets:
        own = [row for row in rows if (row.data_set, row.subset) == place]
        boxes, masks = measured(own, "bbox.AP50"), measured(own, "segm.AP50")
        figures.append(BoxesMasks(boxes.mean, masks.mean) if boxes and masks else None)
    alarms = [row.alarms for row in rows if row.alarms and row.subset == "unseen"]
    false = spread_of(one.false_alarms for one in alarms)
    boxes, masks = (
        spread_of(getattr(one, part) for one in alarms) for part in ("recall_boxes", "recall_masks")
    )
    published = _published_mean(system) if system else None
    few = BoxesMasks(boxes.mean, masks.mean) if boxes and masks else None
    costs = (published, false and false.mean, few, record.seconds, record.peak_mib)
    return Row((one.title, record.roi, *known, when, *figures, *costs))


def _extent(rows: Sequence[EvaluationRow]) -> str:
    """What was judged: rows of other splits, draws or targets do not compare."""
    unseen = [row for row in rows if row.subset == "unseen"]
    splits = sorted({row.split_seed for row in unseen if row.split_seed is not None})
    draws = sorted({row.prompt_seed for row in unseen})
    targets = sum(row.metrics.images for row in unseen if draws and row.prompt_seed == draws[0])
    text = f"split {', '.join(map(str, splits)) or '-'}, draw {', '.join(map(str, draws)) or '-'}"
    return f"{text}, {counted(targets, 'unseen target', 'unseen targets')}"


def catalogue_table() -> "RichTable":
    """What `unispector benchmark` takes, for a rich console."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("system", no_wrap=True)
    table.add_column("what it is, and what it needs", overflow="fold")
    for system in SYSTEMS:
        facts = (
            f"prompts: {' or '.join(system.rois)}" if system.rois else "",
            f"--weights: {system.weights}" if system.weights else "no weights needed",
            "runs without --weights too" if system.weights and not system.weights_needed else "",
            f"licences: {system.code}; weights {system.weights_licence}",
            f"pip install 'unispector[{system.extra}]'" if system.extra else "",
        )
        table.add_row(
            system.name, f"[bold]{escape(system.title)}[/bold]\n{escape('. '.join(filter(None, facts)))}"
        )
    return table
