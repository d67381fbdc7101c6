"""The candidate head's loss: who is drawn to whom, what is true, and what drawing costs, by loops."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from unispector.losses import candidates as module
from unispector.losses.candidates import (
    BOX_BETA,
    LEAST_PIECE,
    NEAR,
    PIECE,
    TRUE,
    CandidateTerms,
    assigned,
    candidate_loss,
)
from unispector.losses.instances import Instances
from unispector.ops.windows import GRID, windows
from unispector.prior_structures import Candidates, JudgedCandidates
from unispector.structures import Targets

PADDED, CLASSES = 64, 3
SIDE = PADDED // 2
Box = tuple[float, float, float, float]


def target(*marks: tuple[int, tuple[int, int, int, int]]) -> Targets:
    """An image whose instances fill boxes: (label, (x0, y0, x1, y1) in pixels)."""
    masks = torch.zeros(len(marks), PADDED, PADDED, dtype=torch.bool)
    boxes = torch.zeros(len(marks), 4)
    for number, (_, (x0, y0, x1, y1)) in enumerate(marks):
        masks[number, y0:y1, x0:x1] = True
        boxes[number] = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]) / PADDED
    return Targets(torch.tensor([label for label, _ in marks], dtype=torch.int64), boxes, masks)


def judged_of(
    maps: list[int], boxes: Tensor, moved: Tensor | None = None, masks: Tensor | None = None
) -> JudgedCandidates:
    """Candidates of these maps and boxes, judged at random where nothing else is said."""
    count = len(maps)
    generator = torch.Generator().manual_seed(count)
    nothing = torch.zeros(count)
    numbers = torch.tensor(maps, dtype=torch.int64)
    own = torch.zeros(count, GRID, GRID)
    candidates = Candidates(numbers, numbers, boxes, nothing, own, torch.zeros(count, 24))
    if masks is None:
        masks = torch.randn(count, GRID, GRID, generator=generator) * 2
    moved = boxes + 0.02 * torch.randn(count, 4, generator=generator) if moved is None else moved
    scores = torch.randn(count, 2, generator=generator)
    return JudgedCandidates(
        candidates,
        torch.zeros(1, SIDE, SIDE),
        scores.requires_grad_(),
        moved.clone().requires_grad_(),
        torch.zeros_like(masks),
        masks.clone().requires_grad_(),
    )


def corners(box: list[float]) -> Box:
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def overlap(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """IoU of two cxcywh boxes, the share of the first within the second, and the generalised IoU."""
    a, b = corners(one), corners(other)
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1)]
    both = max(sides[0], 0) * max(sides[1], 0)
    union = one[2] * one[3] + other[2] * other[3] - both
    hull = math.prod(max(a[k + 2], b[k + 2]) - min(a[k], b[k]) for k in (0, 1))
    return both / union, both / (one[2] * one[3]), both / union - (hull - union) / hull


def looped_assigned(judged: JudgedCandidates, targets: list[Targets]) -> list[int]:
    found = []
    for number, box in zip(judged.candidates.map.tolist(), judged.candidates.boxes.tolist(), strict=True):
        image, label = divmod(number, CLASSES)
        first = sum(len(t) for t in targets[:image])
        own = [
            (overlap(box, truth), first + place)
            for place, (other, truth) in enumerate(
                zip(targets[image].labels.tolist(), targets[image].boxes.tolist(), strict=True)
            )
            if other == label
        ]
        (iou, share, _), best = max(own, key=lambda pair: pair[0][0], default=((0.0, 0.0, 0.0), -1))
        drawn = iou >= NEAR or (iou >= LEAST_PIECE and share >= PIECE)
        found.append(best if drawn else -1)
    return found


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    counts=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    candidates=st.integers(0, 12),
)
def test_each_candidate_is_drawn_to_the_instance_it_fits_best(seed, counts, candidates):
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        return torch.rand(count, 4, generator=generator) * 0.4 + torch.tensor([0.3, 0.3, 0.02, 0.02])

    targets = [
        Targets(
            torch.randint(CLASSES, (count,), generator=generator),
            draw(count),
            torch.ones(count, PADDED, PADDED, dtype=torch.bool),
        )
        for count in counts
    ]
    maps = torch.randint(2 * CLASSES, (candidates,), generator=generator).tolist()
    judged = judged_of(maps, draw(candidates))
    found = assigned(judged, CLASSES, Instances.of(targets))
    assert found.dtype == torch.int64
    assert found.tolist() == looped_assigned(judged, targets)


def test_a_piece_of_an_instance_is_drawn_to_it_and_a_speck_is_not():
    truth = target((1, (0, 0, 64, 64)))
    pieces = torch.tensor(
        [
            [0.5, 0.5, 0.25, 0.25],  # 6 % of it, within it
            [0.5, 0.5, 0.1, 0.1],  # 1 % of it
            [0.0, 0.5, 0.3, 0.3],  # 4 %, but half of it lies outside
            [0.5, 0.5, 0.4, 0.4],  # 16 %
        ]
    )
    judged = judged_of([1, 1, 1, 1], pieces)
    assert assigned(judged, CLASSES, Instances.of([truth])).tolist() == [0, -1, -1, 0]
    assert assigned(judged_of([0, 2, 0, 2], pieces), CLASSES, Instances.of([truth])).tolist() == [-1] * 4


def bilinear(mask: Tensor, x: float, y: float) -> float:
    """A map's value at (x, y) in cells; its edge goes on for a cell, then there is nothing."""
    height, width = mask.shape
    x, y = x - 0.5, y - 0.5
    if not (-1 <= x <= width and -1 <= y <= height):
        return 0.0
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    upper = mask[y0, x0] * (1 - x + x0) + mask[y0, x1] * (x - x0)
    lower = mask[y1, x0] * (1 - x + x0) + mask[y1, x1] * (x - x0)
    return float(upper * (1 - y + y0) + lower * (y - y0))


