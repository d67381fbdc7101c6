"""Reports as HTML and Markdown, by the templates beside this file, and as plain numbers for JSON."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from typing import get_args

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unispector.reporting.charts import Chart, svg
from unispector.reporting.model import (
    Block,
    Charts,
    Figure,
    Fold,
    Measured,
    Report,
    Section,
    Span,
    Table,
    Words,
    cell_text,
    interval_text,
    plain_cell,
)

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|~]|&(?=#?\w+;)")
_LEADING = re.compile(r"^(\d{1,9}(?=[.)](?:\s|$))|(?=#{1,6}(?:\s|$)|[-+](?:\s|$)|--|==))")
_TARGET = str.maketrans({"<": "%3C", ">": "%3E", "\\": "%5C", "\n": "%0A", "\r": "%0D"})


def html(report: Report, images: Mapping[str, str] | None = None) -> str:
    """The report as one HTML page that needs nothing beside it: no script, no request, images inside.

    Args:
        images: data URI of every figure, by its file.

    Raises:
        UndefinedError: a figure is not among `images`.
    """
    return _environment("html").get_template("report.html").render(report=report, images=dict(images or {}))


def markdown(report: Report) -> str:
    """The report as a Markdown page; figures and charts are linked relative to its folder."""
    page = _environment("markdown").get_template("report.md").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def plain_numbers(report: Report) -> dict[str, object]:
    """All numbers of a report, fit for JSON.

    Returns:
        `facts`, `warnings`, the cards' figures, and section -> table -> rows by column heading; a section's
        figures are under `pictures`, and one with numbers of its own is what it says.
    """
    return {
        "facts": [plain_text(fact) for fact in report.facts],
        "warnings": list(report.warnings),
        "headline": {card.key: plain_cell(card.figure) for card in report.cards},
        "sections": {
            section.key: _plain_blocks(section) if section.plain is None else section.plain
            for section in report.sections
        },
    }


def plain_text(words: Words) -> str:
    """A text without what makes parts of it stand out."""
    return "".join(part if isinstance(part, str) else part.text for part in _parts(words))


def charts_of(section: Section) -> dict[str, Chart]:
    """All charts of a section, by their names."""
    found = (block.charts for block in _unfolded(section.blocks) if isinstance(block, Charts))
    return {name: chart for charts in found for name, chart in charts.items()}


@cache
def _environment(form: str) -> Environment:
    """Both escape whatever is put in a template; Markdown by its own rules, before HTML's see it."""
    environment = Environment(
        loader=PackageLoader("unispector.reporting"),
        autoescape=True,
        finalize=_escaped if form == "markdown" else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {
        kind.__name__.lower(): lambda value, kind=kind: isinstance(value, kind)
        for kind in (*get_args(Block), Measured, Span)
    }
    environment.filters |= {
        "cell_text": cell_text,
        "interval_text": interval_text,
        "parts": _parts,
        "plain_text": plain_text,
        "start": _start,
        "code": _code,
        "line": lambda text: Markup(_line(text)),
        "target": lambda path: Markup(path.translate(_TARGET)),
        "svg": lambda chart, name: Markup(svg(chart, name)),
    }
    environment.globals["zip"] = partial(zip, strict=True)
    return environment


def _escaped(value: object) -> Markup:
    """Text as Markdown shows it to the letter, on one line; what a template made is left alone."""
    if isinstance(value, Markup):
        return value
    return Markup(_SPECIAL.sub(r"\\\g<0>", _line(str(value))))


def _start(value: object) -> Markup:
    """Escape the start of a line, so that it begins no other element, such as a list."""
    return Markup(_LEADING.sub(r"\1\\", _escaped(value).strip()))


def _code(text: str, in_table: bool = False) -> Markup:
    """Text as a code span of Markdown, fenced by more backticks than it has in a row."""
    line = _line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    span = f"{fence}{space}{line}{space}{fence}"
    return Markup(span.replace("|", r"\|") if in_table else span)


def _line(text: str) -> str:
    return " ".join(text.splitlines())


def _parts(words: Words) -> tuple[str | Span, ...]:
    return (words,) if isinstance(words, str) else words


def _plain_blocks(section: Section) -> dict[str, object]:
    blocks = list(_unfolded(section.blocks))
    tables = {block.key: _plain_rows(block) for block in blocks if isinstance(block, Table)}
    pictures = [block.plain for block in blocks if isinstance(block, Figure) and block.plain is not None]
    return {**tables, **({"pictures": pictures} if pictures else {})}


def _unfolded(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Fold):
            yield from _unfolded(block.blocks)
        else:
            yield block


def _plain_rows(table: Table) -> list[dict[str, object]]:
    headings = [column.title or "source" for column in table.columns]
    return [dict(zip(headings, map(plain_cell, row.cells), strict=True)) for row in table.rows]
