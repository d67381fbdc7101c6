"""Less memory for a training step: activations computed a second time instead of kept."""

from typing import Any

from unispector.modeling.unispector import UniSpectorModel


def checkpoint_activations(model: UniSpectorModel) -> None:
    """Let the encoder layers and the backbone's stages keep their inputs only; gradients stay the same.

    Nothing changes for a frozen backbone, which keeps no activations anyway.

    Args:
        model: changed in place; what it computes and its weights' names stay as they are.
    """
    model.pixel_decoder.checkpointing = True
    if not model.backbone.frozen:
        network: Any = model.backbone.network
        network.set_grad_checkpointing()
