"""The backbone: normalisation, padding, and what a frozen one keeps."""

import pytest
import torch

from unispector.config import BackboneConfig
from unispector.modeling.backbone import Backbone
from unispector.modeling.build import build_backbone


def backbone(*, frozen: bool = False) -> Backbone:
    return build_backbone(BackboneConfig(name="test_efficientnet", weights="none", frozen=frozen), 96)


def test_images_are_normalised_then_padded_with_the_mean_colour():
    module = backbone().eval()
    images = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    frame = torch.zeros(2, 3, 96, 96)
    frame[:, :, :72, :72] = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        expected, maps = module.network(frame)[1:], module(images)
    for stride, channels, a, b in zip((4, 8, 16, 32), module.channels, expected, maps, strict=True):
        assert b.shape == (2, channels, 96 // stride, 96 // stride)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_network_never_changes(frozen: bool):
    module = backbone(frozen=frozen).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    maps = module(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    assert bool(changed) != frozen
    assert maps[0].requires_grad != frozen
    assert any(p.requires_grad for p in module.parameters()) != frozen
    assert module.train().network.training != frozen


def test_swin():
    """Channels-last features get a norm of their own and come out channels-first."""
    config = BackboneConfig(name="swin_tiny_patch4_window7_224", weights="none", frozen=False)
    module = build_backbone(config, 64).eval()
    with torch.no_grad():
        maps = module.pyramid(module(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)))
    assert [tuple(m.shape) for m in maps] == [(1, 96, 16, 16), (1, 192, 8, 8), (1, 384, 4, 4), (1, 768, 2, 2)]
    for m in maps:
        assert m.mean(1).abs().max() < 1e-3
        torch.testing.assert_close(m.var(1, unbiased=False), torch.ones_like(m[:, 0]), atol=0.05, rtol=0)
