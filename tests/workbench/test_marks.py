"""Marks: boxes cut at the image, strokes to masks, outlines, overlaps."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from unispector.errors import DataError
from unispector.ops.rle import decode_crop, decode_rle, encode_rle
from unispector.workbench.marks import Stroke, box_inside, outlines, overlaps, paint, tight

NUMBERS = st.floats(-500, 500)


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.integers(1, 200), st.integers(1, 200))
def test_a_box_is_what_two_corners_span_inside_the_image(
    box: tuple[float, ...], height: int, width: int
) -> None:
    xs, ys = sorted((box[0], box[0] + box[2])), sorted((box[1], box[1] + box[3]))
    left, right = np.clip(xs, 0, width)
    top, bottom = np.clip(ys, 0, height)
    if right - left < 1 or bottom - top < 1:
        with pytest.raises(DataError, match="less than a pixel"):
            box_inside(box, (height, width))
    else:
        assert box_inside(box, (height, width)) == pytest.approx(
            (left, top, right - left, bottom - top), abs=0.011
        )


@pytest.mark.parametrize("box", [(1, 2, 3), (float("nan"), 0, 5, 5), (0, 0, float("inf"), 5)])
def test_what_is_no_box_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="four numbers"):
        box_inside(box, (50, 50))


def test_a_stroke_covers_what_lies_within_its_radius() -> None:
    painted = paint([Stroke([20, 30, 60, 30], 6)], None, (80, 100))
    assert painted is not None
    box, code = painted
    mask = decode_rle(code)
    rows, columns = np.mgrid[:80, :100]
    away = np.hypot(columns - np.clip(columns, 20, 60), rows - 30)
    assert mask[away <= 5].all()
    assert not mask[away >= 7.5].any()
    assert box == (columns[mask].min(), rows[mask].min(), np.ptp(columns[mask]) + 1, np.ptp(rows[mask]) + 1)


def test_the_eraser_takes_away_until_nothing_is_left() -> None:
    painted = paint([Stroke([20, 30], 6)], None, (80, 100))
    assert painted is not None
    half = paint([Stroke([26, 10, 26, 50], 6, erase=True)], painted[1], (80, 100))
    assert half is not None
    assert 0 < decode_rle(half[1]).sum() < decode_rle(painted[1]).sum()
    assert paint([Stroke([20, 30], 12, erase=True)], painted[1], (80, 100)) is None
    assert paint([Stroke([-500, -500, -400, -500], 6)], None, (80, 100)) is None
    with pytest.raises(DataError, match="x, y pairs"):
        paint([Stroke([1.0, 2.0, 3.0], 6)], None, (80, 100))


@given(st.integers(0, 2**32 - 1))
def test_a_mask_decoded_in_its_box_is_that_part_of_the_whole(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((random.integers(1, 40), random.integers(1, 40))) < random.choice([0.02, 0.5, 1.0])
    (code,) = encode_rle(mask[None])
    left, top, crop = decode_crop(code)
    found = tight(mask)
    if found is None:
        assert crop.shape == (0, 0)
        return
    assert (left, top, crop.shape[1], crop.shape[0]) == found[0] == tuple(coco_mask.toBbox(code))
    assert np.array_equal(crop, mask[top : top + crop.shape[0], left : left + crop.shape[1]])
    assert np.array_equal(decode_rle(found[1]), mask)


def test_outlines_enclose_the_mask() -> None:
    mask = np.zeros((200, 300), np.uint8)
    cv2.ellipse(mask, (80, 90), (50, 20), 30, 0, 360, 1, -1)
    cv2.rectangle(mask, (200, 50), (280, 150), 1, -1)
    (code,) = encode_rle(mask[None].astype(bool))
    drawn = np.zeros_like(mask)
    shapes = outlines(code)
    for polygon in shapes:
        points = np.array(polygon).reshape(-1, 1, 2) - 0.5
        cv2.fillPoly(drawn, [points.round().astype(np.int32)], 1)
    assert len(shapes) == 2
    assert np.logical_xor(mask, drawn).sum() < 0.02 * mask.sum()


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 20)] * 2), min_size=1, max_size=5))
def test_overlaps_are_those_of_pycocotools(boxes: list[tuple[int, ...]]) -> None:
    array = np.array(boxes, float)
    assert np.allclose(overlaps(array, array), coco_mask.iou(array, array, [False] * len(array)))
