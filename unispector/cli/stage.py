"""`unispector stage`: the stages of the pipeline, as `dvc.yaml` calls them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unispector.cli.convert import told
from unispector.cli.parts import group, params
from unispector.cli.report import REPORTS, write_report

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

stage_app = group(
    "One stage of the pipeline on its own; `dvc repro` runs them in order. The stage train is a flow: "
    "python -m flows.train."
)

SetName = Annotated[str, typer.Argument(help="A key of data.sets in params.yaml.")]


def _timed(stage: str) -> "AbstractContextManager[None]":
    from unispector.project.timings import timed

    return timed(stage)


@stage_app.command("generate")
def stage_generate() -> None:
    """Make the embedded data, insa-mini."""
    from unispector.pipeline.generate import generate

    with _timed("generate"):
        report = generate(params())
        typer.echo(f"insa-mini: {sum(report.images.values())} images, {report.image_bytes / 1e6:.1f} MB")


@stage_app.command("convert")
def stage_convert(name: SetName) -> None:
    """Turn a raw set into an InsA file."""
    from unispector.pipeline.convert import convert as run

    with _timed(f"convert@{name}"):
        typer.echo(told(run(params(), name)))


@stage_app.command("survey")
def stage_survey(name: SetName) -> None:
    """Open every image of a set once: size, colours, hash, masks."""
    from unispector.pipeline.survey import survey

    with _timed(f"survey@{name}"):
        survey(params(), name)
        typer.echo(f"{name}: surveyed")


@stage_app.command("validate")
def stage_validate() -> None:
    """Check all InsA files; stops the pipeline when an expectation fails."""
    from unispector.pipeline.validate import validate

    with _timed("validate"):
        for report in validate(params()):
            typer.echo(report.summary())


@stage_app.command("statistics")
def stage_statistics() -> None:
    """Colours, sizes and prompt-to-target ratios of all sets."""
    from unispector.pipeline.statistics import statistics

    with _timed("statistics"):
        statistics(params())
        typer.echo(f"statistics: {REPORTS / 'statistics.md'}")


@stage_app.command("split")
def stage_split() -> None:
    """Choose seen and unseen classes, prompts and targets."""
    from unispector.pipeline.split import split

    with _timed("split"):
        for part in split(params()).sets:
            seed = "" if part.split_seed is None else f", split seed {part.split_seed}"
            typer.echo(
                f"{part.name}{seed}: {len(part.seen)} seen and {len(part.unseen)} unseen classes, "
                f"{part.training_images} training images, {part.training_defect_free} without a defect"
            )


@stage_app.command("fingerprint")
def stage_fingerprint() -> None:
    """Hash what training reads, and link what it starts from."""
    from unispector.pipeline.fingerprint import fingerprint

    with _timed("fingerprint"):
        for seed, digest in fingerprint(params()).items():
            typer.echo(f"split seed {seed}: {digest[:12]}")


@stage_app.command("send-runs")
def stage_send_runs() -> None:
    """Send to MLflow what trainings could not while it was away."""
    from unispector.errors import DataError
    from unispector.training.runs import send_left

    if missing := send_left():
        raise DataError(f"{missing} runs are still not complete in MLflow; try again when it answers")


@stage_app.command("evaluate")
def stage_evaluate() -> None:
    """Judge every trained model on every set."""
    from unispector.pipeline.evaluate import evaluate
    from unispector.project.paths import TRACKING
    from unispector.tracking.run import TrackingStore

    with _timed("evaluate"):
        report = evaluate(params(), Path(), TrackingStore(TRACKING))
        typer.echo(f"{len(report.rows)} evaluations: {REPORTS / 'metrics.json'}")


@stage_app.command("sweep")
def stage_sweep() -> None:
    """Measure the main model with changed prompts and changed targets."""
    from unispector.pipeline.sweep import sweep
    from unispector.project.paths import SWEEPS, TRACKING
    from unispector.tracking.run import TrackingStore

    with _timed("sweep"):
        report = sweep(params(), Path(), TrackingStore(TRACKING))
        typer.echo(f"{len(report.rows)} evaluations: {SWEEPS}")


@stage_app.command("systems")
def stage_systems() -> None:
    """Measure the systems of the comparison that need no download."""
    from unispector.pipeline.systems import systems
    from unispector.project.paths import SYSTEMS_PAGE

    with _timed("systems"):
        typer.echo(f"{len(systems(params()))} systems: {SYSTEMS_PAGE}")


@stage_app.command("report")
def stage_report() -> None:
    """Write the evaluation as a page to read."""
    with _timed("report"):
        typer.echo(write_report())
