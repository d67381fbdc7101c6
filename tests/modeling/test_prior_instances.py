"""Parts of the prior's class masks, against scipy's labels and plain bilinear resizing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from scipy import ndimage
from torch import Tensor

from unispector.modeling.prior_instances import LEAST_CELLS, MOST, prior_instances
from unispector.ops.mask_runs import OUTSIDE, masks_from_logits

TOUCHING = np.ones((3, 3))  # corners touch


def blobs(seed: int, classes: int = 3, side: int = 32) -> Tensor:
    coarse = torch.randn(1, classes, 12, 12, generator=torch.Generator().manual_seed(seed)) * 2 - 0.7
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0]


def labelled(own: np.ndarray, covered: int) -> list[np.ndarray]:
    """The parts that are large enough, surest first, as whole masks."""
    positive = own > 0
    positive[covered:] = positive[:, covered:] = False
    labels, count = ndimage.label(positive, TOUCHING)
    parts = [labels == number + 1 for number in range(count)]
    large = [part for part in parts if part.sum() >= LEAST_CELLS]
    return sorted(large, key=lambda part: -own[part].sum())[:MOST]


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), covered=st.sampled_from([24, 31, 32]))
def test_parts_are_the_connected_ones_surest_first(seed: int, covered: int):
    logits, presence = blobs(seed), torch.tensor([0.0, 2.0, -3.0])
    found = prior_instances(logits, presence, covered)
    expected = [(c, part) for c in range(3) for part in labelled(logits[c].numpy(), covered)]
    assert found.labels.tolist() == [label for label, _ in expected]
    np.testing.assert_allclose(found.presence, presence.sigmoid().numpy()[found.labels], rtol=1e-6)
    for (label, part), own, window in zip(expected, found.logits, found.windows, strict=True):
        inside = own[:covered, :covered]
        assert np.array_equal(inside > 0, part[:covered, :covered])
        quiet = logits[label].numpy() <= 0
        assert np.array_equal(own[part | quiet], logits[label].numpy()[part | quiet])
        rows, columns = part.nonzero()
        top, left, bottom, right = window
        assert (top, left) == (max(rows.min() - 1, 0), max(columns.min() - 1, 0))
        assert (bottom, right) == (min(rows.max() + 2, 32), min(columns.max() + 2, 32))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), hw=st.tuples(st.integers(20, 90), st.integers(20, 90)))
def test_a_parts_mask_is_what_bilinear_resizing_makes_of_it_alone(seed: int, hw: tuple[int, int]):
    logits = blobs(seed)
    found = prior_instances(logits, torch.zeros(3), 32)
    runs = masks_from_logits(found.logits, found.windows, 32, hw)
    parts = [(c, part) for c in range(3) for part in labelled(logits[c].numpy(), 32)]
    for index, (label, part) in enumerate(parts):
        own = logits[label].clone()
        # All other positive cells go; those around the part, which bound it, stay.
        near = ndimage.binary_dilation(part, np.ones((3, 3)))
        own[torch.from_numpy(((own.numpy() > 0) & ~part) | ~near)] = float(OUTSIDE)
        full = torch.nn.functional.interpolate(
            own[None, None].double(), hw, mode="bilinear", align_corners=False
        )[0, 0].numpy()
        sure = np.abs(full) > 1e-4
        mask = coco_mask.decode(runs.rle(index)).astype(bool)
        assert np.array_equal(mask[sure], full[sure] > 0)
        positive = logits[label].numpy()[part].astype(np.float64)
        assert runs.quality[index] == pytest.approx((1 / (1 + np.exp(-positive))).mean(), abs=1e-6)


def test_two_parts_close_together_stay_two():
    """A single negative cell between them; resized together they would touch."""
    logits = torch.full((1, 16, 16), -0.1)
    logits[0, 4:8, 2:6] = logits[0, 4:8, 7:11] = 9.0
    found = prior_instances(logits, torch.zeros(1), 16)
    runs = masks_from_logits(found.logits, found.windows, 16, (64, 64))
    first, second = (coco_mask.decode(runs.rle(i)).astype(bool) for i in range(2))
    assert not (first & second).any()
    columns = sorted((mask.nonzero()[1].min(), mask.nonzero()[1].max()) for mask in (first, second))
    assert columns[0][1] < 28
    assert columns[1][0] >= 26


def test_noise_is_no_instance_and_no_more_than_the_surest_are_kept():
    logits = torch.full((2, 100, 100), -3.0)
    for number in range(49):
        top, left = 14 * (number // 7), 14 * (number % 7)
        logits[0, top : top + 2, left : left + 2] = 1.0 + number
    logits[1, 50, 50 : 50 + LEAST_CELLS - 1] = 50.0
    found = prior_instances(logits, torch.zeros(2), 100)
    assert found.labels.tolist() == [0] * MOST
    assert [own.max() for own in found.logits] == [49.0 - n for n in range(MOST)]


def test_nothing_positive_or_only_padding_gives_nothing():
    logits = torch.full((2, 16, 16), -1.0)
    for _ in range(2):
        found = prior_instances(logits, torch.zeros(2), 12)
        assert (len(found.labels), len(found.presence)) == (0, 0)
        assert found.logits.shape == (0, 16, 16)
        assert found.windows.shape == (0, 4)
        logits[:, 12:, 12:] = 5.0
