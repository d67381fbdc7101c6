"""From configuration to modules, and what is said when they do not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unispector.config import BackboneConfig, ModelConfig, SimilarityPriorConfig
from unispector.errors import CheckpointError, ConfigError
from unispector.modeling.build import build_backbone, build_model
from unispector.modeling.prior.candidate_head import CandidateHead
from unispector.modeling.prior.evidence import PriorEvidence
from unispector.modeling.prior.similarity_prior import SimilarityPrior
from unispector.modeling.query_selection import LearnedQueries, PromptGuidedSelection

NAME = "test_efficientnet"


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (BackboneConfig(name="no_such_net", weights="none"), "model.backbone.name.*no_such_net"),
        (BackboneConfig(name="", weights="none"), "model.backbone.name"),
        (
            BackboneConfig(name="eva02_tiny_patch14_224", weights="none"),
            r"model.backbone.name.*eva02.*stride \[",
        ),
        (
            BackboneConfig(name="test_vit", weights="none"),
            "model.backbone.blocks: 'test_vit' .* 0 to 5, not 8",
        ),
        (BackboneConfig(name=NAME, weights="packaged"), "model.backbone.weights.*test_efficientnet"),
    ],
)
def test_a_backbone_that_cannot_be_built(config: BackboneConfig, field: str):
    with pytest.raises(ConfigError, match=field) as caught:
        build_backbone(config, 64)
    assert "\n" not in str(caught.value)


def test_weights_from_a_file(tmp_path: Path):
    donor = build_backbone(BackboneConfig(name=NAME, weights="none"), 64).network
    state = {k: v.contiguous() for k, v in donor.state_dict().items()}
    file = tmp_path / "weights.safetensors"
    config = BackboneConfig(name=NAME, weights=str(file))
    save_file({**state, "head.weight": torch.zeros(3)}, file)
    loaded = build_backbone(config, 64).network.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())
    assert not torch.equal(
        build_backbone(config, 64, load_weights=False).network.state_dict()["conv_stem.weight"],
        state["conv_stem.weight"],
    )

    save_file({k: v for k, v in state.items() if k != "conv_stem.weight"}, file)
    with pytest.raises(CheckpointError, match=r"weights.safetensors: lacks conv_stem.weight"):
        build_backbone(config, 64)
    save_file({**state, "conv_stem.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"conv_stem.weight has another shape, \[1\] in place of"):
        build_backbone(config, 64)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="no readable safetensors"):
        build_backbone(config, 64)
    file.unlink()
    with pytest.raises(CheckpointError, match="no readable safetensors"):
        build_backbone(config, 64)


def test_switches_choose_the_parts(small_config: ModelConfig):
    full, base = build_model(small_config), build_model(small_config.with_parts(sspe=False, pqs=False))
    assert isinstance(full.query_selection, PromptGuidedSelection)
    assert isinstance(full.similarity.prior, SimilarityPrior)
    assert isinstance(full.similarity.head, CandidateHead)
    assert isinstance(full.similarity.evidence, PriorEvidence)
    assert full.prompt_encoder.frequency_encoder is not None
    assert full.prompt_encoder.visual_aligner is not None
    assert full.prompt_visible
    assert isinstance(base.query_selection, LearnedQueries)
    assert base.prompt_encoder.frequency_encoder is None
    assert base.prompt_encoder.visual_aligner is None
    assert not base.prompt_visible
    assert base.similarity is not None
    without = small_config.model_copy(update={"similarity_prior": SimilarityPriorConfig(enabled=False)})
    assert build_model(without).similarity is None
    assert full.width == 32


@pytest.mark.parametrize("prior", [True, False])
def test_swin_detects(prior, small_model, draw_prompts):
    backbone = BackboneConfig(name="swin_tiny_patch4_window7_224", weights="none", frozen=False)
    model = small_model(backbone=backbone, similarity_prior=SimilarityPriorConfig(enabled=prior))
    with torch.no_grad():
        features = model.encode_images(torch.randint(0, 256, (1, 3, 72, 72), dtype=torch.uint8))
        output = model.detect(features, draw_prompts(model, 2))
    assert output.layers[-1].logits.shape == (1, 10, 2)
    assert output.layers[-1].masks.isfinite().all()
    assert (output.prior is not None) == (output.candidates is not None) == prior
