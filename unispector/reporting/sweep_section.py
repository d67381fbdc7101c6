"""The report's section on robustness: findings in words, charts and tables."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from unispector.data.target_changes import LEVELS, UNITS
from unispector.evaluation.results import FIGURES
from unispector.evaluation.sweeps import SWEEPS, CurvePoint, SweepReport
from unispector.reporting.charts import Line, LineChart
from unispector.reporting.model import (
    Block,
    Bullets,
    Charts,
    Fold,
    Measured,
    Section,
    Subheading,
    Table,
    Text,
)
from unispector.reporting.published import BLUR_LEVELS, BLUR_SOURCE, PUBLISHED_BLUR

KINDS = (("boxes", "bbox.AP50"), ("masks", "segm.AP50"))
HELD = 10.0  # percent: a level with at most this drop counts as held

INTRODUCTION = (
    "UniSpector on unseen classes, with one thing changed step by step. AP50 in percent; bands, and figures "
    "after ±, are the standard deviation over trained models, draws of prompts and trials. The dotted line "
    "marks the level that drops are relative to. With several data sets, the statements are on their mean."
)
NOTES = {
    "prompt_blur": (
        "The prompt images are blurred, the targets stay as they are. A flat line: prompts need not be sharp."
    ),
    "prompt_box_iou": (
        "Every prompt box is moved and resized until it overlaps the drawn one by this much; 1 is the box as "
        "drawn. A flat line: prompts may be marked in haste."
    ),
    "prompt_count": (
        "How many marked images a class is given. Where the line levels out, more prompts gain nothing."
    ),
    "prompt_kind": "The same prompts, marked by their box or by their mask.",
}
TARGETS_TITLE = "Changed target images"
TARGETS_NOTE = (
    "The target images are changed, the prompts are not; a line for each kind of change. Severity 0 is the "
    "image as it is, 5 the strongest change. The steeper the fall, the less of it an installation bears."
)
KIND_NAMES = {0.0: "box", 1.0: "mask"}


def robustness_section(report: SweepReport, folder: str = "") -> Section:
    """The section; its plain numbers are all points of the main variant's curves: sweep -> set -> figure.

    Args:
        report: all sweeps; shown are those of the main variant on unseen classes.
        folder: where the PNGs of its charts lie, relative to the Markdown.
    """
    blocks: list[Block] = [Text(INTRODUCTION, True), Bullets(tuple(findings(report)))]
    for sweep in _prompt_sweeps(report):
        blocks += [Subheading(SWEEPS[sweep].title), Text(_note(report, sweep), True)]
        table = _level_table(report, sweep)
        if sweep == "prompt_kind":
            blocks.append(table)
        else:
            blocks += [Charts(_prompt_charts(report, sweep), folder), Fold("All figures", (table,))]
    if sets := _target_sets(report):
        blocks += [Subheading(TARGETS_TITLE), Text(TARGETS_NOTE, True)]
        for data_set in sets:
            blocks.append(Charts(_target_charts(report, data_set), folder))
            blocks.append(Fold(f"{data_set}: all figures", (_target_table(report, data_set),)))
        blocks.append(Fold("What the severities are", (_severity_table(),)))
    curves = {
        sweep: {
            data_set: {
                figure: [asdict(point) for point in report.curve(sweep, data_set, figure)]
                for figure in FIGURES
            }
            for data_set in report.data_sets
        }
        for sweep in report.sweeps()
    }
    return Section("Robustness", tuple(blocks), "robustness", curves)


def findings(report: SweepReport) -> list[str]:
    """State the sweeps' results on boxes, a sentence each; of several data sets their unweighted mean."""
    sentences = [_prompt_finding(report, sweep) for sweep in _prompt_sweeps(report)]
    return sentences + ([_target_finding(report)] if _target_sets(report) else [])


