"""Parts that verbs are made of: shared options, groups, and the file of parameters."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from unispector.errors import DataError
from unispector.scores import DEFAULT_SCORE

if TYPE_CHECKING:
    from unispector.config import Config


_ORDER = "unispector.order"


class Roi(StrEnum):
    """The part of an annotated instance that is the prompt."""

    BOX = "box"
    MASK = "mask"


Model = Annotated[
    str,
    typer.Option(
        help="`fast` or `accurate`, a folder with model.safetensors and config.json, or an MLflow run id.",
        metavar="MODEL",
    ),
]
Bank = Annotated[
    Path | None,
    typer.Option(help="Instead of --prompt: a bank that was saved, or the folder of a prompt store."),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Lowest score that counts; without it that of each class's calibration, else "
        f"{DEFAULT_SCORE:g}.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="Where the model runs: cpu, cuda, cuda:1. By default a GPU where there is one."),
]
Images = Annotated[Path, typer.Option(help="Folder that the annotations' file names are relative to.")]
PromptsFile = Annotated[
    Path, typer.Option(help="COCO file; all its instances are prompts of their category.")
]
TargetsFile = Annotated[Path, typer.Option(help="COCO file with the ground truth to find.")]
TileOption = Annotated[
    str,
    typer.Option(
        metavar="auto|SIDE|off",
        help="Search large images in square tiles of SIDE pixels; auto: where the marks are too small to be "
        "seen on the whole image.",
    ),
]
BitDepth = Annotated[
    int | None, typer.Option(min=8, max=16, help="Bits that 16-bit images really use, prompts too, e.g. 12.")
]
RoiOption = Annotated[Roi, typer.Option(help="Prompt with the boxes or with the masks.")]


class OrderedCommand(TyperCommand):
    """A verb that can ask in which order its options were given; see `option_order`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as ever, and remember the order."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def option_order(context: typer.Context) -> list[str]:
    """Names of a verb's parameters, one for each time it was given, in the order of the command line."""
    names: list[str] = context.meta[_ORDER]
    return names


def group(help_text: str) -> typer.Typer:
    """An empty group of verbs."""
    return typer.Typer(
        help=help_text, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def tile_side(text: str) -> Literal["auto"] | int:
    """What `--tile` asks for; 0 = no tiles."""
    if text == "auto":
        return "auto"
    from unispector.inference.bank_checks import LEAST_SIDE

    if text != "off" and not (text.isascii() and text.isdecimal() and int(text) >= LEAST_SIDE):
        raise DataError(
            f"--tile {text}: give auto, off, or the side of a tile in pixels, {LEAST_SIDE} or more"
        )
    return 0 if text == "off" else int(text)


def params() -> "Config":
    """`params.yaml` of the working folder."""
    from unispector.config import load_config

    return load_config()
