"""Box formats, overlaps and the logit in which boxes are refined."""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners; any unit, [..., 4] to [..., 4]."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size; any unit, [..., 4] to [..., 4]."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), dim=-1)


def _giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of broadcastable xyxy boxes [..., 4]."""
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    intersection = inner.prod(-1)
    union = area_a + area_b - intersection
    hull = outer.prod(-1)
    iou = intersection / (union + 1e-6)
    return iou, iou - (hull - union) / (hull + 1e-6)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of `a` [n, 4] with every one of `b` [m, 4], both xyxy: [n, m] in [0, 1]."""
    return _giou(a[:, None], b[None])[0]


def pairwise_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of every box of `a` [n, 4] with every one of `b` [m, 4], xyxy: [n, m] in [-1, 1]."""
    return _giou(a[:, None], b[None])[1]


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of box i of `a` [n, 4] with box i of `b` [n, 4], both xyxy: [n] in [0, 1]."""
    return _giou(a, b)[0]


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of box i of `a` [n, 4] with box i of `b` [n, 4], both xyxy: [n] in [-1, 1]."""
    return _giou(a, b)[1]


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of x in [0, 1], finite at both ends (at most ±11.5 with the default eps)."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
