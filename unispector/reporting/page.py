"""The report as one HTML page that needs nothing beside it: no script, no request, pictures inside."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import assert_never

from unispector.evaluation.results import PictureRecord
from unispector.reporting.content import (
    Block,
    Bullets,
    Card,
    Cell,
    Command,
    Content,
    Drawing,
    Figures,
    Fold,
    Measured,
    PreparedSection,
    Section,
    Subheading,
    Table,
    Text,
    cell_text,
    interval_text,
)
from unispector.reporting.page_style import STYLE
from unispector.reporting.report_files import picture_title
from unispector.reporting.tables import scrolling_table


def html_page(content: Content, images: Mapping[str, str]) -> str:
    """The report as an HTML page.

    Args:
        content: what it says.
        images: data URI of every picture, by its file.
    """
    parts = [_head(content), *(_section(section, images) for section in content.sections)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(content.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{_contents(content)}\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def _contents(content: Content) -> str:
    links = (f'<a href="#{section.key}">{escape(section.title)}</a>' for section in content.sections)
    return f'<nav aria-label="Contents"><div>{"".join(links)}</div></nav>'


def _head(content: Content) -> str:
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in content.facts)
    warnings = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in content.warnings)
    return (
        f'<header><h1>{escape(content.title)}</h1>\n<p class="muted">{escape(content.lead)}</p>\n{warnings}'
        f'<div class="cards">{"".join(map(_card, content.cards))}</div>\n'
        f'<ul class="facts">{facts}</ul></header>'
    )


def _card(card: Card) -> str:
    """The main figure in large, and a bar for each model."""
    interval = interval_text(card.figure)
    small = f'<span class="interval">95 % interval {interval}</span>' if interval else ""
    bars = "".join(
        f'<div class="bar{" main" if main else ""}"><span>{escape(name)}</span>'
        f'<span class="track"><span class="fill" style="width:{value:.1f}%"></span></span>'
        f"<span>{value:.1f}</span></div>"
        for name, value, main in card.bars
    )
    figure = cell_text(card.figure)
    return (
        f'<section class="card"><h3>{escape(card.title)}</h3><div class="big">{figure}{small}</div>{bars}'
        "</section>"
    )


def _section(section: Section | PreparedSection, images: Mapping[str, str]) -> str:
    if isinstance(section, PreparedSection):
        body = section.html
    else:
        blocks = "\n".join(_block(block, images) for block in section.blocks)
        body = f"<h2>{escape(section.title)}</h2>\n{blocks}"
    return f'<section id="{section.key}">\n{body}\n</section>'


def _block(block: Block, images: Mapping[str, str]) -> str:
    match block:
        case Drawing():
            html = block.html
        case Table():
            html = _table(block)
        case Text(text, muted):
            html = f"<p{_class('muted' if muted else '')}>{escape(text)}</p>"
        case Bullets(items):
            html = "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
        case Subheading(text):
            html = f"<h3>{escape(text)}</h3>"
        case Command(text):
            html = f"<code>{escape(text)}</code>"
        case Figures(pictures):
            html = "\n".join(_figure(picture, images[picture.file]) for picture in pictures)
        case Fold(summary, blocks):
            inner = "\n".join(_block(block, images) for block in blocks)
            html = f"<details><summary>{escape(summary)}</summary>\n{inner}\n</details>"
        case _:
            assert_never(block)
    return html


def _figure(picture: PictureRecord, uri: str) -> str:
    title = escape(picture_title(picture))
    note = f"<b>{escape(picture.note)}</b> " if picture.note else ""
    return (
        f'<figure><img src="{uri}" alt="{title}">'
        f"<figcaption>{note}{title} · {escape(picture.image)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in table.texts)
    head += "".join(f'<th class="number">{escape(column.title)}</th>' for column in table.numbers)
    return scrolling_table(head, list(_rows(table)))


def _rows(table: Table) -> Iterator[str]:
    above: Cell = None
    for row in table.rows:
        texts = row.cells[: len(table.texts)]
        repeated = len(texts) > 1 and texts[0] == above
        above = texts[0]
        cells = ["" if repeated else escape(cell_text(texts[0])), *(escape(cell_text(t)) for t in texts[1:])]
        numbers = zip(table.numbers, row.cells[len(texts) :], strict=True)
        classes = " ".join(("main",) * row.main + ("first",) * (len(texts) > 1 and not repeated))
        yield (
            f"<tr{_class(classes)}>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "".join(f'<td class="number">{_number(cell, column.digits)}</td>' for column, cell in numbers)
            + "</tr>"
        )


def _number(cell: Cell, digits: int) -> str:
    """A number; spread and interval are smaller than what matters."""
    if not isinstance(cell, Measured):
        return escape(cell_text(cell, digits))
    figure, sign, spread = cell_text(cell, digits).partition(" ± ")
    interval = interval_text(cell, digits)
    return (
        figure
        + (f' <span class="spread">± {spread}</span>' if sign else "")
        + (f"<small>{interval}</small>" if interval else "")
    )


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""
