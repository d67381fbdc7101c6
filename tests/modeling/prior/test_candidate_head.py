"""The candidate head: what it adds to candidates, and which candidates see one another."""

import itertools
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unispector.modeling.prior.candidate_head import (
    DOUBT,
    FIRST_SCORE,
    FURTHEST,
    INSIDE,
    LARGEST,
    CandidateHead,
    relative_logits,
)
from unispector.modeling.prior.candidates import FACTS, part_candidates
from unispector.modeling.prior.similarity_prior import SHARED
from unispector.ops.windows import GRID, windows
from unispector.prior_structures import Candidates, JudgedCandidates, PriorMaps

SIDE = 48  # of the class masks
IMAGES, SETS, CLASSES = 2, 2, 2
COARSE, FINE = 5, 4


def drawn_maps(seed: int = 0) -> PriorMaps:
    """Maps of two images with two sets of prompts each."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rows = IMAGES * SETS
    return PriorMaps(
        logits=normal(rows, CLASSES, SIDE, SIDE),
        presence=normal(rows, CLASSES),
        likeness=normal(rows, CLASSES, SIDE, SIDE),
        coarse=normal(rows, CLASSES, COARSE, SIDE // 4, SIDE // 4),
        fine=normal(rows, CLASSES, FINE, SIDE // 2, SIDE // 2),
        shared=normal(IMAGES, SHARED, SIDE // 4, SIDE // 4),
    )


def drawn_candidates(numbers: list[int], seed: int = 1) -> Candidates:
    """One candidate of each named map, cut from a canvas drawn by chance among ten."""
    generator = torch.Generator().manual_seed(seed)
    count = len(numbers)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    return Candidates(
        map=torch.tensor(numbers, dtype=torch.int64),
        canvas=torch.randint(10, (count,), generator=generator),
        boxes=torch.cat((uniform(2) * 0.6 + 0.2, uniform(2) * 0.4 + 0.05), dim=1),
        cuts=uniform() * 2 - 1,
        own=uniform(GRID, GRID),
        facts=uniform(FACTS) * 2 - 1,
    )


def drawn_canvases() -> Tensor:
    return 3 * torch.randn(10, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


def drawn_sizes() -> Tensor:
    shape = (IMAGES * SETS, CLASSES, 2)
    return -torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 3


@pytest.fixture
def untrained() -> CandidateHead:
    return CandidateHead(COARSE, FINE, width=8, token=12).eval()


@pytest.fixture
def head(untrained: CandidateHead) -> CandidateHead:
    """With weights as after training: none is zero."""
    for parameter in untrained.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return untrained


def judge(head: CandidateHead, candidates: Candidates, maps: PriorMaps | None = None) -> JudgedCandidates:
    judged: JudgedCandidates = head(candidates, drawn_canvases(), maps or drawn_maps(), drawn_sizes())
    return judged


def chosen(candidates: Candidates, order: list[int]) -> Candidates:
    return Candidates(*(getattr(candidates, field.name)[order] for field in fields(candidates)))


OUTPUTS = ("scores", "boxes", "base", "change")


def same(judged: JudgedCandidates, expected: JudgedCandidates, rows: list[int], others: list[int]) -> None:
    for name in OUTPUTS:
        found, wanted = getattr(judged, name)[rows], getattr(expected, name)[others]
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4, msg=name)


# Logits relative to a cut


def test_other_parts_positive_logits_count_against_a_candidate():
    logits = torch.tensor([[3.0, 9.0, -2.0, -9.0], [3.0, 9.0, -2.0, -9.0]])
    own = torch.tensor([[1.0, INSIDE + 0.01, 1.0, 1.0], [0.0, INSIDE - 0.01, 0.0, 0.0]])
    found = relative_logits(logits, own)
    expected = [[3.0, LARGEST, -2.0, -LARGEST], [-DOUBT * 3.0, max(-DOUBT * 9.0, -LARGEST), -2.0, -LARGEST]]
    assert found.tolist() == expected


@torch.no_grad()
def test_the_base_is_the_canvas_at_the_cut(untrained: CandidateHead):
    """Sampled in the middle of every cell of the window, less the cut; other parts turned round."""
    candidates, canvases = drawn_candidates([0, 3, 3, 7]), drawn_canvases()
    judged = judge(untrained, candidates)
    window = windows(candidates.boxes, SIDE)
    places = (torch.arange(GRID) + 0.5) / GRID
    for number in range(4):
        left, top, right, bottom = window[number].tolist()
        x, y = left + places * (right - left), top + places * (bottom - top)
        grid = torch.stack((x.expand(GRID, -1), y[:, None].expand(-1, GRID)), dim=-1)[None] * 2 - 1
        canvas = canvases[candidates.canvas[number]][None, None]
        logits = F.grid_sample(canvas, grid, align_corners=False)[0, 0] - candidates.cuts[number]
        inside = ((x > 1 / SIDE) & (x < 1 - 1 / SIDE)) & ((y > 1 / SIDE) & (y < 1 - 1 / SIDE))[:, None]
        assert inside.any()
        own = candidates.own[number]
        for row, column in inside.nonzero().tolist():
            logit = logits[row, column].item()
            if logit > 0 and own[row, column] < INSIDE:
                logit *= -DOUBT
            assert judged.base[number, row, column].item() == pytest.approx(np.clip(logit, -6, 6), abs=1e-3)


# At the start


@torch.no_grad()
def test_an_untrained_head_leaves_candidates_as_they_were_cut(untrained: CandidateHead):
    candidates = drawn_candidates([0, 1, 1, 6, 2, 6])
    judged = judge(untrained, candidates)
    assert len(judged) == 6
    # Ranked by sureness, queries and what is grown behind parts: facts 21, 22 and 24.
    sureness, of_query, grown = (candidates.facts[:, fact] for fact in (21, 22, 24))
    expected = FIRST_SCORE + 4 * sureness - 2 * of_query - 2 * grown
    torch.testing.assert_close(judged.scores, expected[:, None].expand(-1, 2))
    torch.testing.assert_close(judged.boxes, candidates.boxes)
    assert (judged.change == 0).all()
    assert torch.equal(judged.masks, judged.base)
    for field in fields(candidates):
        assert getattr(judged.candidates, field.name) is getattr(candidates, field.name)


@torch.no_grad()
def test_an_untrained_head_keeps_the_parts_of_a_mask_apart(untrained: CandidateHead):
    """Two squares of one mask: the mask of each is itself, and what lies in the other is not."""
    logits = torch.full((1, 1, SIDE, SIDE), -6.0)
    logits[0, 0, 10:30, 6:20] = logits[0, 0, 14:26, 24:34] = 3.0
    empty = torch.zeros(1, 1, 1, 1)
    maps = PriorMaps(
        logits,
        torch.zeros(1, 1),
        logits,
        empty.expand(1, COARSE, 12, 12)[:, None],
        empty.expand(1, FINE, 24, 24)[:, None],
        empty.expand(1, SHARED, 12, 12),
    )
    found = part_candidates(maps)
    assert len(found) == 2
    judged = untrained(found, logits[0], maps, torch.zeros(1, 1, 2))
    window = windows(found.boxes, SIDE) * SIDE
    truths = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    truths[0, 10:30, 6:20] = truths[1, 14:26, 24:34] = True
    for number, place in enumerate(window):
        truth = truths[0 if found.boxes[number, 0] < 0.4 else 1]
        places = (torch.arange(GRID) + 0.5) / GRID
        x, y = (place[a] + places * (place[a + 2] - place[a]) for a in (0, 1))
        wanted = truth[y.long().clamp(0, SIDE - 1)[:, None], x.long().clamp(0, SIDE - 1)]
        positive = judged.masks[number] > 0
        common = (positive & wanted).sum() / (positive | wanted).sum()
        assert common > 0.85


# Who sees whom


@torch.no_grad()
def test_the_order_of_candidates_does_not_matter(head: CandidateHead):
    candidates = drawn_candidates([4, 0, 4, 7, 0, 4, 2])
    expected = judge(head, candidates)
    order = [5, 3, 0, 6, 1, 4, 2]
    same(judge(head, chosen(candidates, order)), expected, list(range(7)), order)
    assert torch.pdist(expected.scores).min() > 1e-3


@torch.no_grad()
def test_candidates_of_one_map_do_not_see_those_of_another(head: CandidateHead):
    """Of any one map alone, they are judged the same: also in groups that were padded to a larger one."""
    numbers = [4, 0, 4, 7, 0, 4, 2]
    candidates = drawn_candidates(numbers)
    together = judge(head, candidates)
    for number in set(numbers):
        own = [place for place, other in enumerate(numbers) if other == number]
        same(judge(head, chosen(candidates, own)), together, list(range(len(own))), own)


@torch.no_grad()
def test_candidates_of_one_map_see_one_another(head: CandidateHead):
    candidates = drawn_candidates([3, 3, 3])
    three, two = judge(head, candidates), judge(head, chosen(candidates, [0, 1]))
    assert (three.scores[:2] - two.scores).abs().min() > 1e-4
    torch.testing.assert_close(three.base[:2], two.base)


@torch.no_grad()
def test_how_two_candidates_lie_is_their_overlap(head: CandidateHead):
    """IoU, share of the first within the second, and of the second within the first."""
    candidates = drawn_candidates([3, 0, 3, 3, 0])
    candidates.boxes[2] = candidates.boxes[0] * torch.tensor([1.0, 1.0, 0.5, 0.25])  # within the first
    seen: list[Tensor] = []
    head.layers[0].bias.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    before = judge(head, candidates)
    groups = ([1, 4], [0, 2, 3])
    for group, geometry in zip(groups, seen[0], strict=True):
        for (i, one), (j, other) in itertools.product(enumerate(group), repeat=2):
            a, b = (candidates.boxes[number].tolist() for number in (one, other))
            sides = [
                min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2) - max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2)
                for k in (0, 1)
            ]
            both = max(sides[0], 0) * max(sides[1], 0)
            areas = a[2] * a[3], b[2] * b[3]
            expected = [both / (sum(areas) - both), both / areas[0], both / areas[1]]
            assert geometry[i, j].tolist() == pytest.approx(expected, abs=1e-4)
    for layer in head.layers:
        nn.init.zeros_(layer.bias.weight)
    assert (judge(head, candidates).scores[[0, 2, 3]] - before.scores[[0, 2, 3]]).abs().min() > 1e-5


@torch.no_grad()
def test_each_candidate_reads_the_maps_of_its_own_image_set_and_class(head: CandidateHead):
    numbers = list(range(IMAGES * SETS * CLASSES))
    candidates, maps = drawn_candidates(numbers), drawn_maps()
    before = judge(head, candidates, maps)

    def changed(name: str, place: tuple[int, ...]) -> set[int]:
        tensor = getattr(maps, name).clone()
        tensor[place] += 3
        after = judge(head, candidates, replace(maps, **{name: tensor}))
        return set((after.scores != before.scores).any(1).nonzero().flatten().tolist())

    for number in numbers:
        row, column = divmod(number, CLASSES)
        for name in ("likeness", "coarse", "fine"):
            assert changed(name, (row, column)) == {number}
    assert changed("shared", (0,)) == {0, 1, 2, 3}
    assert changed("shared", (1,)) == {4, 5, 6, 7}


@torch.no_grad()
def test_sizes_are_compared_with_those_of_the_prompts_of_the_same_class(head: CandidateHead):
    """Twice the size of box and of prompts is the same comparison."""
    candidates, sizes = drawn_candidates([0, 5]), drawn_sizes()
    seen: list[Tensor] = []
    head.token.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, -4:]))
    head(candidates, drawn_canvases(), drawn_maps(), sizes)
    for number, (row, column) in enumerate(((0, 0), (2, 1))):
        wide, high = (candidates.boxes[number, 2:].log() - sizes[row, column]).tolist()
        expected = [wide, high, abs(wide) + abs(high), wide + high]
        assert seen[0][number].tolist() == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_boxes_move_in_their_own_sides_and_no_further_than_they_may(head: CandidateHead):
    candidates = drawn_candidates([0, 1, 2])
    change = torch.tensor([0.5, -0.25, math.log(2.0), 99.0])
    head.box.forward = lambda tokens: change.expand(len(tokens), 4)
    judged = judge(head, candidates)
    for (x, y, w, h), (cx, cy, wide, high) in zip(
        candidates.boxes.tolist(), judged.boxes.tolist(), strict=True
    ):
        assert (cx, cy) == pytest.approx((x + 0.5 * w, y - 0.25 * h), abs=1e-5)
        assert (wide, high) == pytest.approx((2 * w, math.exp(FURTHEST) * h), rel=1e-4)


# Learning


def test_every_parameter_and_map_that_it_reads_gets_a_gradient(head: CandidateHead):
    maps = drawn_maps()
    read = (maps.likeness, maps.coarse, maps.fine, maps.shared)
    for part in read:
        part.requires_grad_()
    judged = judge(head.train(), drawn_candidates([0, 0, 1, 6, 6, 6]), maps)
    loss = sum((part * torch.randn_like(part)).sum() for part in (judged.scores, judged.boxes, judged.masks))
    loss.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    for part in read:
        assert part.grad is not None
        assert part.grad.any()
    assert maps.logits.grad is None


def test_an_untrained_head_learns(untrained: CandidateHead):
    """Its last layers are zero, and yet their gradients are not."""
    judged = judge(untrained.train(), drawn_candidates([0, 0, 1]))
    (judged.scores.square().sum() + judged.boxes.square().sum() + judged.masks.square().sum()).backward()
    for last in (untrained.score.layers[-1], untrained.box.layers[-1], untrained.change):
        assert last.weight.grad.any()


def test_no_candidates_no_judgement(head: CandidateHead):
    judged = judge(head, drawn_candidates([]))
    assert len(judged) == 0
    assert judged.scores.shape == (0, 2)
    assert judged.boxes.shape == (0, 4)
    assert judged.masks.shape == (0, GRID, GRID)
    (judged.scores.sum() + judged.boxes.sum() + judged.masks.sum()).backward()


@torch.no_grad()
def test_autocast_leaves_results_in_float32_and_near(head: CandidateHead):
    candidates = drawn_candidates([0, 0, 1, 6])
    expected = judge(head, candidates)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = judge(head, candidates)
    for name in OUTPUTS:
        assert getattr(found, name).dtype == torch.float32
        error = (getattr(found, name) - getattr(expected, name)).norm() / getattr(expected, name).norm()
        assert error < 0.03, name
    assert torch.equal(found.base, expected.base)
