"""Tables for pages, as HTML and as Markdown."""

from collections.abc import Sequence
from html import escape


def html_table(texts: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways where it is wider than the page.

    Args:
        texts: headings of the first columns, which are aligned to the left.
        numbers: headings of the rest, aligned to the right.
        rows: cells, plain text.
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in texts)
    head += "".join(f'<th class="number">{escape(text)}</th>' for text in numbers)
    return scrolling_table(head, ["<tr>" + _cells(row, len(texts)) + "</tr>" for row in rows])


def scrolling_table(head: str, rows: Sequence[str]) -> str:
    """The table around a heading's cells and rows that are HTML already."""
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def _cells(row: Sequence[str], texts: int) -> str:
    cells = [f"<td>{escape(cell)}</td>" for cell in row[:texts]]
    return "".join([*cells, *(f'<td class="number">{escape(cell)}</td>' for cell in row[texts:])])


def markdown_table(texts: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; arguments as of `html_table`."""
    rule = ["---"] * len(texts) + ["---:"] * len(numbers)
    body = [[escaped(cell) for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in [[*texts, *numbers], rule, *body]]


def escaped(text: str) -> str:
    """Text as Markdown shows it to the letter, on one line."""
    line = " ".join(text.splitlines())
    return "".join(f"\\{character}" if character in r"\`*_{}[]<>|" else character for character in line)
