"""Each term against torchvision or a scalar formula."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unispector.losses.terms import box_loss, dice_loss, focal_loss, giou_loss, mask_loss, quality_focal_loss

COUNT = 3.0


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_focal_loss_is_torchvisions():
    from torchvision.ops import sigmoid_focal_loss

    logits, targets = 4 * normal(7, 5), (uniform(7, 5) > 0.6).double()
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="sum") / COUNT
    torch.testing.assert_close(focal_loss(logits, targets, COUNT), expected)


def test_quality_focal_loss_is_its_formula():
    logits, targets = 4 * normal(6), uniform(6)
    expected = 0.0
    for x, t in zip(logits.tolist(), targets.tolist(), strict=True):
        p = sigmoid(x)
        expected += (t - p) ** 2 * -(t * math.log(p) + (1 - t) * math.log(1 - p))
    assert quality_focal_loss(logits, targets, COUNT).item() == pytest.approx(expected / COUNT)


def test_quality_focal_loss_vanishes_at_the_soft_target():
    targets = uniform(6)
    assert quality_focal_loss(targets.logit(), targets, COUNT).item() == pytest.approx(0, abs=1e-12)


def test_box_losses_are_torchvisions():
    from torchvision.ops import box_convert, generalized_box_iou_loss

    boxes, targets = uniform(8, 4, seed=2) * 0.4 + 0.1, uniform(8, 4, seed=3) * 0.4 + 0.1
    corners = [box_convert(b, "cxcywh", "xyxy") for b in (boxes, targets)]
    expected = generalized_box_iou_loss(*corners, reduction="sum") / COUNT
    torch.testing.assert_close(giou_loss(boxes, targets, COUNT), expected, rtol=1e-3, atol=1e-3)
    differences = sum(
        abs(a - b) for a, b in zip(boxes.flatten().tolist(), targets.flatten().tolist(), strict=True)
    )
    assert box_loss(boxes, targets, COUNT).item() == pytest.approx(differences / COUNT)


def test_mask_losses_are_their_formulas():
    logits, targets = 3 * normal(4, 9), uniform(4, 9)
    entropy = dice = 0.0
    for row, truth in zip(logits.tolist(), targets.tolist(), strict=True):
        p = [sigmoid(x) for x in row]
        pairs = list(zip(p, truth, strict=True))
        entropy += sum(-(t * math.log(q) + (1 - t) * math.log(1 - q)) for q, t in pairs) / len(row)
        dice += 1 - (2 * sum(q * t for q, t in pairs) + 1) / (sum(p) + sum(truth) + 1)
    assert mask_loss(logits, targets, COUNT).item() == pytest.approx(entropy / COUNT)
    assert dice_loss(logits, targets, COUNT).item() == pytest.approx(dice / COUNT)


@pytest.mark.parametrize("term", [focal_loss, quality_focal_loss, mask_loss, dice_loss])
@pytest.mark.parametrize("size", [1e3, 1e4])
def test_sure_logits_stay_finite(term: Callable[[Tensor, Tensor, float], Tensor], size: float):
    logits = torch.tensor([[size, -size, size, -size]], requires_grad=True)
    loss = term(logits, torch.tensor([[1.0, 0.0, 0.0, 1.0]]), COUNT)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("term", [focal_loss, quality_focal_loss, mask_loss, dice_loss])
def test_gradients_are_right(term: Callable[[Tensor, Tensor, float], Tensor]):
    logits, targets = normal(3, 4).requires_grad_(), (uniform(3, 4) > 0.5).double()
    assert torch.autograd.gradcheck(lambda x: term(x, targets, COUNT), (logits,))


@pytest.mark.parametrize("term", [box_loss, giou_loss, mask_loss, dice_loss])
def test_nothing_to_judge_costs_nothing(term: Callable[[Tensor, Tensor, float], Tensor]):
    assert term(torch.zeros(0, 4), torch.zeros(0, 4), 1.0).item() == 0
