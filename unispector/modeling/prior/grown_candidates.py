"""Grown candidates: what of an image resembles a candidate that lies in it.

A candidate often shows but a piece of a large defect, or a defect with some of what is around it. The
image's own features tell where the defect ends: the cells that are nearer to the candidate than to the rest
of the image, cut at several shares of what the candidate itself reaches (completing a region by the target's
own similarity is an idea of INSID3, arXiv 2603.28480).
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unispector.modeling.prior.candidates import (
    ALIKE,
    GIVEN,
    LEAST_CELLS,
    FloatArray,
    Part,
    Whole,
    candidates_of,
    facts_of,
    no_candidates,
    part_of,
)
from unispector.ops.boxes import cxcywh_to_xyxy, pairwise_iou
from unispector.ops.detection_kernels import batched_nms
from unispector.ops.windows import windows
from unispector.prior_structures import Candidates, JudgedCandidates, PriorFeatures, PriorMaps

SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)  # of what a candidate reaches, at which what resembles it is cut
APART = 0.4  # box IoU up to which two candidates are both grown
STEEPNESS = 8.0  # logits of a share
REACHED = 0.7  # quantile over a candidate's cells that says what it reaches
FAINTEST = 0.03  # a candidate that is no nearer to itself is not grown
OUTSIDE = 0.05  # share of a cell up to which it is the rest of the image


@torch.no_grad()
def grown_candidates(
    features: PriorFeatures, maps: PriorMaps, judged: JudgedCandidates, seeds: int
) -> tuple[Candidates, Tensor]:
    """Grow the best candidates of every class mask.

    Args:
        features: of B images.
        maps: of R images and C classes, R a multiple of B: those of the first image first.
        judged: candidates of the R images and C classes.
        seeds: candidates of a class in one image that are grown, at most.

    Returns:
        The candidates, and their own canvases [n, P/2, P/2]; `canvas` counts them from 0.
    """
    known = judged.candidates
    scores = judged.scores.float().sigmoid().mean(1)
    chosen = _seeds(known, scores, seeds)
    side = maps.logits.shape[-1]
    if not len(chosen):
        return no_candidates(maps.logits.device), maps.logits.new_zeros(0, side, side)
    owner = known.map[chosen]
    covered = _covered(known.boxes[chosen], judged.masks[chosen].sigmoid(), side)
    image = owner // (maps.presence.numel() // len(features.detail))
    with torch.autocast(covered.device.type, enabled=False):
        share = _shares(features.levels, image, covered.float(), side)
    canvases = STEEPNESS * (share - 0.5)
    probabilities = canvases.sigmoid().cpu().numpy()
    cores = _core(covered).cpu().numpy()
    shown = maps.presence.detach().float().flatten().sigmoid()[owner].tolist()
    found, facts, places = [], [], []
    for place, score in enumerate(scores[chosen].tolist()):
        whole = Whole.of(probabilities[place], shown[place])
        for rank, part in enumerate(_grown(probabilities[place], cores[place])):
            found.append(part)
            places.append(place)
            facts.append((*facts_of(part, whole, rank, len(SHARES))[:GIVEN], score, 1.0))
    on = torch.tensor(places, dtype=torch.int64, device=owner.device)
    new = _new(found, owner[on], known, side)
    if not len(new):
        return no_candidates(maps.logits.device), canvases
    numbers = new.tolist()
    kept = [found[i] for i in numbers], [facts[i] for i in numbers]
    return candidates_of(*kept, side, owner[on][new], on[new]), canvases


def _new(parts: Sequence[Part], owner: Tensor, known: Candidates, side: int) -> Tensor:
    """Find the parts that resemble no candidate of their class mask, nor an earlier part: [m] int64."""
    boxes = torch.tensor([part.box for part in parts], dtype=torch.float32, device=owner.device).view(-1, 4)
    overlap = pairwise_iou(boxes, cxcywh_to_xyxy(known.boxes) * side)
    alike = (overlap >= ALIKE) & (owner[:, None] == known.map)
    unlike = (~alike.any(1)).nonzero().flatten()
    kept = batched_nms(boxes[unlike], -unlike.float(), owner[unlike], ALIKE)
    return unlike[kept.sort().values]


def _seeds(candidates: Candidates, scores: Tensor, seeds: int) -> Tensor:
    """The best candidates of each class mask that lie apart: [n] int64, by class mask, the best first."""
    kept = batched_nms(cxcywh_to_xyxy(candidates.boxes), scores, candidates.map, APART)
    own, order = candidates.map[kept].sort(stable=True)
    first = torch.searchsorted(own, own)
    chosen: Tensor = kept[order[torch.arange(len(own), device=own.device) - first < seeds]]
    return chosen


def _covered(boxes: Tensor, own: Tensor, side: int) -> Tensor:
    """Return the cells that candidates cover, twice as large as the canvas's: [n, side/2, side/2].

    Args:
        boxes: [n, 4] that the windows belong to.
        own: [n, G, G] in 0..1, share of each cell of the window.
        side: cells along a side of the canvas.
    """
    reach = windows(boxes, side)
    low, size = reach[:, :2], reach[:, 2:] - reach[:, :2]
    middles = (torch.arange(side // 2, device=low.device) + 0.5) / (side // 2)
    x, y = (2 * (middles - low[:, axis, None]) / size[:, axis, None] - 1 for axis in (0, 1))
    n, cells = x.shape
    places = torch.stack((x[:, None].expand(n, cells, cells), y[:, :, None].expand(n, cells, cells)), dim=-1)
    covered: Tensor = F.grid_sample(own[:, None], places, align_corners=False)[:, 0]
    return covered


def _core(covered: Tensor) -> Tensor:
    """Cells [n, ...] that are covered by half or more; of a candidate without such, the most covered."""
    core: Tensor = covered >= covered.flatten(1).amax(1).clamp(max=0.5).view(-1, *[1] * (covered.ndim - 1))
    return core


def _shares(levels: Sequence[Tensor], image: Tensor, covered: Tensor, side: int) -> Tensor:
    """Return how much nearer a cell is to a candidate than to the rest, relative to the candidate's own.

    Args:
        levels: unit vectors [B, D_l, h_l, w_l].
        image: [n] int64 image of each candidate.
        covered: [n, h, w] share of each cell that a candidate covers.
        side: of the result.

    Returns:
        [n, side, side]; -1 everywhere for a candidate that its features do not tell from the rest.
    """
    nearer, size = torch.zeros_like(covered), (covered.shape[-2], covered.shape[-1])
    for level in levels:
        hw = (level.shape[-2], level.shape[-1])
        own = F.adaptive_avg_pool2d(covered[:, None], hw).flatten(1)
        means = own * _core(own), (own < OUTSIDE).to(own.dtype)
        difference = torch.zeros_like(own)
        for number in image.unique().tolist():
            rows, cells = image == number, level[number].flatten(1).float()
            inside, rest = (F.normalize(weight[rows] @ cells.T, dim=1) for weight in means)
            difference[rows] = (inside - rest) @ cells
        wide = F.interpolate(difference.view(-1, 1, *hw), size, mode="bilinear", align_corners=False)
        nearer += wide[:, 0] / len(levels)
    reached = _quantile(nearer.flatten(1), _core(covered).flatten(1), REACHED)[:, None, None]
    share = torch.where(reached > FAINTEST, nearer / reached.clamp(min=FAINTEST), -1.0)
    return F.interpolate(share[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def _quantile(values: Tensor, wanted: Tensor, share: float) -> Tensor:
    """Quantile [n] over wanted values of each row of [n, m], one at least; torch's refuses large inputs."""
    ordered = values.masked_fill(~wanted, torch.inf).sort(dim=1).values
    place = share * (wanted.sum(1, keepdim=True) - 1)
    low = ordered.gather(1, place.long())
    high = ordered.gather(1, place.ceil().long())
    return (low + (high - low) * (place - place.floor()))[:, 0]


def _grown(probabilities: FloatArray, core: npt.NDArray[np.bool_]) -> list[Part]:
    """At every cut the connected part that holds most of the core, [h/2, w/2] bool."""
    core = core.repeat(2, axis=0).repeat(2, axis=1)
    found = []
    for share in SHARES:
        cut = 1 / (1 + np.exp(-STEEPNESS * (share - 0.5)))
        above = (probabilities > cut).view(np.uint8)
        _, labels, figures, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
        held = np.bincount(labels[core], minlength=len(figures))
        held[0] = 0
        label = int(held.argmax())
        x, y, width, height, area = (int(value) for value in figures[label])
        if not held[label] or area < LEAST_CELLS:
            continue
        crop = labels[y : y + height, x : x + width] == label
        found.append(part_of(probabilities, (x, y, x + width, y + height), crop, float(cut)))
    return found
