"""Parts of the prior's class masks, against scipy's labels, NMS in loops, and plain bilinear resizing."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from scipy import ndimage
from torch import Tensor

from unispector.modeling.prior_instances import CUTS, LEAST_CELLS, MOST, OVERLAP, RISE, prior_instances
from unispector.ops.mask_runs import OUTSIDE, masks_from_logits

TOUCHING = np.ones((3, 3))  # corners touch


@dataclass
class Expected:
    """One part as a whole mask, the cut it comes from, and its score."""

    mask: np.ndarray
    cut: float
    score: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        rows, columns = self.mask.nonzero()
        return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def blobs(seed: int, classes: int = 3, side: int = 32) -> Tensor:
    coarse = torch.randn(1, classes, 12, 12, generator=torch.Generator().manual_seed(seed)) * 2 - 0.7
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0]


def iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return wide * high / (sum(areas) - wide * high)


def expected_parts(own: Tensor, covered: int) -> list[Expected]:
    """Large enough parts of all cuts; each in turn is dropped where a better one overlaps it."""
    probabilities = own.sigmoid().numpy()
    found = []
    for cut in CUTS:
        above = probabilities > cut
        above[covered:] = above[:, covered:] = False
        labels, count = ndimage.label(above, TOUCHING)
        for number in range(1, count + 1):
            mask = labels == number
            inside = probabilities[mask]
            score = inside.mean() * np.sqrt(np.mean(inside >= cut + RISE))
            if mask.sum() >= LEAST_CELLS:
                found.append(Expected(mask, cut, score))
    kept: list[Expected] = []
    for part in sorted(found, key=lambda part: -part.score):
        if part.score > 0 and all(iou(part.box, other.box) <= OVERLAP for other in kept):
            kept.append(part)
    return kept[:MOST]


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), covered=st.sampled_from([24, 31, 32]))
def test_parts_are_connected_and_the_most_stable_of_those_that_overlap(seed: int, covered: int):
    logits, presence = blobs(seed), torch.tensor([0.0, 2.0, -3.0])
    found = prior_instances(logits, presence, covered)
    expected = [(c, part) for c in range(3) for part in expected_parts(logits[c], covered)]
    assert found.labels.tolist() == [label for label, _ in expected]
    scores = [part.score * float(presence[label].sigmoid()) for label, part in expected]
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    for (label, part), own, window in zip(expected, found.logits, found.windows, strict=True):
        assert np.array_equal(own[:covered, :covered] > 0, part.mask[:covered, :covered])
        level = logits[label].numpy() - np.log(part.cut / (1 - part.cut))
        same = part.mask | (level <= 0)
        np.testing.assert_allclose(own[same], level[same], atol=1e-6)
        left, top, right, bottom = part.box
        assert tuple(window) == (max(top - 1, 0), max(left - 1, 0), min(bottom + 1, 32), min(right + 1, 32))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), hw=st.tuples(st.integers(20, 90), st.integers(20, 90)))
def test_a_parts_mask_is_what_bilinear_resizing_makes_of_it_alone(seed: int, hw: tuple[int, int]):
    logits = blobs(seed)
    found = prior_instances(logits, torch.zeros(3), 32)
    runs = masks_from_logits(found.logits, found.windows, 32, hw)
    parts = [(c, part) for c in range(3) for part in expected_parts(logits[c], 32)]
    for index, (label, part) in enumerate(parts):
        own = logits[label].double() - np.log(part.cut / (1 - part.cut))
        # All other positive cells go; those around the part, which bound it, stay.
        near = ndimage.binary_dilation(part.mask, np.ones((3, 3)))
        own[torch.from_numpy(((own.numpy() > 0) & ~part.mask) | ~near)] = float(OUTSIDE)
        full = torch.nn.functional.interpolate(own[None, None], hw, mode="bilinear", align_corners=False)
        values = full[0, 0].numpy()
        sure = np.abs(values) > 1e-4
        mask = coco_mask.decode(runs.rle(index)).astype(bool)
        assert np.array_equal(mask[sure], values[sure] > 0)


def test_two_parts_close_together_stay_two():
    """A single negative cell between them; resized together they would touch."""
    logits = torch.full((1, 16, 16), -1.5)
    logits[0, 4:8, 2:6] = logits[0, 4:8, 7:11] = 9.0
    found = prior_instances(logits, torch.zeros(1), 16)
    runs = masks_from_logits(found.logits, found.windows, 16, (64, 64))
    first, second = (coco_mask.decode(runs.rle(i)).astype(bool) for i in range(2))
    assert not (first & second).any()
    columns = sorted((mask.nonzero()[1].min(), mask.nonzero()[1].max()) for mask in (first, second))
    assert columns[0][1] < 28
    assert columns[1][0] >= 26


def test_a_sharp_part_beats_the_blur_around_it():
    """Cut low, the part has a wide fringe that is soon gone; cut higher, it does not change any more."""
    logits = torch.full((1, 32, 32), -4.0)
    logits[0, 6:26, 6:26] = torch.logit(torch.tensor(0.35))
    logits[0, 12:20, 12:20] = 4.0
    found = prior_instances(logits, torch.full((1,), 50.0), 32)
    assert found.windows[0].tolist() == [11, 11, 21, 21]
    assert found.scores[0] == pytest.approx(float(torch.sigmoid(torch.tensor(4.0))), abs=1e-6)


def test_noise_is_no_instance_and_no_more_than_the_best_are_kept():
    logits = torch.full((2, 100, 100), -3.0)
    for number in range(49):
        top, left = 14 * (number // 7), 14 * (number % 7)
        logits[0, top : top + 2, left : left + 2] = 1.0 + number / 10
    logits[1, 50, 50 : 50 + LEAST_CELLS - 1] = 50.0
    found = prior_instances(logits, torch.zeros(2), 100)
    assert found.labels.tolist() == [0] * MOST
    best = [1.0 + number / 10 for number in range(48, 48 - MOST, -1)]
    np.testing.assert_allclose(found.scores, torch.tensor(best).sigmoid() / 2, rtol=1e-5)


def test_nothing_positive_or_only_padding_gives_nothing():
    logits = torch.full((2, 16, 16), -1.0)
    for _ in range(2):
        found = prior_instances(logits, torch.zeros(2), 12)
        assert (len(found.labels), len(found.scores)) == (0, 0)
        assert found.logits.shape == (0, 16, 16)
        assert found.windows.shape == (0, 4)
        logits[:, 12:, 12:] = 5.0
