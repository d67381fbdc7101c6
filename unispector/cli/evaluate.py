"""`unispector evaluate`: AP of a model on annotated images."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import Images, Model, PromptsFile, Roi, RoiOption, TargetsFile

EVALUATE_HELP = """Measure AP of boxes and masks on annotated images of your own.

\b
  unispector evaluate --prompts prompts.json --targets targets.json --images photos \\
    --model MODEL --out metrics.json

Both files are COCO and name the same categories; no image should be in both. AP is in percent, by
class and in all. `unispector report --show` prints the figures of `make repro`."""


def evaluate(
    prompts: PromptsFile,
    targets: TargetsFile,
    images: Images,
    out: Annotated[Path, typer.Option(dir_okay=False, help="JSON file to write the figures to.")],
    model: Model = "fast",
    roi: RoiOption = Roi.BOX,
) -> None:
    """Measure AP of boxes and masks on annotated images."""
    import json
    from dataclasses import asdict

    from unispector.benchmark.evaluate import evaluate_files
    from unispector.ops.files import atomic_write_text
    from unispector.tracking.model_reference import find_model

    metrics = evaluate_files(find_model(model), prompts, targets, images, roi=roi.value)
    atomic_write_text(out, json.dumps(asdict(metrics), indent=1) + "\n")
    typer.echo(f"AP50 boxes {metrics.bbox.AP50:.1f}, masks {metrics.segm.AP50:.1f}: {out}")
