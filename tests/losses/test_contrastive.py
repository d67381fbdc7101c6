"""CPE against its formula written with arccos, and at the places where arccos breaks."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from unispector.losses.contrastive import angular_margin_loss

LABELS = torch.tensor([4, 4, 9, 9, 9, 2, 2])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_formula(embeddings: Tensor, labels: Tensor, scale: float, margin: float) -> list[float]:
    rows, own = embeddings.tolist(), labels.tolist()
    prototypes = {
        c: [
            sum(v) / own.count(c)
            for v in zip(*(r for r, o in zip(rows, own, strict=True) if o == c), strict=True)
        ]
        for c in own
    }

    def angle(a: list[float], b: list[float]) -> float:
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        return math.acos(max(-1.0, min(1.0, cosine)))

    losses = []
    for row, label in zip(rows, own, strict=True):
        positive = math.exp(scale * math.cos(angle(row, prototypes[label]) + margin))
        negatives = sum(
            math.exp(scale * math.cos(angle(row, p))) for c, p in prototypes.items() if c != label
        )
        losses.append(-math.log(positive / (positive + negatives)))
    return losses


@pytest.mark.parametrize(("scale", "margin"), [(30.0, 0.5), (8.0, 0.2), (1.0, 1.0)])
def test_loss_is_its_formula(scale: float, margin: float):
    embeddings = draw(7, 5)
    found = angular_margin_loss(embeddings, LABELS, scale, margin).tolist()
    assert found == pytest.approx(by_formula(embeddings, LABELS, scale, margin), rel=1e-5, abs=1e-6)


def test_without_margin_it_is_plain_cross_entropy():
    embeddings = draw(7, 5)
    columns = torch.tensor([1, 1, 2, 2, 2, 0, 0])
    prototypes = torch.stack([embeddings[columns == c].mean(0) for c in range(3)])
    logits = 30 * functional.cosine_similarity(embeddings[:, None], prototypes[None], dim=-1)
    expected = functional.cross_entropy(logits, columns, reduction="none")
    torch.testing.assert_close(angular_margin_loss(embeddings, LABELS, 30, 0), expected)


def test_gradient_is_right_through_the_prototypes_too():
    embeddings = draw(7, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: angular_margin_loss(e, LABELS, 5, 0.5), (embeddings,))


def test_one_instance_classes_have_a_finite_gradient_and_push_others_away():
    embeddings = draw(3, 5).float().requires_grad_()
    losses = angular_margin_loss(embeddings, torch.tensor([0, 1, 2]), 30, 0.5)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.abs().sum() > 0


def test_the_loss_rises_with_the_angle_even_where_the_margin_passes_pi():
    # The huge row fixes the prototype of class 0 on the x axis, class 1 stays at a right angle to everything.
    losses = []
    for turn in torch.linspace(0.01, math.pi - 0.01, 60).tolist():
        rows = torch.tensor(
            [[math.cos(turn), math.sin(turn), 0], [1e6, 0, 0], [0, 0, 1]], dtype=torch.float64
        )
        losses.append(angular_margin_loss(rows, torch.tensor([0, 0, 1]), 4, 1.0)[0].item())
    assert all(after > before for before, after in pairwise(losses))


@pytest.mark.parametrize("rows", [1, 4])
def test_one_class_costs_nothing(rows: int):
    embeddings = draw(rows, 5).requires_grad_()
    losses = angular_margin_loss(embeddings, torch.zeros(rows, dtype=torch.int64), 30, 0.5)
    losses.sum().backward()
    assert losses.tolist() == [0.0] * rows
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_no_instance_gives_no_loss():
    embeddings = torch.zeros(0, 5, requires_grad=True)
    losses = angular_margin_loss(embeddings, torch.zeros(0, dtype=torch.int64), 30, 0.5)
    assert losses.shape == (0,)
    losses.sum().backward()


def test_zero_vectors_stay_finite():
    embeddings = torch.zeros(4, 5, requires_grad=True)
    losses = angular_margin_loss(embeddings, torch.tensor([0, 0, 1, 2]), 30, 0.5)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=12),
    seed=st.integers(0, 10_000),
    size=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_finite_not_negative_and_blind_to_length_and_order(labels: list[int], seed: int, size: float):
    embeddings, classes = draw(len(labels), 6, seed=seed), torch.tensor(labels)
    losses = angular_margin_loss(embeddings, classes, 30, 0.5)
    assert losses.isfinite().all()
    assert (losses >= 0).all()
    torch.testing.assert_close(angular_margin_loss(size * embeddings, classes, 30, 0.5), losses)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(angular_margin_loss(embeddings[order], classes[order], 30, 0.5), losses[order])
