"""Deformable attention against a slow loop over samples, and against `grid_sample`."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unispector.modeling.deformable_attention import DeformableAttention, deformable_sample, gathered_sample

LEVELS = ((1, 2), (3, 2), (4, 5))
Form = Callable[[Tensor, tuple[tuple[int, int], ...], Tensor, Tensor], Tensor]
either_form = pytest.mark.parametrize("form", [deformable_sample, gathered_sample])


def bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """Value of [h, w, d] at x, y in cells, cell (0, 0) centred at (0.5, 0.5); zero outside."""
    height, width, depth = level.shape
    value = level.new_zeros(depth)
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
                value = value + share * level[row, column]
    return value


def slow_sample(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, depth = values.shape
    queries, points = locations.shape[1], locations.shape[4]
    levels = values.split([h * w for h, w in LEVELS], dim=1)
    out = values.new_zeros(batch, queries, heads, depth)
    for index in torch.cartesian_prod(
        *(torch.arange(n) for n in (batch, queries, heads, len(LEVELS), points))
    ):
        b, q, head, level, point = index.tolist()
        height, width = LEVELS[level]
        grid = levels[level][b, :, head].view(height, width, depth)
        x, y = locations[b, q, head, level, point].tolist()
        out[b, q, head] += weights[b, q, head, level, point] * bilinear(grid, x * width, y * height)
    return out.flatten(2)


def draw(points: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations (a good part of them outside) and weights."""
    tokens = sum(h * w for h, w in LEVELS)
    locations = torch.rand(2, 3, 2, len(LEVELS), points, 2, dtype=dtype) * 2 - 0.5
    return torch.randn(2, tokens, 2, 4, dtype=dtype), locations, torch.rand(locations.shape[:-1], dtype=dtype)


@either_form
def test_sampling_is_a_weighted_sum_of_bilinear_samples(form: Form):
    values, locations, weights = draw()
    sampled = form(values, LEVELS, locations, weights)
    torch.testing.assert_close(sampled, slow_sample(values, locations, weights), atol=1e-5, rtol=1e-5)


@either_form
def test_sampling_equals_grid_sample(form: Form):
    values, locations, weights = draw(points=3)
    expected = torch.zeros(2, 3, 2, 4)
    for level, part in enumerate(values.split([h * w for h, w in LEVELS], dim=1)):
        maps = part.permute(0, 2, 3, 1).reshape(4, 4, *LEVELS[level])
        grid = 2 * locations[:, :, :, level].transpose(1, 2).reshape(4, 3, 3, 2) - 1
        samples = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        per_head = samples.view(2, 2, 4, 3, 3).permute(0, 3, 1, 4, 2)
        expected += (per_head * weights[:, :, :, level, :, None]).sum(3)
    sampled = form(values, LEVELS, locations, weights)
    torch.testing.assert_close(sampled, expected.flatten(2), atol=1e-5, rtol=1e-5)


@either_form
@pytest.mark.parametrize("place", [-1.0, 2.0, 1e4])
def test_samples_outside_are_zero(place: float, form: Form):
    values, locations, weights = draw()
    for axis in range(2):
        outside = locations.clamp(0, 1)
        outside[..., axis] = place
        assert not form(values, LEVELS, outside, weights).any()


@either_form
def test_gradients(form: Form):
    levels = ((1, 2), (2, 3))
    values = torch.randn(1, 8, 1, 2, dtype=torch.float64, requires_grad=True)
    # A quarter of a cell away from the cell centres, where the bilinear kernel has its kinks.
    cells = torch.tensor([[[0.25, 0.75], [1.8, -0.2]], [[1.1, 1.2], [2.7, 0.8]]], dtype=torch.float64)
    sizes = torch.tensor([[w, h] for h, w in levels], dtype=torch.float64)
    locations = (cells / sizes[:, None]).view(1, 1, 1, 2, 2, 2).requires_grad_()
    weights = torch.rand(1, 1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, at, w: form(v, levels, at, w), (values, locations, weights))


def attend_slowly(module: DeformableAttention, queries: Tensor, references: Tensor, memory: Tensor) -> Tensor:
    """The module's formula with its own projections, one place at a time."""
    heads, points = module.heads, module.points
    shape = (*queries.shape[:2], heads, len(LEVELS), points)
    offsets = module.sampling_offsets(queries).view(*shape, 2)
    weights = module.attention_weights(queries).view(*shape[:3], -1).softmax(-1).view(shape)
    locations = torch.empty_like(offsets)
    for level, (height, width) in enumerate(LEVELS):
        for q in range(queries.shape[1]):
            reference = references[:, q, None, None]
            if references.shape[-1] == 2:
                step = torch.tensor([1 / width, 1 / height])
            else:
                step = reference[..., 2:] / 2 / points
            locations[:, q, :, level] = reference[..., :2] + offsets[:, q, :, level] * step
    values = module.value_proj(memory).unflatten(-1, (heads, -1))
    return module.output_proj(slow_sample(values, locations, weights))


@pytest.mark.parametrize("size", [2, 4])
def test_module_with_points_and_boxes(size: int):
    module = DeformableAttention(8, heads=2, levels=len(LEVELS), points=2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = sum(h * w for h, w in LEVELS)
    queries, memory, references = torch.randn(2, 3, 8), torch.randn(2, tokens, 8), torch.rand(2, 3, size)
    with torch.no_grad():
        expected = attend_slowly(module, queries, references, memory)
        attended = module(queries, references, memory, LEVELS)
        shared = module(queries, references[:1], memory, LEVELS)
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shared[0], attended[0], atol=1e-6, rtol=1e-5)


def test_offsets_start_as_compass_directions():
    module = DeformableAttention(32, heads=8, levels=2, points=3)
    offsets = module.sampling_offsets(torch.randn(5, 32)).view(5, 8, 2, 3, 2)
    compass = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]])
    for point in range(3):
        expected = (compass * (point + 1.0))[None, :, None].expand(5, 8, 2, 2)
        torch.testing.assert_close(offsets[:, :, :, point], expected, atol=1e-5, rtol=0)
    assert not module.attention_weights(torch.randn(5, 32)).any()


def test_coordinates_stay_exact_under_autocast():
    module = DeformableAttention(8, heads=2, levels=len(LEVELS), points=2)
    tokens = sum(h * w for h, w in LEVELS)
    arguments = (torch.randn(1, 3, 8), torch.rand(1, 3, 4), torch.randn(1, tokens, 8), LEVELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = module(*arguments)
    assert torch.equal(mixed, module(*arguments))
