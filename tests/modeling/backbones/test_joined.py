"""Several networks as one backbone: each does what it does alone, and a detector reads them all."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unispector.config import BackboneConfig, SimilarityPriorConfig
from unispector.modeling.backbones.joined import JoinedBackbone
from unispector.modeling.build import build_backbones
from unispector.modeling.unispector import UniSpectorModel

CONVOLUTIONS = BackboneConfig(name="test_efficientnet", weights="none")
TOKENS = BackboneConfig(name="test_vit", weights="none", blocks=(1, 4))


@pytest.fixture
def joined() -> JoinedBackbone:
    module = build_backbones((CONVOLUTIONS, TOKENS), 96)
    assert isinstance(module, JoinedBackbone)
    return module.eval()


def pictures(count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, 3, 72, 72), dtype=torch.uint8)


def test_parts_do_what_they_do_alone(joined: JoinedBackbone):
    images = pictures()
    first, second = joined.parts
    alone = [part(images) for part in (first, second)]
    maps = joined(images)
    assert [m.shape[1:] for m in maps] == [torch.Size(shape) for shape in joined.map_shapes]
    assert len(maps) == 6
    for found, expected in zip(maps, (*alone[0], *alone[1]), strict=True):
        assert torch.equal(found, expected)
    pyramids = [part.pyramid(own) for part, own in zip((first, second), alone, strict=True)]
    for level, width, stride, a, b in zip(
        joined.pyramid(maps), joined.channels, (4, 8, 16, 32), *pyramids, strict=True
    ):
        assert level.shape == (2, width, 96 // stride, 96 // stride)
        assert torch.equal(level[:, : a.shape[1]], a)
        assert torch.equal(level[:, a.shape[1] :], b)
    levels = joined.matching(maps)
    expected = [*first.matching(alone[0]), *second.matching(alone[1])]
    assert [level.shape[1] for level in levels] == list(joined.matching_channels)
    assert [level.shape[2] for level in levels] == [12, 6, 6]
    assert all(torch.equal(a, b) for a, b in zip(levels, expected, strict=True))


def test_it_is_frozen_if_all_of_it_is():
    free = CONVOLUTIONS.model_copy(update={"frozen": False})
    assert build_backbones((CONVOLUTIONS, TOKENS), 96).frozen
    mixed = build_backbones((free, TOKENS), 96).train()
    assert not mixed.frozen
    assert [part.network.training for part in mixed.parts] == [True, False]
    assert [m.requires_grad for m in mixed(pictures())] == [True] * 4 + [False] * 2


def test_one_network_in_a_list_is_the_network():
    names = build_backbones((CONVOLUTIONS,), 96).state_dict().keys()
    assert all(name.startswith("network.") for name in names)


def test_a_detector_of_kept_maps_is_that_of_the_images(small_model: Callable[..., UniSpectorModel]):
    model = small_model(
        backbone=(CONVOLUTIONS, TOKENS), similarity_prior=SimilarityPriorConfig(enabled=False)
    )
    images = pictures()
    with torch.no_grad():
        expected = model.encode_images(images)
        maps = model.backbone(images)
        found = model.encode_images(images, maps)
        other = model.encode_images(images, tuple(m.flip(0) for m in maps))
    assert torch.equal(found.memory, expected.memory)
    assert torch.equal(found.mask_features, expected.mask_features)
    torch.testing.assert_close(other.memory, expected.memory.flip(0), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(other.memory, expected.memory, atol=1e-2)
