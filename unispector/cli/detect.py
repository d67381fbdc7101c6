"""`unispector detect`: find the prompted defects on images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.parts import Model, TileOption, tile_side
from unispector.errors import DataError

if TYPE_CHECKING:
    from unispector.inference.detector import Prompt

DETECT_HELP = """Find the prompted defects on images.

\b
One marked image:
  unispector detect photos/ --prompt bad.png --box 120,80,40,24 --out found
Two defects, one of them marked twice:
  unispector detect photos/ --out found \\
    --prompt a.png --box 120,80,40,24 --label crack \\
    --prompt a.png --box 300,12,25,60 --label crack \\
    --prompt b.png --box 64,64,20,20  --label hole
Holes of 30 pixels on images of 100 megapixels, marked on a small part of one:
  unispector detect scans/ --out found --prompt part.png --box 64,64,30,30 --tile 448

Writes one drawn image per target to OUT/pictures, and OUT/detections.json: a COCO file whose
annotations carry boxes, masks and scores (those of at least 0.05, or of --min-score if that is lower).
Images that an earlier run drew into OUT are removed. Subfolders of a folder are not searched."""


def detect(
    targets: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="TARGET")],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder to write detections.json and pictures/ to.")
    ],
    model: Model = "fast",
    prompt: Annotated[
        list[Path] | None, typer.Option(help="Image that shows the defect; repeat for more.")
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Left, top, width, height in pixels; the n-th belongs to the n-th --prompt.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Name of the defect: one for all prompts, or one per --prompt.")
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Instead of --prompt: a bank made by `prompts build`.")
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Lowest score that is drawn.")] = 0.15,
    tile: TileOption = "auto",
) -> None:
    """Find the prompted defects on images."""
    from unispector.tracking.model_reference import find_model

    directory = find_model(model)
    side = tile_side(tile)
    marked = _prompts(prompt or [], box or [], label or [], bank)

    from unispector.inference.detect import detect as run

    report = run(directory, targets, marked, out, min_score=min_score, tile=side)
    typer.echo(
        f"{report.images} images, {report.detections} detections, "
        f"{report.drawn} drawn (score >= {min_score:g}): {report.output / 'detections.json'}"
    )
    if not report.drawn and report.highest is not None:
        typer.echo(f"the highest score is {report.highest:.3f}; --min-score draws from a lower one")


def _prompts(
    images: Sequence[Path], boxes: Sequence[str], labels: Sequence[str], bank: Path | None
) -> "list[Prompt] | Path":
    """The prompts of the command line; each box belongs to the prompt at its position."""
    if bank is not None:
        if images or boxes or labels:
            raise DataError("--bank already holds the prompts; leave out --prompt, --box and --label")
        return bank
    if not images:
        raise DataError("nothing to look for; give --prompt and --box, or --bank")
    if len(boxes) != len(images):
        raise DataError(
            f"{len(images)} --prompt but {len(boxes)} --box; give each --prompt one --box "
            "(repeat both to mark an image twice)"
        )
    if len(labels) not in (0, 1, len(images)):
        raise DataError(f"{len(images)} --prompt but {len(labels)} --label; give one for all, or one each")
    names = list(labels) if len(labels) == len(images) else [*labels, "defect"][:1] * len(images)

    from unispector.inference.detector import Prompt

    marks = zip(images, map(_box, boxes), names, strict=True)
    return [Prompt(image, [box], label=name) for image, box, name in marks]


def _box(text: str) -> tuple[float, ...]:
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"--box {text}: four numbers are needed, X,Y,W,H in pixels") from error
    return left, top, width, height
