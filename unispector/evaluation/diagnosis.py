"""The causes of a detector's losses on one class, by oracles on the same candidates.

An oracle knows the ground truth and changes one thing: the order of the candidates, or which of them belong
together. What it gains is what that one thing costs. Figures of boxes and of masks are in percent of AP50.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask

from unispector.detections import Detections
from unispector.evaluation.ground_truth import GroundTruth, Kind, Overlaps, best_overlaps, boxes_xywh
from unispector.evaluation.matching import MATCH_IOU, Matches, average_precision_50, match
from unispector.evaluation.one_class import DrawnFigures, DrawRow, SkippedClass
from unispector.scores import DEFAULT_SCORE

INSIDE = 0.7  # share of a candidate's area from which on it is a piece of an instance
SURE = DEFAULT_SCORE  # a detection with this score is shown to the user

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Oracles:
    """The boxes or the masks of one draw, in percent."""

    as_is: float
    recall: float  # instances that any candidate overlaps by at least 0.5
    ordered: float  # AP50 of the same candidates when those that find an instance come first
    cover: float  # median over the instances of the best candidate's IoU
    merged: float  # AP50 when the candidates that lie inside an instance are one


@dataclass(frozen=True)
class DiagnosisRow(DrawRow):
    """One class with one draw of prompts."""

    targets: int
    instances: int
    candidates: float  # a target, all that the detector hands out
    # What oracles make of them; masks are None where the set has boxes only.
    boxes: Oracles
    masks: Oracles | None
    # Median number of candidates inside an instance that a candidate finds by its box, and inside one that
    # none does; None without such instances.
    pieces_found: float | None
    pieces_missed: float | None
    # Median score of the findings that are right and wrong (boxes); None without any.
    true_score: float | None
    false_score: float | None
    first_right: float  # percent of the targets whose surest finding is right
    sure_findings: float  # findings a target with a score of at least `SURE`
    sure_alarms: float | None  # the same on defect-free images; None without any


@dataclass(frozen=True)
class Loss:
    """The cost of one cause: AP50 in percent that removing it alone would add, mean of the classes."""

    cause: str
    boxes: float
    masks: float | None
    meaning: str


@dataclass(frozen=True)
class DiagnosisReport(DrawnFigures):
    """A set diagnosed one class at a time."""

    data_set: str
    roi: Literal["box", "mask"]
    fingerprint: str
    target_limit: int  # targets judged a class, at most
    good_images: int  # defect-free images looked at for each row
    rows: tuple[DiagnosisRow, ...]
    skipped: tuple[SkippedClass, ...]

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The causes, the one that costs most boxes first."""
        as_is, ordered, merged = (self._pair(figure) for figure in ("as_is", "ordered", "merged"))
        whole = (100.0, None if as_is[1] is None else 100.0)
        losses = (
            Loss("ranking", *_gain(as_is, ordered), "the same candidates in perfect order"),
            Loss("candidates", *_gain(ordered, whole), "what no order of them finds at IoU 0.5"),
            Loss("fragments", *_gain(as_is, merged), "pieces of an instance merged, the order as it is"),
        )
        return tuple(sorted(losses, key=lambda loss: -loss.boxes))

    def _pair(self, figure: str) -> tuple[float, float | None]:
        boxes, masks = self.mean(f"boxes.{figure}"), self.mean(f"masks.{figure}")
        return (0.0 if boxes is None else boxes.mean), None if masks is None else masks.mean


def diagnosis_row(
    draw: tuple[str, int],
    truth: GroundTruth,
    found: Mapping[int, Detections],
    on_good: Sequence[Detections],
    *,
    masks: bool,
) -> DiagnosisRow:
    """All figures of one draw.

    Args:
        truth: the class's instances on the targets, no crowds.
        found: image id -> all candidates on that target, for every target.
    """
    overlaps = {image_id: truth.overlaps(image_id, of_image) for image_id, of_image in found.items()}
    matches = match(truth, overlaps, "bbox")
    true, wrong = matches.instance >= 0, (matches.instance < 0) & ~matches.ignored
    pieces = _pieces(truth, found, "segm" if masks else "bbox")
    seen = best_overlaps(truth, overlaps, "bbox") >= MATCH_IOU
    return DiagnosisRow(
        class_name=draw[0],
        prompt_seed=draw[1],
        targets=len(found),
        instances=len(seen),
        candidates=float(np.mean([len(of_image) for of_image in found.values()])),
        boxes=_oracles(truth, found, overlaps, "bbox"),
        masks=_oracles(truth, found, overlaps, "segm") if masks else None,
        pieces_found=_median(pieces[seen]),
        pieces_missed=_median(pieces[~seen]),
        true_score=_median(matches.scores[true]),
        false_score=_median(matches.scores[wrong]),
        first_right=first_right(matches),
        sure_findings=_sure(list(found.values())),
        sure_alarms=_sure(on_good) if on_good else None,
    )


def _oracles(
    truth: GroundTruth, found: Mapping[int, Detections], overlaps: Mapping[int, Overlaps], kind: Kind
) -> Oracles:
    best = best_overlaps(truth, overlaps, kind)
    ordered = {image_id: in_perfect_order(of_image, kind) for image_id, of_image in overlaps.items()}
    joined = {
        image_id: truth.overlaps(image_id, merged(of_image, shares_inside(truth, image_id, of_image, kind)))
        for image_id, of_image in found.items()
    }
    return Oracles(
        as_is=ap50(truth, overlaps, kind),
        recall=100 * float(np.mean(best >= MATCH_IOU)),
        ordered=ap50(truth, ordered, kind),
        cover=100 * float(np.median(best)),
        merged=ap50(truth, joined, kind),
    )


