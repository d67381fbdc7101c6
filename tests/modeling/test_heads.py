"""Class and mask heads against their formulas."""

import math

import pytest
import torch
from torch import nn

from unispector.modeling.heads import PredictionHeads
from unispector.modeling.layers import MLP
from unispector.structures import LayerPrediction


def test_formulas():
    heads, norm = PredictionHeads(8, class_bias=True), nn.LayerNorm(8)
    nn.init.normal_(norm.weight)
    queries, prompts = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    boxes, features = torch.rand(2, 3, 4), torch.randn(2, 8, 5, 6)
    predicted = heads(norm, queries, prompts, boxes, features)
    assert predicted.logits.shape == (2, 3, 4)
    assert predicted.masks.shape == (2, 3, 5, 6)
    assert torch.equal(predicted.boxes, boxes)
    q, c = norm(queries)[1, 2], norm(prompts)[1, 3]
    logit = ((q @ heads.classes) * (c @ heads.classes)).sum() + heads.class_bias
    torch.testing.assert_close(predicted.logits[1, 2, 3], logit)
    torch.testing.assert_close(predicted.masks[1, 2, 4, 5], heads.mask(q) @ features[1, :, 4, 5])


def test_the_bias_is_a_low_prior():
    queries, prompts = torch.zeros(1, 2, 8), torch.zeros(1, 1, 8)
    arguments = (nn.LayerNorm(8), queries, prompts, torch.zeros(1, 2, 4), torch.zeros(1, 8, 2, 2))
    biased = PredictionHeads(8, class_bias=True)(*arguments).logits.sigmoid()
    torch.testing.assert_close(biased, torch.full((1, 2, 1), 0.01))
    heads = PredictionHeads(8, class_bias=False)
    assert heads.class_bias is None
    assert not heads(*arguments).logits.any()


def test_mlp():
    mlp = MLP((2, 3, 1))
    x = torch.randn(4, 2)
    first, last = mlp.layers
    torch.testing.assert_close(mlp(x), last(first(x).clamp(min=0)))
    assert not MLP((2, 3, 1), zero=True)(x).any()
    gelu = MLP((1, 1, 1), activation=nn.GELU)
    for layer in gelu.layers:
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    expected = -0.5 * (1 + math.erf(-1 / math.sqrt(2)))
    assert gelu(torch.tensor([-1.0])).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("queries", [[0, 2, 3, 3, 11], [5, 4], [8], []])
def test_masks_of_a_few_queries_are_those_among_all(queries: list[int]):
    """Also where images are asked for different numbers of masks, or for none."""
    kernels = torch.randn(3, 4, 6, dtype=torch.float32, requires_grad=True)
    features = torch.randn(3, 6, 2, 5, requires_grad=True)
    prediction = LayerPrediction(torch.zeros(3, 4, 1), torch.zeros(3, 4, 4), kernels, features)
    chosen = torch.tensor(queries, dtype=torch.int64)
    few, all_masks = prediction.masks_of(chosen), prediction.masks
    assert few.shape == (len(queries), 2, 5)
    torch.testing.assert_close(few, all_masks.flatten(0, 1)[chosen])
    upper = torch.randn_like(few)
    found = torch.autograd.grad(few, (kernels, features), upper)
    expected = torch.autograd.grad(all_masks.flatten(0, 1)[chosen], (kernels, features), upper)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_masks_of_alternative_prompts_share_the_features_of_their_image():
    kernels, features = torch.randn(4, 3, 6), torch.randn(2, 6, 2, 5)
    prediction = LayerPrediction(torch.zeros(4, 3, 1), torch.zeros(4, 3, 4), kernels, features)
    for row in range(4):
        expected = torch.einsum("qd,dhw->qhw", kernels[row], features[row // 2])
        torch.testing.assert_close(prediction.masks[row], expected)
    chosen = torch.tensor([1, 4, 11])
    torch.testing.assert_close(prediction.masks_of(chosen), prediction.masks.flatten(0, 1)[chosen])
