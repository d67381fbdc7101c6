"""From network output to detections in the pixels of the original images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unispector.modeling.prior_instances import prior_instances
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.ops.mask_runs import FloatArray, IntArray, masks_from_logits
from unispector.ops.rle import Rle
from unispector.structures import Detections, LayerPrediction, ModelOutput

GROWTH = 1.2  # of a box that confines its mask
QUERY_TRUST = 0.3
"""Factor on the scores of queries beside a similarity prior: of classes nobody trained on, a decoder is too
sure after short training (reports/training_log.md)."""


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
    the mask logits). The parts of the similarity prior's masks are further candidates, before
    which the queries' scores count `QUERY_TRUST`.

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
    masks = prediction.masks
    probabilities = prediction.logits.float().sigmoid().flatten(1)
    orders = probabilities.argsort(dim=1, descending=True, stable=True)[:, :limit]
    found = []
    for row, hw in enumerate(original_hw):
        candidates = [_of_queries(prediction, masks, row, orders[row], hw, (image_size, padded_size), rules)]
        if output.prior is not None:
            logits, presence = output.prior.logits[row], output.prior.presence[row]
            candidates[0] = replace(candidates[0], scores=QUERY_TRUST * candidates[0].scores)
            candidates.append(_of_prior(logits, presence, hw, image_size / padded_size))
        found.append(_detections(candidates, hw, class_names, rules.nms_iou, limit))
    return found


@dataclass(frozen=True)
class _Candidates:
    """n possible detections of one image, from one source: scores, xyxy pixels, labels, masks' codes."""

    scores: Tensor
    corners: Tensor
    labels: Tensor
    code: Callable[[int], Rle]


def _of_queries(
    prediction: LayerPrediction,
    logits: Tensor,
    row: int,
    order: Tensor,
    hw: tuple[int, int],
    frame: tuple[int, int],
    rules: Rules,
) -> _Candidates:
    """The (query, class) pairs `order` of one image, most probable first; `logits` are all images' masks."""
    boxes, masks = prediction.boxes[row].float().cpu(), logits[row].cpu()
    probabilities = prediction.logits[row].float().sigmoid().flatten().cpu()[order.cpu()]
    classes = prediction.logits.shape[-1]
    query, label = order.cpu().numpy() // classes, order.cpu() % classes
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
    return _Candidates(scores, corners, label, lambda i: runs.rle(int(position[i])))


def _of_prior(logits: Tensor, presence: Tensor, hw: tuple[int, int], share: float) -> _Candidates:
    """The parts of the prior's class masks; their boxes are tight, for the prior has no others."""
    covered = logits.shape[-1] * share
    parts = prior_instances(logits, presence, math.ceil(covered))
    runs = masks_from_logits(parts.logits, parts.windows, covered, hw)
    scores = torch.from_numpy(parts.scores * (runs.areas > 0))
    return _Candidates(scores, torch.from_numpy(runs.boxes_xyxy), torch.from_numpy(parts.labels), runs.rle)


def _detections(
    candidates: Sequence[_Candidates],
    hw: tuple[int, int],
    class_names: tuple[str, ...],
    nms_iou: float,
    limit: int,
) -> Detections:
    """One image's detections out of all candidates."""
    scores, corners, labels = (
        torch.cat(parts) for parts in zip(*((c.scores, c.corners, c.labels) for c in candidates), strict=True)
    )
    codes = [partial(c.code, i) for c in candidates for i in range(len(c.scores))]
    ranking = _ranking(scores, corners, labels, nms_iou)[:limit]
    return Detections(
        boxes_xyxy=corners[ranking],
        scores=scores[ranking],
        labels=labels[ranking],
        masks_rle=tuple(codes[i]() for i in ranking.tolist()),
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
