"""The one place that turns a configuration into modules."""

from typing import Any

from unispector.config import BackboneConfig, ModelConfig
from unispector.errors import ConfigError
from unispector.modeling.backbone import STRIDES, Backbone
from unispector.modeling.heads import PredictionHeads
from unispector.modeling.pixel_decoder import LEVELS, PixelDecoder
from unispector.modeling.pretrained import check_packaged, load_backbone, normalisation
from unispector.modeling.prompt_encoder import PromptEncoder
from unispector.modeling.query_selection import LearnedQueries, PromptGuidedSelection
from unispector.modeling.similarity_prior import SimilarityPrior
from unispector.modeling.swin import pad_first
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.modeling.unispector import UniSpectorModel


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
        SimilarityPrior(config.similarity_prior.width) if config.similarity_prior.enabled else None,
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
    if config.name.startswith("swin_"):
        # As in published detectors: a window never shrinks with the image, so weights fit every size.
        options["always_partition"] = True
    try:
        network: Any = timm.create_model(config.name, **options)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"model.backbone.name: timm offers no features of '{config.name}' ({error})"
        ) from error
    if missing := set(STRIDES) - set(network.feature_info.reduction()):
        raise ConfigError(f"model.backbone.name: '{config.name}' has no features of stride {sorted(missing)}")
    if config.weights == "packaged":
        check_packaged(config.name)
    pad_first(network)
    mean, std = normalisation(config.name, config.weights)
    backbone = Backbone(network, mean, std, frozen=config.frozen)
    if load_weights:
        load_backbone(backbone, config.name, config.weights, options)
    return backbone
