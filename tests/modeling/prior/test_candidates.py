"""Candidates: parts of class masks against scipy's labels and loops, and queries one by one."""

import itertools
import math
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from unispector.modeling.prior import candidates as module
from unispector.modeling.prior.candidates import (
    ALIKE,
    CUTS,
    FACTS,
    LEAST_CELLS,
    QUIET,
    RISE,
    SHARES,
    part_candidates,
    query_candidates,
)
from unispector.ops.windows import GRID, windows
from unispector.prior_structures import Candidates, PriorMaps
from unispector.structures import LayerPrediction

TOUCHING = np.ones((3, 3))  # corners touch
Box = tuple[int, int, int, int]


def maps_of(logits: Tensor, presence: Tensor | None = None) -> PriorMaps:
    """Maps whose logits [R, C, h, w] alone count."""
    presence = torch.zeros(logits.shape[:2]) if presence is None else presence
    return PriorMaps(logits, presence, logits, logits, logits, logits)


def blobs(seed: int, rows: int = 2, classes: int = 2, side: int = 32) -> Tensor:
    """Smooth masks, some of them strong, some faint."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(rows, classes, 8, 8, generator=generator) * 2
    faint = torch.rand(rows, classes, 1, 1, generator=generator) * 4
    return F.interpolate(coarse, (side, side), mode="bicubic") - faint


@dataclass(eq=False)
class Expected:
    """One part as a whole mask, and how its mask was cut."""

    mask: np.ndarray
    cut: float
    relative: bool
    mean: float
    stability: float

    @property
    def box(self) -> Box:
        rows, columns = self.mask.nonzero()
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    @property
    def score(self) -> float:
        return self.mean * math.sqrt(self.stability + 0.02)


def probabilities_of(logits: Tensor) -> np.ndarray:
    return logits.sigmoid().numpy()


def expected_parts(probabilities: np.ndarray) -> list[Expected]:
    """Large enough connected parts of one mask at all cuts."""
    top = float(probabilities.max())
    cuts = [(cut, False) for cut in CUTS]
    cuts += [(share * top, True) for share in SHARES if share * top > QUIET]
    found = []
    for cut, relative in cuts:
        labels, count = ndimage.label(probabilities > cut, TOUCHING)
        for number in range(1, count + 1):
            mask = labels == number
            own = probabilities[mask]
            stays = np.mean(own > min(cut + RISE, (1 + cut) / 2))
            if mask.sum() >= LEAST_CELLS:
                found.append(Expected(mask, cut, relative, float(own.mean()), float(stays)))
    return found


def iou(a: Box, b: Box) -> float:
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return wide * high / (sum(areas) - wide * high)


def cells_of(boxes: Tensor, side: int) -> list[Box]:
    corners = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1) * side
    assert (corners - corners.round()).abs().max() < 1e-3
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in corners.round().int().tolist()]


def origin(found: Candidates, number: int, box: Box, parts: list[Expected]) -> Expected:
    """The one part that a candidate was made of."""
    cut, relative = float(found.cuts[number].sigmoid()), bool(found.facts[number, 1])
    (part,) = (
        part for part in parts if part.relative == relative and abs(part.cut - cut) < 1e-5 and part.box == box
    )
    return part


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_parts_are_connected_and_the_best_of_those_that_are_nearly_the_same(seed: int):
    logits = blobs(seed)
    found = part_candidates(maps_of(logits))
    boxes = cells_of(found.boxes, 32) if len(found) else []
    assert found.map.tolist() == sorted(found.map.tolist())
    assert torch.equal(found.canvas, found.map)
    for number, (row, column) in enumerate(itertools.product(range(2), range(2))):
        parts = expected_parts(probabilities_of(logits[row, column]))
        own = (found.map == number).nonzero().flatten().tolist()
        kept = [origin(found, i, boxes[i], parts) for i in own]
        scores = [part.score for part in kept]
        assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-6)
        for one, other in itertools.combinations(kept, 2):
            assert iou(one.box, other.box) < ALIKE + 1e-6
        for part in parts:
            # It is kept, or its better double is, or as many better ones as may be.
            doubles = [other for other in kept if iou(part.box, other.box) > ALIKE - 1e-6]
            better = [other for other in kept if other.score > part.score - 1e-6]
            assert len(better) == module.MOST or any(other in better for other in doubles)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_facts_are_what_they_say(seed: int):
    side, logits = 32, blobs(seed)
    presence = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed))
    found = part_candidates(maps_of(logits, presence))
    assert found.facts.shape == (len(found), FACTS)
    assert found.facts.isfinite().all()
    assert found.facts.abs().max() < 12
    boxes = cells_of(found.boxes, side) if len(found) else []
    for number, known in enumerate(found.facts.double().tolist()):
        own = int(found.map[number])
        row, column = divmod(own, 2)
        probabilities = probabilities_of(logits[row, column]).astype(np.float64)
        part = origin(found, number, boxes[number], expected_parts(probabilities.astype(np.float32)))
        x0, y0, x1, y1 = boxes[number]
        area, wide, high = part.mask.sum(), x1 - x0, y1 - y0
        doubles = [i for i in range(len(found)) if int(found.map[i]) == own]
        expected = {
            0: part.cut,
            1: float(part.relative),
            2: part.cut / probabilities.max(),
            3: probabilities.max(),
            4: probabilities[part.mask].mean(),
            5: part.stability,
            6: math.log(area) - 5,
            7: math.log(wide / side) + 2,
            8: math.log(high / side) + 2,
            9: math.log(wide / high),
            10: area / (wide * high),
            11: (probabilities > 0.5).sum() / side**2,
            12: 5 * probabilities.sum() / side**2,
            13: 1 / (1 + math.exp(-presence[row, column].item())),
            14: math.log(1 + doubles.index(number)),
            15: probabilities[part.mask].sum() / probabilities.sum(),
            16: math.log(len(doubles) + 1) / 2 - 1,
            17: float(x0 <= 1),
            18: float(y0 <= 1),
            19: float(x1 >= side - 1),
            20: float(y1 >= side - 1),
            21: part.score,
            22: 0.0,
            23: 0.0,
            24: 0.0,
        }
        assert dict(enumerate(known)) == pytest.approx(expected, abs=1e-4)


def squares(*tops: float, side: int = 40) -> Tensor:
    """A mask logit map [1, 1, side, side] with a square of 6 cells for each probability, 4 cells apart."""
    mask = torch.full((side, side), -12.0)
    for number, top in enumerate(tops):
        y, x = divmod(number, 4)
        mask[2 + 10 * y : 8 + 10 * y, 2 + 10 * x : 8 + 10 * x] = math.log(top / (1 - top))
    return mask[None, None]


def test_a_faint_part_is_cut_relative_to_the_most_its_mask_reaches():
    found = part_candidates(maps_of(squares(0.04)))
    assert len(found) == 1
    assert found.facts[0, 1] == 1
    shares = (found.cuts.sigmoid() / 0.04).tolist()
    assert any(shares[0] == pytest.approx(share, abs=1e-3) for share in SHARES if share * 0.04 > QUIET)
    assert len(part_candidates(maps_of(squares(QUIET)))) == 0


def test_what_belongs_together_and_its_pieces_are_candidates_alike():
    """Two strong squares with a faint bridge: the cut below the bridge joins them, those above part them."""
    mask = squares(0.9, 0.9)
    mask[0, 0, 4:6, 8:12] = math.log(0.25 / 0.75)
    found = part_candidates(maps_of(mask))
    assert set(cells_of(found.boxes, 40)) == {(2, 2, 18, 8), (2, 2, 8, 8), (12, 2, 18, 8)}


def test_noise_is_no_candidate():
    mask = torch.full((1, 1, 20, 20), -9.0)
    mask[0, 0, 3, 3 : 3 + LEAST_CELLS - 1] = 5.0
    assert len(part_candidates(maps_of(mask))) == 0
    mask[0, 0, 4, 3 + LEAST_CELLS - 1] = 5.0  # touches with a corner
    assert len(part_candidates(maps_of(mask))) == 1


@pytest.mark.parametrize("most", [1, 3, 60])
def test_no_more_than_the_best_are_kept_of_each_mask(most: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST", most)
    tops = [0.95, 0.7, 0.6, 0.99, 0.8]
    found = part_candidates(maps_of(squares(*tops).expand(2, 2, -1, -1)))
    best = [x for _, x in sorted(zip(tops, range(5), strict=True), reverse=True)][:most]
    assert len(found) == 4 * len(best)
    expected = [(2 + 10 * (n % 4), 2 + 10 * (n // 4)) for n in best]
    assert [box[:2] for box in cells_of(found.boxes, 40)] == 4 * expected


def test_by_default_there_are_no_more_than_the_limit():
    mask = torch.full((120, 120), -9.0)
    for y, x in itertools.product(range(0, 120, 12), repeat=2):
        mask[y : y + 6, x : x + 6] = 2.0
    assert len(part_candidates(maps_of(mask[None, None]))) == module.MOST


def test_nothing_seen_gives_nothing():
    maps = maps_of(torch.full((2, 3, 16, 16), -20.0))
    found = part_candidates(maps)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.own.shape == (0, GRID, GRID)
    assert found.facts.shape == (0, FACTS)
    assert found.map.dtype == found.canvas.dtype == torch.int64
    queries, canvases = query_candidates(prediction_of(torch.full((2, 4, 8, 8), -3.0), classes=3), maps)
    assert len(queries) == 0
    assert canvases.shape[1:] == (16, 16)
    assert len(Candidates.joined((found, queries))) == 0


# The grid


def one(mask: np.ndarray | Tensor) -> tuple[Candidates, Tensor]:
    """The only candidate of a sharp mask, and its window in cells."""
    logits = torch.where(torch.as_tensor(mask), 4.0, -12.0)[None, None]
    found = part_candidates(maps_of(logits))
    assert len(found) == 1
    return found, windows(found.boxes, logits.shape[-1])[0] * logits.shape[-1]


def drawn(kind: str, side: int = 112) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    far = np.hypot(y - 50, x - 61)
    shapes = {
        "disc": far < 30,
        "ring": (far < 40) & (far > 38.5),
        "line": (y == 20) & (x > 9) & (x < 90),
        "column": (x == 20) & (y > 9) & (y < 90),
        "diagonal": (x == y) & (x > 9) & (x < 90),
        "shallow": (y == x // 3 + 10) & (x > 4) & (x < 105),
        "corner": (x < 4) & (y < 5),
        "speck": (y == 30) & (x > 39) & (x < 43),
        "everything": far >= 0,
    }
    return shapes[kind]


KINDS = ("disc", "ring", "line", "column", "diagonal", "shallow", "corner", "speck", "everything")


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_lies_on_its_grid_where_it_is_and_keeps_its_area(kind: str):
    mask = drawn(kind)
    found, window = one(mask)
    own = found.own[0].double()
    assert own.min() >= 0
    assert own.max() <= 1 + 1e-5
    cell = ((window[2:] - window[:2]) / GRID).double()
    assert (own.sum() * cell.prod()).item() == pytest.approx(mask.sum(), rel=0.05)
    rows, columns = mask.nonzero()
    places = torch.arange(GRID).double() + 0.5
    middle = [(own.sum(axis) @ places / own.sum()).item() for axis in (0, 1)]
    expected = [columns.mean() + 0.5, rows.mean() + 0.5]
    for axis in range(2):
        where = middle[axis] * cell[axis].item() + window[axis].item()
        assert where == pytest.approx(expected[axis], abs=0.1)


@pytest.mark.parametrize("kind", ["disc", "everything"])
def test_a_large_part_covers_the_cells_that_it_covers(kind: str):
    """The share of each grid cell, counted at 20 x 20 places of it."""
    mask = drawn(kind)
    found, window = one(mask)
    places = (torch.arange(GRID * 20) + 0.5) / (GRID * 20)
    columns, rows = (
        torch.floor(window[axis] + places * (window[axis + 2] - window[axis])).long() for axis in (0, 1)
    )
    inside = ((rows >= 0) & (rows < 112))[:, None] & ((columns >= 0) & (columns < 112))
    fine = torch.from_numpy(mask)[rows.clamp(0, 111)[:, None], columns.clamp(0, 111)] & inside
    share = F.avg_pool2d(fine.float()[None], 20)[0]
    assert (found.own[0] - share).abs().mean() < 0.02
    assert (found.own[0] - share).abs().max() < 0.5  # it is blurred, by less than a cell


# Queries


def prediction_of(masks: Tensor, classes: int, seed: int = 0) -> LayerPrediction:
    """Queries with these masks [R, Q, h, w]; all else of them is random."""
    generator = torch.Generator().manual_seed(seed)
    rows, queries = masks.shape[:2]
    logits = torch.randn(rows, queries, classes, generator=generator)
    boxes = torch.rand(rows, queries, 4, generator=generator)
    return LayerPrediction(logits, boxes, torch.eye(queries).expand(rows, -1, -1), masks)


@pytest.mark.parametrize("taken", [2, 8])
def test_the_most_probable_queries_of_each_class_are_candidates(taken: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "QUERIES", taken)
    rows, queries, classes, side = 2, 5, 3, 32
    masks = F.interpolate(torch.randn(rows, queries, 5, 5) * 3, (side // 2, side // 2), mode="bicubic")
    masks[0, 1] = masks[1, 4] = -2.0  # two that are nowhere
    prediction = prediction_of(masks, classes)
    maps = maps_of(blobs(0, rows, classes, side), torch.randn(rows, classes))
    found, canvases = query_candidates(prediction, maps)
    place = 0
    for row, column in itertools.product(range(rows), range(classes)):
        probabilities = prediction.logits[row, :, column].sigmoid()
        best = probabilities.argsort(descending=True)[:taken].tolist()
        for rank, query in enumerate(best):
            canvas = F.interpolate(masks[row, query][None, None], (side, side), mode="bilinear")[0, 0]
            if not (canvas > 0).any():
                continue
            assert found.map[place] == row * classes + column
            shown = canvases[found.canvas[place] - rows * classes]
            torch.testing.assert_close(shown, canvas, atol=1e-5, rtol=1e-5)
            ys, xs = (canvas > 0).numpy().nonzero()
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert cells_of(found.boxes[place : place + 1], side)[0] == box
            assert found.cuts[place] == 0
            own = probabilities_of(canvas)
            facts, positive = found.facts[place].tolist(), (canvas > 0).numpy()
            assert facts[:2] == [0.5, 0.0]
            assert facts[3] == pytest.approx(own.max(), abs=1e-5)
            assert facts[4] == pytest.approx(own[positive].mean(), abs=1e-5)
            assert facts[5] == pytest.approx((own[positive] > 0.5 + RISE).mean(), abs=1e-5)
            assert facts[6] == pytest.approx(math.log(positive.sum()) - 5, abs=1e-5)
            assert facts[13] == pytest.approx(maps.presence[row, column].sigmoid().item(), abs=1e-5)
            assert facts[14] == pytest.approx(math.log(1 + rank), abs=1e-5)
            assert facts[22:] == pytest.approx([1.0, probabilities[query].item(), 0.0], abs=1e-6)
            window = windows(found.boxes[place : place + 1], side)[0] * side
            cell = (window[2:] - window[:2]) / GRID
            area = (found.own[place].sum() * cell.prod()).item()
            assert area == pytest.approx(positive.sum(), rel=0.1)
            place += 1
    assert place == len(found)
    # A mask is there once, however many classes its query is a candidate of.
    assert len(canvases) <= rows * queries
    assert found.facts.isfinite().all()


def test_candidates_of_both_kinds_join():
    logits = blobs(3, 1, 2, 32)
    maps = maps_of(logits)
    parts = part_candidates(maps)
    queries, _ = query_candidates(prediction_of(blobs(4, 1, 3, 16), classes=2), maps)
    joined = Candidates.joined((parts, queries))
    assert len(joined) == len(parts) + len(queries)
    for field in fields(Candidates):
        assert not getattr(joined, field.name).requires_grad


def test_nothing_is_learned_through_the_cutting():
    logits = blobs(5).requires_grad_()
    found = part_candidates(maps_of(logits))
    assert len(found)
    assert not any(getattr(found, field.name).requires_grad for field in fields(Candidates))
