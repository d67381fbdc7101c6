"""Small charts in one style: as SVG inside a page of either colour scheme, and as PNG."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from unispector.ops.drawing import class_colour

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#7a8494"
"""Grey of axes and text that reads on white and on black; in a page it is the surrounding text's colour."""

COLOURS = ("#0d9488", "#d97706", "#4f83f1", "#db2777", "#8b5cf6", "#5f9e24", "#e0503f", "#0e94b8")
MARKERS = "osD^vPXp"
_WIDTH, _PLOT_HEIGHT, _LEGEND_ROW = 4.3, 2.7, 0.19  # inches
_LEGEND_CHARACTERS = 44  # of one row, with what stands before and between its names
_NAME_CHARACTERS = 40
NAMED_CLASSES = 24
"""More classes than these get no legend."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    # Of its points, from left to right.
    x: tuple[float, ...]
    y: tuple[float, ...]
    deviation: tuple[float, ...] = ()  # half the height of the band around each point; () for no band
    published: bool = False  # draw it dashed and grey, as a published figure


@dataclass(frozen=True)
class LineChart:
    """AP50 over the levels of a change."""

    title: str
    x_label: str
    reference: float  # level marked by an upright line
    lines: tuple[Line, ...]  # those of the same place have the same colour in every chart

    def draw(self) -> "Figure":
        """The chart; the y axis begins at 0, so that a fall looks as large as it is."""
        figure, axes = _blank(self.title, [line.name for line in self.lines])
        axes.axvline(self.reference, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        measured = [line for line in self.lines if not line.published]
        handles = [_draw_line(axes, line, place) for place, line in enumerate(measured)]
        published = [line for line in self.lines if line.published]
        handles += [_draw_published(axes, line, place) for place, line in enumerate(published)]
        levels = sorted({level for line in self.lines for level in line.x})
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1)
        axes.grid(visible=True, axis="y", color=INK, alpha=0.25, linewidth=0.8)
        axes.set_xlabel(self.x_label)
        axes.set_ylabel("AP50, %")
        _legend(figure, handles, [line.name for line in (*measured, *published)])
        return figure


@dataclass(frozen=True)
class ScatterChart:
    """Points of classes in a plane."""

    title: str
    axis_labels: tuple[str, str]
    points: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]  # class of each point, position in `class_names`
    class_names: tuple[str, ...]  # in the legend, unless they are more than `NAMED_CLASSES`
    reach: float  # the axes go from -reach to reach

    def draw(self) -> "Figure":
        """The chart, in the colours of the report's images."""
        from matplotlib.ticker import MaxNLocator

        named = len(self.class_names) <= NAMED_CLASSES
        figure, axes = _blank(self.title, self.class_names if named else (), plot_height=3.7)
        handles = []
        for place in range(len(self.class_names)):
            own = [point for point, label in zip(self.points, self.labels, strict=True) if label == place]
            colour = tuple(channel / 255 for channel in class_colour(place))
            handles.append(
                axes.scatter(
                    [x for x, _ in own],
                    [y for _, y in own],
                    s=22,
                    marker=_marker(place),
                    color=colour,
                    edgecolors=INK,
                    linewidths=0.5,
                    alpha=0.85,
                )
            )
        ticks = [
            tick for tick in MaxNLocator(4).tick_values(-self.reach, self.reach) if abs(tick) <= self.reach
        ]
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.set(xlim=(-self.reach, self.reach), ylim=(-self.reach, self.reach), aspect="equal")
        axes.grid(visible=True, color=INK, alpha=0.25, linewidth=0.8)
        axes.set(xlabel=self.axis_labels[0], ylabel=self.axis_labels[1])
        if named:
            _legend(figure, handles, self.class_names)
        return figure


