"""Options that several verbs share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
Images = Annotated[Path, typer.Option(help="Folder that the annotations' file names are relative to.")]
PromptsFile = Annotated[
    Path, typer.Option(help="COCO file; all its instances are prompts of their category.")
]
TargetsFile = Annotated[Path, typer.Option(help="COCO file with the ground truth to find.")]
RoiOption = Annotated[Roi, typer.Option(help="Prompt with the boxes or with the masks.")]
