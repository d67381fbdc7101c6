"""From network output to detections in the pixels of the original images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unispector.ops.boxes import cxcywh_to_xyxy, masks_to_boxes
from unispector.ops.rle import encode_rle
from unispector.structures import Detections, ModelOutput

GROWTH = 1.2  # of a box that confines its mask
BACKGROUND = -10.0  # logit outside of it
CHUNK_PIXELS = 2**25  # mask pixels resized at a time, so that large images stay within memory


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
    mask probability inside the mask, as in MaskDINO.

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
    results = []
    for logits, boxes, masks, hw in zip(
        prediction.logits.float(),
        prediction.boxes.float(),
        prediction.masks.float(),
        original_hw,
        strict=True,
    ):
        probabilities = logits.sigmoid().flatten()
        order = probabilities.argsort(descending=True, stable=True)[:limit]
        query, label = order // logits.shape[1], order % logits.shape[1]
        used, position = query.unique(return_inverse=True)
        used_masks = _confined(masks[used], boxes[used]) if rules.confine_masks else masks[used]
        rles, quality, around = _masks(used_masks, hw, image_size, padded_size)
        scores = probabilities[order] * quality[position]
        stretch = padded_size / image_size
        corners = around[position] if rules.tight_boxes else _in_pixels(boxes[query], hw, stretch)
        ranking = _ranking(scores, corners, label, rules.nms_iou)
        results.append(
            Detections(
                boxes_xyxy=corners[ranking].cpu(),
                scores=scores[ranking].cpu(),
                labels=label[ranking].cpu(),
                masks_rle=tuple(rles[i] for i in position[ranking].tolist()),
                class_names=class_names,
                image_hw=hw,
            )
        )
    return results


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


def _confined(logits: Tensor, boxes: Tensor) -> Tensor:
    """Mask logits [n, h, w], background outside of their boxes [n, 4] grown by a fifth and a cell."""
    height, width = logits.shape[1:]
    y = (torch.arange(height, device=logits.device) + 0.5) / height
    x = (torch.arange(width, device=logits.device) + 0.5) / width
    cx, cy, w, h = boxes[..., None].unbind(1)
    in_columns = (x - cx).abs() < w * (GROWTH / 2) + 1 / width
    in_rows = (y - cy).abs() < h * (GROWTH / 2) + 1 / height
    return logits.masked_fill(~(in_rows[:, :, None] & in_columns[:, None]), BACKGROUND)


def _masks(
    logits: Tensor, hw: tuple[int, int], image_size: int, padded_size: int
) -> tuple[list[dict[str, object]], Tensor, Tensor]:
    """RLE at the original size, mean probability inside and tight xyxy box, for mask logits [n, h, w]."""
    per_chunk = max(CHUNK_PIXELS // max(hw[0] * hw[1], padded_size**2), 1)
    rles: list[dict[str, object]] = []
    qualities, boxes = [], []
    for chunk in logits.split(per_chunk):
        if padded_size != image_size:
            frame = F.interpolate(
                chunk[None], (padded_size, padded_size), mode="bilinear", align_corners=False
            )
            frame = frame[..., :image_size, :image_size]
        else:
            frame = chunk[None]
        full = F.interpolate(frame, hw, mode="bilinear", align_corners=False)[0]
        inside = full > 0
        qualities.append((full.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6))
        boxes.append(masks_to_boxes(inside))
        rles += encode_rle(inside.cpu().numpy())
    return rles, torch.cat(qualities), torch.cat(boxes)
