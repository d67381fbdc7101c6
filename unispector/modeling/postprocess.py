"""From network output to detections in the pixels of the original images."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from unispector.detections import Detections
from unispector.modeling.prior.candidate_head import relative_logits
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.ops.detection_kernels import batched_nms
from unispector.ops.mask_runs import OUTSIDE, FloatArray, IntArray, masks_from_logits
from unispector.ops.windows import GRID, windows
from unispector.prior_structures import JudgedCandidates
from unispector.structures import LayerPrediction, ModelOutput, padded_side

GROWTH = 1.2  # of a box that confines its mask


@dataclass(frozen=True)
class Rules:
    """The rules that turn a prediction into a detection; the paper's are (False, False, 1)."""

    tight_boxes: bool  # a box is tight around its mask, not the box head's
    confine_masks: bool  # a mask ends at its (box head's) box, grown by a fifth
    nms_iou: float  # of two detections of a class that overlap more, the better one is kept; 1 = both


@torch.no_grad()
def postprocess(
    output: ModelOutput,
    original_hw: Sequence[tuple[int, int]],
    *,
    class_names: tuple[str, ...],
    image_size: int,
    rules: Rules,
    limit: int,
) -> list[Detections]:
    """Turn the model's output into detections.

    Without a similarity prior (the paper) the best `limit` (query, class) pairs of the last layer are kept; a
    score is the class probability times the mean mask probability inside the mask, as in MaskDINO (there
    taken over pixels, here over the cells of the mask logits). With a prior the candidate head's judgement
    stands alone: a score is the mean of its two probabilities, that box and mask are right.

    Args:
        output: predictions for B images.
        original_hw: (height, width) of the B images in pixels.
        class_names: names of the C prompted classes.
        image_size: side S of the network input.
        rules: what makes a detection of a prediction.
        limit: detections kept per image.

    Returns:
        B detections, best first; a detection whose mask is empty is dropped.
    """
    frame = (image_size, padded_side(image_size))
    if output.candidates is not None:
        return [
            _of_candidates(output.candidates, row, hw, class_names, frame, rules, limit)
            for row, hw in enumerate(original_hw)
        ]
    prediction = output.layers[-1]
    masks = prediction.masks
    probabilities = prediction.logits.float().sigmoid().flatten(1)
    orders = probabilities.argsort(dim=1, descending=True, stable=True)[:, :limit]
    return [
        _of_queries(prediction, masks, row, orders[row], hw, class_names, frame, rules)
        for row, hw in enumerate(original_hw)
    ]


def _of_candidates(
    judged: JudgedCandidates,
    row: int,
    hw: tuple[int, int],
    class_names: tuple[str, ...],
    frame: tuple[int, int],
    rules: Rules,
    limit: int,
) -> Detections:
    """The candidates of one image that are no worse double of another, best first."""
    classes = len(class_names)
    own = (judged.candidates.map // classes == row).nonzero().flatten()
    scores = judged.scores[own].float().sigmoid().mean(1).cpu()
    corners = _in_pixels(judged.boxes[own].float().cpu(), hw, frame[1] / frame[0])
    labels = (judged.candidates.map[own] % classes).cpu()
    kept = _ranking(scores, corners, labels, rules.nms_iou)[:limit]
    logits, windows = judged_masks(judged, own[kept.to(own.device)])
    runs = masks_from_logits(logits, windows, judged.canvases.shape[-1] * frame[0] / frame[1], hw)
    corners = torch.from_numpy(runs.boxes_xyxy) if rules.tight_boxes else corners[kept]
    there = np.flatnonzero(runs.areas > 0)
    return Detections(
        boxes_xyxy=corners[there],
        scores=scores[kept][there],
        labels=labels[kept][there],
        masks_rle=tuple(runs.rle(int(i)) for i in there),
        class_names=class_names,
        image_hw=hw,
    )


def judged_masks(judged: JudgedCandidates, chosen: Tensor) -> tuple[FloatArray, IntArray]:
    """Mask logits of some candidates at the resolution of their canvases.

    Args:
        judged: the candidates of all images.
        chosen: [m] int64 which of them.

    Returns:
        [m, h, w] float32 logits, and [m, 4] first row, first column, last row and last column, both
        excluded, of the cells of each window.
    """
    candidates, side = judged.candidates, judged.canvases.shape[-1]
    reach = windows(candidates.boxes[chosen], side).double().cpu().numpy() * side
    low = np.floor(reach[:, :2]).astype(np.int64).clip(0, side - 1)
    high = np.maximum(np.ceil(reach[:, 2:]).astype(np.int64).clip(1, side), low + 1)
    canvases = judged.canvases.cpu().numpy()
    source = candidates.canvas[chosen].tolist()
    cuts = candidates.cuts[chosen].tolist()
    small = torch.stack((candidates.own, judged.change), dim=-1)[chosen].float().cpu().numpy()
    logits = np.full((len(chosen), side, side), OUTSIDE, dtype=np.float32)
    for number, ((left, top), (right, bottom)) in enumerate(zip(low, high, strict=True)):
        scale = (reach[number, 2:] - reach[number, :2]) / GRID
        shift = reach[number, :2] - (left, top) + scale / 2 - 0.5  # centre of the grid's first cell
        place = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]], dtype=np.float32)
        size = (int(right - left), int(bottom - top))
        drawn = cv2.warpAffine(small[number], place, size, borderMode=cv2.BORDER_REPLICATE)
        part = torch.from_numpy(canvases[source[number], top:bottom, left:right] - np.float32(cuts[number]))
        base = relative_logits(part, torch.from_numpy(drawn[..., 0]))
        logits[number, top:bottom, left:right] = base.numpy() + drawn[..., 1]
    return logits, np.concatenate((low[:, ::-1], high[:, ::-1]), axis=1)


def _of_queries(
    prediction: LayerPrediction,
    logits: Tensor,
    row: int,
    order: Tensor,
    hw: tuple[int, int],
    class_names: tuple[str, ...],
    frame: tuple[int, int],
    rules: Rules,
) -> Detections:
    """The (query, class) pairs `order` of one image, most probable first; `logits` are all images' masks."""
    boxes, masks = prediction.boxes[row].float().cpu(), logits[row].cpu()
    probabilities = prediction.logits[row].float().sigmoid().flatten().cpu()[order.cpu()]
    classes = prediction.logits.shape[-1]
    query, label = order.cpu().numpy() // classes, order.cpu() % classes
    used, position = np.unique(query, return_inverse=True)
    cells = masks.shape[-1]
    reach = np.tile([0, 0, cells, cells], (len(used), 1))
    if rules.confine_masks:
        reach = _windows(boxes.numpy()[used], cells)
    runs = masks_from_logits(masks.numpy()[used], reach, cells * frame[0] / frame[1], hw)
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
        masks_rle=tuple(runs.rle(int(position[i])) for i in ranking.tolist()),
        class_names=class_names,
        image_hw=hw,
    )


def _ranking(scores: Tensor, corners: Tensor, label: Tensor, nms_iou: float) -> Tensor:
    """Indices of the detections that are kept, best first; of equal ones the earlier first."""
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
