"""Windows around boxes and crops of maps, against grid sampling and cases by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unispector.ops.windows import CROP, GRID, LEAST_WINDOW, WINDOW, crop, windows


def test_a_window_is_its_box_with_some_of_what_is_around():
    boxes = torch.tensor([[0.5, 0.25, 0.4, 0.5], [0.9, 0.5, 0.5, 0.2]])
    found = windows(boxes, 224)
    for (left, top, right, bottom), (cx, cy, w, h) in zip(found.tolist(), boxes.tolist(), strict=True):
        assert (left + right) / 2 == pytest.approx(cx, abs=1e-6)
        assert (top + bottom) / 2 == pytest.approx(cy, abs=1e-6)
        assert (right - left, bottom - top) == pytest.approx((WINDOW * w, WINDOW * h), abs=1e-6)
    assert found[1, 2] > 1  # it may leave the frame


def test_a_window_is_never_smaller_than_cells_that_can_be_told_apart():
    found = windows(torch.tensor([[0.5, 0.5, 1 / 112, 0.5]]), 112)[0] * 112
    assert (found[2] - found[0]).item() == pytest.approx(LEAST_WINDOW * GRID, abs=1e-4)
    assert (found[3] - found[1]).item() == pytest.approx(WINDOW * 56, abs=1e-4)
    assert windows(torch.zeros(0, 4), 112).shape == (0, 4)


def sampled(maps: Tensor, window: Tensor, size: int) -> Tensor:
    """Bilinear values at the middles of the cells of one window of one map [D, h, w]."""
    places = (torch.arange(size) + 0.5) / size
    x = window[0] + places * (window[2] - window[0])
    y = window[1] + places * (window[3] - window[1])
    grid = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=-1) * 2 - 1
    return F.grid_sample(maps[None], grid[None], padding_mode="border", align_corners=False)[0]


@settings(max_examples=40)
@given(
    size=st.sampled_from([4, CROP, GRID]),
    hw=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    seed=st.integers(0, 1000),
)
def test_crops_are_bilinear_samples(size: int, hw: tuple[int, int], seed: int):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 2, *hw, generator=generator)
    index = torch.randint(3, (5,), generator=generator)
    low = torch.rand(5, 2, generator=generator) * 0.5
    window = torch.cat((low, low + 0.02 + torch.rand(5, 2, generator=generator) * 0.4), dim=1)
    found = crop(maps, index, window, size)
    assert found.shape == (5, 2, size, size)
    for own, number, place in zip(found, index.tolist(), window, strict=True):
        torch.testing.assert_close(own, sampled(maps[number], place, size), atol=1e-4, rtol=1e-4)


def test_a_window_of_the_whole_map_is_the_map():
    maps = torch.randn(2, 3, GRID, GRID)
    found = crop(maps, torch.tensor([1, 0]), torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), GRID)
    torch.testing.assert_close(found, maps[[1, 0]], atol=1e-5, rtol=1e-5)


def test_nothing_is_outside():
    """The map ends in the middle of the window; one cell of it further, all is 0."""
    found = crop(torch.ones(1, 1, 14, 14), torch.tensor([0]), torch.tensor([[0.5, 0.0, 1.5, 1.0]]), GRID)
    assert (found[..., :14] == 1).all()
    assert (found[..., 16:] == 0).all()


def test_crops_are_float32_pass_gradients_and_may_be_none():
    maps = torch.randn(2, 3, 6, 6).bfloat16().requires_grad_()
    found = crop(maps, torch.tensor([1]), torch.tensor([[0.2, 0.2, 0.8, 0.8]]), 4)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert maps.grad is not None
    assert maps.grad[1].any()
    assert not maps.grad[0].any()
    none = crop(maps, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 4)
    assert none.shape == (0, 3, 4, 4)
