"""The total loss: hand-made cases, invariances, and batches with nothing in them."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unispector.losses.candidates import candidate_loss
from unispector.losses.criterion import BASE_TERMS, Criterion, LossBreakdown, LossWeights, denoising_pairs
from unispector.losses.instances import Instances
from unispector.losses.prior import prior_loss
from unispector.losses.relevance import relevance_targets
from unispector.losses.terms import quality_focal_loss
from unispector.ops.windows import GRID
from unispector.prior_structures import Candidates, JudgedCandidates, PriorMaps
from unispector.structures import LayerPrediction, ModelOutput, QuerySelection, Targets

Batch = Callable[..., tuple[ModelOutput, list[Targets]]]
WEIGHTS = LossWeights(4, 5, 2, 5, 5, 1, 1, 0, 0)
LEVELS = ((1, 1), (2, 2), (4, 4), (8, 8))
CANDIDATE_TERMS = ("score", "box", "mask")
GROUPS = {group: {f"loss_{group}/{name}" for name in BASE_TERMS} for group in ("first", "last", "denoising")}
ONCE = {
    "loss/denoising", "loss/contrastive", "loss/relevance", "loss/prior", "loss_candidate/score",
    "loss_candidate/box", "loss_candidate/mask",
}  # fmt: skip


def criterion(weights: LossWeights = WEIGHTS, points: int = 64) -> Criterion:
    return Criterion(weights, scale=30, margin=0.5, points=points)


def judge(
    output: ModelOutput,
    targets: list[Targets],
    weights: LossWeights = WEIGHTS,
    embeddings: Tensor | None = None,
) -> LossBreakdown:
    """Loss with random embeddings of the targets' instances."""
    labels = torch.cat([target.labels for target in targets])
    if embeddings is None:
        embeddings = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    return criterion(weights)(output, targets, embeddings, labels, LEVELS, torch.Generator().manual_seed(11))


def parts(layer: LayerPrediction) -> tuple[Tensor, ...]:
    return layer.logits, layer.boxes, layer.kernels, layer.mask_features


