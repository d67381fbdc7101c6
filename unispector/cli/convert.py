"""`unispector convert`: annotated images of other tools and raw releases become one COCO file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.errors import DataError

if TYPE_CHECKING:
    from unispector.data.convert import ConversionReport

CONVERT_HELP = """Turn a folder of annotated images into one checked COCO file.

\b
  unispector convert --list
  unispector convert voc my-set/ --out my-set.json
  unispector convert label_studio export/ --out my-set.json
  unispector convert mvtec_ad /data/MVTec-AD --out mvtec.json

Reads InsA's seven raw releases as they are distributed, and sets of your own: coco, voc, yolo, labelme,
label_studio, cvat, masks. Beside OUT.json it writes what was read, kept and dropped, by reason
(OUT.report.json), every dropped file (OUT.dropped.csv), a table of the images (OUT.survey.parquet) and
the checks (OUT.checks.json). `unispector data add` brings a set into the pipeline instead."""


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
    typer.echo(f"{out}: {outcome.checks.summary()}")


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
