"""`unispector export`: what was found, as pre-annotations of labelling tools."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unispector.scores import DEFAULT_SCORE

EXPORT_HELP = """Write what `detect` found for a labelling tool, to be corrected there.

\b
  unispector detect photos/ --bank bank.safetensors --out found
  unispector export found/detections.json label_studio --out tasks
  unispector export found/detections.json cvat --shape polygon --out cvat

\b
label_studio  tasks.json to import (tasks with predictions), labelling.xml for the project's
              Labeling Interface; --address is where Label Studio has the images
cvat          annotations.xml, to upload as "CVAT 1.1" to a task of the same images
labelme       a file for each image, which names it
yolo          data.yaml and labels/, beside which your images go into images/

What was corrected there comes back with `unispector convert label_studio`, `cvat`, `labelme` or `yolo`.
docs/tools.md has the steps."""


class ToolName(StrEnum):
    """Tools that are written for."""

    LABEL_STUDIO = "label_studio"
    CVAT = "cvat"
    LABELME = "labelme"
    YOLO = "yolo"


class ShapeName(StrEnum):
    """What a detection is written as."""

    MASK = "mask"
    POLYGON = "polygon"
    BOX = "box"


def export(
    record: Annotated[
        Path, typer.Argument(metavar="DETECTIONS.JSON", help="What `unispector detect` wrote.")
    ],
    tool: Annotated[ToolName, typer.Argument(help="Tool to write for.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write to, empty or new.")],
    shape: Annotated[
        ShapeName, typer.Option(help="What a detection becomes; labelme always gets masks.")
    ] = ShapeName.MASK,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out detections that score less.")
    ] = DEFAULT_SCORE,
    address: Annotated[
        str,
        typer.Option(help="Beginning of Label Studio's address of an image, such as s3://bucket/line3/."),
    ] = "/data/local-files/?d=",
) -> None:
    """Write what was found for a labelling tool."""
    from unispector.inference.export import export as run

    images = run(record, tool.value, out, shape=shape.value, min_score=min_score, address=address)
    typer.echo(f"{sum(len(each.found) for each in images)} detections on {len(images)} images: {out}")
