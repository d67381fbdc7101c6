"""The decoder's iterative refinement, and which gradients it lets through."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from unispector.modeling.position_encoding import encode_boxes
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.ops.boxes import inverse_sigmoid
from unispector.structures import ImageFeatures

WIDTH, LENGTH = 32, 5


def decoder(layers: int = 3) -> TransformerDecoder:
    module = TransformerDecoder(WIDTH, heads=4, points=2, layers=layers, feedforward=32)
    for parameter in module.box.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, LENGTH, WIDTH), torch.randn(2, LENGTH, 4), torch.zeros(2, LENGTH, LENGTH).bool()


def literal(
    module: TransformerDecoder, tokens: Tensor, reference: Tensor, features: ImageFeatures, *, detach: bool
) -> list[Tensor]:
    """Boxes of every layer by look forward twice; `detach` = look forward once (Deformable DETR)."""
    used, kept = reference.sigmoid().detach(), reference.sigmoid()
    blocked = torch.zeros(2, LENGTH, LENGTH, dtype=torch.bool)
    boxes = []
    for layer in module.layers:
        tokens = layer(tokens, module.position(encode_boxes(used, WIDTH // 2)), used, blocked, features)
        boxes.append(torch.sigmoid(module.box(module.norm(tokens)) + inverse_sigmoid(kept)))
        refined = torch.sigmoid(module.box(tokens) + inverse_sigmoid(used))
        used, kept = refined.detach(), refined.detach() if detach else refined
    return boxes


def test_boxes_and_gradients_look_forward_twice(features: ImageFeatures):
    module = decoder(2)
    tokens, reference, blocked = inputs()
    states = module(tokens, reference, blocked, features)
    twice = literal(module, tokens, reference, features, detach=False)
    once = literal(module, tokens, reference, features, detach=True)
    for state, box in zip(states, twice, strict=True):
        torch.testing.assert_close(state.boxes, box)
    parameters = list(module.box.parameters())
    mine, expected, short = (
        torch.autograd.grad(boxes.sum(), parameters) for boxes in (states[1].boxes, twice[1], once[1])
    )
    for a, b, c in zip(mine, expected, short, strict=True):
        torch.testing.assert_close(a, b)
        assert (a - c).abs().max() > 1e-3


def test_only_the_first_layer_refines_the_initial_reference(features: ImageFeatures):
    module = decoder(2)
    tokens, reference, blocked = inputs()
    reference.requires_grad_()
    states = module(tokens, reference, blocked, features)
    (first,) = torch.autograd.grad(states[0].boxes.sum(), reference, retain_graph=True)
    (second,) = torch.autograd.grad(states[1].boxes.sum(), reference, allow_unused=True)
    assert first.any(-1).all()
    assert second is None or not second.any()


def test_at_the_start_boxes_equal_their_reference(features: ImageFeatures):
    module = TransformerDecoder(WIDTH, heads=4, points=2, layers=2, feedforward=32)
    tokens, reference, blocked = inputs()
    for state in module(tokens, reference, blocked, features):
        torch.testing.assert_close(state.boxes, reference.sigmoid(), atol=1e-5, rtol=0)


def test_a_blocked_token_does_not_matter(features: ImageFeatures):
    module = decoder()
    tokens, reference, blocked = inputs()
    blocked[:, :-1, -1] = True
    changed = tokens.clone()
    changed[:, -1] = torch.randn(2, WIDTH)
    before, after = (module(t, reference, blocked, features)[-1].tokens for t in (tokens, changed))
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert (before[:, -1] - after[:, -1]).abs().max() > 1e-2
    blocked[:] = False
    assert (module(changed, reference, blocked, features)[-1].tokens - before).abs().max() > 1e-2


def test_masks_differ_by_image(features: ImageFeatures):
    """The heads' copies of a mask must follow their image."""
    module = decoder(1)
    tokens, reference, blocked = inputs()
    blocked[0, :-1, -1] = True
    both = module(tokens, reference, blocked, features)[-1].tokens
    for image in range(2):
        one = slice(image, image + 1)
        alone = ImageFeatures(features.memory[one], features.level_hw, features.mask_features[one])
        single = module(tokens[one], reference[one], blocked[one], alone)[-1].tokens
        torch.testing.assert_close(single, both[one], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_one_state_per_layer(layers: int, features: ImageFeatures):
    states = decoder(layers)(*inputs(), features)
    assert len(states) == layers
    for state in states:
        assert state.tokens.shape == (2, LENGTH, WIDTH)
        assert ((state.boxes >= 0) & (state.boxes <= 1)).all()
    assert all(not torch.equal(a.tokens, b.tokens) for a, b in pairwise(states))
