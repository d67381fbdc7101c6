"""Published checkpoints under this project's names: DINOv, MaskDINO, UniSpector-base, MobileSAM.

Pure mapping of names. Layers, levels and axes are stored in the same order on both sides: the pixel
decoder's levels are strides 8, 16, 32, 64, the decoder's and the prompt encoder's 64, 32, 16, 8, and row
`((head * 4 + level) * points + point) * 2 + xy` of a `sampling_offsets` means the same.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from unispector.config import ModelConfig
from unispector.errors import CheckpointError
from unispector.modeling.pixel_decoder import LEVELS

_HEADS = 8  # no tensor tells it; the published detectors of this family all have these
_SWIN_SIZES = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}
_SWIN_WINDOWS = {169: "patch4_window7_224", 529: "patch4_window12_384"}

Layout = Literal["unispector", "dinov", "maskdino", "mobile_sam"]


@dataclass(frozen=True)
class OfficialWeights:
    """A published checkpoint's tensors under this project's names."""

    layout: Layout  # whose names it had
    tensors: dict[str, Tensor]  # by our name; floating-point ones as float32
    # The checkpoint's names that were taken, and what they became; several may be copies of one.
    origin: dict[str, str]
    unused: dict[str, str]  # the checkpoint's other names, and why they were left


_PIXELS = r"sem_seg_head\.pixel_decoder\."
_ENCODER = _PIXELS + r"transformer\.encoder\.layers\.(\d+)\."
_HEAD = r"sem_seg_head\.predictor\."
_DECODER = _HEAD + r"decoder\.layers\.(\d+)\."

# Starts of names; what follows them is the same on both sides.
_DETECTOR_NAMES = (
    (r"backbone\.patch_embed\.", "backbone.network.patch_embed."),
    (r"backbone\.layers\.(\d+)\.blocks\.(?!.*_index$)", r"backbone.network.layers_\1.blocks."),
    # timm merges patches where a stage begins, not where the one before ends.
    *(
        (rf"backbone\.layers\.{i}\.downsample\.", f"backbone.network.layers_{i + 1}.downsample.")
        for i in range(3)
    ),
    (r"backbone\.norm(\d)\.", r"backbone.out_norms.\1."),
    (_PIXELS + r"input_proj\.", "pixel_decoder.projections."),
    (_PIXELS + r"transformer\.level_embed$", "pixel_decoder.level_embed"),
    (_ENCODER + r"self_attn\.", r"pixel_decoder.layers.\1.attention."),
    (_ENCODER + r"norm1\.", r"pixel_decoder.layers.\1.norm."),
    (_ENCODER + r"linear(\d)\.", r"pixel_decoder.layers.\1.feedforward.linear\2."),
    (_ENCODER + r"norm2\.", r"pixel_decoder.layers.\1.feedforward.norm."),
    (_PIXELS + r"adapter_1\.weight$", "pixel_decoder.lateral.0.weight"),
    (_PIXELS + r"adapter_1\.norm\.", "pixel_decoder.lateral.1."),
    (_PIXELS + r"layer_1\.weight$", "pixel_decoder.output.0.weight"),
    (_PIXELS + r"layer_1\.norm\.", "pixel_decoder.output.1."),
    (_PIXELS + r"mask_features\.", "pixel_decoder.mask_features."),
    (
        _HEAD + r"project_cross_attention_layers\.(\d)\.multihead_attn\.",
        r"prompt_encoder.cross_attention.\1.attention.",
    ),
    (_HEAD + r"project_cross_attention_layers\.(\d)\.norm\.", r"prompt_encoder.cross_attention.\1.norm."),
    (_HEAD + r"query_feat\.weight$", "query_selection.content"),
    (_HEAD + r"query_embed\.weight$", "query_selection.reference"),
    (_DECODER + r"self_attn\.", r"decoder.layers.\1.self_attention."),
    (_DECODER + r"cross_attn\.", r"decoder.layers.\1.cross_attention."),
    (_DECODER + r"norm1\.", r"decoder.layers.\1.cross_norm."),
    (_DECODER + r"norm2\.", r"decoder.layers.\1.self_norm."),
    (_DECODER + r"linear(\d)\.", r"decoder.layers.\1.feedforward.linear\2."),
    (_DECODER + r"norm3\.", r"decoder.layers.\1.feedforward.norm."),
    (_HEAD + r"decoder\.ref_point_head\.", "decoder.position."),
    # One box head and one norm, stored under several names.
    (_HEAD + r"_bbox_embed\.", "decoder.box."),
    (_HEAD + r"(?:decoder\.)?bbox_embed\.\d+\.", "decoder.box."),
    (_HEAD + r"(?:decoder_norm|decoder\.norm)\.", "decoder.norm."),
    (_HEAD + r"mask_embed\.", "heads.mask."),
    (_HEAD + r"class_embed_openset$", "heads.classes"),
)
_SINGLE = {
    "sem_seg_head.predictor.content_tokens.weight": "prompt_encoder.content",
    "sem_seg_head.predictor.pos_embed.weight": "prompt_encoder.position",
}
_TOKENS = ("sem_seg_head.predictor.label_enc.weight", "sem_seg_head.predictor.pb_embedding.weight")

# Of a checkpoint with another backbone, the layers that read it are of no use either.
_NEEDS_BACKBONE = re.compile(_PIXELS + r"(?:input_proj|adapter_1)\.")

_DETECTOR_UNUSED = (
    (r".*\.relative_position_index$", "an index computed here"),
    (r"criterion\.", "part of the loss"),
    (_HEAD + r"class_embed(?:_part)?(?:\.|$)", "classes are told apart by prompts here"),
    (_HEAD + r"(?:iou_prediction_head|mask_tokens)\.", "only used to segment at clicked points"),
    (_HEAD + r"enc_output", "two-stage selection; PQS takes its place"),
    (_HEAD + r"label_enc\.", "a row per class of its data set"),
    (r"backbone\.", "of published backbones only Swin is read"),
    (_HEAD + r"lang_encoder\.", "texts are not prompts here"),
)

_TINY_VIT = "backbone.network."
_MOBILE_SAM_NAMES = (
    (r"image_encoder\.patch_embed\.seq\.0\.", _TINY_VIT + "patch_embed.conv1."),
    (r"image_encoder\.patch_embed\.seq\.2\.", _TINY_VIT + "patch_embed.conv2."),
    *(
        (rf"image_encoder\.layers\.{i}\.downsample\.", f"{_TINY_VIT}stages_{i + 1}.downsample.")
        for i in range(3)
    ),
    (r"image_encoder\.layers\.(\d)\.(?!.*_idxs$)", _TINY_VIT + r"stages_\1."),
)
_MOBILE_SAM_UNUSED = (
    (r"image_encoder\.(?:head|norm_head)\.", "the classifier's"),
    (r".*\.attention_bias_idxs$", "an index computed here"),
    (r"image_encoder\.neck\.", "SAM's own pixel decoder"),
    (r"(?:prompt_encoder|mask_decoder)\.", "segments at clicked points"),
)


def map_official(state: Mapping[str, Tensor], source: str) -> OfficialWeights:
    """Put a published checkpoint under this project's names.

    Args:
        state: its tensors; wrappers' prefixes (`module.`, `model.`) may stand before the names.
        source: what it is called, for messages.

    Raises:
        CheckpointError: the names are of no known layout, or two copies of one tensor differ.
    """
    state = {re.sub(r"^(?:module\.|model\.)+", "", name): value for name, value in state.items()}
    layout = _layout(state, source)
    if layout == "mobile_sam":
        return _map(state, layout, _MOBILE_SAM_NAMES, _MOBILE_SAM_UNUSED, source)
    mapped = _map(state, layout, _DETECTOR_NAMES, _DETECTOR_UNUSED, source)
    for name, own in _SINGLE.items():
        if name in state:
            mapped.tensors[own] = _rows(state, name, 1, source)[0]
            mapped.origin[name] = own
            mapped.unused.pop(name)
    if all(name in state for name in _TOKENS):
        label, kind = (_rows(state, name, 2, source) for name in _TOKENS)
        # A denoising query begins as label 0, a prompt token carries label 0 and kind 1.
        mapped.tensors["token_types"] = torch.stack((label[0], label[0] + kind[1]))
        for name in _TOKENS:
            mapped.origin[name] = "token_types"
            mapped.unused.pop(name)
    return mapped


def _rows(state: Mapping[str, Tensor], name: str, rows: int, source: str) -> Tensor:
    """A table that must have so many rows."""
    table = state[name]
    if table.dim() != 2 or len(table) != rows:
        raise CheckpointError(
            f"{source}: {name} has another shape, {list(table.shape)} in place of [{rows}, width]"
        )
    return table.float()


def _layout(state: Mapping[str, Tensor], source: str) -> Layout:
    if any(name.startswith("image_encoder.patch_embed.seq.") for name in state):
        return "mobile_sam"
    if not any(name.startswith("sem_seg_head.") for name in state):
        example = next(iter(state), "none")
        raise CheckpointError(
            f"{source}: names of no known layout ({example}, ...); known are those of DINOv, MaskDINO, "
            "UniSpector and MobileSAM"
        )
    if "sem_seg_head.predictor.class_embed_part" in state:
        return "dinov"
    return "unispector" if "sem_seg_head.predictor.class_embed_openset" in state else "maskdino"


def _map(
    state: Mapping[str, Tensor],
    layout: Layout,
    names: tuple[tuple[str, str], ...],
    left: tuple[tuple[str, str], ...],
    source: str,
) -> OfficialWeights:
    """Rename what has a counterpart here; of the rest say why not."""
    mapped = OfficialWeights(layout, {}, {}, {})
    swin = layout == "mobile_sam" or any(name.startswith("backbone.patch_embed.") for name in state)
    for name, stored in state.items():
        own, value = _renamed(name, names), stored.float() if stored.is_floating_point() else stored
        if own is None:
            reasons = (why for pattern, why in left if re.match(pattern, name))
            mapped.unused[name] = next(reasons, "no counterpart here")
        elif not swin and _NEEDS_BACKBONE.match(name):
            mapped.unused[name] = "reads a backbone that is not read"
        elif own in mapped.tensors and not torch.equal(mapped.tensors[own], value):
            raise CheckpointError(
                f"{source}: {name} differs from its other copies, which are one tensor; "
                "the file is damaged or of another model"
            )
        else:
            mapped.tensors[own] = value
            mapped.origin[name] = own
    return mapped


def _renamed(name: str, names: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, own in names:
        renamed, count = re.subn("^" + pattern, own, name)
        if count:
            # MobileSAM's convolutions are `c` where timm's are `conv`; nothing else is called so.
            return renamed.replace(".c.", ".conv.")
    return None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a foreign checkpoint's tensors without running any code it may hold.

    Args:
        path: file of `torch.save`: names to tensors, or those under `model` or `state_dict`.

    Raises:
        CheckpointError: it is absent, damaged, or holds objects other than tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch finds odd before it refuses it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; check the path") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: damaged, or holds objects that only running its code would make; "
            "save its tensors alone with torch.save, and convert that file"
        ) from error
    except Exception as error:  # torch's reader of old files raises whatever bytes lead it to
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); copy it again") from error
    for part in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(part), dict):
            content = content[part]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no tensors by name; it is no checkpoint")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {name} is no tensor; save its tensors alone with torch.save, and convert that file"
            )
    return content


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
