"""From network output to detections in the pixels of the original images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.ops.mask_runs import FloatArray, IntArray, masks_from_logits
from unispector.structures import Detections, ModelOutput

GROWTH = 1.2  # of a box that confines its mask


@dataclass(frozen=True)
class Rules:
    """How a prediction becomes a detection; the paper's are (False, False, 1).

    Attributes:
        tight_boxes: a box is tight around its mask, not the box head's.
        confine_masks: a mask ends at its (box head's) box, grown by a fifth.
        nms_iou: of two detections of a class that overlap more, the better one is kept; 1 = both.
    """

    tight_boxes: bool
    confine_masks: bool
    nms_iou: float


@torch.no_grad()
def postprocess(
    output: ModelOutput,
    original_hw: Sequence[tuple[int, int]],
    *,
    class_names: tuple[str, ...],
    image_size: int,
    padded_size: int,
    rules: Rules,
    limit: int = 300,
) -> list[Detections]:
    """Turn the last layer's predictions into detections.

    The best `limit` (query, class) pairs are kept; a score is the class probability times the mean
    mask probability inside the mask, as in MaskDINO (there taken over pixels, here over the cells of
    the mask logits).

    Args:
        output: predictions for B images.
        original_hw: (height, width) of the B images in pixels.
        class_names: names of the C prompted classes.
        image_size: side S of the network input.
        padded_size: side P of the padded frame.
        rules: what makes a detection of a prediction.
        limit: detections kept per image.

    Returns:
        B detections, best first; a detection whose mask is empty is dropped.
    """
    prediction = output.layers[-1]
    probabilities = prediction.logits.float().sigmoid().flatten(1)
    items = zip(
        probabilities.cpu(),
        probabilities.argsort(dim=1, descending=True, stable=True)[:, :limit].cpu(),
        prediction.boxes.float().cpu(),
        prediction.masks.float().cpu(),
        original_hw,
        strict=True,
    )
    frame = (image_size, padded_size)
    return [
        _detections(row[order], order, boxes, masks, hw, class_names, frame, rules)
        for row, order, boxes, masks, hw in items
    ]


def _detections(
    probabilities: Tensor,
    order: Tensor,
    boxes: Tensor,
    masks: Tensor,
    hw: tuple[int, int],
    class_names: tuple[str, ...],
    frame: tuple[int, int],
    rules: Rules,
) -> Detections:
    """One image's detections from the probabilities of its best pairs `order`, most probable first."""
    query, label = order.numpy() // len(class_names), order % len(class_names)
    used, position = np.unique(query, return_inverse=True)
    cells = masks.shape[-1]
    windows = np.tile([0, 0, cells, cells], (len(used), 1))
    if rules.confine_masks:
        windows = _windows(boxes.numpy()[used], cells)
    runs = masks_from_logits(masks.numpy()[used], windows, cells * frame[0] / frame[1], hw)
    scores = probabilities * torch.from_numpy((runs.quality * (runs.areas > 0))[position])
    if rules.tight_boxes:
        corners = torch.from_numpy(runs.boxes_xyxy[position])
    else:
        corners = _in_pixels(boxes[query], hw, frame[1] / frame[0])
    ranking = _ranking(scores, corners, label, rules.nms_iou)
    return Detections(
        boxes_xyxy=corners[ranking],
        scores=scores[ranking],
        labels=label[ranking],
        masks_rle=tuple(runs.rle(i) for i in position[ranking.numpy()].tolist()),
        class_names=class_names,
        image_hw=hw,
    )


def _ranking(scores: Tensor, corners: Tensor, label: Tensor, nms_iou: float) -> Tensor:
    """Indices of the detections that are kept, best first; of equal ones the earlier first."""
    from torchvision.ops import batched_nms

    ranking = scores.argsort(descending=True, stable=True)
    ranking = ranking[scores[ranking] > 0]
    if nms_iou < 1:
        ranking = ranking[batched_nms(corners[ranking], scores[ranking], label[ranking], nms_iou)]
    return ranking


def _in_pixels(boxes: Tensor, hw: tuple[int, int], stretch: float) -> Tensor:
    """Normalised cxcywh [n, 4] of the padded frame, P / S = `stretch`, to clipped xyxy pixels."""
    limits = boxes.new_tensor((hw[1], hw[0]))
    corners = (cxcywh_to_xyxy(boxes).view(-1, 2, 2) * limits * stretch).clamp(min=0)
    return corners.minimum(limits).flatten(1)


def _windows(boxes: FloatArray, cells: int) -> IntArray:
    """Cells whose centre lies in a box [n, 4] grown by a fifth and a cell: top, left, bottom, right."""
    half = boxes[:, 2:] * (GROWTH / 2) + 1 / cells
    low, high = (boxes[:, :2] - half) * cells, (boxes[:, :2] + half) * cells
    # A cell's centre is half a cell in; a centre on the edge itself is outside.
    corners = np.concatenate((np.floor(low - 0.5) + 1, np.ceil(high - 0.5)), axis=1)
    return corners[:, [1, 0, 3, 2]].clip(0, cells).astype(np.int64)
