"""Under bfloat16 autocast: what stays in float32 to the last bit, and how far the rest may drift."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unispector.config import ModelConfig
from unispector.modeling.heads import PredictionHeads
from unispector.modeling.query_selection import PromptGuidedSelection
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.boxes import xyxy_to_cxcywh
from unispector.ops.spectrum import radial_spectrum
from unispector.structures import ImageFeatures, LayerPrediction, Targets, VisualPrompts

# bfloat16 rounds by up to 2^-9. A block rounds its inputs, weights and result, half a dozen such blocks
# follow one another, and sums between them are float32: their errors add up to about 2^-6 at worst.
DRIFT = 2**-6


def mixed() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def drift(found: Tensor, expected: Tensor) -> float:
    """Share of the norm that is error."""
    return ((found.float() - expected).norm() / expected.norm()).item()


@pytest.fixture
def step(draw_regions: Callable[..., VisualPrompts]) -> Callable[[UniSpectorModel], object]:
    """`step(model)` -> the training output for three images of two classes, chance seeded."""
    regions = draw_regions([0, 0, 1, 2])
    images = torch.randint(0, 256, (3, 3, 72, 72), dtype=torch.uint8)
    targets = []
    for image in range(3):
        masks = regions.roi_masks[regions.image_index == image]
        places = [mask.nonzero() for mask in masks]
        corners = [torch.cat((p.amin(0).flip(0), p.amax(0).flip(0) + 1)) / 96 for p in places]
        boxes = xyxy_to_cxcywh(torch.stack(corners))
        targets.append(Targets(torch.zeros(len(masks)).long(), boxes, masks))
    mixing = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]).expand(3, 2, 4)

    def run(model: UniSpectorModel) -> object:
        torch.manual_seed(5)
        return model(images, regions, mixing, tuple(targets))

    return run


def compare(found: LayerPrediction, expected: LayerPrediction) -> None:
    assert found.logits.dtype == found.boxes.dtype == found.masks.dtype == torch.float32
    assert drift(found.logits, expected.logits) < DRIFT
    assert drift(found.masks, expected.masks) < 2 * DRIFT  # kernels and mask features both drift
    assert (found.boxes - expected.boxes).abs().max() < 0.1 / 96  # a tenth of a pixel


@torch.no_grad()
def test_predictions_drift_little(small_model, small_config: ModelConfig, step):
    """With learned queries, because PQS orders queries of almost equal score anew."""
    model = small_model(small_config.with_parts(sspe=False, pqs=False))
    expected = step(model)
    with mixed():
        found = step(model)
    assert 0 < drift(found.embeddings, expected.embeddings) < DRIFT
    for one, other in zip(
        (*found.output.layers, *found.output.denoising),
        (*expected.output.layers, *expected.output.denoising),
        strict=True,
    ):
        compare(one, other)


def test_a_step_has_finite_gradients_in_float32(small_model, step):
    model = small_model().train()
    with mixed():
        result = step(model)
        last = result.output.layers[-1]
    loss = result.embeddings.float().sum() + result.output.selection.relevance.sum()
    maps, judged = result.output.prior, result.output.candidates
    assert {
        part.dtype for part in (maps.logits, maps.presence, judged.scores, judged.boxes, judged.change)
    } == {torch.float32}
    loss = loss + maps.logits.mean() + maps.presence.sum()
    loss = loss + judged.scores.sum() + judged.boxes.sum() + judged.masks.mean()
    for layer in (*result.output.layers, *result.output.denoising):
        loss = loss + layer.logits.sum() + layer.boxes.sum() + layer.masks.mean()
    loss.backward()
    assert last.kernels.dtype == torch.bfloat16  # autocast was at work
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.dtype == torch.float32, name
            assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_class_logits_are_float32():
    heads, norm = PredictionHeads(8, class_bias=True), nn.LayerNorm(8)
    arguments = (
        norm,
        torch.randn(2, 3, 8),
        torch.randn(2, 4, 8),
        torch.rand(2, 3, 4),
        torch.randn(2, 8, 2, 2),
    )
    expected = heads(*arguments)
    with mixed():
        found = heads(*arguments)
    assert torch.equal(found.logits, expected.logits)
    assert not torch.equal(found.masks, expected.masks)


@torch.no_grad()
def test_boxes_are_moved_in_float32(features: ImageFeatures):
    decoder = TransformerDecoder(32, heads=4, points=2, layers=1, feedforward=32)
    for parameter in decoder.box.parameters():
        nn.init.normal_(parameter, std=0.5)
    # Nothing but the box head is left of the layer.
    decoder.layers[0].forward = lambda tokens, *_: tokens
    arguments = (torch.randn(2, 5, 32), torch.randn(2, 5, 4), torch.zeros(2, 5, 5).bool(), features)
    (expected,) = decoder(*arguments)
    with mixed():
        (found,) = decoder(*arguments)
    assert torch.equal(found.boxes, expected.boxes)


@torch.no_grad()
def test_the_choice_of_queries_is_float32(features: ImageFeatures):
    selection = PromptGuidedSelection(32, queries=10, temperature=1.0, noise=0.2, scale=10.0).eval()
    prompts = torch.randn(2, 3, 32)
    expected = selection(features, prompts)
    with mixed():
        found = selection(features, prompts)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.relevance, expected.relevance)


def test_spectra_are_float32():
    grey = torch.rand(20, 31)
    with mixed():
        found = radial_spectrum(grey, 16)
    assert torch.equal(found, radial_spectrum(grey, 16))
