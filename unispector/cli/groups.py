"""Helpers shared by all command groups."""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from unispector.config import Config


def group(help_text: str) -> typer.Typer:
    """An empty group of verbs."""
    return typer.Typer(
        help=help_text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def params() -> "Config":
    """`params.yaml` of the working folder."""
    from unispector.config import load_config

    return load_config()
