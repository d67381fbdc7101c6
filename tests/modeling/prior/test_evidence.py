"""What the similarity prior adds to tokens and queries, cell by cell."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unispector.modeling.prior.evidence import COARSENESS, SURE, PriorEvidence, token_evidence
from unispector.prior_structures import PriorMaps
from unispector.structures import LayerPrediction

SIDE = 24  # of the prior's maps; masks have half of it
CLASSES = 3


def logit(probability: float) -> float:
    kept = min(max(probability, 1 - SURE), SURE)
    return math.log(kept / (1 - kept))


def block(values: np.ndarray, y: int, x: int, cells: int) -> np.ndarray:
    """What lies under cell (y, x) of a grid of cells x cells."""
    size = len(values) // cells
    return values[y * size : (y + 1) * size, x * size : (x + 1) * size]


def coarser(values: np.ndarray, cells: int) -> np.ndarray:
    return np.array([[block(values, y, x, cells).mean() for x in range(cells)] for y in range(cells)])


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def maps_of(logits: Tensor) -> PriorMaps:
    """Maps whose logits alone count."""
    rows, classes = logits.shape[:2]
    unread = torch.zeros(0)
    return PriorMaps(logits, torch.zeros(rows, classes), unread, unread, unread, unread)


@pytest.fixture
def maps() -> PriorMaps:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randn(2, CLASSES, 4, 4, generator=generator) * 5
    logits = torch.nn.functional.interpolate(smooth, (SIDE, SIDE), mode="bilinear")
    return maps_of(logits.requires_grad_())


@pytest.fixture(params=[1, 2])
def prediction(request: pytest.FixtureRequest) -> tuple[LayerPrediction, Tensor]:
    """Of five queries in two images, or in one with two sets of prompts; and their tokens."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(2, 5, *shape, generator=generator)

    features = torch.randn(request.param, 6, SIDE // 2, SIDE // 2, generator=generator)
    return LayerPrediction(normal(CLASSES), normal(4), normal(6), features), normal(8)


@pytest.fixture
def evidence() -> PriorEvidence:
    module = PriorEvidence(8)
    torch.nn.init.normal_(module.mask_weight.weight)
    torch.nn.init.constant_(module.class_weight, 0.7)
    return module


def test_a_token_is_a_full_positive_where_half_its_cell_is_covered(maps: PriorMaps):
    found = token_evidence(maps, ((2, 2), (3, 3), (6, 6)))
    assert found.shape == (2, 4 + 9 + 36, CLASSES)
    assert not found.requires_grad
    probabilities = sigmoid(maps.logits.detach().double().numpy())
    for row, column in np.ndindex(2, CLASSES):
        levels = [coarser(probabilities[row, column], cells).flatten() for cells in (2, 3, 6)]
        expected = [logit(2 * share) for share in np.concatenate(levels)]
        np.testing.assert_allclose(found[row, :, column], expected, atol=1e-4)
    half = torch.full((1, 1, SIDE, SIDE), -20.0)
    half[..., : SIDE // 2] = 20.0
    sure = token_evidence(maps_of(half), ((1, 1), (2, 2))).flatten()
    assert sure[0] == sure[1] == sure[3] == sure.max() > 0
    assert sure[2] == sure[4] == sure.min() < 0


@torch.no_grad()
def test_every_query_is_judged_as_loops_do(evidence, prediction, maps):
    before, tokens = prediction
    after = evidence(before, tokens, maps)
    assert torch.equal(after.boxes, before.boxes)
    prior = maps.logits.double().numpy()
    weight, bias = evidence.mask_weight.weight[0].double(), evidence.mask_weight.bias.item()
    for row, query in np.ndindex(2, 5):
        asked = float(tokens[row, query].double() @ weight) + bias
        strongest = np.max([coarser(own.clip(-4, 4), SIDE // 2) for own in prior[row]], axis=0)
        mask = before.masks[row, query].numpy() + asked * strongest
        np.testing.assert_allclose(after.masks[row, query], mask, atol=1e-4)
        covered = coarser(sigmoid(mask), SIDE // COARSENESS)
        for column in range(CLASSES):
            shown = coarser(sigmoid(prior[row, column]), SIDE // COARSENESS)
            share = (covered * shown).sum() / (covered.sum() + 1e-3)
            expected = before.logits[row, query, column].item() + 0.7 * logit(share)
            assert after.logits[row, query, column].item() == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_a_query_is_drawn_to_the_class_whose_prior_lies_under_its_mask():
    maps = maps_of(torch.full((1, 2, SIDE, SIDE), -6.0))
    maps.logits[0, 0, :, : SIDE // 2] = 6.0
    maps.logits[0, 1, :, SIDE // 2 :] = 6.0
    half = torch.full((2, SIDE // 2, SIDE // 2), -6.0)
    half[0, :, : SIDE // 4] = half[1, :, SIDE // 4 :] = 6.0
    before = LayerPrediction(torch.zeros(1, 2, 2), torch.zeros(1, 2, 4), torch.eye(2)[None], half[None])
    assert torch.equal(before.masks[0], half)
    after = PriorEvidence(8)(before, torch.zeros(1, 2, 8), maps)
    # Query 0's mask shows class 0, query 1's class 1; each of them alone.
    assert (after.logits[0].diagonal() > 2).all()
    assert (after.logits[0].flip(1).diagonal() < -2).all()


@torch.no_grad()
def test_weights_of_zero_leave_a_prediction_as_it_was(prediction, maps):
    module = PriorEvidence(8)
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    before, tokens = prediction
    after = module(before, tokens, maps)
    for name in ("logits", "boxes", "masks"):
        assert torch.equal(getattr(after, name), getattr(before, name))


def test_the_maps_get_no_gradient_but_kernels_and_tokens_do(evidence, prediction, maps):
    before, tokens = prediction
    for part in (before.kernels, before.mask_features, tokens):
        part.requires_grad_()
    after = evidence(before, tokens, maps)
    after.logits.sum().backward(retain_graph=True)
    # The share of a mask judges it, and does not shape it.
    assert before.kernels.grad is None
    assert evidence.class_weight.grad.any()
    after.masks.square().sum().backward()
    assert maps.logits.grad is None
    for part in (before.kernels, before.mask_features, tokens):
        assert part.grad.any()
    assert all(parameter.grad.any() for parameter in evidence.parameters())