def seen_in(window: list[float], mask: Tensor) -> Tensor:
    """What the window shows of an instance [P, P], in its GRID x GRID cells."""
    pooled = functional.avg_pool2d(mask.float()[None], 2)[0]
    left, top, right, bottom = window
    shown = torch.zeros(GRID, GRID)
    for row in range(GRID):
        for column in range(GRID):
            x = left + (column + 0.5) / GRID * (right - left)
            y = top + (row + 0.5) / GRID * (bottom - top)
            shown[row, column] = bilinear(pooled, x * SIDE, y * SIDE)
    return shown


def smooth(distance: float) -> float:
    distance = abs(distance)
    return 0.5 * distance**2 / BOX_BETA if distance < BOX_BETA else distance - BOX_BETA / 2


def change(before: list[float], after: list[float]) -> list[float]:
    shift = [(after[k] - before[k]) / before[k + 2] for k in (0, 1)]
    ratio = [math.log(after[k] / before[k]) for k in (2, 3)]
    return [min(max(value, -2.0), 2.0) for value in (*shift, *ratio)]


def entropy(logit: float, truth: float) -> float:
    return math.log1p(math.exp(-abs(logit))) + max(logit, 0) - logit * truth


def looped_loss(judged: JudgedCandidates, targets: list[Targets]) -> tuple[float, float, float]:
    boxes = [box for t in targets for box in t.boxes.tolist()]
    masks = [mask for t in targets for mask in t.masks]
    window = windows(judged.candidates.boxes, SIDE).tolist()
    score, box_losses, mask_losses = 0.0, [], []
    for number, instance in enumerate(looped_assigned(judged, targets)):
        box_true = mask_true = False
        if instance >= 0:
            before, after = judged.candidates.boxes[number].tolist(), judged.boxes[number].tolist()
            iou, _, generalised = overlap(after, boxes[instance])
            box_true = iou >= TRUE
            moved, wanted = change(before, after), change(before, boxes[instance])
            distance = sum(smooth(m - w) for m, w in zip(moved, wanted, strict=True)) / 4
            box_losses.append(1 - generalised + distance)
            shown, logits = seen_in(window[number], masks[instance]), judged.masks[number].detach()
            probabilities = logits.sigmoid()
            dice = 1 - (2 * (probabilities * shown).sum() + 1) / (probabilities.sum() + shown.sum() + 1)
            cost = functional.binary_cross_entropy_with_logits(logits, shown)
            mask_losses.append(float(dice + cost))
            left, top, right, bottom = window[number]
            cell = (right - left) * (bottom - top) * SIDE**2 / GRID**2  # in cells of the canvas
            positive = (logits > 0).float()
            common = float((positive * shown).sum()) * cell
            union = float(positive.sum()) * cell + float(masks[instance].sum()) / 4 - common
            mask_true = common / max(union, 1.0) >= TRUE
        for logit, truth in zip(judged.scores[number].tolist(), (box_true, mask_true), strict=True):
            score += entropy(logit, float(truth))
    drawn = max(len(box_losses), 1)
    return score / max(len(judged), 1), sum(box_losses) / drawn, sum(mask_losses) / drawn


