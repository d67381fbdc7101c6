"""The one place that turns a configuration into modules."""

from typing import Any

from torch import nn

from unispector.config import BackboneConfig, ModelConfig
from unispector.errors import ConfigError
from unispector.modeling.backbones import efficientnet_lite
from unispector.modeling.backbones.backbone import STRIDES, Backbone, NetworkBackbone, StridedBackbone
from unispector.modeling.backbones.efficientnet_lite import EfficientNetLite0
from unispector.modeling.backbones.joined import JoinedBackbone
from unispector.modeling.backbones.pretrained import check_packaged, load_backbone, normalisation
from unispector.modeling.backbones.vit import VitBackbone
from unispector.modeling.box_prompts import BoxPromptEncoder
from unispector.modeling.heads import PredictionHeads
from unispector.modeling.pixel_decoder import LEVELS, PixelDecoder
from unispector.modeling.prior.candidate_head import CandidateHead
from unispector.modeling.prior.evidence import PriorEvidence
from unispector.modeling.prior.similarity import Similarity
from unispector.modeling.prior.similarity_prior import SimilarityPrior
from unispector.modeling.prompt_encoder import ClassEmbeddings, PromptEncoder
from unispector.modeling.query_selection import LearnedQueries, PromptGuidedSelection
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.modeling.unispector import UniSpectorModel
from unispector.structures import padded_side

_VITS = "timm.models.vision_transformer"
"""timm's module whose networks are all plain vision transformers."""


def build_model(config: ModelConfig, *, load_weights: bool = True) -> UniSpectorModel:
    """Build the detector.

    Args:
        config: sizes and switches.
        load_weights: read the backbone's starting weights; off when a checkpoint follows anyway.

    Raises:
        ConfigError: timm has no such backbone, or it is no vision transformer and lacks one of the strides
            4, 8, 16, 32, or is one and lacks a wanted block.
        CheckpointError: the backbone's weights are absent or do not fit.
    """
    backbone = build_backbones(config.backbones, padded_side(config.image_size), load_weights=load_weights)
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
        _prompt_encoder(config),
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
        _similarity(config, backbone),
        prompt_visible=config.prompt_visible,
        denoising=config.denoising.queries,
        box_noise=config.denoising.box_noise,
        prompt_reference=config.prompt_reference,
    )


def _prompt_encoder(config: ModelConfig) -> PromptEncoder | BoxPromptEncoder | ClassEmbeddings:
    if config.prompt_encoder == "boxes":
        return BoxPromptEncoder(
            config.width, config.heads, points=config.points, feedforward=config.feedforward
        )
    if config.prompt_encoder == "classes":
        return ClassEmbeddings(config.width, len(config.classes))
    return PromptEncoder(
        config.width,
        config.heads,
        levels=LEVELS,
        bins=config.spectral.bins,
        spectral=config.spectral.enabled,
        visual_aligner=config.visual_aligner,
        log=config.spectral.log,
    )


def _similarity(config: ModelConfig, backbone: Backbone) -> Similarity | None:
    if not config.similarity_prior.enabled:
        return None
    width = config.similarity_prior.width
    prior = SimilarityPrior(backbone.matching_channels, backbone.detail_channels, width)
    head = CandidateHead(width, prior.fine_width, width=4 * width // 3, token=2 * width)
    return Similarity(prior, PriorEvidence(config.width), head, config.similarity_prior.grown)


def build_backbones(
    configs: tuple[BackboneConfig, ...], padded_size: int, *, load_weights: bool = True
) -> Backbone:
    """Build the network, or the several joined, that images are read with; see `build_model` for the errors.

    Args:
        configs: one at least.
        padded_size: side P of the padded frame, a multiple of 32.
        load_weights: read their starting weights.
    """
    parts = [build_backbone(config, padded_size, load_weights=load_weights) for config in configs]
    return parts[0] if len(parts) == 1 else JoinedBackbone(parts)


def build_backbone(config: BackboneConfig, padded_size: int, *, load_weights: bool = True) -> NetworkBackbone:
    """Build one network with its starting weights; see `build_model` for the errors."""
    network: Any
    vit, options = False, {"features_only": True}
    if config.name == efficientnet_lite.NAME and not config.drop_path:
        network = EfficientNetLite0()
    else:
        network, vit, options = _of_timm(config, padded_size)
    if config.weights == "packaged":
        check_packaged(config.name)
    backbone = (_vit if vit else _strided)(network, config, padded_size)
    if load_weights:
        load_backbone(backbone, config.name, config.weights, options)
    return backbone


def _of_timm(config: BackboneConfig, padded_size: int) -> tuple[nn.Module, bool, dict[str, Any]]:
    """A network of timm, whether it is a plain vision transformer, and what timm built it with."""
    import timm

    vit = timm.is_model(config.name) and timm.model_entrypoint(config.name).__module__ == _VITS
    options: dict[str, Any] = {"drop_path_rate": config.drop_path}
    options |= {"dynamic_img_size": True} if vit else {"features_only": True}
    if config.name.startswith("swin"):
        options |= {"img_size": padded_size, "strict_img_size": False}
    if config.name.startswith("swin_"):
        # As in published detectors: a window never shrinks with the image, so weights fit every size.
        options["always_partition"] = True
    try:
        network: nn.Module = timm.create_model(config.name, **options)
    except (RuntimeError, TypeError, AttributeError, OSError) as error:
        raise ConfigError(
            f"model.backbone.name: timm offers no features of '{config.name}' ({error})"
        ) from error
    if config.name.startswith("swin"):
        from unispector.modeling.backbones.swin import pad_first

        pad_first(network)
    return network, vit, options


def _strided(network: Any, config: BackboneConfig, padded_size: int) -> StridedBackbone:
    if missing := set(STRIDES) - set(network.feature_info.reduction()):
        raise ConfigError(
            f"model.backbone.name: '{config.name}' has no features of stride {sorted(missing)} and is no "
            "plain vision transformer; choose another network"
        )
    mean, std = normalisation(config.name, config.weights)
    return StridedBackbone(network, mean, std, frozen=config.frozen, padded_size=padded_size)


def _vit(network: Any, config: BackboneConfig, padded_size: int) -> VitBackbone:
    if config.blocks[-1] >= len(network.blocks):
        raise ConfigError(
            f"model.backbone.blocks: '{config.name}' has the blocks 0 to {len(network.blocks) - 1}, "
            f"not {config.blocks[-1]}"
        )
    patch = network.patch_embed.patch_size[0]
    if padded_size < patch:
        raise ConfigError(
            f"model.image_size: {padded_size} pixels are less than a patch of '{config.name}' ({patch})"
        )
    mean, std = normalisation(config.name, config.weights)
    return VitBackbone(
        network,
        mean,
        std,
        blocks=config.blocks,
        frozen=config.frozen,
        bf16=config.precision == "bf16",
        padded_size=padded_size,
    )
