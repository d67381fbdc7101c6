"""The assignment against all permutations, its costs against one pair at a time."""

import math
from collections.abc import Callable
from dataclasses import fields
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unispector.losses.instances import Instances
from unispector.losses.matcher import HungarianMatcher, Pairs
from unispector.ops.points import random_points, sample_points
from unispector.structures import LayerPrediction, ModelOutput, Targets

Batch = Callable[..., tuple[ModelOutput, list[Targets]]]
WEIGHTS = {"classification": 4.0, "box": 5.0, "giou": 2.0, "mask": 5.0, "dice": 5.0}
POINTS = 50


def matcher() -> HungarianMatcher:
    return HungarianMatcher(**WEIGHTS, points=POINTS)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def pair_cost(layer: LayerPrediction, target: Targets, image: int, query: int, instance: int) -> float:
    """Cost of one pair, written out."""
    from torchvision.ops import box_convert, generalized_box_iou

    points = random_points(POINTS, seeded(), torch.device("cpu"))
    p = layer.logits[image, query, target.labels[instance]].sigmoid().item()
    classification = 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)
    box, truth = layer.boxes[image, query], target.boxes[instance]
    giou = generalized_box_iou(*(box_convert(b[None], "cxcywh", "xyxy") for b in (box, truth))).item()
    logits = sample_points(layer.masks[image, query][None], points)[0]
    mask = sample_points(target.masks[instance][None].float(), points)[0]
    entropy = functional.binary_cross_entropy_with_logits(logits, mask).item()
    shown = logits.sigmoid()
    dice = 1 - (2 * (shown * mask).sum() + 1).item() / (shown.sum() + mask.sum() + 1).item()
    l1 = (box - truth).abs().sum().item()
    return 4 * classification + 5 * l1 - 2 * giou + 5 * entropy + 5 * dice


def of_image(pairs: Pairs, instances: Instances, image: int, queries: int) -> dict[int, int]:
    """Instance within the image -> query within the image."""
    found = {}
    for query, instance in zip(pairs.query.tolist(), pairs.instance.tolist(), strict=True):
        if instances.image[instance] == image:
            assert query // queries == image
            found[int(instances.position[instance])] = query % queries
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_costs_are_those_of_each_pair(batch: Batch, seed: int):
    output, targets = batch((2, 0, 3), queries=4, seed=seed)
    instances = Instances.of(targets)
    points = random_points(POINTS, seeded(), torch.device("cpu"))
    truth = sample_points(instances.masks, points)
    with torch.no_grad():
        costs = matcher().costs(output.layers[0], instances, points, truth)
        assert costs.shape == (3, 4, 5)
        for n, (image, position) in enumerate(
            zip(instances.image.tolist(), instances.position.tolist(), strict=True)
        ):
            for query in range(4):
                expected = pair_cost(output.layers[0], targets[image], image, query, position)
                assert costs[image, query, n].item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_no_permutation_is_cheaper(batch: Batch, seed: int):
    output, targets = batch((3, 2), queries=5, layers=2, seed=seed)
    instances = Instances.of(targets)
    with torch.no_grad():
        for layer, pairs in zip(output.layers, matcher()(output.layers, instances, seeded()), strict=True):
            for image, target in enumerate(targets):
                cost = [
                    [pair_cost(layer, target, image, query, k) for k in range(len(target))]
                    for query in range(5)
                ]
                best = min(
                    permutations(range(5), len(target)),
                    key=lambda chosen: sum(cost[query][k] for k, query in enumerate(chosen)),
                )
                assert of_image(pairs, instances, image, 5) == dict(enumerate(best))


def test_a_batch_is_matched_like_its_images_one_by_one(batch: Batch):
    output, targets = batch((3, 0, 1, 4), queries=6, layers=3)
    instances = Instances.of(targets)
    together = matcher()(output.layers, instances, seeded())
    for image, target in enumerate(targets):
        layers = [
            LayerPrediction(*(getattr(layer, field.name)[image : image + 1] for field in fields(layer)))
            for layer in output.layers
        ]
        alone = Instances.of([target])
        for joint, single in zip(together, matcher()(layers, alone, seeded()), strict=True):
            assert of_image(joint, instances, image, 6) == of_image(single, alone, 0, 6)


def perfect(targets: Targets, order: Tensor) -> LayerPrediction:
    masks = functional.avg_pool2d(targets.masks[order].float()[None], 4) * 20 - 10
    logits = functional.one_hot(targets.labels[order], 4)[None].float() * 20 - 10
    return LayerPrediction(logits, targets.boxes[order][None], torch.eye(len(order))[None], masks)


def test_perfect_predictions_are_found_in_any_order(batch: Batch):
    _, (targets,) = batch((6,))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    (pairs,) = matcher()([perfect(targets, order)], Instances.of([targets]), seeded())
    assert pairs.query.tolist() == list(range(6))
    assert pairs.instance.tolist() == order.tolist()


def test_with_fewer_queries_than_instances_every_query_gets_its_own(batch: Batch):
    output, targets = batch((5, 1), queries=3, layers=1)
    (pairs,) = matcher()(output.layers, Instances.of(targets), seeded())
    assert pairs.query.tolist()[:3] == [0, 1, 2]
    assert len(set(pairs.instance.tolist())) == 4
    assert pairs.instance.tolist()[3] == 5
    assert pairs.query.tolist()[3] in (3, 4, 5)


@pytest.mark.parametrize("counts", [(0,), (0, 0, 0)])
def test_no_instance_no_pair(batch: Batch, counts: tuple[int, ...]):
    output, targets = batch(counts)
    for pairs in matcher()(output.layers, Instances.of(targets), seeded()):
        assert pairs.query.shape == pairs.instance.shape == (0,)
        assert pairs.query.dtype == pairs.instance.dtype == torch.int64


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_query_that_is_not_finite_is_matched_last(batch: Batch, value: float):
    output, targets = batch((3,), queries=4, layers=1)
    (layer,) = output.layers
    with torch.no_grad():
        layer.boxes[0, 1] = value
        layer.kernels[0, 1] = value
    (pairs,) = matcher()([layer], Instances.of(targets), seeded())
    assert 1 not in pairs.query.tolist()
    assert sorted(pairs.instance.tolist()) == [0, 1, 2]
