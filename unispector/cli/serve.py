"""`unispector serve`: the detector behind HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from unispector.environment import end_on_signals
from unispector.project.paths import CHAMPION_MODEL, PROMPT_STORE

MOST_MEGAPIXELS = 178  # Pillow opens no larger images
SERVE_HELP = """Answer requests over HTTP: images in, detections out; marked images add prompts.

\b
  unispector serve                                          the registry's champion, prompts in data/prompts
  unispector serve --model fast --bank bank.safetensors     a model and a bank that never change
  curl -F images=@part.png http://127.0.0.1:8000/detect

A model that is promoted, and prompts that are enrolled, take over without a restart. /health says what is
in use, /metrics is for Prometheus, /openapi.json describes all. With --label-studio-url it also answers
Label Studio as a machine-learning backend (docs/tools.md). On any other --host than loopback every
request must carry the token in the variable UNISPECTOR_TOKEN."""


def serve(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="models:/NAME@ALIAS (followed when it moves), models:/NAME/VERSION, `fast`, `accurate`, a "
            "model's folder, or an MLflow run id.",
        ),
    ] = CHAMPION_MODEL,
    bank: Annotated[
        Path, typer.Option(help="Folder of prompts, which requests may change, or a bank file.")
    ] = PROMPT_STORE,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = a free one, which is printed.")] = 8000,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images looked at in one turn.")] = 8,
    queue: Annotated[int, typer.Option(min=1, help="Images waiting, of all requests; more: 503.")] = 64,
    pictures: Annotated[int, typer.Option(min=1, help="Images of a request; more: 413.")] = 16,
    megapixels: Annotated[
        int, typer.Option(min=1, max=MOST_MEGAPIXELS, help="Million pixels of an image; more: 413.")
    ] = 50,
    body_mib: Annotated[int, typer.Option(min=1, help="MiB of a request; more: 413.")] = 64,
    memory_mib: Annotated[
        int, typer.Option(min=1, help="MiB of bodies and images of all requests; more: 503.")
    ] = 1024,
    body_seconds: Annotated[float, typer.Option(min=0.1, help="Time to send a body; more: 408.")] = 30,
    label_studio_url: Annotated[
        str, typer.Option(metavar="URL", help="Be a backend of this Label Studio, at /label-studio/.")
    ] = "",
    label_studio_files: Annotated[
        Path | None, typer.Option(file_okay=False, help="Its document root, or its bucket's files.")
    ] = None,
) -> None:
    """Answer requests over HTTP."""
    end_on_signals()
    from unispector.serving.label_studio.images import API_KEY, StudioImages
    from unispector.serving.limits import Limits
    from unispector.serving.serve import serve as run

    studio = None
    if label_studio_url or label_studio_files is not None:
        studio = StudioImages(label_studio_url, label_studio_files, os.environ.get(API_KEY, "").strip())

    limits = Limits(
        batch=batch,
        queue=queue,
        pictures=pictures,
        megapixels=megapixels,
        body_mib=body_mib,
        memory_mib=memory_mib,
        body_seconds=body_seconds,
    )
    run(model, bank, host, port, limits, device, studio)
