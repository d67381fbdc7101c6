"""The sets in figures: tables beside the published ones, and the ratios of prompts to targets."""

from io import BytesIO
from typing import TYPE_CHECKING

from unispector.data.statistics import ClassStatistics, Colour, SetStatistics, Statistics
from unispector.reporting.model import Block, Figure, Report, Section, Table, Text
from unispector.reporting.published import COLOUR_SOURCE, COUNT_SOURCE, PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = ("images", "classes", "instances", "hue", "saturation", "value")
SIZE_NUMBERS = ("image width", "image height", "instances per image", "instance size, % of the image")
NAMED_CLASSES = 60  # more names than these cannot be read in one figure
FIXED_COLOUR, ADAPTIVE_COLOUR = "#f28e2b", "#2f6fb5"

COLOUR_NOTE = (
    "Hue, saturation and value: mean ± standard deviation over all pixels, in OpenCV's ranges (0 to 179, "
    "0 to 255, 0 to 255)."
)


def table_rows(statistics: Statistics) -> list[list[str]]:
    """Rows of the sets: name, source and `NUMBERS`; what is published stands below what is measured."""
    rows = []
    for item in statistics.sets:
        counts = [str(item.images), str(len(item.classes)), str(item.instances)]
        rows.append([item.name, "measured", *counts, *_colour(item.colour)])
        if item.name in PUBLISHED:
            published = PUBLISHED[item.name]
            images = "-" if published.images is None else f"about {published.images}"
            classes = "-" if published.classes is None else str(published.classes)
            rows.append(["", "published", images, classes, "-", *_colour(published.colour)])
    return rows


def statistics_report(statistics: Statistics, figure: str) -> Report:
    """The statistics as a report of their own.

    Args:
        figure: path of the PNG of `ratio_figure`, relative to the report.
    """
    *tables, ratios = statistics_blocks(statistics, figure)
    sections = (Section("", tuple(tables)), Section("Prompts and targets", (ratios,)))
    return Report("Data sets", sections=sections)


def statistics_blocks(statistics: Statistics, figure: str) -> tuple[Block, ...]:
    """Tables of the sets and their sizes, and last the figure of the ratios; see `statistics_report`."""
    rules, notes = statistics.rules, [COLOUR_NOTE]
    if any(item.name in PUBLISHED for item in statistics.sets):
        notes.append(f"Published colours: {COLOUR_SOURCE}; published counts: {COUNT_SOURCE}.")
    caption = (
        f"Prompt images per target image of every class, the class with most images first. Orange: always "
        f"{rules.prompts_per_class} prompts. Blue: one prompt where a class has at most {rules.tail_images} "
        "images. A class always leaves itself one target."
    )
    return (
        Text(" ".join(notes), True),
        Table.of(("data set", ""), NUMBERS, table_rows(statistics)),
        Text("Smallest, median and largest; of the instances' sizes also the quartiles.", True),
        Table.of(("data set",), SIZE_NUMBERS, map(_size_row, statistics.sets)),
        Figure(figure, "Ratios", caption),
    )


def ratio_figure(statistics: Statistics) -> bytes:
    """The ratio of prompt to target images of every class under both rules, as PNG (appendix, figure 1).

    Up to `NAMED_CLASSES` classes are named, a line each; more are kept apart by their number of images.
    """
    from matplotlib.figure import Figure

    classes = [item for member in statistics.sets for item in member.classes]
    classes.sort(key=lambda item: (-item.images, item.name))
    named = len(classes) <= NAMED_CLASSES
    size = (9.0, 1.6 + 0.27 * len(classes)) if named else (11.0, 4.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    _draw_ratios(axes, classes, upright=not named)
    if tail := sum(item.images <= statistics.rules.tail_images for item in classes):
        before_tail = axes.axhline if named else axes.axvline
        before_tail(len(classes) - tail - 0.5, color="#7a8494", linewidth=1, linestyle="--")
    (_label_by_name if named else _label_by_images)(axes, classes)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


def _draw_ratios(axes: "Axes", classes: list[ClassStatistics], *, upright: bool) -> None:
    """A ring under the fixed rule, a dot under the adaptive one, and a line from one to the other."""
    from matplotlib.ticker import LogLocator, NullLocator

    places = range(len(classes))
    fixed, adaptive = [item.fixed_ratio for item in classes], [item.adaptive_ratio for item in classes]
    (axes.vlines if upright else axes.hlines)(
        places, adaptive, fixed, color="#c3c9d2", linewidth=1.5, zorder=1
    )
    factor = 0.5 if upright else 1.0
    for ratios, colour, size, label in (
        (fixed, FIXED_COLOUR, 90, "fixed: the same number of prompts for every class"),
        (adaptive, ADAPTIVE_COLOUR, 30, "adaptive: one prompt for a class of few images"),
    ):
        x, y = (places, ratios) if upright else (ratios, places)
        axes.scatter(x, y, s=factor**2 * size, color=colour, label=label, zorder=2, linewidths=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    scale, axis = (axes.set_yscale, axes.yaxis) if upright else (axes.set_xscale, axes.xaxis)
    scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"1:{1 / value:.3g}" if value < 1 else f"{value:.3g}:1")
    axis.set_minor_locator(NullLocator())
    axis.grid(visible=True, color="#e4e7ec")
    (axes.set_ylabel if upright else axes.set_xlabel)("prompt images : target images")


def _label_by_name(axes: "Axes", classes: list[ClassStatistics]) -> None:
    axes.set_yticks(range(len(classes)), [f"{item.name} ({item.images})" for item in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_ylabel("class (images)")


def _label_by_images(axes: "Axes", classes: list[ClassStatistics]) -> None:
    places = range(0, len(classes), max(1, len(classes) // 18))
    axes.set_xticks(list(places), [str(classes[place].images) for place in places])
    axes.set_xlim(-1, len(classes))
    axes.set_xlabel(f"images of the class ({len(classes)} classes)")


def _size_row(item: SetStatistics) -> tuple[str, ...]:
    sides = (item.width, item.height, item.instances_per_image)
    ranges = (f"{of.minimum:g} / {of.median:g} / {of.maximum:g}" for of in sides)
    size = item.instance_size
    shares = (size.minimum, size.lower, size.median, size.upper, size.maximum)
    return (item.name, *ranges, " / ".join(f"{100 * share:.2g}" for share in shares))


def _colour(colour: Colour) -> list[str]:
    moments = (colour.hue, colour.saturation, colour.value)
    return [f"{values.mean:.1f} ± {values.deviation:.1f}" for values in moments]
