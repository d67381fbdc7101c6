"""PQS: hard top-K forward, a gradient that teaches tokens and prompts to rank."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from unispector.modeling.query_selection import LearnedQueries, PromptGuidedSelection
from unispector.structures import ImageFeatures, QuerySelection

WIDTH, VALID = 32, 72 / 96


def selection(queries: int = 10, noise: float = 0.2) -> PromptGuidedSelection:
    return PromptGuidedSelection(WIDTH, queries=queries, temperature=1.0, noise=noise, scale=10.0)


def prompts(classes: int = 3) -> Tensor:
    return torch.randn(classes, WIDTH).expand(2, -1, -1)


def centres(features: ImageFeatures) -> Tensor:
    """[T, 2] x, y of the tokens' cells, one by one."""
    return torch.tensor(
        [((x + 0.5) / w, (y + 0.5) / h) for h, w in features.level_hw for y in range(h) for x in range(w)]
    )


def best_cosines(module: PromptGuidedSelection, features: ImageFeatures, classes: Tensor) -> np.ndarray:
    """[B, T] largest cosine of a normalised token with any prompt, in numpy."""
    tokens = features.memory.numpy() @ module.project.weight.detach().numpy().T
    tokens = tokens - tokens.mean(-1, keepdims=True)
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    directions = classes[0].numpy() / np.linalg.norm(classes[0].numpy(), axis=-1, keepdims=True)
    return (unit @ directions.T).max(-1)


def test_evaluation_takes_the_most_similar_tokens(features: ImageFeatures):
    module, classes = selection().eval(), prompts()
    torch.nn.init.normal_(module.project.weight)
    chosen = module(features, classes)
    scores = best_cosines(module, features, classes)
    scores[:, (centres(features) > VALID - 1e-6).any(1).numpy()] = -np.inf
    for image in range(2):
        expected = np.argsort(-scores[image], kind="stable")[:10]
        assert chosen.indices[image].tolist() == expected.tolist()


