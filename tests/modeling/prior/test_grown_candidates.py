"""Grown candidates: drawn objects with features of their own, and an independent sum over cells."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unispector.modeling.prior.candidates import ALIKE, FACTS, GIVEN, GROWN, OF_QUERY
from unispector.modeling.prior.grown_candidates import (
    APART,
    OUTSIDE,
    REACHED,
    SHARES,
    STEEPNESS,
    grown_candidates,
)
from unispector.ops.boxes import cxcywh_to_xyxy
from unispector.ops.windows import GRID, windows
from unispector.prior_structures import Candidates, JudgedCandidates, PriorFeatures, PriorMaps

SIDE = 64  # of the canvas; levels have 32 and 16 cells
Box = tuple[int, int, int, int]


def features_of(*images: dict[Box, int], noise: float = 0.0) -> PriorFeatures:
    """Images of background (direction 0) and objects, xyxy in cells of 64, with directions of their own."""
    generator = torch.Generator().manual_seed(0)
    levels = []
    for cells in (32, 16):
        level = torch.zeros(len(images), 8, cells, cells)
        level[:, 0] = 1.0
        step = SIDE // cells
        for number, objects in enumerate(images):
            for (x0, y0, x1, y1), direction in objects.items():
                place = (slice(y0 // step, y1 // step), slice(x0 // step, x1 // step))
                level[(number, slice(None), *place)] = F.one_hot(torch.tensor(direction), 8)[
                    :, None, None
                ].float()
        levels.append(F.normalize(level + noise * torch.randn(level.shape, generator=generator), dim=1))
    return PriorFeatures(tuple(levels), torch.zeros(len(images), 1, SIDE // 2, SIDE // 2))


def maps_of(rows: int, classes: int) -> PriorMaps:
    empty = torch.zeros(rows, classes, SIDE, SIDE)
    return PriorMaps(empty, torch.linspace(-1, 1, rows * classes).view(rows, classes), *[empty] * 4)


def judged_of(*marks: tuple[int, Box, float]) -> JudgedCandidates:
    """Filled rectangles: number of the class mask, xyxy in cells, logit of both scores."""
    boxes = torch.tensor(
        [[(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0] for _, (x0, y0, x1, y1), _ in marks]
    ).view(-1, 4)
    boxes = boxes / SIDE
    reach = windows(boxes, SIDE)
    places = (torch.arange(GRID) + 0.5) / GRID
    masks = torch.full((len(marks), GRID, GRID), -9.0)
    for mask, (low_x, low_y, high_x, high_y), box in zip(
        masks, reach.tolist(), cxcywh_to_xyxy(boxes).tolist(), strict=True
    ):
        x, y = low_x + places * (high_x - low_x), low_y + places * (high_y - low_y)
        mask[((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))] = 9.0
    number = torch.tensor([mark[0] for mark in marks], dtype=torch.int64)
    zeros = torch.zeros(len(marks))
    candidates = Candidates(number, number, boxes, zeros, masks.sigmoid(), torch.zeros(len(marks), FACTS))
    scores = torch.tensor([mark[2] for mark in marks]).view(-1, 1).expand(-1, 2)
    return JudgedCandidates(candidates, torch.zeros(1, SIDE, SIDE), scores, boxes, masks, 0 * masks)


def cells_of(found: Candidates) -> list[list[int]]:
    return (cxcywh_to_xyxy(found.boxes) * SIDE).round().int().tolist()


def overlap(one: Box | list[int], other: Box | list[int]) -> float:
    wide = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    high = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return wide * high / (sum(areas) - wide * high)


OBJECT, TWIN, OTHER = (8, 12, 40, 28), (48, 40, 60, 60), (44, 4, 60, 20)


def test_a_piece_grows_to_the_object_it_lies_in_and_no_further():
    features = features_of({OBJECT: 1, TWIN: 1, OTHER: 2}, noise=0.05)
    found, canvases = grown_candidates(features, maps_of(1, 1), judged_of((0, (10, 14, 20, 24), 1.0)), 3)
    assert canvases.shape == (1, SIDE, SIDE)
    assert max(overlap(box, OBJECT) for box in cells_of(found)) > 0.85
    assert all(overlap(box, thing) == 0 for box in cells_of(found) for thing in (TWIN, OTHER))


def test_of_a_loose_candidate_the_object_is_left():
    """Half of the box is background; the mask that the head drew is what counts."""
    judged = judged_of((0, (4, 8, 44, 32), 1.0))
    found, _ = grown_candidates(features_of({OBJECT: 1}), maps_of(1, 1), judged, 1)
    assert max(overlap(box, OBJECT) for box in cells_of(found)) > 0.85


def test_each_candidate_reads_its_own_image():
    """Two images, two sets of prompts each, two classes: 8 class masks, the first four of the first image."""
    features = features_of({OBJECT: 1}, {(12, 12, 60, 60): 3})
    marks = [(number, (14, 14, 20, 20), 0.0) for number in (0, 3, 4, 7)]
    found, canvases = grown_candidates(features, maps_of(4, 2), judged_of(*marks), 2)
    assert len(canvases) == 4
    for number, expected in ((0, OBJECT), (3, OBJECT), (4, (12, 12, 60, 60)), (7, (12, 12, 60, 60))):
        boxes = [box for box, own in zip(cells_of(found), found.map.tolist(), strict=True) if own == number]
        assert max(overlap(box, expected) for box in boxes) > 0.85
        canvas = canvases[found.canvas[found.map == number][0]]
        rows, columns = (canvas > 0).numpy().nonzero()
        around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert overlap([int(side) for side in around], expected) > 0.75


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_best_that_lie_apart_are_grown(seeds: int):
    """Of five candidates of a mask one is a double of the best; another mask has one of its own."""
    places = [(8, 12, 16, 20), (8, 12, 17, 20), (30, 20, 38, 28), (48, 40, 54, 46), (46, 6, 52, 12)]
    scores = [2.0, 1.9, -1.0, 1.0, 0.0]
    marks = [(1, place, score) for place, score in zip(places, scores, strict=True)]
    judged = judged_of(*marks, (0, (10, 14, 20, 24), -3.0))
    assert overlap(places[0], places[1]) > APART
    found, canvases = grown_candidates(
        features_of({OBJECT: 1, TWIN: 1, OTHER: 2}), maps_of(1, 2), judged, seeds
    )
    assert len(canvases) == 1 + seeds
    given = found.facts[found.map == 1, GIVEN].unique().tolist()
    best = sorted(1 / (1 + math.exp(-scores[place])) for place in (0, 3, 4)[:seeds])
    assert set(np.round(given, 5)) <= set(np.round(best, 5))
    assert max(given) == pytest.approx(best[-1], abs=1e-5)


def test_none_is_nearly_another_and_each_says_what_it_comes_from():
    features = features_of({OBJECT: 1, TWIN: 1, OTHER: 2}, noise=0.3)
    judged = judged_of((0, (10, 14, 20, 24), 0.5), (0, (46, 6, 52, 12), 0.0), (0, TWIN, -0.5))
    found, _ = grown_candidates(features, maps_of(1, 1), judged, 3)
    assert len(found) >= 3
    boxes = cells_of(found) + (cxcywh_to_xyxy(judged.candidates.boxes) * SIDE).round().int().tolist()
    for number, one in enumerate(boxes):
        assert all(overlap(one, other) < ALIKE + 0.02 for other in boxes[:number])
    assert (found.facts[:, OF_QUERY] == 0).all()
    assert (found.facts[:, GROWN] == 1).all()
    assert found.facts.shape[1] == FACTS
    assert found.facts.isfinite().all()
    assert all(
        float(cut) in [pytest.approx(STEEPNESS * (share - 0.5)) for share in SHARES] for cut in found.cuts
    )
    assert found.own.amax() <= 1 + 1e-5


def test_where_all_looks_alike_nothing_grows():
    judged = judged_of((0, (10, 14, 20, 24), 1.0))
    assert len(grown_candidates(features_of({}), maps_of(1, 1), judged, 3)[0]) == 0
    nothing = replace(judged, candidates=judged_of().candidates, scores=torch.zeros(0, 2))
    found, canvases = grown_candidates(features_of({}), maps_of(1, 1), nothing, 3)
    assert (len(found), canvases.shape) == (0, (0, SIDE, SIDE))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    left=st.integers(0, 40),
    top=st.integers(0, 40),
    wide=st.integers(6, 24),
    high=st.integers(6, 24),
)
def test_a_canvas_is_the_share_of_what_the_candidate_reaches(seed, left, top, wide, high):
    """Cell by cell, of one level that is as fine as the masks are read: half the canvas's cells."""
    generator = torch.Generator().manual_seed(seed)
    level = F.normalize(torch.randn(1, 8, SIDE // 2, SIDE // 2, generator=generator), dim=1)
    features = PriorFeatures((level,), torch.zeros(1, 1, SIDE // 2, SIDE // 2))
    box = (left, top, left + wide, top + high)
    judged = judged_of((0, box, 1.0))
    _, canvases = grown_candidates(features, maps_of(1, 1), judged, 1)
    shown = F.avg_pool2d(canvases[None], 2)[0, 0].double() / STEEPNESS + 0.5
    cells = level[0].double().numpy()
    covered = np.array([[_covers(judged, x, y) for x in range(SIDE // 2)] for y in range(SIDE // 2)])
    inside, rest = covered >= min(0.5, covered.max()), covered < OUTSIDE
    means = [(cells * weight).sum((1, 2)) for weight in (covered * inside, rest)]
    means = [mean / np.linalg.norm(mean) for mean in means]
    nearer = np.tensordot(means[0] - means[1], cells, 1)
    reached = np.quantile(nearer[inside], REACHED)
    # The canvas is twice as fine; averaged back, a cell has a fourth of its neighbours' values on each axis.
    kernel = np.array([1, 6, 1]) / 8
    padded = np.pad(nearer / reached, 1, mode="edge")
    blurred = sum(
        kernel[i] * kernel[j] * padded[i : i + SIDE // 2, j : j + SIDE // 2]
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(shown.numpy(), blurred, atol=2e-3 * np.abs(blurred).max())


def _covers(judged: JudgedCandidates, x: int, y: int) -> float:
    """Share that the mask covers at the middle of a cell of half the canvas's number, bilinear."""
    low_x, low_y, high_x, high_y = windows(judged.candidates.boxes, SIDE)[0].tolist()
    at_x = ((x + 0.5) / (SIDE // 2) - low_x) / (high_x - low_x) * GRID - 0.5
    at_y = ((y + 0.5) / (SIDE // 2) - low_y) / (high_y - low_y) * GRID - 0.5
    own: Tensor = judged.masks[0].sigmoid()
    total = 0.0
    for row in (math.floor(at_y), math.floor(at_y) + 1):
        for column in (math.floor(at_x), math.floor(at_x) + 1):
            if 0 <= row < GRID and 0 <= column < GRID:
                total += (1 - abs(at_y - row)) * (1 - abs(at_x - column)) * float(own[row, column])
    return total


def test_under_autocast_it_is_the_same_to_the_last_bit():
    features, judged = features_of({OBJECT: 1}, noise=0.3), judged_of((0, (10, 14, 20, 24), 1.0))
    expected, canvases = grown_candidates(features, maps_of(1, 1), judged, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, shown = grown_candidates(features, maps_of(1, 1), judged, 2)
    assert torch.equal(shown, canvases)
    assert torch.equal(found.boxes, expected.boxes)
