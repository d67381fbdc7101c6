"""The loss of the prior's masks against loops over images and classes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from unispector.losses.instances import Instances
from unispector.losses.prior import (
    ABSENT,
    ABSENT_SMOOTHING,
    FOCAL,
    FOREGROUND,
    PRESENCE,
    SMOOTHING,
    class_masks,
    prior_loss,
)
from unispector.prior_structures import PriorMaps
from unispector.structures import ModelOutput, Targets

SIDE, CLASSES = 16, 4  # cells of four pixels each

Batch = Callable[..., tuple[ModelOutput, list[Targets]]]


def maps_of(logits: Tensor, presence: Tensor) -> PriorMaps:
    """Maps of which the loss judges the first two."""
    unjudged = torch.zeros(0)
    return PriorMaps(logits, presence, unjudged, unjudged, unjudged, unjudged)


def random_maps(images: int, seed: int = 0) -> PriorMaps:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, CLASSES, SIDE, SIDE, generator=generator) * 2
    presence = torch.randn(images, CLASSES, generator=generator)
    return maps_of(logits.requires_grad_(), presence.requires_grad_())


def looped_masks(targets: list[Targets]) -> np.ndarray:
    """Of each image, class and cell, the largest share of it that one instance covers."""
    masks = np.zeros((len(targets), CLASSES, SIDE, SIDE))
    for image, target in enumerate(targets):
        for label, mask in zip(target.labels.tolist(), target.masks.numpy(), strict=True):
            for y, x in np.ndindex(SIDE, SIDE):
                share = mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean()
                masks[image, label, y, x] = max(masks[image, label, y, x], share)
    return masks


def entropy(logit: float, truth: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -truth * math.log(probability) - (1 - truth) * math.log(1 - probability)


def looped_loss(maps: PriorMaps, targets: list[Targets]) -> float:
    truth, logits = looped_masks(targets), maps.logits.detach().double().numpy()
    presence = maps.presence.detach().double().numpy()
    focal, dice, quiet, shown = [], [], [], []
    for image, column in np.ndindex(*logits.shape[:2]):
        own, mask = logits[image, column], truth[image, column]
        probabilities = 1 / (1 + np.exp(-own))
        for y, x in np.ndindex(*own.shape):
            weight = FOREGROUND if mask[y, x] > 0.5 else 1 - FOREGROUND
            surprise = abs(mask[y, x] - probabilities[y, x])
            focal.append(weight * surprise * entropy(own[y, x], mask[y, x]))
        smoothing = SMOOTHING if mask.any() else ABSENT_SMOOTHING
        both, either = (probabilities * mask).sum(), probabilities.sum() + mask.sum()
        (dice if mask.any() else quiet).append(1 - (2 * both + smoothing) / (either + smoothing))
        shown.append(entropy(presence[image, column], float(mask.any())))
    return (
        FOCAL * np.mean(focal)
        + (np.mean(dice) if dice else 0)
        + ABSENT * (np.mean(quiet) if quiet else 0)
        + PRESENCE * np.mean(shown)
    )


COUNTS = [(2, 0, 3), (1,), (0, 0), (7, 1)]


@pytest.mark.parametrize("counts", COUNTS)
def test_class_masks_are_those_of_loops(batch: Batch, counts: tuple[int, ...]):
    _, targets = batch(counts)
    found = class_masks(Instances.of(targets), CLASSES, SIDE)
    np.testing.assert_allclose(found.numpy(), looped_masks(targets), atol=1e-6)


@pytest.mark.parametrize("counts", COUNTS)
def test_the_loss_is_that_of_loops(batch: Batch, counts: tuple[int, ...]):
    _, targets = batch(counts)
    maps = random_maps(len(counts))
    found = prior_loss(maps, Instances.of(targets))
    assert found.item() == pytest.approx(looped_loss(maps, targets), rel=1e-4)
    found.backward()
    for part in (maps.logits, maps.presence):
        assert part.grad.isfinite().all()
        assert part.grad.any()


def test_where_every_class_is_shown_nothing_is_absent(batch: Batch):
    _, targets = batch((1, 1))
    mask = targets[0].masks[:1].expand(CLASSES, -1, -1)
    everything = [Targets(torch.arange(CLASSES), torch.full((CLASSES, 4), 0.5), mask)] * 2
    maps = random_maps(2)
    assert prior_loss(maps, Instances.of(everything)).item() == pytest.approx(
        looped_loss(maps, everything), rel=1e-4
    )


def test_the_truth_costs_nothing_and_what_differs_from_it_something():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 8:32, 16:40] = True  # whole cells
    target = Targets(torch.tensor([2]), torch.full((1, 4), 0.5), mask)
    instances = Instances.of([target])
    truth = torch.full((1, CLASSES, SIDE, SIDE), -20.0)
    truth[0, 2, 2:8, 4:10] = 20.0
    shown = torch.tensor([[-20.0, -20.0, 20.0, -20.0]])

    def loss(masks: Tensor, presence: Tensor) -> float:
        return prior_loss(maps_of(masks, presence), instances).item()

    assert loss(truth, shown) == pytest.approx(0, abs=1e-4)
    little, much = truth.clone(), truth.clone()
    little[0, 0, :2, :2] = 20.0
    much[0, 0] = 20.0
    assert 0.01 < loss(little, shown) < loss(much, shown)
    missed = torch.full_like(truth, -20.0)
    assert loss(missed, shown) > 0.9
    assert loss(truth, -shown) > 1
    assert loss(-truth, -shown) > max(loss(truth, -shown), loss(missed, shown), loss(much, shown))


def test_extreme_and_half_precision_maps_have_a_finite_loss(batch: Batch):
    _, targets = batch((2, 0))
    instances = Instances.of(targets)
    for value in (-1e4, 1e4):
        logits = torch.full((2, CLASSES, SIDE, SIDE), value, requires_grad=True)
        loss = prior_loss(maps_of(logits, logits.amax((2, 3))), instances)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()
    maps = random_maps(2)
    rounded = maps_of(maps.logits.bfloat16(), maps.presence.bfloat16())
    loss = prior_loss(rounded, instances)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(prior_loss(maps, instances).item(), rel=0.01)
