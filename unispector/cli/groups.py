"""Helpers shared by all command groups."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unispector.config import Config


def group(help_text: str) -> typer.Typer:
    """An empty group of verbs."""
    return typer.Typer(
        help=help_text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def columns(rows: "Sequence[Sequence[str]]") -> list[str]:
    """The rows as lines, their columns under one another."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def params() -> "Config":
    """`params.yaml` of the working folder."""
    from unispector.config import load_config

    return load_config()