@dataclass(frozen=True)
class IntervalChart:
    """Figures in percent with their intervals, a row each."""

    title: str
    rows: tuple[str, ...]
    # By name in the legend, (low, figure, high) of each row; None where there is none.
    series: Mapping[str, tuple[tuple[float, float, float] | None, ...]]

    def draw(self) -> "Figure":
        """The chart; the x axis goes from 0 to 100."""
        height = 0.7 + len(self.rows) * (0.14 + 0.14 * len(self.series))
        figure, axes = _blank(self.title, list(self.series), plot_height=height)
        for place, points in enumerate(self.series.values()):
            shift = (place - (len(self.series) - 1) / 2) * 0.6 / len(self.series)
            known = [(row + shift, *point) for row, point in enumerate(points) if point is not None]
            y, low, mean, high = np.array(known, float).reshape(-1, 4).T
            colour, marker = COLOURS[place % len(COLOURS)], _marker(place)
            axes.errorbar(mean, y, xerr=(mean - low, high - mean), fmt=marker, color=colour, markersize=4.5)
        axes.set_yticks(range(len(self.rows)), [_shown(row) for row in self.rows])
        axes.set(xlim=(0, 100), ylim=(len(self.rows) - 0.5, -0.5), xlabel="AP50, %")
        axes.grid(visible=True, axis="x", color=INK, alpha=0.25, linewidth=0.8)
        _legend(figure, list(axes.lines), list(self.series))
        return figure


Chart: TypeAlias = LineChart | ScatterChart | IntervalChart


def png(chart: Chart) -> bytes:
    """The chart as a PNG with a transparent ground; the same bytes for the same chart."""
    return _saved(chart, "png", {"Software": None})


def svg(chart: Chart, name: str) -> str:
    """The chart as an `<svg>` element as wide as what it stands in; the same text for the same chart.

    It asks for nothing outside itself, sets no style of the page, and its text and axes take the colour of
    the text around it.

    Args:
        name: of the chart, one of its own in the page: all of its ids begin with it.
    """
    source = _saved(chart, "svg", dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inlined(source.decode("utf-8"), chart.title, re.sub(r"[^A-Za-z0-9-]", "-", name))


def _saved(chart: Chart, form: Literal["png", "svg"], metadata: dict[str, None]) -> bytes:
    from matplotlib import rc_context

    file = BytesIO()
    with rc_context(
        {
            "font.size": 9.8,
            "font.family": "DejaVu Sans",
            "svg.fonttype": "none",
            "svg.hashsalt": "unispector",
            "text.parse_math": False,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        chart.draw().savefig(file, format=form, dpi=200, transparent=True, metadata=metadata)
    return file.getvalue()


def _inlined(source: str, title: str, prefix: str) -> str:
    """Turn a file of matplotlib into a part of a page."""
    body = source[source.index("<svg") :]
    view_box = re.search(r'viewBox="([^"]*)"', body)
    root = (
        f'<svg viewBox="{view_box[1] if view_box else ""}" role="img" aria-label="{escape(title)}" '
        'style="display:block;width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt">'
    )
    body = root + body[body.index(">") + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", body)
    return body.replace(INK, "currentColor").strip()


def _blank(title: str, names: Sequence[str], plot_height: float = _PLOT_HEIGHT) -> "tuple[Figure, Axes]":
    """An empty chart with room for a legend of these names below the plot."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(names) / _columns(names))
    figure = Figure(figsize=(_WIDTH, plot_height + _LEGEND_ROW * rows), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10.6, fontweight="bold")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3)
    return figure, axes


def _draw_line(axes: "Axes", line: Line, place: int) -> "Artist":
    colour = COLOURS[place % len(COLOURS)]
    if line.deviation:
        low, high = zip(*((y - d, y + d) for y, d in zip(line.y, line.deviation, strict=True)), strict=True)
        axes.fill_between(line.x, low, high, color=colour, alpha=0.16, linewidth=0)
    (drawn,) = axes.plot(line.x, line.y, color=colour, marker=_marker(place), markersize=4.5, linewidth=1.8)
    return drawn


def _draw_published(axes: "Axes", line: Line, place: int) -> "Artist":
    dashes = ((0, (5, 2)), (0, (7, 2, 1.5, 2)))[place % 2]
    (drawn,) = axes.plot(line.x, line.y, color=INK, linestyle=dashes, linewidth=1.3)
    return drawn


def _marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]


def _columns(names: Sequence[str]) -> int:
    widest = max((len(_shown(name)) for name in names), default=0)
    return max(1, min(len(names), _LEGEND_CHARACTERS // (widest + 5)))


def _shown(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"


def _legend(figure: "Figure", handles: "Sequence[Artist]", names: Sequence[str]) -> None:
    shown = [_shown(name) for name in names]
    columns = _columns(names)
    figure.legend(handles, shown, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
