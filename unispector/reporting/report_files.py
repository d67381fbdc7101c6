"""The report as Markdown, and as plain numbers for JSON; `page` makes the HTML."""

from collections.abc import Iterable, Iterator
from typing import assert_never

from unispector.evaluation.results import SUBSETS, PictureRecord
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
    PreparedSection,
    Row,
    Section,
    Subheading,
    Table,
    Text,
    cell_text,
    interval_text,
    plain_cell,
)
from unispector.reporting.tables import escaped, markdown_table


def markdown(content: Content) -> str:
    """The report as a Markdown page; pictures are linked relative to the report's folder."""
    lines = [f"# {content.title}", "", content.lead, ""]
    lines += [f"- {escaped(fact)}" for fact in content.facts]
    lines += [line for warning in content.warnings for line in ("", f"**{escaped(warning)}**")]
    lines += ["", *(f"- {escaped(_headline(card))}" for card in content.cards)]
    for section in content.sections:
        lines += ["", *_section_lines(section)]
    return "\n".join(lines) + "\n"


def picture_title(picture: PictureRecord) -> str:
    """Set, subset and classes in one line."""
    return f"{picture.data_set}, {SUBSETS[picture.subset]}: {', '.join(picture.classes)}"


def plain_report(content: Content) -> dict[str, object]:
    """All numbers of the report, fit for JSON.

    Returns:
        `facts`, `warnings`, the cards' figures, and section -> table -> rows by column heading; the
        section's pictures are under `pictures`, a prepared section is what its maker says.
    """
    return {
        "facts": list(content.facts),
        "warnings": list(content.warnings),
        "headline": {card.key: plain_cell(card.figure) for card in content.cards},
        "sections": {
            section.key: (
                section.plain if isinstance(section, PreparedSection) else _plain_blocks(section.blocks)
            )
            for section in content.sections
        },
    }


def _headline(card: Card) -> str:
    interval = interval_text(card.figure)
    return f"{card.title}: {cell_text(card.figure)}" + (f" (95 %: {interval})" if interval else "")


def _section_lines(section: Section | PreparedSection) -> list[str]:
    if isinstance(section, PreparedSection):
        return [section.markdown]
    return [f"## {section.title}", *(line for block in section.blocks for line in _block_lines(block))]


def _block_lines(block: Block) -> list[str]:
    """A block's lines, an empty one first."""
    lines: Iterable[str]
    match block:
        case Drawing():
            return []
        case Table():
            lines = _table_lines(block)
        case Text(text):
            lines = [escaped(text)]
        case Bullets(items):
            lines = [f"- {escaped(item)}" for item in items]
        case Subheading(text):
            lines = [f"### {escaped(text)}"]
        case Command(text):
            lines = [f"    {text}"]
        case Figures(pictures):
            return [line for picture in pictures for line in _picture_lines(picture)]
        case Fold(summary, blocks):
            lines = [f"**{escaped(summary)}**", *(line for inner in blocks for line in _block_lines(inner))]
        case _:
            assert_never(block)
    return ["", *lines]


def _table_lines(table: Table) -> list[str]:
    headings = [column.title for column in table.numbers]
    return markdown_table(table.texts, headings, [_row_texts(table, row) for row in table.rows])


def _row_texts(table: Table, row: Row) -> list[str]:
    texts = row.cells[: len(table.texts)]
    numbers = zip(table.numbers, row.cells[len(table.texts) :], strict=True)
    return [*map(cell_text, texts), *(_number_text(cell, column.digits) for column, cell in numbers)]


def _number_text(cell: Cell, digits: int) -> str:
    interval = interval_text(cell, digits)
    return f"{cell_text(cell, digits)} ({interval})" if interval else cell_text(cell, digits)


def _picture_lines(picture: PictureRecord) -> Iterator[str]:
    title = escaped(picture_title(picture))
    yield from ("", f"**{title}**")
    if picture.note:
        yield from ("", escaped(picture.note))
    yield from ("", f"![{title}](<{picture.file}>)")


def _plain_blocks(blocks: Iterable[Block]) -> dict[str, object]:
    plain: dict[str, object] = {}
    pictures: list[object] = []
    for block in _unfolded(blocks):
        if isinstance(block, Table):
            plain[block.key] = _plain_rows(block)
        elif isinstance(block, Figures):
            pictures += [vars(picture) for picture in block.pictures]
    return {**plain, **({"pictures": pictures} if pictures else {})}


def _unfolded(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Fold):
            yield from _unfolded(block.blocks)
        else:
            yield block


def _plain_rows(table: Table) -> list[dict[str, object]]:
    headings = [*(title or "source" for title in table.texts), *(column.title for column in table.numbers)]
    return [dict(zip(headings, map(plain_cell, row.cells), strict=True)) for row in table.rows]