def _pieces(truth: GroundTruth, found: Mapping[int, Detections], kind: Kind) -> npt.NDArray[np.int64]:
    """Candidates inside each instance, in the order of `best_overlaps`."""
    return np.concatenate(
        [
            (shares_inside(truth, image_id, found[image_id], kind) >= INSIDE).sum(axis=0)
            for image_id in truth.image_ids
        ]
    )


def _gain(
    before: tuple[float, float | None], after: tuple[float, float | None]
) -> tuple[float, float | None]:
    masks = None if before[1] is None or after[1] is None else after[1] - before[1]
    return after[0] - before[0], masks


def ap50(truth: GroundTruth, overlaps: Mapping[int, Overlaps], kind: Kind) -> float:
    """AP50 in percent, as `evaluate_overlaps` gives it: at most 100 candidates of an image count."""
    matches = match(truth, overlaps, kind)
    return float(average_precision_50(matches, np.ones((1, len(matches.images))))[0])


def in_perfect_order(overlaps: Overlaps, kind: Kind) -> Overlaps:
    """The candidates of an image with those first that find an instance, of each instance the best one.

    Pairs at IoU 0.5 or more are taken by falling IoU, each candidate and each instance once. Those candidates
    score 1; the others keep their order and score less.
    """
    iou = overlaps.iou(kind)
    rows, columns = np.nonzero(iou >= MATCH_IOU)
    first: dict[int, int] = {}
    for place in np.argsort(-iou[rows, columns], kind="stable").tolist():
        row, column = int(rows[place]), int(columns[place])
        if row not in first and column not in first.values():
            first[row] = column
    others = [row for row in range(len(overlaps)) if row not in first]
    order = np.array([*first, *others], dtype=np.int64)
    scores = np.concatenate([np.ones(len(first)), overlaps.scores[others] / 2])
    return replace(
        overlaps,
        scores=scores,
        classes=overlaps.classes[order],
        boxes_xywh=overlaps.boxes_xywh[order],
        mask_areas=overlaps.mask_areas[order],
        box_iou=overlaps.box_iou[order],
        mask_iou=overlaps.mask_iou[order],
    )


def shares_inside(truth: GroundTruth, image_id: int, found: Detections, kind: Kind) -> Floats:
    """[n, g] share of a candidate's box or mask that lies in an instance's, for candidates in their order."""
    instances = truth.instances(image_id)
    if not len(found) or not len(instances):
        return np.zeros((len(found), len(instances)))
    # Against a crowd pycocotools divides by the candidate's area alone.
    every = [1] * len(instances)
    if kind == "segm":
        return np.asarray(coco_mask.iou(list(found.masks_rle), list(instances.masks), every))
    return np.asarray(coco_mask.iou(boxes_xywh(found), instances.boxes_xywh, every))


def merged(found: Detections, shares: Floats) -> Detections:
    """Make one candidate of those that lie inside the same instance, scored as the best of them.

    Args:
        shares: see `shares_inside`; a candidate belongs to the instance that holds most of it, if that is at
            least `INSIDE`.

    Returns:
        Best first; a merged box encloses its parts, a merged mask is their union.
    """
    rows = np.arange(len(found))
    owner = shares.argmax(axis=1) if shares.size else np.zeros(len(found), dtype=np.int64)
    inside = shares[rows, owner] >= INSIDE if shares.size else np.zeros(len(found), dtype=np.bool_)
    groups = [rows[inside & (owner == instance)] for instance in np.unique(owner[inside])]
    groups += [rows[row : row + 1] for row in rows[~inside]]
    scores = torch.stack([found.scores[group].max() for group in groups]) if groups else found.scores
    order = scores.argsort(descending=True, stable=True).tolist()
    kept = [groups[place] for place in order]
    boxes = [
        torch.cat([found.boxes_xyxy[group, :2].amin(0), found.boxes_xyxy[group, 2:].amax(0)])
        for group in kept
    ]
    return replace(
        found,
        boxes_xyxy=torch.stack(boxes) if boxes else found.boxes_xyxy,
        scores=scores[order],
        labels=torch.stack([found.labels[group[0]] for group in kept]) if kept else found.labels,
        masks_rle=tuple(_union([found.masks_rle[row] for row in group]) for group in kept),
    )


def first_right(matches: Matches) -> float:
    """Percent of the images whose surest finding found an instance; one without findings is none of them."""
    _, first = np.unique(matches.image, return_index=True)
    return 100 * float(np.count_nonzero(matches.instance[first] >= 0) / len(matches.images))


def _sure(found: Sequence[Detections]) -> float:
    """Findings an image with a score of at least `SURE`."""
    return float(np.mean([len(detections.above(SURE)) for detections in found]))


def _median(values: npt.NDArray[np.number]) -> float | None:
    return float(np.median(values)) if len(values) else None


def _union(codes: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """A mask code that JSON can hold, as the detector's are."""
    if len(codes) == 1:
        return dict(codes[0])
    code = coco_mask.merge(list(codes))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}
