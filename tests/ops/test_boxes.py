"""Box formats, overlaps and the box logit against torchvision and plain arithmetic."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from unispector.ops.boxes import (
    cxcywh_to_xyxy,
    inverse_sigmoid,
    paired_giou,
    pairwise_giou,
    pairwise_iou,
    xyxy_to_cxcywh,
)


def boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator) * 10
    return torch.cat((corner, corner + size + 0.1), dim=1)


def test_formats():
    assert cxcywh_to_xyxy(torch.tensor([5.0, 4.0, 4.0, 2.0])).tolist() == [3, 3, 7, 5]
    assert xyxy_to_cxcywh(torch.tensor([3.0, 3.0, 7.0, 5.0])).tolist() == [5, 4, 4, 2]
    several = boxes(6, 0).view(2, 3, 4)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(several)), several)


def test_overlaps_are_torchvisions():
    a, b = boxes(7, 1), boxes(5, 2)
    b[0] = a[0]
    b[1] = a[1] + 50
    torch.testing.assert_close(pairwise_iou(a, b), box_iou(a, b), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pairwise_giou(a, b), generalized_box_iou(a, b), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        paired_giou(a[:5], b), generalized_box_iou(a[:5], b).diagonal(), atol=1e-5, rtol=0
    )


def test_empty_boxes_stay_finite():
    point = torch.zeros(1, 4, requires_grad=True)
    giou = paired_giou(point, torch.zeros(1, 4))
    giou.sum().backward()
    assert giou.isfinite().all()
    assert point.grad is not None
    assert point.grad.isfinite().all()


@given(st.floats(min_value=1e-4, max_value=1 - 1e-4))
def test_inverse_sigmoid_inverts(value: float):
    x = torch.tensor(value, dtype=torch.float64)
    assert inverse_sigmoid(x).item() == pytest.approx(math.log(value / (1 - value)), rel=1e-9, abs=1e-12)


def test_inverse_sigmoid_is_bounded():
    limit = math.log(1e5)
    bounded = inverse_sigmoid(torch.tensor([-3.0, 0.0, 1.0, 4.0]))
    torch.testing.assert_close(bounded, torch.tensor([-limit, -limit, limit, limit]), atol=1e-3, rtol=0)
