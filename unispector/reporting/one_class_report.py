"""Reports of sets measured one class at a time, of one set and of several, and their plain numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, get_args

from unispector.evaluation.one_class import DetectorFigures, OneClassReport, ScoreBin
from unispector.evaluation.one_class import Figure as FigureName
from unispector.evaluation.results import Spread
from unispector.reporting.model import (
    Block,
    Bullets,
    Cell,
    Column,
    Figure,
    Measured,
    Report,
    Section,
    Subheading,
    Table,
    Text,
    cell_text,
    coded,
)

MARKS = {"box": "boxes", "mask": "masks"}

_FITS: dict[FigureName, Column] = {
    "box_fit_50": Column("own box given back, IoU 0.5, %"),
    "box_fit_80": Column("IoU 0.8, %"),
}
_OF_CLASSES: dict[FigureName, Column] = {
    **_FITS,
    "half_score": Column("score that finds half", 2),
    "false_alarms": Column("false alarms there", 2),
}


def one_class_report(report: OneClassReport) -> Report:
    """A measurement of one set; its figures are files in `pictures/` beside it."""
    sections = [
        Section("AP50", (_ap50_table([report]),)),
        *(Section(f"Beside AP50: {one.name}", _class_blocks(one)) for one in report.detectors),
        Section("How far a score can be trusted", (_reliability_table(report.detectors),)),
    ]
    if report.skipped:
        left_out = tuple(f"{skipped.class_name}: {skipped.reason}" for skipped in report.skipped)
        sections.append(Section("Classes left out", (Bullets(left_out),)))
    if report.pictures:
        titles = {one.file: f"{one.class_name}, {one.image}: {one.note}" for one in report.pictures}
        drawn = tuple(Figure(file, title, title) for file, title in titles.items())
        sections.append(Section("Failures", drawn))
    title, protocol = f"{report.data_set}, one class at a time", _protocol(report, MARKS[report.roi])
    return Report(title, facts=protocol, sections=tuple(sections))


def real_report(reports: Sequence[OneClassReport]) -> Report:
    """Several sets, a section each; boxes and masks as prompts stand side by side.

    Args:
        reports: of a set one for each kind of prompt, one after the other; all of the same detectors.
    """
    models = [
        f"{figures.name}: model {figures.fingerprint[:12]}"
        for figures in reports[0].detectors
        if figures.fingerprint
    ]
    names = dict.fromkeys(report.data_set for report in reports)
    return Report(
        "Real sets, one class at a time",
        lead=coded("`make reports-real` writes this page."),
        facts=(*models, "floor: nearest prototypes on frozen ImageNet features, without training"),
        sections=tuple(_set_section([one for one in reports if one.data_set == name]) for name in names),
    )


def one_class_json(report: OneClassReport) -> dict[str, Any]:
    """Everything of a report as plain numbers: means first, then every row."""
    content = asdict(report)
    for plain, figures in zip(content["detectors"], report.detectors, strict=True):
        plain["mean"] = {name: _plain(figures.mean(name)) for name in get_args(FigureName)}
        plain["classes"] = {
            class_name: {name: _plain(figures.of_class(class_name, name)) for name in get_args(FigureName)}
            for class_name in figures.class_names
        }
        plain["median_seconds"] = figures.seconds
        plain["bins"] = [asdict(bin_) for bin_ in figures.bins]
    return content


def _plain(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else asdict(spread)


def _set_section(reports: Sequence[OneClassReport]) -> Section:
    first = reports[0]
    protocol = _protocol(first, "boxes and masks, apart" if len(reports) > 1 else "boxes")
    blocks: list[Block] = [Bullets(protocol), _ap50_table(reports), _summary_table(reports)]
    for report in reports:
        blocks.append(Subheading(f"How far a score can be trusted, {MARKS[report.roi]} as prompts"))
        blocks.append(_reliability_table(report.detectors))
    if first.skipped:
        blocks.append(Bullets(tuple(f"Left out, {one.class_name}: {one.reason}" for one in first.skipped)))
    return Section(first.data_set, tuple(blocks))


def _protocol(report: OneClassReport, marks: str) -> tuple[str, ...]:
    """Describe the protocol: prompts, marked by `marks`, targets (capped or not), defect-free images."""
    rows = report.detectors[0].rows
    seeds = dict.fromkeys(row.prompt_seed for row in rows)
    more = dict.fromkeys(row.class_name for row in rows if row.possible_targets > row.targets)
    classes = len(report.detectors[0].class_names)
    capped = (
        f"capped at {report.target_limit} a class, at random: {len(more)} of {classes} classes have more"
        if more
        else f"not capped: no class has more than {report.target_limit}"
    )
    return (
        f"Prompts: up to {report.prompt_images} images a class, all instances of the class on them marked "
        f"by {marks}; prompt seeds {', '.join(map(str, seeds))}. The class is looked for alone.",
        f"Targets: other images that show the class, {capped}.",
        f"Defect-free images: {report.good_images or 'none'}.",
        "AP50 in percent; ± is the standard deviation over the prompt seeds.",
    )


def _ap50_table(reports: Sequence[OneClassReport]) -> Table:
    """Classes against detectors, boxes / masks, of one set: a report for each kind of prompt."""
    columns = [(report, figures) for report in reports for figures in report.detectors]
    heads = [f"{figures.name}, {MARKS[report.roi]} as prompts" for report, figures in columns]
    first = columns[0][1]
    targets = {row.class_name: str(row.targets) for row in first.rows}  # every draw has as many
    rows = [
        (name, targets[name], *(_both(figures, name) for _, figures in columns)) for name in first.class_names
    ]
    rows.append(("mean", "", *(_both(figures, None) for _, figures in columns)))
    kinds = "boxes" if first.mean("mask_ap50") is None else "boxes / masks"
    return Table.of([f"class ({kinds})"], ["targets", *heads], rows)


def _both(figures: DetectorFigures, class_name: str | None) -> str:
    """Boxes / masks of a class, or of all; boxes alone where the set has no masks."""
    kinds: tuple[FigureName, ...] = ("box_ap50", "mask_ap50")
    spreads = [
        figures.mean(kind) if class_name is None else figures.of_class(class_name, kind) for kind in kinds
    ]
    return " / ".join(cell_text(_cell(spread)) for spread in spreads if spread is not None)


def _summary_table(reports: Sequence[OneClassReport]) -> Table:
    """A line a detector and kind of prompt: what AP50 does not say."""
    rows = []
    for report in reports:
        for figures in report.detectors:
            alarms = cell_text(_cell(figures.mean("false_alarms")), 2)
            reached = f"{alarms} ({figures.having('half_score')} of {len(figures.rows)} draws find half)"
            fits = (_cell(figures.mean(figure)) for figure in _FITS)
            rows.append((figures.name, MARKS[report.roi], *fits, reached, figures.seconds))
    alarms_head, seconds = "false alarms an image at half of the defects", Column("CPU s an image", 2)
    return Table.of(("detector", "prompts"), (*_FITS.values(), alarms_head, seconds), rows)


def _reliability_table(detectors: Sequence[DetectorFigures]) -> Table:
    """Findings by score and the share of them that is right at box IoU 0.5."""
    heads = [
        Column(f"{figures.name}, {what}", 0) for figures in detectors for what in ("findings", "right, %")
    ]
    rows = [
        (f"{bins[0].low:g} to {bins[0].high:g}", *(cell for bin_ in bins for cell in _bin_cells(bin_)))
        for bins in zip(*(figures.bins for figures in detectors), strict=True)
    ]
    return Table.of(["score"], heads, rows)


def _bin_cells(bin_: ScoreBin) -> Iterator[Cell]:
    yield str(bin_.findings)
    yield 100 * bin_.true / bin_.findings if bin_.findings else None


def _class_blocks(figures: DetectorFigures) -> tuple[Block, ...]:
    rows = [
        (name, *(_cell(figures.of_class(name, figure)) for figure in _OF_CLASSES))
        for name in figures.class_names
    ]
    rows.append(("mean", *(_cell(figures.mean(figure)) for figure in _OF_CLASSES)))
    note = (
        f"Half of the defects are found in {figures.having('half_score')} of {len(figures.rows)} draws; only "
        f"these have a score and false alarms (detections a defect-free image). An image takes "
        f"{figures.seconds:.2f} s of processor time (median)."
    )
    return (Table.of(["class"], _OF_CLASSES.values(), rows), Text(note))


def _cell(spread: Spread | None) -> Measured | None:
    """A figure, with its spread where there is any."""
    return None if spread is None else Measured(spread.mean, spread.deviation or None)
