"""`unispector convert` and `unispector data`: images of other tools and raw releases come in."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.groups import group
from unispector.errors import DataError

if TYPE_CHECKING:
    from unispector.data.convert import ConversionReport

CONVERT_HELP = """Turn a folder of annotated images into one checked COCO file.

\b
  unispector convert --list
  unispector convert voc my-set/ --out my-set.json
  unispector convert mvtec_ad /data/MVTec-AD --out mvtec.json

Reads InsA's seven raw releases as they are distributed, and sets of your own: coco, voc, yolo, labelme,
masks. Beside OUT.json it writes what was read, kept and dropped, by reason (OUT.report.json), every
dropped file (OUT.dropped.csv), a table of the images (OUT.survey.parquet) and the checks
(OUT.checks.json). `unispector data add` brings a set into the pipeline instead."""

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


def convert(
    name: Annotated[str | None, typer.Argument(help="Kind of release; see --list.")] = None,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of the release; it is only read.", metavar="RAW_DIR")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="COCO file to write.", metavar="OUT.json")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Say what each kind looks like and where it is published.")
    ] = False,
    min_side: Annotated[
        float, typer.Option(min=0, max=0.5, help="Smaller share of the image's sides drops a component.")
    ] = 0.01,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 = one per core.")] = 0,
) -> None:
    """Turn a folder of annotated images into one checked COCO file."""
    from unispector.data.convert_release import convert_release, list_sources

    if list_:
        typer.echo(list_sources())
        return
    if name is None or folder is None or out is None:
        raise DataError("convert needs NAME, RAW_DIR and --out OUT.json; `unispector convert --list` helps")
    outcome = convert_release(name, folder, out, min_side=min_side, workers=workers)
    typer.echo(told(outcome.conversion))
    typer.echo(f"{outcome.checks.summary()}: {out}")


def told(report: "ConversionReport") -> str:
    """Return a line on what was kept, and a line per reason why something was not."""
    kept, read = sum(report.instances_kept.values()), sum(report.instances_read.values())
    lines = [
        f"{report.name}: {report.images_kept} of {report.images_read} images, {kept} of {read} instances"
    ]
    for drop in report.dropped:
        instances = f", {drop.instances} instances" if drop.instances else ""
        more = ", ..." if drop.files > 1 else ""
        lines.append(f"  {drop.reason}: {drop.files} files{instances} ({', '.join(drop.examples[:1])}{more})")
    return "\n".join(lines)


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
