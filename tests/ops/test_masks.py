import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from unispector.errors import DataError
from unispector.ops.masks import boxes_to_masks, integer_boxes
from unispector.ops.rle import decode_rle, encode_rle, segmentation_to_mask

MASKS = hnp.arrays(
    np.bool_,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=40).map(lambda s: (s[0] % 4, *s[1:])),
)


@given(MASKS)
@settings(deadline=None)
def test_rle_round_trip_with_pycocotools_as_referee(masks):
    codes = encode_rle(masks)
    assert len(codes) == len(masks)
    for mask, code in zip(masks, codes, strict=True):
        assert isinstance(code["counts"], str)
        assert (decode_rle(code) == mask).all()
        assert (coco_mask.decode(code) == mask).all()
        reference = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert code["counts"].encode() == reference["counts"]
        assert (decode_rle(reference) == mask).all()


def test_rle_of_long_runs():
    mask = np.zeros((1, 3000, 2000), dtype=np.bool_)
    mask[0, 10:2990, 1500] = True
    mask[0, 5, 1990:] = True
    assert (decode_rle(encode_rle(mask)[0]) == mask[0]).all()


def test_uncompressed_rle_runs_down_the_columns():
    mask = decode_rle({"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


@given(st.text(max_size=12) | st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmno"))
@settings(deadline=None)
def test_any_text_as_counts_is_decoded_or_refused(counts):
    try:
        mask = decode_rle({"size": [5, 4], "counts": counts})
    except DataError:
        return
    assert (mask == coco_mask.decode({"size": [5, 4], "counts": counts})).all()


@pytest.mark.parametrize(
    "code",
    [
        {"size": [2, 3], "counts": [1, 2]},
        {"size": [2, 3], "counts": [1, 2, 4]},
        {"size": [2, 3], "counts": [-1, 7]},
        {"size": [2, 3], "counts": [1.5, 4.5]},
        {"size": [2, 3], "counts": [[6]]},
        {"size": [2, 3], "counts": None},
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "oooooooo0"},
        {"size": [0, 3], "counts": [0]},
        {"size": [2], "counts": [6]},
        {"size": None, "counts": [6]},
        {"counts": [6]},
        {"size": [2, 3]},
    ],
)
def test_malformed_rle_is_refused(code):
    with pytest.raises(DataError):
        decode_rle(code)


def test_segmentation_of_another_size_is_refused():
    code = encode_rle(np.ones((1, 4, 6), dtype=np.bool_))[0]
    assert segmentation_to_mask(code, 4, 6).all()
    with pytest.raises(DataError, match="6x4 but the image is 4x6"):
        segmentation_to_mask(code, 6, 4)


def test_polygons_are_united():
    mask = segmentation_to_mask([[2, 3, 12, 3, 12, 9, 2, 9], [10, 5, 18, 5, 18, 15, 10, 15]], 20, 24)
    expected = np.zeros((20, 24), dtype=np.bool_)
    expected[3:9, 2:12] = True
    expected[5:15, 10:18] = True
    assert (mask == expected).all()


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 80)), min_size=3, max_size=3))
@settings(deadline=None)
def test_triangles_agree_with_pillow_but_for_their_edge(corners):
    mask = segmentation_to_mask([[value for corner in corners for value in corner]], 80, 100)
    drawn = Image.new("1", (800, 640))
    ImageDraw.Draw(drawn).polygon([(8 * x, 8 * y) for x, y in corners], fill=1)
    coverage = np.asarray(drawn, dtype=np.float64).reshape(80, 8, 100, 8).mean(axis=(1, 3))
    perimeter = sum(math.dist(corners[i], corners[i - 1]) for i in range(3))
    assert np.abs(mask - coverage).sum() <= perimeter + 4


@pytest.mark.parametrize(
    "polygons",
    [
        [],
        [[]],
        [[1, 1, 3, 3]],
        [[1, 1, 3, 1, 3]],
        [[1, 1, 3, 1, math.nan, 3]],
        [[1, 1, 3, 1, 1e9, 3]],
        [["a"] * 6],
    ],
)
def test_malformed_polygons_are_refused(polygons):
    with pytest.raises(DataError):
        segmentation_to_mask(polygons, 5, 4)


def filled_by_hand(box, size):
    x0, y0, x1, y1 = box
    mask = np.zeros((size, size), dtype=np.bool_)
    for y in range(size):
        for x in range(size):
            mask[y, x] = math.floor(x0) <= x < math.ceil(x1) and math.floor(y0) <= y < math.ceil(y1)
    return mask


COORDINATE = st.floats(-5, 20, width=32)


@given(st.lists(st.tuples(COORDINATE, COORDINATE, st.floats(0.01, 10), st.floats(0.01, 10)), max_size=4))
@settings(deadline=None)
def test_boxes_fill_every_pixel_they_touch(boxes):
    corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).reshape(-1, 4)
    masks = boxes_to_masks(corners, 16)
    assert masks.dtype == torch.bool
    assert masks.shape == (len(boxes), 16, 16)
    for corner, mask in zip(corners.tolist(), masks.numpy(), strict=True):
        expected = filled_by_hand(corner, 16)
        assert mask.any()
        if expected.any():
            assert (mask == expected).all()
        else:
            assert mask.sum() <= 16


@pytest.mark.parametrize(
    ("box", "pixel"),
    [
        ([3.0, 4.0, 3.0, 4.0], (4, 3)),
        ([9, 9, 12, 12], (7, 7)),
        ([-4, 2, -1, 2], (2, 0)),
        ([8, 8, 8, 8], (7, 7)),
    ],
)
def test_a_box_without_pixels_fills_the_nearest_one(box, pixel):
    mask = boxes_to_masks(torch.tensor([box], dtype=torch.float32), 8)[0]
    assert mask.nonzero().tolist() == [list(pixel)]


def test_integer_boxes_stay_inside():
    boxes = torch.tensor([[-3.5, 2.2, 100.0, 2.9], [7.99, 0.0, 8.0, 8.0]])
    assert integer_boxes(boxes, 8).tolist() == [[0, 2, 8, 3], [7, 0, 8, 8]]
