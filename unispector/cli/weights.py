"""`unispector weights`: published checkpoints come in."""

from pathlib import Path
from typing import Annotated

import typer

from unispector.cli.parts import group

_CONVERT_HELP = """Turn a published checkpoint into starting weights.

\b
  unispector weights convert model_swinT.pth --out dinov.safetensors
  unispector weights convert mobile_sam.pt --out tiny_vit.safetensors

Reads DINOv, MaskDINO, UniSpector-base and MobileSAM (its image encoder), told apart by their tensors' names;
code in the file is never run. Prints what was taken, what was not used and why, and what is new here. In
params.yaml, `train.start` takes a detector's file, `model.backbone.weights` a detector's or MobileSAM's."""

weights_app = group("Bring published weights.")


@weights_app.command("convert", help=_CONVERT_HELP)
def convert(
    file: Annotated[Path, typer.Argument(help="Checkpoint, a file of torch.save; it is only read.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="File to write.", metavar="OUT.safetensors")],
) -> None:
    """Turn a published checkpoint into starting weights."""
    from unispector.training.import_weights import convert_weights

    typer.echo(convert_weights(file, out).table())
    typer.echo(f"written: {out}")
