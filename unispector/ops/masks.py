"""Filled boxes as masks, and the whole pixels a box touches."""

import torch
from torch import Tensor


def boxes_to_masks(boxes_xyxy_px: Tensor, size: int) -> Tensor:
    """Fill boxes: floor of the top left, ceiling of the bottom right, never empty.

    Boxes are [K, 4] pixels; what lies outside the square frame of side `size` is clipped, a box without area
    fills the one pixel nearest to its centre. Returns bool [K, size, size].
    """
    edges = integer_boxes(boxes_xyxy_px, size)
    index = torch.arange(size, device=edges.device)
    inside_x = (index >= edges[:, 0, None]) & (index < edges[:, 2, None])
    inside_y = (index >= edges[:, 1, None]) & (index < edges[:, 3, None])
    return inside_y[:, :, None] & inside_x[:, None, :]


def integer_boxes(boxes_xyxy_px: Tensor, size: int) -> Tensor:
    """Whole pixels a box touches: floor and ceiling, clipped to the frame, at least 1 x 1.

    Boxes are [K, 4] pixels of a square frame of side `size`. Returns int64 [K, 4] x0, y0, x1, y1 with 0 <= x0
    < x1 <= size, and the same for y.
    """
    low = boxes_xyxy_px[:, :2].floor().long().clamp(0, size)
    high = boxes_xyxy_px[:, 2:].ceil().long().clamp(0, size)
    centre = ((boxes_xyxy_px[:, :2] + boxes_xyxy_px[:, 2:]) / 2).floor().long().clamp(0, size - 1)
    empty = high <= low
    low = torch.where(empty, centre, low)
    high = torch.where(empty, centre + 1, high)
    return torch.cat([low, high], dim=1)
