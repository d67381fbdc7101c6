"""`unispector data`: raw releases come in, or are drawn."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import group

_ADD_HELP = """Add a raw release to the pipeline: under data/raw, in DVC's care and in params.yaml.

\b
  unispector data add magnetic_tile /path/to/the/release
  unispector data add voc my-set/ --name my-set
  make repro

`unispector convert --list` says what each kind of release looks like. The release is copied, its tar
archives unpacked; one of many files is kept in zip archives, so that DVC stays fast. What is done already
is not done again."""

_DRAW_HELP = """Draw a set of defects to train on: many classes, few images each, exact masks.

\b
  unispector data draw drawn
  unispector data draw drawn-on-ours --surfaces photos-of-good-parts/ --parts 4
  unispector data add coco drawn-on-ours --name drawn-on-ours

Scratches, stains, dents, cracks and thirty other families, on drawn parts or on cut-outs of your own good
images, which are dealt out to as many parts as asked for. The defects of a class resemble one another. A
detector learns to find unseen classes by seeing many; what it is worth: reports/training_log.md. The
generator is part of the checkout only."""

data_app = group("Bring raw data, or draw them.")


@data_app.command("add", help=_ADD_HELP)
def data_add(
    source: Annotated[str, typer.Argument(help="Kind of release; see `unispector convert --list`.")],
    folder: Annotated[Path, typer.Argument(help="The release's folder; it is only read.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the set; needed for one of your own.", metavar="NAME")
    ] = None,
) -> None:
    """Add a raw release to the pipeline."""
    from unispector.data.add import add

    report = add(source, folder, name)
    typer.echo(
        f"{report.set_name}: {report.images} images with defects in {report.folder}; "
        "`make repro` takes them in"
    )


@data_app.command("draw", help=_DRAW_HELP)
def data_draw(
    out: Annotated[
        Path, typer.Argument(help="Folder to make; an older drawn set there is replaced.", metavar="OUT")
    ],
    surfaces: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of images of good parts.")
    ] = None,
    parts: Annotated[int, typer.Option(min=1, help="Kinds of parts.")] = 2,
    classes: Annotated[int, typer.Option(min=1, help="Classes of each part.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 10,
    good: Annotated[int, typer.Option(min=0, help="Images without a defect of each part.")] = 4,
    size: Annotated[int, typer.Option(min=64, help="Height of an image in pixels, about.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws another set.")] = 42,
    without: Annotated[
        list[str] | None, typer.Option(help="Family that is not drawn; repeat for more.", metavar="FAMILY")
    ] = None,
) -> None:
    """Draw a set of defects to train on."""
    from unispector.data.drawn_set import DrawnSet, draw

    drawn = DrawnSet(seed, parts, classes, images, good, size, tuple(without or ()))
    count = draw(drawn, surfaces, out)
    typer.echo(
        f"{out}: {count} images, {parts * classes} classes; to train on them: "
        f"unispector data add coco {out} --name {out.resolve().name}"
    )
