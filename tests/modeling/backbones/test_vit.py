"""Vision transformers as backbone: tokens, pyramid and levels against slow independent forms."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from unispector.config import BackboneConfig
from unispector.errors import ConfigError
from unispector.modeling.backbones.vit import VitBackbone
from unispector.modeling.build import build_backbone

MEAN, STD = (10.0, 20.0, 30.0), (50.0, 60.0, 70.0)
BLOCKS, PATCH, PADDED, SIDE, TOKENS = (1, 3), 14, 96, 7, 64


def vit(*, frozen: bool = True, bf16: bool = False) -> VitBackbone:
    """Six blocks of 64 channels; 96 pixels are 7 patches of 14, two pixels short."""
    network = timm.create_model("test_vit", patch_size=PATCH, img_size=SIDE * PATCH, dynamic_img_size=True)
    module = VitBackbone(
        network, MEAN, STD, blocks=BLOCKS, frozen=frozen, bf16=bf16, padded_size=PADDED
    ).eval()
    with torch.no_grad():
        for parameter in (*module.norms.parameters(), *module.mixes.parameters()):
            parameter.normal_()
    return module


def pictures(count: int = 2, side: int = 72) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def resized(values: np.ndarray, side: int) -> np.ndarray:
    """[h, w, C] with `side` rows and columns: each point between the four nearest, corners of pixels kept."""
    for axis in (0, 1):
        length = values.shape[axis]
        place = ((np.arange(side) + 0.5) * length / side - 0.5).clip(0, length - 1)
        low = np.floor(place).astype(int)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, length - 1)
        values = (1 - share) * values.take(low, axis) + share * values.take(high, axis)
    return values


def some_maps(count: int = 2) -> tuple[Tensor, ...]:
    return tuple(3 * torch.randn(count, TOKENS, SIDE, SIDE) + 1 for _ in BLOCKS)


def test_the_network_sees_the_padded_frame_at_whole_patches():
    module, images, seen = vit(), pictures(1), []
    module.network.patch_embed.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module(images)
    frame = np.zeros((PADDED, PADDED, 3))
    frame[:72, :72] = (images[0].permute(1, 2, 0).numpy() - MEAN) / np.array(STD)
    expected = resized(frame, SIDE * PATCH)
    np.testing.assert_allclose(seen[0][0].permute(1, 2, 0).numpy(), expected, atol=1e-4)


def test_maps_are_the_tokens_of_the_wanted_blocks():
    module, seen = vit(), {}
    network = module.network
    for number, block in enumerate(network.blocks):
        block.register_forward_hook(lambda *given, number=number: seen.update({number: given[-1]}))
    maps = module(pictures())
    assert tuple(tuple(m.shape[1:]) for m in maps) == module.map_shapes == ((TOKENS, SIDE, SIDE),) * 2
    for block, found in zip(BLOCKS, maps, strict=True):
        for row, column in ((0, 0), (2, 5), (6, 6)):
            # The class token comes first.
            assert torch.equal(found[:, :, row, column], seen[block][:, 1 + row * SIDE + column])
    assert max(seen) == BLOCKS[-1], "blocks that nobody reads are not computed"


def test_other_sizes_have_as_many_patches_as_cover_them():
    module = vit()
    for side, padded in ((64, 64), (65, 96), (160, 160)):
        maps = module(pictures(1, side))
        grid = -(-padded // PATCH)
        assert [tuple(m.shape) for m in maps] == [(1, TOKENS, grid, grid)] * 2
        assert [m.shape[-1] for m in module.pyramid(maps)] == [padded // stride for stride in (4, 8, 16, 32)]


def test_the_pyramid_norms_mixes_and_resizes():
    module, maps = vit(), some_maps(1)
    with torch.no_grad():
        levels = module.pyramid(maps)
    joined = []
    for norm, tokens in zip(module.norms, maps, strict=True):
        cells = tokens[0].permute(1, 2, 0).double().numpy()
        centred = cells - cells.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + norm.eps)
        joined.append(scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy())
    cells = np.concatenate(joined, axis=-1)
    assert module.channels == (64, 64, 64, 64)
    for level, mix, stride in zip(levels, module.mixes, (4, 8, 16, 32), strict=True):
        weight = mix.weight[:, :, 0, 0].detach().double().numpy()
        # Resized before it is mixed: the two may change places.
        expected = resized(cells, PADDED // stride) @ weight.T + mix.bias.detach().numpy()
        np.testing.assert_allclose(level[0].permute(1, 2, 0).numpy(), expected, atol=1e-3)


def test_levels_are_unit_vectors_of_blocks_each_standardised():
    module, maps = vit(), some_maps()
    (level,) = module.matching(maps)
    assert level.shape[1:] == (*module.matching_channels, SIDE, SIDE) == (2 * TOKENS, SIDE, SIDE)
    for image, row, column in ((0, 0, 0), (1, 3, 6)):
        parts = []
        for tokens in maps:
            cell = tokens[image, :, row, column].double().numpy()
            cell = (cell - cell.mean()) / cell.std()
            parts.append(cell / np.linalg.norm(cell))
        expected = np.concatenate(parts) / np.sqrt(len(maps))
        np.testing.assert_allclose(level[image, :, row, column].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_trained(frozen: bool):
    module = vit(frozen=frozen).train()
    assert module.network.training != frozen
    maps = module(pictures())
    assert maps[0].requires_grad != frozen
    assert not module.matching(maps)[0].requires_grad
    sum(level.sum() for level in module.pyramid(maps)).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == (not frozen or not name.startswith("network.")), name


@pytest.mark.parametrize(
    ("capabilities", "multiplies"),
    [
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx2": True}, False),
    ],
)
def test_bf16_is_used_where_the_model_says_so_and_the_processor_has_it(capabilities, multiplies, monkeypatch):
    plain, images = vit(), pictures()
    short = vit(bf16=True)
    short.load_state_dict(plain.state_dict())
    exact = plain(images)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    for a, b, same in zip(exact, short(images), plain(images), strict=True):
        assert torch.equal(a, same)
        assert b.dtype == torch.float32
        assert torch.equal(a, b) != multiplies
        assert torch.cosine_similarity(a, b, dim=1).min() > 0.999


def test_a_vit_of_timm_is_built_with_its_settings():
    config = BackboneConfig(name="test_vit", weights="none", blocks=(0, 4), precision="bf16", frozen=False)
    module = build_backbone(config, 64)
    assert isinstance(module, VitBackbone)
    assert (module.blocks, module.bf16, module.frozen, module.patch) == ((0, 4), True, False, 16)
    assert module.map_shapes == ((64, 4, 4), (64, 4, 4))
    assert len(module.network.blocks) == 5


def test_an_image_smaller_than_a_patch_is_refused():
    with pytest.raises(
        ConfigError, match=r"model.image_size: 8 pixels are less than a patch of 'test_vit' \(16\)"
    ):
        build_backbone(BackboneConfig(name="test_vit", weights="none", blocks=(0,)), 8)
