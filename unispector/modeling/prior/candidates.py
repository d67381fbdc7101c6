"""Candidates: parts of the similarity prior's class masks and masks of the decoder's queries.

A class mask is cut at several probabilities, some relative to the most it reaches in the image, and falls
into connected parts; of parts that are nearly the same one is kept. Which candidates are right, the
candidate head learns; nothing here decides but `MOST`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unispector.ops.boxes import xyxy_to_cxcywh
from unispector.ops.detection_kernels import nms
from unispector.ops.windows import GRID, windows
from unispector.prior_structures import Candidates, PriorMaps
from unispector.structures import LayerPrediction

CUTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # probabilities
SHARES = (0.3, 0.5, 0.7, 0.85)  # of the most that a mask reaches
RISE = 0.12  # a part is as stable as the share of it that is still there when cut so much higher
QUIET = 0.02  # a mask that reaches no more is cut relative to nothing
LEAST_CELLS = 3  # a smaller part is noise
ALIKE = 0.82  # box IoU from which on two parts of one class are the same candidate
MOST = 16  # parts of a class in one image; the head knows more of them no better, and they take time
QUERIES = 8  # queries of a class in one image
FACTS = 25
SURENESS, OF_QUERY, GIVEN, GROWN = 21, 22, 23, 24
"""The facts `Part.score`, whether it is a query's, what its query or its seed scores, whether it is grown."""

FloatArray = npt.NDArray[np.float32]


@torch.no_grad()
def part_candidates(maps: PriorMaps) -> Candidates:
    """Cut every class mask of R images and C classes into parts.

    Args:
        maps: of the similarity prior.
    """
    probabilities = maps.logits.detach().float().flatten(0, 1).sigmoid().cpu().numpy()
    presence = maps.presence.detach().float().flatten().sigmoid().cpu().numpy()
    side = probabilities.shape[-1]
    owners: list[int] = []
    kept: list[Part] = []
    facts: list[tuple[float, ...]] = []
    for number, (own, shown) in enumerate(zip(probabilities, presence, strict=True)):
        parts = _distinct(list(_parts(own)))
        whole = Whole.of(own, float(shown))
        for rank, part in enumerate(parts):
            owners.append(number)
            kept.append(part)
            facts.append(facts_of(part, whole, rank, len(parts)))
    if not owners:
        return no_candidates(maps.logits.device)
    numbers = torch.tensor(owners, device=maps.logits.device)
    return candidates_of(kept, facts, side, numbers, numbers)


@torch.no_grad()
def query_candidates(prediction: LayerPrediction, maps: PriorMaps) -> tuple[Candidates, Tensor]:
    """The queries that are most probably of each class, as candidates of its mask.

    Args:
        prediction: of Q queries in R images.
        maps: of the same images and C classes.

    Returns:
        The candidates, and their own canvases [n, P/2, P/2]: a query's mask logits; `canvas` counts them
        after the R * C class masks.
    """
    rows, classes = maps.presence.shape
    side = maps.logits.shape[-1]
    probabilities, order = (
        prediction.logits.float()
        .sigmoid()
        .transpose(1, 2)
        .flatten(0, 1)
        .sort(dim=1, descending=True, stable=True)
    )
    taken = min(QUERIES, order.shape[1])
    owner = torch.arange(rows * classes, device=order.device).repeat_interleave(taken)
    query = order[:, :taken].flatten() + owner // classes * prediction.logits.shape[1]
    unique, place = query.unique(return_inverse=True)
    logits = prediction.masks_of(unique).float()[:, None]
    masks = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[:, 0]
    shown = maps.presence.detach().float().flatten().sigmoid().tolist()
    likely = probabilities[:, :taken].flatten().tolist()
    own = masks.sigmoid().cpu().numpy()
    kept, parts, facts = [], [], []
    for number, (of_map, mask) in enumerate(zip(owner.tolist(), place.tolist(), strict=True)):
        part = _whole(own[mask])
        if part is None:
            continue
        kept.append(number)
        parts.append(part)
        known = facts_of(part, Whole.of(own[mask], shown[of_map]), number % taken, taken)
        facts.append((*known[:OF_QUERY], 1.0, likely[number], 0.0))
    if not kept:
        return no_candidates(masks.device), masks
    rows_kept = torch.tensor(kept, device=masks.device)
    found = candidates_of(parts, facts, side, owner[rows_kept], place[rows_kept] + rows * classes)
    return found, masks


@dataclass(frozen=True)
class Part:
    """A connected part of one class's mask, in cells: x0, y0, x1, y1, and where its mask was cut."""

    box: tuple[int, int, int, int]
    crop: npt.NDArray[np.bool_]
    cut: float
    relative: bool
    area: int
    mean: float
    stability: float

    @property
    def score(self) -> float:
        """The product of mean probability and stability; only to choose the `MOST` parts."""
        return self.mean * math.sqrt(self.stability + 0.02)


def _parts(probabilities: FloatArray) -> Iterator[Part]:
    """The parts of one mask at all cuts, at most `MOST` of each."""
    top = float(probabilities.max())
    cuts = [(cut, False) for cut in CUTS if cut < top]
    cuts += [(share * top, True) for share in SHARES if share * top > QUIET]
    flat = probabilities.ravel()
    for cut, relative in cuts:
        above = probabilities > cut
        count, labels, figures, _ = cv2.connectedComponentsWithStats(above.view(np.uint8), connectivity=8)
        there = np.flatnonzero(above)
        owner, own = labels.ravel()[there], flat[there]
        sums = np.bincount(owner, weights=own, minlength=count)
        stays = np.bincount(owner, weights=own > min(cut + RISE, (1 + cut) / 2), minlength=count)
        for label in np.argsort(-sums[1:])[:MOST] + 1:
            x, y, width, height, area = (int(value) for value in figures[label])
            if area < LEAST_CELLS:
                continue
            crop = labels[y : y + height, x : x + width] == label
            mean, stability = float(sums[label] / area), float(stays[label] / area)
            yield Part((x, y, x + width, y + height), crop, cut, relative, area, mean, stability)


