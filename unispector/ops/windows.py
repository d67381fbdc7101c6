"""Windows around boxes, and what maps show in them."""

import torch
from torch import Tensor

from unispector.ops.detection_kernels import roi_align

GRID = 28  # cells along each side of a window
CROP = GRID // 2  # cells along each side of what a window's features are read on
WINDOW = 1.6  # sides of a window, relative to the box
LEAST_WINDOW = 0.5  # sides at least, relative to the window at which a cell of the grid is one of the canvas


def windows(boxes: Tensor, side: int) -> Tensor:
    """Return the windows of candidates: their boxes with some of the surroundings.

    Boxes are [n, 4] cxcywh in [0, 1], `side` is the cells along a side of the canvas. Returns [n, 4] xyxy in
    shares of the frame; they may leave it.
    """
    sides = (boxes[:, 2:] * WINDOW).clamp(min=LEAST_WINDOW * GRID / side)
    return torch.cat((boxes[:, :2] - sides / 2, boxes[:, :2] + sides / 2), dim=1)


def crop(maps: Tensor, index: Tensor, window: Tensor, size: int) -> Tensor:
    """Read maps [K, D, h, w] in windows [n, 4] (xyxy, shares of the frame): [n, D, size, size] float32.

    What lies a cell or more outside of a map is 0; up to there the edge goes on. `index`, [n] int64, is the
    map of each window.
    """
    height, width = maps.shape[-2:]
    scale = window.new_tensor((width, height, width, height))
    rois = torch.cat((index[:, None].to(window.dtype), window * scale), dim=1)
    return roi_align(maps.float(), rois, size)
