"""`unispector inspect`: whole folders and buckets, on one machine or many."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import MinScore, Model
from unispector.project.paths import PROMPT_STORE

INSPECT_HELP = """Find the prompted defects on all images of a folder or a bucket.

\b
  unispector inspect line3/ --bank bank.safetensors --out results.parquet
  unispector inspect s3://camera/line3 --bank data/prompts --out results.parquet --workers 8

Writes a Parquet table with a row a detection (docs/inspect.md has its columns). A killed run goes on where
it was; a later one looks only at images that are new, changed or failed. Where an image could not be read
the exit code is 1. With RAY_ADDRESS in the environment the work is done on that Ray cluster."""


def inspect(
    place: Annotated[
        str, typer.Argument(help="Folder, searched at any depth, or s3://bucket/prefix.", metavar="PLACE")
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, help="Parquet file to write, e.g. results.parquet.")],
    model: Model = "fast",
    bank: Annotated[
        Path, typer.Option(help="A bank made by `prompts build`, or the folder of a prompt store.")
    ] = PROMPT_STORE,
    min_score: MinScore = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0 = one for each CPU, or for each GPU where there is one.")
    ] = 0,
) -> None:
    """Find the prompted defects on all images of a folder or a bucket."""
    from unispector.batch.inspect import inspect as run
    from unispector.tracking.model_reference import find_model

    report = run(place, out, find_model(model), bank, min_score=min_score, workers=workers)
    found = report.summary
    typer.echo(
        f"{found.pictures} images ({report.looked} looked at now), {found.detections} detections on "
        f"{found.with_detections}, {found.failed} could not be read: {report.output}"
    )
    if found.failed:
        typer.echo(
            "error: the column `error` says why images could not be read; run again to retry", err=True
        )
        raise typer.Exit(1)
