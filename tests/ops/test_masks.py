import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.ops.masks import boxes_to_masks, integer_boxes


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
