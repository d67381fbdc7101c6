"""The one place that turns a configuration into modules."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unispector.config import BackboneConfig, ModelConfig
from unispector.errors import CheckpointError, ConfigError
from unispector.modeling.backbone import STRIDES, Backbone
from unispector.modeling.heads import PredictionHeads
from unispector.modeling.pixel_decoder import LEVELS, PixelDecoder
from unispector.modeling.pretrained import (
    PACKAGED_BACKBONE,
    PACKAGED_MEAN,
    PACKAGED_STD,
    packaged_weights,
)
from unispector.modeling.prompt_encoder import PromptEncoder
from unispector.modeling.query_selection import LearnedQueries, PromptGuidedSelection
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.modeling.unispector import UniSpectorModel

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def build_model(config: ModelConfig, *, load_weights: bool = True) -> UniSpectorModel:
    """Build the detector.

    Args:
        config: sizes and switches.
        load_weights: read the backbone's starting weights; off when a checkpoint follows anyway.

    Raises:
        ConfigError: timm has no such backbone, or it lacks one of the strides 4, 8, 16, 32.
        CheckpointError: the backbone's weights are absent or do not fit.
    """
    backbone = build_backbone(config.backbone, config.padded_size, load_weights=load_weights)
    width, heads, points = config.width, config.heads, config.points
    selection = config.query_selection
    return UniSpectorModel(
        backbone,
        PixelDecoder(
            backbone.channels,
            width,
            heads=heads,
            points=points,
            layers=config.encoder_layers,
            feedforward=config.feedforward,
        ),
        PromptEncoder(
            width,
            heads,
            levels=LEVELS,
            bins=config.spectral.bins,
            spectral=config.spectral.enabled,
            visual_aligner=config.visual_aligner,
            log=config.spectral.log,
        ),
        PromptGuidedSelection(
            width,
            queries=config.queries,
            temperature=selection.temperature,
            noise=selection.noise,
            scale=selection.scale,
        )
        if selection.enabled
        else LearnedQueries(width, queries=config.queries),
        TransformerDecoder(
            width, heads=heads, points=points, layers=config.decoder_layers, feedforward=config.feedforward
        ),
        PredictionHeads(width, class_bias=config.class_bias),
        image_size=config.image_size,
        prompt_visible=config.prompt_visible,
        denoising=config.denoising.queries,
        box_noise=config.denoising.box_noise,
    )


def build_backbone(config: BackboneConfig, padded_size: int, *, load_weights: bool = True) -> Backbone:
    """Build the backbone with its starting weights; see `build_model` for the errors."""
    import timm

    options: dict[str, Any] = {"features_only": True, "drop_path_rate": config.drop_path}
    if config.name.startswith("swin"):
        options |= {"img_size": padded_size, "strict_img_size": False}
    try:
        network: Any = timm.create_model(config.name, **options)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"model.backbone.name: timm offers no features of '{config.name}' ({error})"
        ) from error
    if missing := set(STRIDES) - set(network.feature_info.reduction()):
        raise ConfigError(f"model.backbone.name: '{config.name}' has no features of stride {sorted(missing)}")
    packaged = config.weights == "packaged"
    if packaged and config.name != PACKAGED_BACKBONE:
        raise ConfigError(
            f"model.backbone.weights: `packaged` weights exist for {PACKAGED_BACKBONE} only, "
            f"not '{config.name}'; use `none` or a safetensors file"
        )
    if load_weights and config.weights != "none":
        _load(network, packaged_weights() if packaged else _read(Path(config.weights)), config.weights)
    mean, std = (PACKAGED_MEAN, PACKAGED_STD) if packaged else (IMAGENET_MEAN, IMAGENET_STD)
    return Backbone(network, mean, std, frozen=config.frozen)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: no readable safetensors weights ({error})") from error


def _load(network: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load every tensor the feature network has; what it lacks (later stages, heads) is left out."""
    own = network.state_dict()
    absent = sorted(own.keys() - state.keys() - {k for k in own if k.endswith("num_batches_tracked")})
    wrong = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if absent or wrong:
        problem = f"lacks {absent[0]}" if absent else f"has another shape for {wrong[0]}"
        raise CheckpointError(f"{origin}: {problem} ({len(absent)} absent, {len(wrong)} misshapen tensors)")
    with torch.no_grad():
        network.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
