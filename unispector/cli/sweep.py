"""`unispector sweep`: how robust a model is on annotated images."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import Images, Model, PromptsFile, TargetsFile

SWEEP_HELP = """Measure how robust a model is on annotated images of your own.

\b
  unispector sweep --prompts prompts.json --targets targets.json --images photos \\
    --model MODEL --out robustness

Prompts are blurred, boxed inexactly, made fewer or more, and given as masks; targets are blurred, made
noisy, compressed, darkened, flattened, turned and shrunk. Writes OUT/index.html with the curves and
OUT/sweep.json. It takes about as long as fifty evaluations."""


def sweep(
    prompts: PromptsFile,
    targets: TargetsFile,
    images: Images,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write index.html and sweep.json to.")],
    model: Model = "fast",
) -> None:
    """Measure how robust a model is."""
    from unispector.benchmark.sweep_files import sweep_files
    from unispector.tracking.model_reference import find_model

    report = sweep_files(find_model(model), prompts, targets, images, out)
    typer.echo(f"{len(report.rows)} evaluations: {out / 'index.html'}")
