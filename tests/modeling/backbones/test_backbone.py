"""The backbone: normalisation, padding, and what a frozen one keeps."""

import numpy as np
import pytest
import torch

from unispector.config import BackboneConfig
from unispector.modeling.backbones.backbone import StridedBackbone
from unispector.modeling.build import build_backbone


def backbone(*, frozen: bool = False) -> StridedBackbone:
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


def test_a_swins_norms_are_not_kept_with_its_maps():
    """They are trained even if the network is frozen, so what is kept of an image comes before them."""
    config = BackboneConfig(name="swin_tiny_patch4_window7_224", weights="none", frozen=True)
    module, images = (
        build_backbone(config, 64).eval(),
        torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8),
    )
    before = module(images)
    with torch.no_grad():
        for parameter in module.out_norms.parameters():
            parameter.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(before, module(images), strict=True))
    assert all(level.requires_grad for level in module.pyramid(before))
    assert not any(level.requires_grad for level in module.matching(before))


def test_the_pyramid_of_convolutions_is_their_maps():
    module = backbone().eval()
    maps = module(torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8))
    assert all(a is b for a, b in zip(module.pyramid(maps), maps, strict=True))
    assert tuple(tuple(m.shape[1:]) for m in maps) == module.map_shapes


def test_levels_are_unit_vectors_with_the_next_coarser_beside_them():
    module = backbone().eval()
    maps = tuple(5 * torch.randn(2, *shape) for shape in module.map_shapes)
    levels = module.matching(maps)
    assert tuple(level.shape[1] for level in levels) == module.matching_channels

    def unit(values: np.ndarray) -> np.ndarray:
        return values / np.linalg.norm(values)

    for level, fine, coarse in zip(levels, maps[1:], maps[2:], strict=False):
        own, wide = fine[1].double().numpy(), coarse[1].double().numpy()
        last = wide.shape[-1] - 1
        for row, column in ((0, 0), (1, 4), (own.shape[1] - 1, 3)):
            # A coarse cell is twice as wide; between four centres each has its share.
            y, x = (min(max((place + 0.5) / 2 - 0.5, 0), last) for place in (row, column))
            top, left = int(y), int(x)
            low, right = min(top + 1, last), min(left + 1, last)
            corners = [[unit(wide[:, a, b]) for b in (left, right)] for a in (top, low)]
            rows = [(1 - x + left) * first + (x - left) * second for first, second in corners]
            beside = (1 - y + top) * rows[0] + (y - top) * rows[1]
            expected = unit(np.concatenate([unit(own[:, row, column]), beside]))
            np.testing.assert_allclose(level[1, :, row, column].numpy(), expected, atol=1e-5)
