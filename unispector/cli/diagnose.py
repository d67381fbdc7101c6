"""`unispector diagnose`: where a model loses its points."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.measure import Good, Seeds, Set, SetImages, SourceOption, Targets, read_set, settings_of
from unispector.cli.parts import Model, Roi, RoiOption

DIAGNOSE_HELP = """Say where a model loses its points, one class at a time.

\b
  unispector diagnose set.json --images photos --good clean_photos --out diagnosed

Looks at all candidates, with prompts and targets as in `measure`: what would they reach in perfect order,
what with their pieces merged, how many defects have no candidate at all? Writes OUT/diagnose.md and
OUT/diagnose.json and prints the largest loss."""


def diagnose(
    set_: Set,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder to write diagnose.md and diagnose.json to.")
    ],
    images: SetImages = None,
    source: SourceOption = None,
    model: Model = "fast",
    roi: RoiOption = Roi.BOX,
    prompt_seeds: Seeds = "42,82,777",
    targets: Targets = 40,
    good: Good = None,
) -> None:
    """Say where a model loses its points."""
    from unispector.benchmark.diagnose import write_diagnosis
    from unispector.reporting.diagnosis_report import largest_loss
    from unispector.tracking.model_reference import find_model

    directory, settings = find_model(model), settings_of(roi, prompt_seeds, targets)
    report = write_diagnosis(directory, read_set(set_, images, source, good), settings, out)
    typer.echo(f"{largest_loss(report)} {out / 'diagnose.md'}")
