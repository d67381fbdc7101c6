"""Point sampling against a scalar bilinear formula."""

import math

import pytest
import torch
from torch import Tensor

from unispector.ops.points import random_points, sample_points, uncertain_points


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bilinear(image: Tensor, x: float, y: float) -> float:
    """Pixel (i, j) has its centre at (j + 0.5, i + 0.5); whatever is outside counts as 0."""
    height, width = image.shape
    column, row = x * width - 0.5, y * height - 0.5
    value = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += (1 - abs(row - i)) * (1 - abs(column - j)) * image[i, j].item()
    return value


def test_samples_are_bilinear_with_zeros_outside():
    maps = torch.randn(3, 5, 7, generator=seeded())
    points = torch.rand(3, 20, 2, generator=seeded(1))
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.0]])
    sampled = sample_points(maps, points)
    expected = [
        [bilinear(image, x, y) for x, y in own.tolist()] for image, own in zip(maps, points, strict=True)
    ]
    torch.testing.assert_close(sampled, torch.tensor(expected))


def test_pixel_centres_give_the_pixels_back():
    maps = torch.randn(2, 4, 6, generator=seeded())
    y, x = torch.meshgrid((torch.arange(4) + 0.5) / 4, (torch.arange(6) + 0.5) / 6, indexing="ij")
    points = torch.stack([x, y], dim=-1).reshape(-1, 2)
    torch.testing.assert_close(sample_points(maps, points), maps.flatten(1))


def test_shared_points_equal_the_same_points_for_each_map():
    maps = torch.randn(3, 8, 8, generator=seeded())
    points = random_points(11, seeded(1), maps.device)
    assert points.shape == (11, 2)
    assert points.min() >= 0
    assert points.max() < 1
    assert torch.equal(sample_points(maps, points), sample_points(maps, points.repeat(3, 1, 1)))


def test_gradient_reaches_the_maps():
    maps = torch.randn(2, 3, 3, dtype=torch.float64, generator=seeded()).requires_grad_()
    points = torch.rand(2, 6, 2, generator=seeded(1))
    assert torch.autograd.gradcheck(lambda m: sample_points(m, points), (maps,))


def test_no_maps_give_no_samples():
    empty = torch.zeros(0, 8, 8)
    assert sample_points(empty, torch.rand(4, 2, generator=seeded())).shape == (0, 4)
    assert uncertain_points(empty, 4, seeded()).shape == (0, 4, 2)


@pytest.mark.parametrize("points", [1, 2, 16, 33])
def test_uncertain_points_are_the_least_decided_of_three_times_as_many(points: int):
    logits = torch.randn(4, 6, 6, generator=seeded(3))
    chosen = uncertain_points(logits, points, seeded(5))
    assert chosen.shape == (4, points, 2)
    kept = int(0.75 * points)
    candidates = random_points(3 * points, seeded(5), logits.device)
    for image, own in zip(logits, chosen, strict=True):
        doubts = sorted(abs(bilinear(image, x, y)) for x, y in candidates.tolist())[:kept]
        found = sorted(abs(bilinear(image, x, y)) for x, y in own[:kept].tolist())
        assert found == pytest.approx(doubts, abs=1e-5)


def test_the_uniform_share_ignores_the_logits():
    first = uncertain_points(torch.randn(2, 6, 6, generator=seeded(1)), 16, seeded(5))
    second = uncertain_points(torch.randn(2, 6, 6, generator=seeded(2)), 16, seeded(5))
    assert torch.equal(first[:, 12:], second[:, 12:])
    assert not torch.equal(first[:, :12], second[:, :12])


def test_points_crowd_at_the_border_of_a_mask():
    columns = torch.linspace(-4, 4, 32).expand(1, 32, 32)  # undecided along x = 0.5
    distance = (uncertain_points(columns, 400, seeded())[0, :300, 0] - 0.5).abs()
    assert distance.max() < 0.25