def seen(output: ModelOutput, targets: list[Targets], seed: int = 0) -> ModelOutput:
    """The same predictions with maps of a prior, and a candidate near every instance."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(targets), 4, 32, 32, generator=generator).requires_grad_()
    presence = torch.randn(len(targets), 4, generator=generator).requires_grad_()
    maps = PriorMaps(logits, presence, *(torch.zeros(0) for _ in range(4)))
    instances = Instances.of(targets)
    count = len(instances)
    owner = instances.image * 4 + instances.labels
    boxes = instances.boxes + 0.02 * torch.randn(count, 4, generator=generator)
    candidates = Candidates(
        owner, owner, boxes, torch.zeros(count), torch.zeros(count, GRID, GRID), torch.zeros(count, 24)
    )
    judged = JudgedCandidates(
        candidates,
        logits.detach().flatten(0, 1),
        torch.randn(count, 2, generator=generator).requires_grad_(),
        (boxes + 0.01).requires_grad_(),
        torch.zeros(count, GRID, GRID),
        torch.randn(count, GRID, GRID, generator=generator).requires_grad_(),
    )
    return replace(output, prior=maps, candidates=judged)


def leaves(output: ModelOutput) -> list[Tensor]:
    found = [part for layer in (*output.layers, *output.denoising) for part in parts(layer)]
    assert output.selection.relevance is not None
    return [*found, output.selection.relevance]


@pytest.mark.parametrize("counts", [(3, 2), (0, 4), (2, 0, 1), (0, 0), (9, 1)])
def test_every_term_and_gradient_is_finite(batch: Batch, counts: tuple[int, ...]):
    output, targets = batch(counts)
    loss = judge(output, targets)
    groups = GROUPS.values() if any(counts) else (GROUPS["first"], GROUPS["last"])
    assert set(loss.terms) == ONCE.union(*groups)
    loss.total.backward()
    assert loss.total.isfinite()
    for term in loss.terms.values():
        assert term.isfinite()
        assert term.shape == ()
        assert not term.requires_grad
    for leaf in leaves(output):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_without_instances_only_class_scores_and_relevance_are_pushed_down(batch: Batch):
    output, targets = batch((0, 0))
    loss = judge(output, targets)
    loss.total.backward()
    assert {name for name, term in loss.terms.items() if term > 0} == {
        "loss_first/classification",
        "loss_last/classification",
        "loss/relevance",
    }
    for layer in output.layers:
        assert layer.logits.grad is not None
        assert (layer.logits.grad > 0).all()
        assert layer.boxes.grad is not None
        assert not layer.boxes.grad.any()


def matched(layer: LayerPrediction) -> LayerPrediction:
    return LayerPrediction(*(part.detach().clone() for part in parts(layer)))


def fill(layer: LayerPrediction, image: int, query: int, targets: Targets, instance: int) -> None:
    """Make one query the perfect answer for one instance."""
    layer.logits[image, query] = -20
    layer.logits[image, query, targets.labels[instance]] = 20
    layer.boxes[image, query] = targets.boxes[instance]
    layer.mask_features[image, query] = (
        functional.avg_pool2d(targets.masks[instance].float()[None], 4)[0] * 40 - 20
    )


def blocks(targets: Targets) -> Targets:
    """The same targets with masks of whole 4 x 4 blocks, which quarter-size logits can express."""
    coarse = functional.max_pool2d(targets.masks.float()[None], 4)
    return replace(targets, masks=functional.interpolate(coarse, scale_factor=4)[0].bool())


def test_perfect_queries_cost_almost_nothing(batch: Batch):
    output, targets = batch((2, 3), queries=4, layers=2, groups=0)
    targets = [blocks(target) for target in targets]
    layers = tuple(matched(layer) for layer in output.layers)
    for layer in layers:
        layer.logits[:] = -20
        for image, target in enumerate(targets):
            for instance in range(len(target)):
                fill(layer, image, 3 - instance, target, instance)
    terms = judge(replace(output, layers=layers), targets).terms
    for name in ("classification", "box", "giou"):
        assert terms[f"loss_first/{name}"] < 1e-4
        assert terms[f"loss_last/{name}"] < 1e-4
    # Points crowd at the border, where bilinear masks differ in resolution.
    assert terms["loss_last/dice"] < 0.2
    layers[-1].boxes[0, 3] += 0.1
    assert judge(replace(output, layers=layers), targets).terms["loss_last/box"].item() == pytest.approx(
        0.4 / 5, abs=1e-4
    )


def test_denoising_slots_belong_to_the_instances_of_their_group(batch: Batch):
    _, targets = batch((2, 0, 3))
    pairs = denoising_pairs(Instances.of(targets), slots=7, most=3)  # two groups of three, one slot left over
    expected = []
    for image, group, position in ((b, g, t) for b in range(3) for g in range(2) for t in range(3)):
        if position < len(targets[image]):
            instance = sum(len(target) for target in targets[:image]) + position
            expected.append((image * 7 + group * 3 + position, instance))
    assert sorted(zip(pairs.query.tolist(), pairs.instance.tolist(), strict=True)) == expected
    assert pairs.instance.tolist() == sorted(pairs.instance.tolist())


def test_too_few_denoising_slots_are_refused(batch: Batch):
    _, targets = batch((4,))
    with pytest.raises(ValueError, match="3 denoising slots per image cannot hold the 4"):
        denoising_pairs(Instances.of(targets), slots=3, most=4)


def test_perfect_denoising_costs_almost_nothing_whatever_the_padding_says(batch: Batch):
    output, targets = batch((1, 3), groups=2)
    targets = [blocks(target) for target in targets]
    layers = tuple(matched(layer) for layer in output.denoising)
    for layer in layers:
        layer.logits[:] = 30
        layer.boxes[:] = 0.9
        for image, target in enumerate(targets):
            for group in range(2):
                for instance in range(len(target)):
                    fill(layer, image, group * 3 + instance, target, instance)
    cost = LossWeights(4, 5, 2, 0, 0, 0, 0, 0, 0)
    perfect = replace(output, denoising=layers)
    assert judge(perfect, targets, cost).terms["loss/denoising"] < 1e-3
    layers[0].boxes[1, 4, 0] += 0.25  # first layer, image 1, group 1, instance 1
    off = judge(perfect, targets, LossWeights(0, 5, 0, 0, 0, 0, 0, 0, 0)).terms["loss/denoising"]
    assert off.item() == pytest.approx(5 * 0.25 / (4 * 2), abs=1e-5)
    layers[0].logits[1, 4] = -20  # a missed class in one of 8 slots; the focal loss at -20 is 0.25 * 20
    off = judge(perfect, targets, LossWeights(4, 0, 0, 0, 0, 0, 0, 0, 0)).terms["loss/denoising"]
    assert off.item() == pytest.approx(4 * 0.25 * 20 / 8, rel=1e-3)


def test_mask_terms_of_denoising_are_those_of_the_same_matched_queries(batch):
    # One image, one group: denoising query t is instance t; give the object queries the same predictions.
    output, targets = batch((3,), queries=3, layers=1, groups=1)
    layer = matched(output.denoising[0])
    for instance in range(3):  # boxes and classes that the matcher cannot mistake
        layer.boxes[0, instance] = targets[0].boxes[instance]
    targets = [replace(targets[0], labels=torch.tensor([0, 1, 2]))]
    layer.logits[:] = torch.eye(4)[:3] * 20 - 10
    same = ModelOutput(layers=(layer,), denoising=(layer,), selection=output.selection)
    for name in ("mask", "dice"):
        weights = replace(LossWeights(1e-9, 1e-9, 0, 0, 0, 0, 0, 0, 0), **{name: 1.0})
        gathered = [
            criterion(weights, points=20_000)(
                same, targets, torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64), LEVELS
            )
            .terms[key]
            .item()
            for key in (f"loss_last/{name}", f"loss_denoising/{name}", "loss/denoising")
        ]
        assert gathered[0] == pytest.approx(gathered[1], rel=0.02)
        assert gathered[1] == pytest.approx(gathered[2], rel=1e-4)
        assert gathered[0] > 0.1


def test_mask_terms_approach_the_integral_over_the_mask(batch):
    # Constant logits leave no uncertain place: the sampled mean must approach the mean over all pixels.
    output, targets = batch((1,), queries=1, layers=1, groups=0)
    layer = matched(output.layers[0])
    layer.mask_features[:] = 0.7
    found = criterion(points=20_000)(
        replace(output, layers=(layer,)), targets, torch.zeros(1, 8), targets[0].labels, LEVELS
    ).terms
    truth, logit = targets[0].masks[0].float(), torch.tensor(0.7)
    entropy = functional.binary_cross_entropy_with_logits(logit.expand_as(truth), truth)
    p, share = logit.sigmoid(), truth.mean()
    assert found["loss_last/mask"].item() == pytest.approx(entropy.item(), rel=0.05)
    assert found["loss_last/dice"].item() == pytest.approx((1 - 2 * p * share / (p + share)).item(), rel=0.05)


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
def test_total_is_the_weighted_sum(batch: Batch, layers: int):
    output, targets = batch((3, 2), layers=layers)
    output = seen(output, targets)
    weights = LossWeights(1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5)
    loss = judge(output, targets, weights)
    terms = loss.terms
    times = {"last": 1, "first": min(layers - 1, 1), "middle": max(layers - 2, 0)}

    def weighted(group: str) -> Tensor:
        parts = [getattr(weights, name) * terms[f"loss_{group}/{name}"] for name in BASE_TERMS]
        return torch.stack(parts).sum()

    assert {name.split("/")[0] for name in terms} == {
        "loss",
        "loss_denoising",
        "loss_candidate",
        *(f"loss_{group}" for group in times if times[group]),
    }
    torch.testing.assert_close(terms["loss/denoising"], layers * weighted("denoising"))
    expected = (
        terms["loss/denoising"]
        + weights.contrastive * terms["loss/contrastive"]
        + weights.relevance * terms["loss/relevance"]
        + weights.prior * terms["loss/prior"]
        + weights.candidates * torch.stack([terms[f"loss_candidate/{n}"] for n in CANDIDATE_TERMS]).sum()
        + torch.stack([n * weighted(group) for group, n in times.items() if n]).sum()
    )
    torch.testing.assert_close(loss.total.detach(), expected)
    assert all(term > 0 for term in terms.values())


def test_groups_are_of_their_layers_and_all_layers_weigh_the_same(batch: Batch):
    output, targets = batch((3, 2), layers=4)
    weights = LossWeights(4, 5, 2, 0, 0, 0, 0, 0, 0)  # masks are judged at other points in every layer
    single = [
        judge(replace(output, layers=(layer,), denoising=(noisy,)), targets, weights)
        for layer, noisy in zip(output.layers, output.denoising, strict=True)
    ]
    loss = judge(output, targets, weights)
    for name in ("classification", "box", "giou"):
        one, two, three, four = (alone.terms[f"loss_last/{name}"] for alone in single)
        assert loss.terms[f"loss_first/{name}"] == one
        assert loss.terms[f"loss_last/{name}"] == four
        torch.testing.assert_close(loss.terms[f"loss_middle/{name}"], (two + three) / 2)
        noisy = torch.stack([alone.terms[f"loss_denoising/{name}"] for alone in single])
        torch.testing.assert_close(loss.terms[f"loss_denoising/{name}"], noisy.mean())
    torch.testing.assert_close(loss.total, torch.stack([alone.total for alone in single]).sum())
    denoising = torch.stack([alone.terms["loss/denoising"] for alone in single])
    torch.testing.assert_close(loss.terms["loss/denoising"], denoising.sum())


def permuted(
    output: ModelOutput, targets: list[Targets], orders: list[list[int]]
) -> tuple[ModelOutput, list[Targets]]:
    """Reorder the instances of each image, and its denoising slots with them."""
    shuffled = [
        Targets(target.labels[order], target.boxes[order], target.masks[order])
        for target, order in zip(targets, orders, strict=True)
    ]
    most = max(len(target) for target in targets)
    layers = []
    for layer in output.denoising:
        moved = matched(layer)
        for image, order in enumerate(orders):
            for group in range(layer.boxes.shape[1] // most):
                new = torch.arange(len(order)) + group * most
                old = torch.tensor(order) + group * most
                for part, source in zip(
                    (moved.logits, moved.boxes, moved.mask_features),
                    (layer.logits, layer.boxes, layer.mask_features),
                    strict=True,
                ):
                    part[image, new] = source.detach()[image, old]
        layers.append(moved)
    return replace(output, denoising=tuple(layers)), shuffled


def test_the_order_of_instances_does_not_matter(batch: Batch):
    output, targets = batch((4, 3), queries=6)
    embeddings = torch.randn(7, 8, generator=torch.Generator().manual_seed(5))
    orders = [[2, 0, 3, 1], [1, 2, 0]]
    first = judge(output, targets, embeddings=embeddings)
    rows = orders[0] + [4 + place for place in orders[1]]
    second = judge(*permuted(output, targets, orders), embeddings=embeddings[rows])
    torch.testing.assert_close(first.total, second.total)
    assert first.terms.keys() == second.terms.keys()
    for name in first.terms:
        torch.testing.assert_close(first.terms[name], second.terms[name])


def test_contrastive_is_the_mean_angular_margin_loss(batch: Batch):
    """Class 0 at 10 and -10 degrees, so its prototype at 0; class 1 at 40 degrees, itself its prototype."""
    output, targets = batch((1, 2))
    labels = ((0,), (1, 0))
    targets = [replace(t, labels=torch.tensor(of)) for t, of in zip(targets, labels, strict=True)]
    angles = torch.deg2rad(torch.tensor([10.0, 40.0, -10.0]))
    lengths = torch.tensor([[1.0], [3.0], [1.0]])
    found = judge(output, targets, embeddings=lengths * torch.stack((angles.cos(), angles.sin()), dim=1))
    losses = []
    for own, other in ((10, 30), (0, 40), (10, 50)):  # degrees from the prototypes
        positive = math.exp(30 * math.cos(math.radians(own) + 0.5))
        negative = math.exp(30 * math.cos(math.radians(other)))
        losses.append(-math.log(positive / (positive + negative)))
    assert found.terms["loss/contrastive"].item() == pytest.approx(sum(losses) / 3, rel=1e-3)


def test_relevance_is_its_focal_loss_per_positive_token(batch: Batch):
    output, targets = batch((3, 2))
    wanted = relevance_targets(Instances.of(targets), 4, LEVELS)
    logits = output.selection.relevance
    assert logits is not None
    expected = quality_focal_loss(logits, wanted, float((wanted == 1).sum()))
    torch.testing.assert_close(judge(output, targets).terms["loss/relevance"], expected.detach())


def test_switched_off_terms_leave_no_trace(batch: Batch):
    output, targets = batch((3, 2))
    embeddings = torch.randn(5, 8, generator=torch.Generator().manual_seed(5)).requires_grad_()
    loss = judge(output, targets, replace(WEIGHTS, contrastive=0, relevance=0), embeddings)
    loss.total.backward()
    assert embeddings.grad is None
    assert output.selection.relevance is not None
    assert output.selection.relevance.grad is not None  # for data-parallel training
    assert not output.selection.relevance.grad.any()
    assert loss.terms["loss/contrastive"] == loss.terms["loss/relevance"] == 0


def test_prior_and_candidates_are_judged_as_on_their_own(batch: Batch):
    output, targets = batch((3, 2))
    output, instances = seen(output, targets), Instances.of(targets)
    terms = judge(output, targets, replace(WEIGHTS, prior=1, candidates=1)).terms
    assert output.prior is not None
    assert output.candidates is not None
    torch.testing.assert_close(terms["loss/prior"], prior_loss(output.prior, instances).detach())
    alone = candidate_loss(output.candidates, 4, instances)
    for name in CANDIDATE_TERMS:
        torch.testing.assert_close(terms[f"loss_candidate/{name}"], getattr(alone, name).detach())


@pytest.mark.parametrize("counts", [(3, 2), (0, 0)])
def test_prior_and_candidates_switched_off_leave_no_trace(batch: Batch, counts: tuple[int, ...]):
    output, targets = batch(counts)
    output = seen(output, targets)
    loss = judge(output, targets, replace(WEIGHTS, prior=0, candidates=0))
    loss.total.backward()
    assert output.prior is not None
    assert output.candidates is not None
    judged = output.candidates
    for part in (output.prior.logits, output.prior.presence, judged.scores, judged.boxes, judged.change):
        assert part.grad is not None  # for data-parallel training
        assert not part.grad.any()
    assert loss.terms["loss/prior"] == 0
    assert all(loss.terms[f"loss_candidate/{name}"] == 0 for name in CANDIDATE_TERMS)


def test_learned_queries_have_no_relevance(batch: Batch):
    output, targets = batch((3, 2))
    learned = QuerySelection(output.selection.content, output.selection.reference, None, None)
    assert judge(replace(output, selection=learned), targets).terms["loss/relevance"] == 0


def test_autocast_changes_nothing(batch: Batch):
    output, targets = batch((3, 2))
    plain = judge(output, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = judge(output, targets)
    assert mixed.total.dtype == torch.float32
    assert torch.equal(plain.total, mixed.total)


def test_half_precision_predictions_are_judged_in_full(batch: Batch):
    output, targets = batch((3, 2))
    half = [
        LayerPrediction(
            layer.logits.bfloat16(), layer.boxes, layer.kernels.bfloat16(), layer.mask_features.bfloat16()
        )
        for layer in output.layers
    ]
    loss = judge(replace(output, layers=tuple(half)), targets)
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert loss.total.isfinite()


def test_without_a_generator_the_value_is_repeatable(batch: Batch):
    output, targets = batch((3, 2))
    arguments = (output, targets, torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64), LEVELS)
    assert torch.equal(criterion()(*arguments).total, criterion()(*arguments).total)
