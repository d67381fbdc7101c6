"""Swin against itself written out window by window, in the published detectors' order."""

import copy
import itertools

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unispector.config import BackboneConfig
from unispector.modeling.backbones.backbone import StridedBackbone
from unispector.modeling.backbones.swin import PadFirstBlock
from unispector.modeling.build import build_backbone

NAME, WINDOW, SHIFT, DEPTHS = "swin_tiny_patch4_window7_224", 7, 3, (2, 2, 6, 2)


def swin(size: int) -> StridedBackbone:
    """With every bias, norm and position far from its start, so that none can be left out unseen."""
    module = build_backbone(BackboneConfig(name=NAME, weights="none", frozen=False), size).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "relative_position" in name or name.endswith("bias"):
                parameter.normal_()
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return module


def region(place: int, padded: int) -> int:
    """Which of the three bands of a rolled map a row or column lies in."""
    return 0 if place < padded - WINDOW else 1 if place < padded - SHIFT else 2


def position_bias(block: PadFirstBlock) -> Tensor:
    """[49, 49, heads]: what cell a of a window adds to its score for cell b."""
    cells = list(itertools.product(range(WINDOW), range(WINDOW)))
    rows = [(a - c + WINDOW - 1) * (2 * WINDOW - 1) + b - d + WINDOW - 1 for a, b in cells for c, d in cells]
    return block.attn.relative_position_bias_table[rows].unflatten(0, (WINDOW**2, WINDOW**2))


def slow_attention(block: PadFirstBlock, x: Tensor, shift: int) -> Tensor:
    """Windowed attention of [h, w, C], each cell of each window by itself."""
    height, width, channels = x.shape
    heads = block.attn.num_heads
    depth = channels // heads
    rows, columns = (-(-side // WINDOW) * WINDOW for side in (height, width))
    padded = x.new_zeros(rows, columns, channels)
    padded[:height, :width] = x
    out = torch.zeros_like(padded)
    bias = position_bias(block)
    for top, left in itertools.product(range(0, rows, WINDOW), range(0, columns, WINDOW)):
        cells = list(itertools.product(range(top, top + WINDOW), range(left, left + WINDOW)))
        # A rolled map's cell (y, x) is the map's (y + shift, x + shift).
        places = [((y + shift) % rows, (x + shift) % columns) for y, x in cells]
        tokens = torch.stack([padded[place] for place in places])
        query, key, value = (tokens @ block.attn.qkv.weight.T + block.attn.qkv.bias).split(channels, dim=1)
        groups = torch.tensor([3 * region(y, rows) + region(x, columns) for y, x in cells])
        apart = (groups[:, None] != groups) & (shift > 0)
        parts = []
        for head in range(heads):
            of = slice(head * depth, (head + 1) * depth)
            scores = query[:, of] @ key[:, of].T / depth**0.5 + bias[..., head]
            parts.append(scores.masked_fill(apart, -torch.inf).softmax(1) @ value[:, of])
        for place, row in zip(places, block.attn.proj(torch.cat(parts, dim=1)), strict=True):
            out[place] = row
    return out[:height, :width]


def slow_features(module: StridedBackbone, image: Tensor) -> list[Tensor]:
    """The four maps [h, w, C] of one normalised image [3, P, P]."""
    network = module.network
    x = F.conv2d(image[None], network.patch_embed.proj.weight, network.patch_embed.proj.bias, stride=4)
    x = network.patch_embed.norm(x[0].permute(1, 2, 0))
    maps = []
    for stage, depth in enumerate(DEPTHS):
        layer = getattr(network, f"layers_{stage}")
        if stage:
            x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
            corners = [x[y::2, z::2] for z, y in itertools.product((0, 1), (0, 1))]
            x = layer.downsample.reduction(layer.downsample.norm(torch.cat(corners, dim=-1)))
        for index in range(depth):
            block = layer.blocks[index]
            x = x + slow_attention(block, block.norm1(x), SHIFT * (index % 2))
            x = x + block.mlp(block.norm2(x))
        maps.append(module.out_norms[stage](x))
    return maps


@pytest.mark.parametrize("size", [96, 224])  # maps of 24 (3 * 7 + 3), 12, 6 and 3 cells; of multiples of 7
def test_features_are_those_of_the_published_order(size: int):
    module = swin(size)
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        maps = module.pyramid(module(images))
        expected = slow_features(module, (images[1] - module.mean[0]) / module.std[0])
    for ours, slow in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours[1].permute(1, 2, 0), slow, atol=2e-4, rtol=1e-4)


def test_timm_itself_rolls_before_it_pads():
    module = swin(96)
    plain = timm.create_model(
        NAME, features_only=True, img_size=96, strict_img_size=False, always_partition=True
    ).eval()
    plain.load_state_dict(module.network.state_dict())
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        for a, b in zip(plain(image), module.network(image), strict=True):
            assert (a - b).abs().max() > 0.01


def test_one_network_takes_every_size_and_its_weights_do_not_depend_on_it():
    """Masks are kept for the last size only; a later size, or the first again, gets its own."""
    module, other = swin(64), swin(160)
    assert {k: v.shape for k, v in module.state_dict().items()} == {
        k: v.shape for k, v in other.state_dict().items()
    }
    other.load_state_dict(module.state_dict())
    images = {size: torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8) for size in (64, 160)}
    with torch.no_grad():
        first = module(images[64])
        for a, b in zip(module(images[160]), other(images[160]), strict=True):
            assert torch.equal(a, b)
        for a, b in zip(module(images[64]), first, strict=True):
            assert torch.equal(a, b)


def test_a_mask_made_for_inference_serves_training():
    module = swin(64)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        module(images)
    module.train()(images)[0].sum().backward()
    weight = module.network.layers_0.blocks[0].attn.qkv.weight
    assert weight.grad is not None
    assert weight.grad.any()


def test_every_block_is_replaced_and_a_copy_stays_one():
    module = copy.deepcopy(swin(64))
    blocks: list[nn.Module] = [b for s in range(4) for b in getattr(module.network, f"layers_{s}").blocks]
    assert len(blocks) == sum(DEPTHS)
    assert all(type(block) is PadFirstBlock for block in blocks)
    assert all(block.window_size == (WINDOW, WINDOW) for block in blocks)
