"""The chart of the results: AP50 of the unseen classes with its interval, set by set, as SVG."""

from collections.abc import Iterator, Sequence
from html import escape

from unispector.evaluation.results import MAIN_VARIANT, EvaluationReport
from unispector.reporting.measured import measured, rows_of
from unispector.reporting.model import Measured, cell_text

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 132, 14, 8, 24
_LINE, _GAP = 15, 12  # height of a model's line, and the space between sets
_LONGEST_NAME = 17

_SHAPES = ("dot", "ring", "cross")
"""Classes of the models' marks in turn: apart without colour too."""


def results_chart(report: EvaluationReport, names: dict[str, str]) -> str:
    """Boxes and masks side by side, with a legend; colours are the page's.

    Args:
        report: all evaluations.
        names: what each variant is called.
    """
    panels = "".join(
        f'<figure class="panel"><figcaption>{title}, AP50 of unseen classes, %</figcaption>'
        f"{_panel(report, figure, title)}</figure>"
        for figure, title in (("bbox.AP50", "Boxes"), ("segm.AP50", "Masks"))
    )
    legend = "".join(
        f'<span class="{_mark(variant, place)}"><svg viewBox="0 0 26 12" aria-hidden="true">'
        f"{_whisker(2, 24, 6)}{_point(13, 6, _mark(variant, place))}</svg>{escape(names[variant])}</span>"
        for place, variant in enumerate(report.variants)
    )
    return f'<div class="chart"><div class="panels">{panels}</div><p class="legend">{legend}</p></div>'


def _panel(report: EvaluationReport, figure: str, title: str) -> str:
    block = _LINE * len(report.variants) + _GAP
    height = _TOP + block * len(report.data_sets) + _BOTTOM
    floor = height - _BOTTOM
    marks = "".join(
        _set_marks(report, data_set, figure, _TOP + block * number)
        for number, data_set in enumerate(report.data_sets)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}: AP50 set by set">'
        f"{_scale(floor)}{marks}</svg>"
    )


def _scale(floor: int) -> str:
    return "".join(
        f'<line class="grid" x1="{_x(value):.1f}" x2="{_x(value):.1f}" y1="{_TOP}" y2="{floor}"/>'
        f'<text class="tick" x="{_x(value):.1f}" y="{floor + 17}">{value}</text>'
        for value in range(0, 101, 20)
    )


def _set_marks(report: EvaluationReport, data_set: str, figure: str, top: int) -> str:
    middle = top + (_LINE * len(report.variants) + _GAP) / 2
    name = data_set if len(data_set) <= _LONGEST_NAME else data_set[: _LONGEST_NAME - 1] + "…"
    text = (
        f'<text class="name" x="{_LEFT - 10}" y="{middle + 4:.1f}">{escape(name)}'
        f"<title>{escape(data_set)}</title></text>"
    )
    found = [measured(rows_of(report, variant, data_set, "unseen"), figure) for variant in report.variants]
    return text + "".join(_marks(report.variants, found, top + _GAP / 2 + _LINE / 2))


def _marks(variants: Sequence[str], found: Sequence[Measured | None], top: float) -> Iterator[str]:
    for place, (variant, figure) in enumerate(zip(variants, found, strict=True)):
        if figure is None:
            continue
        mark, y = _mark(variant, place), top + _LINE * place
        whisker = ""
        if figure.interval is not None:
            whisker = _whisker(_x(figure.interval.low), _x(figure.interval.high), y)
        point = _point(_x(figure.mean), y, mark)
        yield f'<g class="{mark}">{whisker}{point}<title>{cell_text(figure)}</title></g>'


def _mark(variant: str, place: int) -> str:
    return "mark main dot" if variant == MAIN_VARIANT else f"mark {_SHAPES[place % len(_SHAPES)]}"


def _whisker(low: float, high: float, y: float) -> str:
    return f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _point(x: float, y: float, mark: str) -> str:
    if mark.endswith("cross"):
        return f'<path class="point" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'
    return f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'


def _x(percent: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(percent, 0.0), 100.0) / 100