def terms(found: CandidateTerms) -> tuple[float, float, float]:
    return found.score.item(), found.box.item(), found.mask.item()


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_that_of_loops(seed: int):
    generator = torch.Generator().manual_seed(seed)
    targets = [
        target((0, (4, 6, 40, 30)), (2, (30, 30, 62, 60)), (2, (2, 40, 20, 64))),
        target((1, (10, 10, 50, 52))),
    ]
    # Around instances near and far, at the frame's edge, and of other classes.
    truths = torch.cat([t.boxes for t in targets])[[0, 0, 1, 2, 3, 3, 1]]
    shift = torch.randn(7, 4, generator=generator) * 0.08
    boxes = torch.cat((truths[:, :2] + shift[:, :2], truths[:, 2:] * (4 * shift[:, 2:]).exp()), dim=1)
    judged = judged_of([0, 0, 2, 2, 4, 4, 1], boxes)
    # Masks that are mostly right, so that some are true and some are not.
    window, logits = windows(boxes, SIDE).tolist(), judged.change.detach().clone()
    masks = [mask for t in targets for mask in t.masks]
    for number, instance in enumerate(looped_assigned(judged, targets)):
        if instance >= 0:
            logits[number] += 6 * seen_in(window[number], masks[instance]) - 3
    judged = replace(judged, change=logits.requires_grad_())
    found = candidate_loss(judged, CLASSES, Instances.of(targets))
    assert terms(found) == pytest.approx(looped_loss(judged, targets), rel=1e-3)
    (found.score + found.box + found.mask).backward()
    for part in (judged.scores, judged.boxes, judged.change):
        assert part.grad is not None
        assert part.grad.isfinite().all()
    assert judged.scores.grad is not None
    assert (judged.scores.grad != 0).all()
    assert judged.change.grad is not None
    assert not judged.change.grad[6].any()  # no instance of its class: nothing to draw


def perfect(box: list[float], mask: Tensor, scores: float) -> JudgedCandidates:
    """The right answer for one instance, and how sure it is of it."""
    boxes = torch.tensor([box])
    shown = seen_in(windows(boxes, SIDE)[0].tolist(), mask)
    judged = judged_of([1], boxes, moved=boxes, masks=torch.logit(shown[None], eps=1e-6))
    return replace(judged, scores=torch.full((1, 2), scores))


def test_the_right_answer_costs_nothing_and_doubt_or_haste_does():
    truth = target((1, (16, 8, 48, 40)))
    instances = Instances.of([truth])
    sure = terms(candidate_loss(perfect(truth.boxes[0].tolist(), truth.masks[0], 20.0), CLASSES, instances))
    # Cells at the edge are covered in part: no answer is free of cost there.
    assert sure[:2] == pytest.approx((0, 0), abs=1e-4)
    assert sure[2] < 0.2
    unsure = perfect(truth.boxes[0].tolist(), truth.masks[0], -20.0)
    assert candidate_loss(unsure, CLASSES, instances).score.item() == pytest.approx(40, rel=1e-3)
    nothing = Instances.of([target()])
    assert candidate_loss(unsure, CLASSES, nothing).score.item() == pytest.approx(0, abs=1e-4)