def _prompt_finding(report: SweepReport, sweep: str) -> str:
    title = SWEEPS[sweep].title
    drops = _mean_drops(report, sweep)
    if len(drops) < 2:
        return f"{title}: {_no_drop(_level_name(sweep, SWEEPS[sweep].reference))}."
    lowest, highest = min(drops), max(drops)
    if sweep == "prompt_blur":
        return f"{title}: AP50 of boxes {_effect(drops[highest])} at a sigma of {highest:g} pixels."
    if sweep == "prompt_kind":
        return f"{title}: AP50 of boxes {_effect(drops[highest])} with masks in place of boxes."
    if sweep == "prompt_count":
        number = SWEEPS[sweep].reference
        ends = [f"{_effect(drops[end])} with {end:g}" for end in (lowest, highest) if end != number]
        return f"{title}: compared with {number:g} prompt images a class, AP50 of boxes {' and '.join(ends)}."
    held = _held(drops)
    if held == SWEEPS[sweep].reference:
        first = max(level for level in drops if level < held)
        return f"{title}: AP50 of boxes {_effect(drops[first])} at an IoU of {first:g} already."
    return (
        f"{title}: AP50 of boxes holds to an IoU of {held:g} (a drop of at most {HELD:g} %); it "
        f"{_effect(drops[lowest])} at {lowest:g}."
    )


def _target_finding(report: SweepReport) -> str:
    drops = {sweep: _mean_drops(report, sweep) for sweep in _target_sweeps(report)}
    ends = {
        sweep: (of_sweep[max(of_sweep)], max(of_sweep))
        for sweep, of_sweep in drops.items()
        if len(of_sweep) > 1
    }
    if not ends:
        return f"{TARGETS_TITLE}: {_no_drop('severity 0')}."
    told = [
        f"{_within_sentence(SWEEPS[sweep].title)} (AP50 of boxes {_effect(drop)} at severity {severity:g})"
        for sweep, (drop, severity) in sorted(ends.items(), key=lambda item: -item[1][0])
    ]
    least = f", least by {told[-1]}" if len(told) > 1 else ""
    return f"{TARGETS_TITLE}: most is lost by {told[0]}{least}."


def _no_drop(reference: str) -> str:
    return f"no drop can be given; it takes another level than {reference}, and an AP50 above 0 there"


def _within_sentence(title: str) -> str:
    return title if title[:2].isupper() else title[0].lower() + title[1:]


def _effect(drop: float) -> str:
    if abs(drop) < 0.5:
        return "stays the same"
    return f"falls by {drop:.0f} %" if drop > 0 else f"rises by {-drop:.0f} %"


def _held(drops: Mapping[float, float]) -> float:
    """The lowest level from which on no drop exceeds `HELD`."""
    held = max(drops)
    for level in sorted(drops, reverse=True):
        if drops[level] > HELD:
            break
        held = level
    return held


def _mean_drops(report: SweepReport, sweep: str) -> dict[float, float]:
    """Drop in percent of the boxes' mean over the sets, at the levels all of them have; {} without any."""
    curves = [
        {point.level: point.mean for point in report.curve(sweep, data_set, "bbox.AP50")}
        for data_set in _sets(report, sweep)
    ]
    means = {
        level: float(np.mean([curve[level] for curve in curves]))
        for level in set.intersection(*map(set, curves))
    }
    whole = means.get(SWEEPS[sweep].reference)
    return {level: 100 * (whole - means[level]) / whole for level in means} if whole else {}


def _sets(report: SweepReport, sweep: str) -> list[str]:
    """Data sets that have the sweep."""
    return [data_set for data_set in report.data_sets if report.curve(sweep, data_set, "bbox.AP50")]


def _prompt_sweeps(report: SweepReport) -> list[str]:
    return [sweep for sweep in report.sweeps() if sweep in NOTES and _sets(report, sweep)]


def _target_sweeps(report: SweepReport) -> list[str]:
    return [sweep for sweep in report.sweeps() if sweep not in NOTES and _sets(report, sweep)]


def _target_sets(report: SweepReport) -> list[str]:
    swept = {data_set for sweep in _target_sweeps(report) for data_set in _sets(report, sweep)}
    return [data_set for data_set in report.data_sets if data_set in swept]


