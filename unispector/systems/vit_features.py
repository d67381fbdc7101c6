"""Features of a frozen vision transformer of timm: the packaged DINOv2-S, or any other with its weights."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unispector.data.transforms import ImageArray, resize_image
from unispector.errors import CheckpointError, ConfigError
from unispector.modeling.backbones import packaged_dinov2
from unispector.modeling.backbones.pretrained import hub_weights, normalisation, packaged_weights
from unispector.modeling.official_weights import read_checkpoint
from unispector.modeling.starting_weights import PUBLISHED, match_weights, read_weights

HUB = "hub"
_OPTIONS: dict[str, Any] = {"dynamic_img_size": True, "num_classes": 0}


class VitFeatures:
    """Unit vectors of a network's tokens.

    They are those of the last block, behind the network's last norm; of a DINOv2, those of the blocks at half
    and at three quarters of its depth, each block normed by itself, side by side: its last block tells
    textures apart badly.
    """

    def __init__(self, weights: str, grid: int, device: str) -> None:
        """Build the network.

        Args:
            weights: `NAME=FILE`, timm's name of a vision transformer and its weights: a safetensors file, a
                `.pth` of timm or of the network's authors, or `hub`; empty = DINOv2-S out of its package.
            grid: patches a side of the square that every image is resized to.

        Raises:
            ConfigError: `weights` has another form, or timm has no such vision transformer.
            CheckpointError: the weights cannot be had, or are not this network's.
        """
        name, _, file = weights.partition("=")
        if weights and not (name and file):
            raise ConfigError(f"--weights {weights}: give NAME=FILE, such as vit_base_patch16_dinov3={HUB}")
        called = name or packaged_dinov2.NAME
        self._network = _network(called)
        _load(self._network, name, file)
        self._network.eval().requires_grad_(False).to(device)
        self.dinov2 = "dinov2" in called
        depth = len(self._network.blocks)
        self._blocks = [depth // 2 - 1, 3 * depth // 4 - 1] if self.dinov2 else [depth - 1]
        self.side = grid * int(self._network.patch_embed.patch_size[0])
        mean, std = normalisation(called, HUB)
        self._mean, self._std = (torch.tensor(three, device=device).view(1, 3, 1, 1) for three in (mean, std))
        self.parameters = sum(weight.numel() for weight in self._network.parameters())

    @torch.inference_mode()
    def __call__(self, pixels: ImageArray) -> Tensor:
        """[C, D] unit vectors of an image's cells, row by row; the image is stretched to a square."""
        square = torch.from_numpy(resize_image(pixels, self.side)).permute(2, 0, 1)[None]
        x = (square.to(self._mean.device).float() - self._mean) / self._std
        levels = self._network.forward_intermediates(
            x, indices=self._blocks, norm=not self.dinov2, intermediates_only=True, stop_early=True
        )
        cells = [level[0].flatten(1).T for level in levels]
        if self.dinov2:
            cells = [functional.normalize(functional.layer_norm(c, c.shape[-1:]), dim=1) for c in cells]
        return functional.normalize(torch.cat(cells, dim=1), dim=1)


def _network(name: str) -> Any:
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    try:
        network: Any = timm.create_model(name, **_OPTIONS)
    except (RuntimeError, TypeError):  # no such name, or a network that bears no other size
        network = None
    if not isinstance(network, VisionTransformer | Eva):
        raise ConfigError(
            f"--weights {name}=...: no vision transformer of timm; choose one, such as {packaged_dinov2.NAME}"
        )
    return network


def _load(network: Any, name: str, file: str) -> None:
    if not file:
        given, origin = packaged_weights(packaged_dinov2.NAME), packaged_dinov2.PACKAGE
    elif file == HUB:
        given, origin = hub_weights(name, _OPTIONS), "timm's hub"
    else:
        path, origin = Path(file), file
        given = read_checkpoint(path) if path.suffix in PUBLISHED else read_weights(path)
    try:
        given = importlib.import_module(type(network).__module__).checkpoint_filter_fn(given, network)
    except Exception as error:  # whatever timm's renaming meets in a foreign file
        raise CheckpointError(f"{origin}: no weights of {name} ({error}); bring another file") from error
    if absent := match_weights(network.state_dict(), given, origin).new:
        raise CheckpointError(f"{origin}: lacks {absent[0]} ({len(absent)} absent tensors of {name})")
    network.load_state_dict({key: given[key] for key in network.state_dict()})
