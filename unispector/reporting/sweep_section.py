"""The report's section on robustness: findings in words, charts and tables, for HTML and for Markdown."""

from collections.abc import Mapping
from html import escape

import numpy as np

from unispector.data.target_changes import LEVELS, UNITS
from unispector.evaluation.sweeps import SWEEPS, CurvePoint, SweepReport
from unispector.reporting.charts import Line, LineChart, png, svg
from unispector.reporting.tables import escaped, html_table, markdown_table

BLUR_SOURCE = "UniSpector (arXiv 2604.02905), appendix, table 2"
BLUR_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
PUBLISHED_BLUR: dict[str, dict[str, tuple[float, ...]]] = {
    "MagneticTile": {
        "bbox.AP50": (64.2, 64.9, 64.1, 63.5, 62.0, 60.1, 57.0),
        "segm.AP50": (38.9, 39.1, 38.8, 37.8, 36.4, 34.3, 31.0),
    },
    "VisA": {
        "bbox.AP50": (32.5, 33.3, 32.0, 30.0, 27.4, 25.8, 23.4),
        "segm.AP50": (28.2, 28.3, 27.6, 26.3, 23.8, 22.3, 20.4),
    },
}
"""AP50 in percent at `BLUR_LEVELS` (`BLUR_SOURCE`), by the set's name in InsA."""

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
SEVERITIES_TITLE = "What the severities are"
KIND_NAMES = {0.0: "box", 1.0: "mask"}


def html_section(report: SweepReport) -> str:
    """The section as HTML, heading and all; asks for no other file.

    Args:
        report: all sweeps; shown are those of the main variant on unseen classes.
    """
    points = "".join(f"<li>{escape(finding)}</li>" for finding in findings(report))
    parts = ["<h2>Robustness</h2>", f'<p class="muted">{INTRODUCTION}</p>', f"<ul>{points}</ul>"]
    for sweep in _prompt_sweeps(report):
        table = html_table(*_level_headings(sweep), _level_rows(report, sweep))
        parts += [
            f"<h3>{escape(SWEEPS[sweep].title)}</h3>",
            f'<p class="muted">{escape(_note(report, sweep))}</p>',
        ]
        parts += (
            [table] if sweep == "prompt_kind" else [_cards(_prompt_charts(report, sweep)), _folded(table)]
        )
    if sets := _target_sets(report):
        parts += [f"<h3>{TARGETS_TITLE}</h3>", f'<p class="muted">{TARGETS_NOTE}</p>']
        for data_set in sets:
            parts.append(_cards(_target_charts(report, data_set)))
            parts.append(_folded(html_table(*_target_table(report, data_set)), f"{data_set}: all figures"))
        parts.append(_folded(html_table(*_severity_table()), SEVERITIES_TITLE))
    return "\n".join(parts)


def markdown_section(report: SweepReport, figure_paths: Mapping[str, str]) -> list[str]:
    """The section as lines of Markdown, heading and all.

    Args:
        report: as of `html_section`.
        figure_paths: where each of `chart_pngs` lies, relative to the page.
    """
    lines = ["## Robustness", "", INTRODUCTION, "", *(f"- {escaped(text)}" for text in findings(report))]
    for sweep in _prompt_sweeps(report):
        lines += ["", f"### {SWEEPS[sweep].title}", "", escaped(_note(report, sweep)), ""]
        if sweep != "prompt_kind":
            lines += [*_markdown_figures(_prompt_charts(report, sweep), figure_paths), ""]
        lines += markdown_table(*_level_headings(sweep), _level_rows(report, sweep))
    if sets := _target_sets(report):
        lines += ["", f"### {TARGETS_TITLE}", "", TARGETS_NOTE]
        for data_set in sets:
            lines += ["", f"**{escaped(data_set)}**", ""]
            lines += [*_markdown_figures(_target_charts(report, data_set), figure_paths), ""]
            lines += markdown_table(*_target_table(report, data_set))
        lines += ["", f"{SEVERITIES_TITLE}:", "", *markdown_table(*_severity_table())]
    return lines


def chart_pngs(report: SweepReport) -> dict[str, bytes]:
    """The PNG of every chart, by a name that can be a file's."""
    charts: dict[str, LineChart] = {}
    for sweep in _prompt_sweeps(report):
        if sweep != "prompt_kind":
            charts |= _prompt_charts(report, sweep)
    for data_set in _target_sets(report):
        charts |= _target_charts(report, data_set)
    return {name: png(chart) for name, chart in charts.items()}


def findings(report: SweepReport) -> list[str]:
    """What the sweeps say of boxes, a sentence each; with several data sets, of their unweighted mean."""
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


def _level_headings(sweep: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    heading = "prompt" if sweep == "prompt_kind" else SWEEPS[sweep].axis
    return ("data set", heading), ("boxes AP50", "drop, %", "masks AP50", "drop, %", "evaluations")


def _level_rows(report: SweepReport, sweep: str) -> list[list[str]]:
    """Rows below `_level_headings`, set by set."""
    rows = []
    for data_set in _sets(report, sweep):
        boxes, masks = (report.curve(sweep, data_set, figure) for _, figure in KINDS)
        for number, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
            reference = box.level == SWEEPS[sweep].reference
            rows.append(
                [
                    data_set if number == 0 else "",
                    _level_name(sweep, box.level),
                    _mean(box),
                    "reference" if reference else _drop(box),
                    _mean(mask),
                    "reference" if reference else _drop(mask),
                    str(box.rows),
                ]
            )
    return rows


def _target_table(report: SweepReport, data_set: str) -> tuple[tuple[str, ...], list[str], list[list[str]]]:
    """Headings and rows of all changes of one data set: a column for each severity, and the last drop."""
    curves = [
        (SWEEPS[sweep].title, name, report.curve(sweep, data_set, figure))
        for sweep in _target_sweeps(report)
        for name, figure in KINDS
    ]
    levels = sorted({point.level for _, _, curve in curves for point in curve})
    rows = []
    for title, name, curve in curves:
        if curve:
            cells = {point.level: _mean(point) for point in curve}
            shown = [cells.get(level, "-") for level in levels]
            rows.append([title if name == KINDS[0][0] else "", name, *shown, _drop(curve[-1])])
    return ("change", "AP50"), [*(f"{level:g}" for level in levels), "last drop, %"], rows


def _severity_table() -> tuple[tuple[str, ...], tuple[str, ...], list[list[str]]]:
    rows = [
        [SWEEPS[f"target_{kind}"].title, UNITS[kind], *(f"{value:g}" for value in values)]
        for kind, values in LEVELS.items()
    ]
    return ("change", "value"), tuple("12345"), rows


def _mean(point: CurvePoint) -> str:
    return f"{point.mean:.1f} ± {point.deviation:.1f}" if point.rows > 1 else f"{point.mean:.1f}"


def _drop(point: CurvePoint) -> str:
    return "-" if point.drop is None else f"{point.drop:.1f}"


def _cards(charts: Mapping[str, LineChart]) -> str:
    """Charts beside each other where there is room."""
    cards = (
        f'<div class="card" style="padding:14px 12px 10px">{svg(chart, name)}</div>'
        for name, chart in charts.items()
    )
    return f'<div class="cards muted" style="margin:14px 0">{"".join(cards)}</div>'


def _folded(table: str, summary: str = "All figures") -> str:
    return f"<details><summary>{escape(summary)}</summary>\n{table}\n</details>"


def _markdown_figures(charts: Mapping[str, LineChart], paths: Mapping[str, str]) -> list[str]:
    return [f"![{escaped(chart.title)}](<{paths[name]}>)" for name, chart in charts.items()]
