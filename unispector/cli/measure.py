"""`unispector measure`: a model judged one class at a time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.parts import Model, Roi, RoiOption
from unispector.errors import DataError

if TYPE_CHECKING:
    from unispector.benchmark.one_class import MarkedSet, OneClassSettings

MEASURE_HELP = """Measure a model one class at a time, beside the floor without training.

\b
  unispector measure set.json --images photos --good clean_photos --out measured
  unispector measure /data/Magnetic-Tile --source magnetic_tile --roi mask --out measured

Of each class five images are marked, all its instances on them; other images that show it are targets,
and so again with every prompt seed. Writes OUT/measure.md (AP50 of boxes and masks, false alarms at the score
that finds half of the defects, how well the marked boxes are given back, how far a score can be trusted,
processor time), OUT/measure.json and OUT/pictures with failures. A raw release brings its own defect-free
images."""

Set = Annotated[
    Path, typer.Argument(metavar="SET", help="COCO file; or, with --source, the folder of a raw release.")
]
SetImages = Annotated[Path | None, typer.Option(help="Folder that the COCO file's names are relative to.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Kind of release that SET is; `unispector convert --list` names them.")
]
Good = Annotated[Path | None, typer.Option(help="Folder of defect-free images.")]
Seeds = Annotated[str, typer.Option(help="A draw of prompts and targets each.", metavar="A,B,...")]
Targets = Annotated[int, typer.Option(min=1, help="Targets a class, at most, and defect-free images.")]


def measure(
    set_: Set,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder to write measure.md, measure.json and pictures/ to.")
    ],
    images: SetImages = None,
    source: SourceOption = None,
    model: Model = "fast",
    roi: RoiOption = Roi.BOX,
    prompt_seeds: Seeds = "42,82,777",
    targets: Targets = 40,
    good: Good = None,
    floor: Annotated[bool, typer.Option(help="Judge matching without training as well.")] = True,
) -> None:
    """Measure a model one class at a time."""
    from unispector.benchmark.measure import write_measurement
    from unispector.tracking.model_reference import find_model

    directory, settings = find_model(model), settings_of(roi, prompt_seeds, targets)
    report = write_measurement(directory, read_set(set_, images, source, good), settings, out, floor=floor)
    for figures in report.detectors:
        boxes, masks = figures.mean("box_ap50"), figures.mean("mask_ap50")
        told = [
            f"{kind} {spread.mean:.1f}" for kind, spread in (("boxes", boxes), ("masks", masks)) if spread
        ]
        typer.echo(f"{figures.name}: AP50 {', '.join(told)}")
    typer.echo(out / "measure.md")


def settings_of(roi: Roi, seeds: str, targets: int) -> "OneClassSettings":
    """How to measure, by the options.

    Raises:
        DataError: the seeds are no whole numbers of 0 or more.
    """
    from unispector.benchmark.one_class import OneClassSettings

    try:
        numbers = tuple(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError as error:
        raise DataError(f"--prompt-seeds {seeds}: give whole numbers, as in 42,82,777") from error
    if min(numbers) < 0:
        raise DataError(f"--prompt-seeds {seeds}: a seed is 0 or more")
    return OneClassSettings(numbers, targets, roi.value)


def read_set(set_: Path, images: Path | None, source: str | None, good: Path | None) -> "MarkedSet":
    """The annotated set that the options name.

    Raises:
        DataError: the options do not fit together, or the set cannot be read.
    """
    from unispector.benchmark.one_class import read_coco_set, read_raw_set

    if source is not None and images is None:
        return read_raw_set(set_, source, good)
    if source is None and images is not None:
        return read_coco_set(set_, images, good)
    raise DataError(f"{set_}: give --images with a COCO file, or --source with the folder of a raw release")
