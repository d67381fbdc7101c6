"""Run-length codes straight from logits, against resizing the logits and encoding the pixels."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from unispector.ops.mask_runs import OUTSIDE, masks_from_logits


def smooth(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Logits with blobs, as a network gives them."""
    coarse = torch.from_numpy(rng.normal(-0.7, 1.5, (1, count, 5, 5)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    return fine.numpy()


def resized(logits: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(logits)[None].double()
    return torch.nn.functional.interpolate(tensor, hw, mode="bilinear", align_corners=False)[0].numpy()


def everywhere(logits: np.ndarray) -> np.ndarray:
    return np.tile([0, 0, *logits.shape[1:]], (len(logits), 1))


def tight(mask: np.ndarray) -> list[int]:
    rows, columns = mask.nonzero()
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.integers(1, 24),
    hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    shift=st.sampled_from([-9.0, -1.0, 0.0, 1.0, 9.0]),
)
def test_masks_are_those_of_the_resized_logits(seed: int, side: int, hw: tuple[int, int], shift: float):
    logits = smooth(np.random.default_rng(seed), 3, side, side) + np.float32(shift)
    runs = masks_from_logits(logits, everywhere(logits), side, hw)
    full = resized(logits, hw)
    for i in range(3):
        code = runs.rle(i)
        assert code["size"] == list(hw)
        mask = coco_mask.decode(code)
        # A pixel within rounding of 0 may fall on either side.
        sure = np.abs(full[i]) > 1e-4
        assert np.array_equal(mask[sure], full[i][sure] > 0)
        assert runs.areas[i] == mask.sum()
        assert runs.boxes_xyxy[i].tolist() == tight(mask)
        # The code itself is pycocotools' own, character by character.
        assert coco_mask.encode(np.asfortranarray(mask))["counts"].decode() == code["counts"]


def test_random_noise_makes_many_runs_and_still_the_right_code():
    logits = np.random.default_rng(0).normal(size=(2, 40, 40)).astype(np.float32)
    runs = masks_from_logits(logits, everywhere(logits), 40, (300, 200))
    full = resized(logits, (300, 200))
    for i in range(2):
        mask = coco_mask.decode(runs.rle(i))
        assert (mask != (full[i] > 0)).sum() <= 2
        assert coco_mask.encode(np.asfortranarray(mask))["counts"].decode() == runs.rle(i)["counts"]


def test_outside_of_its_window_a_mask_is_background():
    logits = np.full((2, 16, 16), 4.0, np.float32)
    windows = np.array([[2, 4, 8, 10], [5, 5, 5, 5]])
    runs = masks_from_logits(logits, windows, 16, (64, 64))
    filled = np.full((1, 16, 16), OUTSIDE, np.float32)
    filled[0, 2:8, 4:10] = 4.0
    assert np.array_equal(coco_mask.decode(runs.rle(0)), resized(filled, (64, 64))[0] > 0)
    assert runs.areas[1] == 0
    assert runs.boxes_xyxy[1].tolist() == [0, 0, 0, 0]
    assert runs.quality[1] == 0
    assert coco_mask.decode(runs.rle(1)).sum() == 0


def test_padding_is_cut_off():
    """18 of 24 cells hold the image: the rest is never seen, nor does it count for the quality."""
    logits = np.full((1, 24, 24), -5.0, np.float32)
    logits[0, 18:, 18:] = 5.0
    logits[0, 4:8, 6:10] = 2.0
    runs = masks_from_logits(logits, everywhere(logits), 18, (72, 36))
    mask = coco_mask.decode(runs.rle(0))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits[:, :18, :18])[None], (72, 36), mode="bilinear", align_corners=False
    )[0, 0]
    inner = np.s_[:64, :32]  # of the last cell's pixels some lie between it and the padding
    assert np.array_equal(mask[inner], expected.numpy()[inner] > 0)
    assert runs.quality[0] == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_quality_is_the_mean_probability_of_the_positive_logits():
    logits = np.random.default_rng(3).normal(size=(4, 12, 12)).astype(np.float32)
    logits[3] = -1.0
    runs = masks_from_logits(logits, everywhere(logits), 12, (30, 30))
    for i in range(3):
        positive = logits[i][logits[i] > 0].astype(np.float64)
        assert runs.quality[i] == pytest.approx((1 / (1 + np.exp(-positive))).mean(), abs=1e-6)
    assert runs.quality[3] == 0


def test_no_masks():
    runs = masks_from_logits(np.zeros((0, 8, 8), np.float32), np.zeros((0, 4), np.int64), 8, (5, 5))
    assert runs.boxes_xyxy.shape == (0, 4)
    assert len(runs.areas) == len(runs.ends) == 0


def test_long_images_leave_nothing_in_memory():
    # A cache by side kept 1.2 MB for each of these.
    logits = np.full((1, 4, 4), -1.0, np.float32)
    masks_from_logits(logits, everywhere(logits), 4, (10, 10))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for more in range(20):
        masks_from_logits(logits, everywhere(logits), 4, (100_000 + more, 1))
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 1_000_000
