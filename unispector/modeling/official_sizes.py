"""The sizes of a published detector, read off the shapes of its tensors."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from unispector.config import ModelConfig
from unispector.errors import CheckpointError
from unispector.modeling.pixel_decoder import LEVELS

_HEADS = 8  # no tensor tells it; the published detectors of this family all have these
_SWIN_SIZES = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}
_SWIN_WINDOWS = {169: "patch4_window7_224", 529: "patch4_window12_384"}


def fitting_model(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Settings of the section `model` that a published detector's tensors fit.

    Args:
        tensors: under this project's names.
        source: what they come from, for the message.

    Raises:
        CheckpointError: no detector here can have these shapes.
    """
    try:
        sampled = len(tensors["decoder.layers.0.cross_attention.attention_weights.weight"])
        model: dict[str, Any] = {
            "width": tensors["pixel_decoder.level_embed"].shape[1],
            "heads": _HEADS,
            "points": sampled // (_HEADS * LEVELS),
            "encoder_layers": _count(tensors, r"pixel_decoder\.layers\.(\d+)\."),
            "decoder_layers": _count(tensors, r"decoder\.layers\.(\d+)\."),
            "feedforward": len(tensors["decoder.layers.0.feedforward.linear1.weight"]),
            "class_bias": False,
            "backbone": _fitting_backbone(tensors),
        }
        if "query_selection.content" in tensors:
            model["queries"] = len(tensors["query_selection.content"])
        if "token_types" in tensors:  # of a detector with prompts
            model["prompt_reference"] = "corner"
        ModelConfig.model_validate(model)
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{source}: no detector of a known size ({error})") from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise CheckpointError(f"{source}: sizes that no detector here can have ({reason})") from error
    return model


def _fitting_backbone(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name timm's Swin of these shapes; nothing where the checkpoint has another backbone."""
    if "backbone.network.patch_embed.proj.weight" not in tensors:
        return {}
    width = len(tensors["backbone.network.patch_embed.proj.weight"])
    depth = _count(tensors, r"backbone\.network\.layers_2\.blocks\.(\d+)\.")
    table = tensors["backbone.network.layers_0.blocks.0.attn.relative_position_bias_table"]
    return {"name": f"swin_{_SWIN_SIZES[width, depth]}_{_SWIN_WINDOWS[len(table)]}"}


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})
