"""The content of a report, without its layout: `render` makes HTML, Markdown and plain numbers of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from unispector.evaluation.intervals import Interval
from unispector.reporting.charts import Chart


@dataclass(frozen=True)
class Measured:
    """A figure of one or several evaluations."""

    mean: float
    deviation: float | None = None  # standard deviation (population) over them; None where there is but one
    interval: Interval | None = None  # 95 % confidence interval; None where there is none

    def text(self, digits: int) -> str:
        """`41.2 ± 3.1`, without the interval."""
        mean = f"{self.mean:.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"

    def plain(self) -> object:
        """For JSON; a bare number where there is neither spread nor interval."""
        parts = {"mean": self.mean, "std": self.deviation}
        if self.interval is not None:
            parts |= {"low": self.interval.low, "high": self.interval.high}
        given = {name: _plain_number(value) for name, value in parts.items() if value is not None}
        return given["mean"] if len(given) == 1 else given


@dataclass(frozen=True)
class BoxesMasks:
    """A figure of boxes and of masks in one cell; None = not given."""

    boxes: float | None
    masks: float | None

    def text(self, digits: int) -> str:
        """`38.2 / 36.9`."""
        return f"{cell_text(self.boxes, digits)} / {cell_text(self.masks, digits)}"

    def plain(self) -> object:
        """For JSON."""
        return {"boxes": plain_cell(self.boxes), "masks": plain_cell(self.masks)}


@dataclass(frozen=True)
class Duration:
    """A time in seconds."""

    seconds: float

    def text(self, _digits: int) -> str:
        """`12.3 s`, `4 min 07 s` or `1 h 02 min`."""
        if self.seconds < 59.95:
            return f"{self.seconds:.1f} s"
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"

    def plain(self) -> object:
        """For JSON, in seconds."""
        return _plain_number(self.seconds)


@dataclass(frozen=True)
class Span:
    """A part of a text that stands out."""

    text: str  # to be shown to the letter
    look: Literal["strong", "code", "link"]
    target: str = ""


Words: TypeAlias = str | tuple[str | Span, ...]
"""A text, in parts where some of them stand out."""

Cell: TypeAlias = str | int | float | Measured | BoxesMasks | Duration | Span | None
"""What a table's cell holds; None = there is nothing to say."""


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, and of a column of numbers the digits after the point."""

    title: str
    digits: int = 1
    number: bool = True


@dataclass(frozen=True)
class Row:
    """A table's row, as many cells as the table has columns; `main` rows stand out."""

    cells: tuple[Cell, ...]
    main: bool = False


@dataclass(frozen=True)
class Table:
    """A table."""

    # Headings of the first columns, which hold text; a page leaves out a first cell that repeats the one
    # above it, if there are several such columns.
    texts: tuple[str, ...]
    numbers: tuple[Column, ...]
    rows: tuple[Row, ...]
    key: str = ""  # its name among the section's plain numbers

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        numbers: Iterable[str | Column],
        rows: Iterable[Row | Sequence[Cell]],
        key: str = "",
    ) -> Self:
        """A table of plain headings and plain rows."""
        columns = tuple(Column(one) if isinstance(one, str) else one for one in numbers)
        return cls(
            tuple(texts), columns, tuple(r if isinstance(r, Row) else Row(tuple(r)) for r in rows), key
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        """All of them, from left to right."""
        return (*(Column(text, number=False) for text in self.texts), *self.numbers)


@dataclass(frozen=True)
class Text:
    """A paragraph; what only explains is `muted`."""

    text: Words
    muted: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[Words, ...]


@dataclass(frozen=True)
class Subheading:
    """Title of a part of a section."""

    text: str


@dataclass(frozen=True)
class Command:
    """A line to run in a shell."""

    text: str


@dataclass(frozen=True)
class Figure:
    """An image file."""

    file: str  # relative to the report's folder
    title: str  # what is said in its place where it cannot be seen
    caption: Words
    plain: object = None  # what the plain numbers say of it; None = nothing


@dataclass(frozen=True)
class Charts:
    """Charts beside each other where there is room."""

    charts: Mapping[str, Chart]  # by a name of its own in the page, which can be a file's
    folder: str = ""  # where a PNG of each lies for the Markdown; empty = the Markdown does without
    note: str = ""


@dataclass(frozen=True)
class Fold:
    """A section that a page shows only after a click."""

    summary: str
    blocks: tuple["Block", ...]


Block: TypeAlias = Table | Text | Bullets | Subheading | Command | Figure | Charts | Fold


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str  # heading; empty = none
    blocks: tuple[Block, ...]
    key: str = ""  # its anchor, and its name among the plain numbers
    plain: object = None  # its numbers, fit for JSON; None = those of its tables


@dataclass(frozen=True)
class Card:
    """A figure in large, and the same of every model as a bar."""

    key: str
    title: str
    figure: Measured | None  # the main model's; None where there is none
    # Name of a model, its figure in percent, whether it is the main one.
    bars: tuple[tuple[str, float, bool], ...]


@dataclass(frozen=True)
class Report:
    """A report: title, what it is in one sentence, facts, warnings, cards and sections."""

    title: Words
    lead: Words = ""
    facts: tuple[Words, ...] = ()
    warnings: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    sections: tuple[Section, ...] = ()


def coded(text: str) -> Words:
    """A text of the project's own, in which `backticks` mark code."""
    return tuple(Span(part, "code") if place % 2 else part for place, part in enumerate(text.split("`")))


def cell_text(cell: Cell, digits: int = 1) -> str:
    """A cell as text, without its interval; `-` for None, and digits after the point of what has any."""
    match cell:
        case None:
            return "-"
        case str():
            return cell
        case int():
            return f"{cell:,}"
        case float():
            return f"{cell:.{digits}f}"
        case Span():
            return cell.text
        case _:
            return cell.text(digits)


def counted(number: int, one: str, many: str) -> str:
    """`1 class`, `2 classes`."""
    return f"{number} {one if number == 1 else many}"


def interval_text(cell: Cell, digits: int = 1) -> str:
    """`38.0 to 44.5`, or nothing for a cell without an interval."""
    if not isinstance(cell, Measured) or cell.interval is None:
        return ""
    return f"{cell.interval.low:.{digits}f} to {cell.interval.high:.{digits}f}"


def plain_cell(cell: Cell) -> object:
    """A cell as JSON holds it, rounded to 4 digits after the point."""
    match cell:
        case None | str() | int():
            return cell
        case float():
            return _plain_number(cell)
        case Span():
            return cell.text
        case _:
            return cell.plain()


def _plain_number(value: float) -> float | None:
    """JSON knows no infinity."""
    return round(value, 4) if math.isfinite(value) else None
