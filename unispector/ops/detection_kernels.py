"""torchvision's compiled non-maximum suppression and RoI align.

`import torchvision` imports TorchDynamo, two seconds of processor time; its library alone takes none.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@cache
def _kernels() -> Any:
    """Load torchvision's library, or torchvision itself where the library lies elsewhere."""
    spec = find_spec("torchvision")
    folders = (spec.submodule_search_locations if spec else None) or ()
    libraries = [
        file for folder in folders for file in Path(folder).glob("_C*") if file.suffix in (".so", ".pyd")
    ]
    if libraries:
        torch.ops.load_library(str(libraries[0]))
    else:
        import torchvision  # noqa: F401
    return torch.ops.torchvision


def nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Drop boxes that overlap a better one.

    Boxes are [n, 4] xyxy, scores [n]; `iou` is the largest IoU of two boxes that both stay. Returns [k] int64
    indices of the boxes that stay, best first.
    """
    kept: Tensor = _kernels().nms(boxes, scores, iou)
    return kept


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Do as `nms` within each group: groups [n] are moved apart, so that their boxes never overlap."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    offsets = groups.to(boxes) * (boxes.max() + 1)
    return nms(boxes + offsets[:, None], scores, iou)


def roi_align(maps: Tensor, rois: Tensor, size: int) -> Tensor:
    """Read one bilinear sample a cell of boxes on maps, pixel centres at half integers.

    Maps are [K, D, h, w] float32, `rois` [n, 5]: index of the map, then xyxy in its cells; `size` cells are
    read along a side. Returns [n, D, size, size].
    """
    if maps.requires_grad:
        # The library alone has no gradients: torchvision registers them when it is imported.
        import torchvision  # noqa: F401
    read: Tensor = _kernels().roi_align(maps, rois, 1.0, size, size, 1, True)
    return read