def test_evaluation_draws_nothing(features: ImageFeatures):
    module, classes = selection().eval(), prompts()
    state = torch.get_rng_state()
    first, second = module(features, classes), module(features, classes)
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("content", "reference", "relevance", "indices"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_ties_go_to_the_first_token(features: ImageFeatures):
    alike = replace(features, valid=1.0, memory=torch.randn(WIDTH).expand_as(features.memory).contiguous())
    chosen = selection().eval()(alike, prompts())
    assert chosen.indices.tolist() == [list(range(10))] * 2


def test_order_of_prompts_is_irrelevant(features: ImageFeatures):
    module, classes = selection().eval(), prompts(4)
    order = [2, 0, 3, 1]
    first, second = module(features, classes), module(features, classes[:, order])
    assert torch.equal(first.indices, second.indices)
    torch.testing.assert_close(first.relevance[..., order], second.relevance)


def test_training_forward_is_a_hard_selection(features: ImageFeatures):
    module = selection(noise=1.0).train()
    chosen = module(features, prompts())
    tokens = module.norm(module.project(features.memory))
    for image in range(2):
        assert len(set(chosen.indices[image].tolist())) == 10
        # Bit for bit: the straight-through weights are exactly 1.
        assert torch.equal(chosen.content[image], tokens[image, chosen.indices[image]])


def test_without_noise_training_selects_like_evaluation(features: ImageFeatures):
    module, classes = selection(noise=0.0), prompts()
    drawn, hard = module.train()(features, classes), module.eval()(features, classes)
    assert torch.equal(drawn.indices, hard.indices)


def test_noise_changes_the_selection(features: ImageFeatures):
    module, classes = selection(noise=1.0).train(), prompts()
    assert not torch.equal(module(features, classes).indices, module(features, classes).indices)


def scored(module: PromptGuidedSelection, scores: Tensor) -> tuple[QuerySelection, Tensor]:
    """The selection of [B, T] given scores, and the tokens; prompts of zero leave them to the evidence."""
    images, tokens = scores.shape
    memory = torch.randn(images, tokens, WIDTH)
    features = ImageFeatures(memory, ((1, tokens),), torch.zeros(0), valid=1.0)
    return module(features, torch.zeros(images, 1, WIDTH), scores[..., None]), module.norm(
        module.project(memory)
    ).detach()


def test_noise_is_gumbels():
    """With equal scores, K = 1 and full noise every token is drawn equally often, by perturbed scores."""
    scores = torch.tensor([0.0, 1.0, 2.0]).expand(6000, 3)
    drawn, _ = scored(selection(queries=1, noise=1.0).train(), scores)
    shares = torch.bincount(drawn.indices.flatten(), minlength=3) / len(scores)
    torch.testing.assert_close(shares, torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.03, rtol=0)


def test_gradient_reaches_tokens_and_prompts(features: ImageFeatures):
    module = selection().train()
    memory = features.memory.requires_grad_()
    classes = prompts().contiguous().requires_grad_()
    chosen = module(replace(features, memory=memory), classes)
    (chosen.content * torch.randn_like(chosen.content)).sum().backward()
    assert classes.grad is not None
    assert memory.grad is not None
    assert classes.grad.isfinite().all()
    assert memory.grad.isfinite().all()
    assert classes.grad.any()
    picked = torch.zeros(memory.shape[:2], dtype=torch.bool).scatter(1, chosen.indices, True)
    assert memory.grad[picked].any(-1).all()
    # The softmax makes tokens that were not picked learn too, but never those of the padded band.
    assert memory.grad[~picked].any()
    padded = (centres(features) > VALID - 1e-6).any(1)
    assert not memory.grad[:, padded].any()


def test_straight_through_gradient_is_that_of_the_scaled_softmax():
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    chosen, tokens = scored(selection(queries=2, noise=0.0).train(), scores)
    assert chosen.indices.tolist() == [[0, 2]]
    assert torch.equal(chosen.content, tokens[:, [0, 2]].double())
    direction = torch.randn(WIDTH, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((chosen.content @ direction).sum(), scores)
    value = tokens[0].double() @ direction
    p = scores.detach().softmax(1)[0]
    upstream = value * torch.tensor([1, 0, 1, 0])
    torch.testing.assert_close(gradient[0], 2 * p * (upstream - upstream @ p))


@pytest.mark.parametrize("training", [False, True])
def test_the_padded_band_is_never_selected(training: bool, features: ImageFeatures):
    inside = (centres(features) < VALID - 1e-6).all(1)
    usable = int(inside.sum())
    module = selection(queries=usable, noise=1.0).train(training)
    chosen = module(features, prompts())
    for image in range(2):
        assert set(chosen.indices[image].tolist()) == set(inside.nonzero().flatten().tolist())


def test_fewer_tokens_than_queries(features: ImageFeatures):
    tokens = features.memory.shape[1]
    for module in (selection(queries=999).eval(), selection(queries=999).train()):
        chosen = module(replace(features, valid=1.0), prompts())
        assert chosen.content.shape == (2, tokens, WIDTH)
        assert chosen.content.isfinite().all()


def test_references_start_as_anchors(features: ImageFeatures):
    chosen = selection().eval()(features, prompts())
    boxes = chosen.reference.sigmoid()
    ends = np.cumsum([h * w for h, w in features.level_hw])
    for image in range(2):
        for index, box in zip(chosen.indices[image].tolist(), boxes[image], strict=True):
            side = (0.4, 0.2, 0.1, 0.05)[int((index >= ends).sum())]
            expected = torch.tensor([*centres(features)[index].tolist(), side, side])
            torch.testing.assert_close(box, expected, atol=1e-5, rtol=0)


def test_relevance_is_a_scaled_cosine(features: ImageFeatures):
    module, classes = selection().eval(), prompts()
    relevance = module(features, classes).relevance
    cosines = torch.from_numpy(best_cosines(module, features, classes))
    expected = module.relevance_scale.exp() * cosines + module.relevance_bias
    torch.testing.assert_close(relevance.amax(-1), expected, atol=1e-4, rtol=1e-4)


def test_evidence_is_added_to_scores_and_relevance(features: ImageFeatures):
    module, classes = selection().eval(), prompts()
    evidence = torch.randn(2, features.memory.shape[1], 3) * 4
    plain, found = (module(features, classes, more) for more in (None, evidence))
    torch.testing.assert_close(found.relevance, plain.relevance + evidence)
    cosines = (plain.relevance - module.relevance_bias) / module.relevance_scale.exp()
    scores = (10 * cosines + evidence).amax(-1)
    scores[:, (centres(features) > VALID - 1e-6).any(1)] = -torch.inf
    for image in range(2):
        expected = scores[image].argsort(descending=True)[:10]
        assert found.indices[image].tolist() == expected.tolist()
    assert not torch.equal(found.indices, plain.indices)
    none = module(features, classes, torch.zeros_like(evidence))
    assert torch.equal(none.indices, plain.indices)


def test_sure_evidence_decides_which_tokens_are_selected(features: ImageFeatures):
    module = selection().eval()
    known = torch.tensor([30, 31, 60, 61])
    evidence = torch.zeros(2, features.memory.shape[1], 3)
    evidence[0, known, 1] = evidence[1, known + 5, 2] = 1000.0
    chosen = module(replace(features, valid=1.0), prompts(), evidence).indices
    assert set(chosen[0, :4].tolist()) == set(known.tolist())
    assert set(chosen[1, :4].tolist()) == set((known + 5).tolist())


def test_learned_queries_ignore_image_and_prompt(features: ImageFeatures):
    module = LearnedQueries(WIDTH, queries=7)
    chosen = module(features, prompts())
    assert chosen.relevance is None
    assert chosen.indices is None
    for image in range(2):
        assert torch.equal(chosen.content[image], module.content)
        assert torch.equal(chosen.reference[image], module.reference)