def _distinct(parts: list[Part]) -> list[Part]:
    """The best of parts that are nearly the same, best first."""
    if not parts:
        return []
    boxes = torch.tensor([part.box for part in parts], dtype=torch.float32)
    scores = torch.tensor([part.score for part in parts])
    return [parts[i] for i in nms(boxes, scores, ALIKE)[:MOST].tolist()]


@dataclass(frozen=True)
class Whole:
    """A whole mask: cells along a side, the most it reaches, its share above one half, its sum and mean."""

    side: int
    top: float
    half: float
    total: float
    mean: float
    presence: float

    @classmethod
    def of(cls, probabilities: FloatArray, presence: float) -> Self:
        """Measure a mask [h, w]; `presence` is the probability that the image shows its class."""
        return cls(
            side=probabilities.shape[0],
            top=float(probabilities.max()),
            half=float((probabilities > 0.5).mean()),
            total=float(probabilities.sum()),
            mean=float(probabilities.mean()),
            presence=presence,
        )


def facts_of(part: Part, whole: Whole, rank: int, count: int) -> tuple[float, ...]:
    """Return facts about a part from the maps alone: `FACTS` numbers, about 0 and of size 1."""
    side = whole.side
    x0, y0, x1, y1 = part.box
    width, height = (x1 - x0) / side, (y1 - y0) / side
    return (
        part.cut,
        float(part.relative),
        part.cut / whole.top,
        whole.top,
        part.mean,
        part.stability,
        math.log(part.area) - 5,
        math.log(width) + 2,
        math.log(height) + 2,
        math.log(width / height),
        part.area / ((x1 - x0) * (y1 - y0)),
        whole.half,
        5 * whole.mean,
        whole.presence,
        math.log(rank + 1),
        part.mean * part.area / whole.total,
        math.log(count + 1) / 2 - 1,
        float(x0 <= 1),
        float(y0 <= 1),
        float(x1 >= side - 1),
        float(y1 >= side - 1),
        part.score,
        0.0,  # it is no query's,
        0.0,  # no query gives it a probability,
        0.0,  # and it is not grown
    )


def _on_grid(part: Part, window: list[float]) -> FloatArray:
    """Share of each cell of the part's window (xyxy, in cells of the mask) that it covers: [GRID, GRID]."""
    left, top, right, bottom = window
    steps = ((right - left) / GRID, (bottom - top) / GRID)
    x0, y0, x1, y1 = part.box
    # Averaged to about the grid's own steps first, so that thin parts do not fall between its cells.
    size = (max(1, round((x1 - x0) / max(steps[0], 1))), max(1, round((y1 - y0) / max(steps[1], 1))))
    small = cv2.resize(part.crop.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    scale = (size[0] / (x1 - x0), size[1] / (y1 - y0))
    place = np.array(
        [
            [1 / (steps[0] * scale[0]), 0, (x0 - left) / steps[0] - 0.5 + 0.5 / (steps[0] * scale[0])],
            [0, 1 / (steps[1] * scale[1]), (y0 - top) / steps[1] - 0.5 + 0.5 / (steps[1] * scale[1])],
        ],
        dtype=np.float32,
    )
    return np.asarray(cv2.warpAffine(small, place, (GRID, GRID), flags=cv2.INTER_LINEAR), dtype=np.float32)


def _whole(probabilities: FloatArray) -> Part | None:
    """All of a mask above one half as one part; None where it is nowhere."""
    crop = probabilities > 0.5
    rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
    if not len(rows):
        return None
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return part_of(probabilities, box, crop[box[1] : box[3], box[0] : box[2]], 0.5)


def part_of(
    probabilities: FloatArray, box: tuple[int, int, int, int], crop: npt.NDArray[np.bool_], cut: float
) -> Part:
    """The part of a mask, cut at a probability, that lies at `crop` in `box`."""
    own = probabilities[box[1] : box[3], box[0] : box[2]][crop]
    stability = float((own > min(cut + RISE, (1 + cut) / 2)).mean())
    return Part(box, crop, cut, False, len(own), float(own.mean()), stability)


def candidates_of(
    parts: list[Part], facts: list[tuple[float, ...]], side: int, owners: Tensor, canvases: Tensor
) -> Candidates:
    """Parts (one at least) as tensors, on the device of `owners`."""
    boxes = xyxy_to_cxcywh(torch.tensor([part.box for part in parts], dtype=torch.float32) / side)
    reach = (windows(boxes, side) * side).tolist()
    cuts = torch.tensor([math.log(part.cut / (1 - part.cut)) for part in parts], dtype=torch.float32)
    own = torch.from_numpy(np.stack(list(map(_on_grid, parts, reach))))
    known = torch.tensor(facts, dtype=torch.float32)
    device = owners.device
    return Candidates(owners, canvases, boxes.to(device), cuts.to(device), own.to(device), known.to(device))


def no_candidates(device: torch.device) -> Candidates:
    """An empty list of candidates."""
    numbers = torch.zeros(0, dtype=torch.int64, device=device)
    empty = torch.zeros(0, device=device)
    return Candidates(
        numbers, numbers, empty.view(0, 4), empty, empty.view(0, GRID, GRID), empty.view(0, FACTS)
    )
