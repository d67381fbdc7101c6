"""The cells of a feature map that prompts mark."""

import cv2
import numpy as np
import torch
from torch import Tensor

from unispector.config import Roi
from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.ops.rle import BoolArray, segmentation_to_mask


def cells_of(instance: InstanceRecord, image: ImageRecord, grid: int, roi: Roi) -> Tensor:
    """[C] bool cells of a square grid that one prompt marks, row by row; one at least.

    Args:
        grid: cells a side; the map covers the whole image, whatever its shape.
        roi: what marks is the instance's box or its mask; its box where it has no mask.
    """
    if roi == "box" or instance.segmentation is None:
        marked = _cells_of_box(instance, image, grid)
    else:
        marked = _cells_of_mask(segmentation_to_mask(instance.segmentation, image.height, image.width), grid)
    return torch.from_numpy(marked).flatten()


def marked_cells(prompts: Annotations, image: ImageRecord, grid: int, roi: Roi) -> Tensor:
    """[classes, C] bool cells that the prompts of each class mark on an image; see `cells_of`."""
    inside = torch.zeros(len(prompts.categories), grid**2, dtype=torch.bool)
    for instance in prompts.instances_of(image.id):
        inside[prompts.class_index[instance.category_id]] |= cells_of(instance, image, grid, roi)
    return inside


def _cells_of_box(instance: InstanceRecord, image: ImageRecord, grid: int) -> BoolArray:
    """[grid, grid] cells whose centre lies in the box; of a tiny box, the cell it lies in."""
    scale = np.array([grid / image.width, grid / image.height])
    corner, size = np.reshape(instance.bbox, (2, 2)) * scale
    first = np.ceil(corner - 0.5).clip(0).astype(int)
    last = np.ceil(corner + size - 0.5).clip(0).astype(int)
    middle = np.floor(corner + size / 2).clip(0, grid - 1).astype(int)
    first, last = np.where(last > first, (first, last), (middle, middle + 1))
    inside = np.zeros((grid, grid), dtype=np.bool_)
    inside[first[1] : last[1], first[0] : last[0]] = True
    return inside


def _cells_of_mask(mask: BoolArray, grid: int) -> BoolArray:
    """[grid, grid] cells that the mask covers by half; of a thin mask, those it covers most."""
    share = cv2.resize(mask.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= min(0.5, float(share.max())), dtype=np.bool_)