def test_a_mask_that_ends_with_its_window_misses_what_lies_beyond():
    """A candidate on one end of a long instance: all of its window is right, and yet the mask is not true."""
    truth = target((1, (0, 28, 64, 36)))
    boxes = torch.tensor([[0.15, 0.5, 0.3, 0.125]])
    masks = torch.full((1, GRID, GRID), -9.0)
    shown = seen_in(windows(boxes, SIDE)[0].tolist(), truth.masks[0])
    masks[0][shown > 0.5] = 9.0
    judged = judged_of([1], boxes, moved=truth.boxes, masks=masks)
    sure = replace(judged, scores=torch.tensor([[20.0, 20.0]]))
    # The box was moved to the whole instance and is true; the mask cannot be.
    assert candidate_loss(sure, CLASSES, Instances.of([truth])).score.item() == pytest.approx(20, rel=1e-3)
    honest = replace(judged, scores=torch.tensor([[20.0, -20.0]]))
    assert candidate_loss(honest, CLASSES, Instances.of([truth])).score.item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("marks", [[], [(1, (4, 4, 20, 20))]])
@pytest.mark.parametrize("count", [0, 3])
def test_nothing_there_has_a_loss_with_gradients(marks: list, count: int):
    boxes = torch.tensor([[0.8, 0.8, 0.1, 0.1]]).repeat(count, 1)
    judged = judged_of([1] * count, boxes)
    found = candidate_loss(judged, CLASSES, Instances.of([target(*marks)]))
    expected = looped_loss(judged, [target(*marks)])
    assert terms(found) == pytest.approx(expected, rel=1e-4)
    (found.score + found.box + found.mask).backward()
    for part in (judged.scores, judged.boxes, judged.change):
        assert part.grad is not None  # data-parallel training waits for all of them
        assert part.grad.isfinite().all()


def test_sums_are_divided_by_the_mean_count_of_all_ranks(monkeypatch: pytest.MonkeyPatch):
    """So that the mean over ranks is the loss of their images in one batch."""
    first, second = target((0, (4, 6, 40, 30))), target((1, (10, 10, 50, 52)))
    boxes = torch.cat((first.boxes[[0, 0]] + 0.02, second.boxes))
    whole = judged_of([0, 2, 4], boxes)

    def part(rows: list[int], maps: list[int]) -> JudgedCandidates:
        candidates = replace(
            whole.candidates,
            map=torch.tensor(maps),
            boxes=whole.candidates.boxes[rows],
            own=whole.candidates.own[rows],
        )
        return JudgedCandidates(
            candidates,
            whole.canvases,
            whole.scores[rows],
            whole.boxes[rows],
            whole.base[rows],
            whole.change[rows],
        )

    together = terms(candidate_loss(whole, CLASSES, Instances.of([first, second])))
    counts = {2: 1.5, 1: 1.0}  # candidates: 2 and 1; drawn ones: 1 and 1
    monkeypatch.setattr(module, "mean_over_ranks", lambda count, _: counts[count])
    ranks = [
        terms(candidate_loss(part([0, 1], [0, 2]), CLASSES, Instances.of([first]))),
        terms(candidate_loss(part([2], [1]), CLASSES, Instances.of([second]))),
    ]
    # The second rank counts its one candidate as its one drawn one; its score is put right by hand.
    score = (ranks[0][0] + ranks[1][0] / 1.5) / 2
    assert score == pytest.approx(together[0], rel=1e-4)
    for place in (1, 2):
        assert (ranks[0][place] + ranks[1][place]) / 2 == pytest.approx(together[place], rel=1e-4)


def test_drawing_by_gradient_ends_at_the_instance():
    """Boxes and masks that follow their gradients become true, and scores say so."""
    truth = target((1, (12, 20, 44, 40)))
    boxes = truth.boxes + torch.tensor([[0.06, -0.05, 0.1, -0.08]])
    judged = judged_of([1], boxes, moved=boxes, masks=torch.zeros(1, GRID, GRID))
    moving = [part.detach().clone().requires_grad_() for part in (judged.scores, judged.boxes, judged.change)]
    optimiser = torch.optim.Adam(moving, lr=0.02)
    for _ in range(250):
        now = replace(judged, scores=moving[0], boxes=moving[1], change=10 * moving[2])
        found = candidate_loss(now, CLASSES, Instances.of([truth]))
        optimiser.zero_grad()
        (found.score + found.box + found.mask).backward()
        optimiser.step()
    assert (moving[1] - truth.boxes).abs().max() < 0.01
    shown = seen_in(windows(boxes, SIDE)[0].tolist(), truth.masks[0])
    assert (((moving[2][0] > 0) == (shown > 0.5)) | ((shown - 0.5).abs() < 0.2)).all()
    assert (moving[0] > 0.5).all()