def _note(report: SweepReport, sweep: str) -> str:
    if sweep == "prompt_blur" and any(data_set in PUBLISHED_BLUR for data_set in _sets(report, sweep)):
        return f"{NOTES[sweep]} Dashed: {BLUR_SOURCE}."
    return NOTES[sweep]


def _prompt_charts(report: SweepReport, sweep: str) -> dict[str, LineChart]:
    """A chart of the boxes and one of the masks, a line for each data set."""
    kind = SWEEPS[sweep]
    charts = {}
    for name, figure in KINDS:
        sets = _sets(report, sweep)
        lines = [_line(data_set, report.curve(sweep, data_set, figure)) for data_set in sets]
        if sweep == "prompt_blur":
            lines += [
                Line(f"{data_set}, published", BLUR_LEVELS, PUBLISHED_BLUR[data_set][figure], published=True)
                for data_set in sets
                if data_set in PUBLISHED_BLUR
            ]
        charts[f"{sweep}-{name}"] = LineChart(
            f"{kind.title}: {name}", kind.axis, kind.reference, tuple(lines)
        )
    return charts


def _target_charts(report: SweepReport, data_set: str) -> dict[str, LineChart]:
    """A chart of the boxes and one of the masks, a line for each change."""
    sweeps = _target_sweeps(report)
    place = report.data_sets.index(data_set) + 1
    charts = {}
    for name, figure in KINDS:
        curves = {sweep: report.curve(sweep, data_set, figure) for sweep in sweeps}
        lines = [_line(SWEEPS[sweep].title, curve) for sweep, curve in curves.items() if curve]
        charts[f"target-{place}-{name}"] = LineChart(
            f"{data_set}, changed targets: {name}", SWEEPS[sweeps[0]].axis, 0, tuple(lines)
        )
    return charts


def _line(name: str, curve: tuple[CurvePoint, ...]) -> Line:
    levels, means, deviations = zip(*((p.level, p.mean, p.deviation) for p in curve), strict=True)
    return Line(name, levels, means, deviations if any(deviations) else ())


def _level_name(sweep: str, level: float) -> str:
    return KIND_NAMES.get(level, f"{level:g}") if sweep == "prompt_kind" else f"{level:g}"


def _level_table(report: SweepReport, sweep: str) -> Table:
    """All levels, set by set."""
    rows = []
    for data_set in _sets(report, sweep):
        boxes, masks = (report.curve(sweep, data_set, figure) for _, figure in KINDS)
        for box, mask in zip(boxes, masks, strict=True):
            reference = box.level == SWEEPS[sweep].reference
            drops = ["reference" if reference else point.drop for point in (box, mask)]
            level = _level_name(sweep, box.level)
            rows.append((data_set, level, _mean(box), drops[0], _mean(mask), drops[1], str(box.rows)))
    heading = "prompt" if sweep == "prompt_kind" else SWEEPS[sweep].axis
    figures = ("boxes AP50", "drop, %", "masks AP50", "drop, %", "evaluations")
    return Table.of(("data set", heading), figures, rows)


def _target_table(report: SweepReport, data_set: str) -> Table:
    """All changes of one data set: a column for each severity, and the last drop."""
    curves = [
        (SWEEPS[sweep].title, name, report.curve(sweep, data_set, figure))
        for sweep in _target_sweeps(report)
        for name, figure in KINDS
    ]
    levels = sorted({point.level for _, _, curve in curves for point in curve})
    rows = []
    for title, name, curve in curves:
        if curve:
            means = {point.level: _mean(point) for point in curve}
            rows.append((title, name, *map(means.get, levels), curve[-1].drop))
    return Table.of(("change", "AP50"), [*(f"{level:g}" for level in levels), "last drop, %"], rows)


def _severity_table() -> Table:
    rows = [
        (SWEEPS[f"target_{kind}"].title, UNITS[kind], *(f"{value:g}" for value in values))
        for kind, values in LEVELS.items()
    ]
    return Table.of(("change", "value"), "12345", rows)


def _mean(point: CurvePoint) -> Measured:
    return Measured(point.mean, point.deviation if point.rows > 1 else None)
