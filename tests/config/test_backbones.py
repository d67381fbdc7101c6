"""`model.backbone`: one network or several, and what is said of wrong ones."""

import pytest

from unispector.config import BackboneConfig, Config, ModelConfig, parse_config
from unispector.errors import ConfigError


def parsed(backbone: str) -> Config:
    return parse_config(f"data: {{sets: {{}}}}\nmodel: {{backbone: {backbone}}}\n".encode(), "p.yaml")


def test_one_network_or_several() -> None:
    dinov2 = BackboneConfig(name="vit_small_patch14_dinov2", blocks=(2, 3))
    one = parsed("{name: vit_small_patch14_dinov2, blocks: [2, 3]}").model
    several = parsed("[{}, {name: vit_small_patch14_dinov2, blocks: [2, 3]}]").model
    assert (one.backbone, one.backbones) == (dinov2, (dinov2,))
    assert several.backbone == several.backbones == (BackboneConfig(), dinov2)
    assert ModelConfig().backbones == (BackboneConfig(),)
    for model in (one, several):
        assert ModelConfig.model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("[]", "model.backbone: Tuple should have at least 1 item after validation, not 0"),
        ("3", "model.backbone: Input should be a valid dictionary or instance of BackboneConfig"),
        ("{nmae: a}", "model.backbone.nmae: unknown parameter; check its spelling"),
        ("[{}, {nmae: a}]", "model.backbone.1.nmae: unknown parameter; check its spelling"),
        *(
            (
                f"{{blocks: {blocks}}}",
                f"model.backbone.blocks: Value error, {blocks} must be block numbers from 0 on that rise, "
                "such as [5, 8]",
            )
            for blocks in ([], [5, 5], [8, 5], [-1, 2])
        ),
    ],
)
def test_wrong_ones_are_named(backbone: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(backbone)
    assert str(caught.value) == f"p.yaml: {message}"
