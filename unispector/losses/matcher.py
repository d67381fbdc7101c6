"""Matching of queries and instances: cost terms, then the Hungarian assignment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from unispector.losses.instances import Instances
from unispector.losses.terms import FOCAL_ALPHA, FOCAL_GAMMA
from unispector.movable import Movable
from unispector.ops.boxes import cxcywh_to_xyxy, pairwise_giou
from unispector.ops.points import random_points, sample_points
from unispector.structures import LayerPrediction

UNUSABLE_COST = 1e6


@dataclass(frozen=True)
class Pairs(Movable):
    """Queries and the instances they answer for."""

    query: Tensor  # [M] int64 index into the B * Q queries of a batch, flattened
    instance: Tensor  # [M] int64 index into the N instances of the batch


class HungarianMatcher:
    """One-to-one matching of queries and instances at the least total cost, per layer and image.

    The cost is the weighted sum of focal classification cost, L1 and GIoU of boxes, cross-entropy and dice of
    masks; masks are compared at one set of uniform points that all queries and instances share.

    Args:
        classification, box, giou, mask, dice: weights of the cost terms.
        points: number R of points.
    """

    def __init__(
        self, *, classification: float, box: float, giou: float, mask: float, dice: float, points: int
    ) -> None:
        self.classification = classification
        self.box = box
        self.giou = giou
        self.mask = mask
        self.dice = dice
        self.points = points

    @torch.no_grad()
    def __call__(
        self, layers: Sequence[LayerPrediction], instances: Instances, generator: torch.Generator
    ) -> list[Pairs]:
        """Match every layer.

        An image with more instances than queries leaves the surplus instances unmatched.

        Args:
            layers: predictions for B images.
            instances: ground truth of the same images; labels are columns of the logits.
            generator: source of randomness for the points.

        Returns:
            The pairs of each layer, image after image, by rising query.
        """
        device = instances.labels.device
        points = random_points(self.points, generator, device)
        truth = sample_points(instances.masks, points)
        costs = torch.stack([self.costs(layer, instances, points, truth) for layer in layers])
        return [_assign(cost, instances.counts, device) for cost in costs.cpu().numpy()]

    def costs(self, layer: LayerPrediction, instances: Instances, points: Tensor, truth: Tensor) -> Tensor:
        """Cost of every query for every instance of the batch, other images' included.

        Args:
            layer: predictions for B images.
            instances: their N instances.
            points: [R, 2] points the masks are compared at.
            truth: [N, R] the instances' masks at these points.

        Returns:
            [B, Q, N] float32; entries that are not finite are replaced by a large number.
        """
        boxes = layer.boxes.float().flatten(0, 1)
        logits = layer.logits.float().flatten(0, 1)
        features = layer.mask_features.float()
        # Sampling and the inner product commute; in this order the maps of all queries never exist.
        sampled = sample_points(features.flatten(0, 1), points).view(*features.shape[:2], -1)
        masks = (layer.kernels.float() @ sampled).flatten(0, 1)
        cost = (
            self.classification * _class_cost(logits)[:, instances.labels]
            + self.box * (boxes[:, None] - instances.boxes).abs().sum(-1)
            - self.giou * pairwise_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(instances.boxes))
            + self.mask * _mask_cost(masks, truth)
            + self.dice * _dice_cost(masks, truth)
        )
        usable = cost.nan_to_num(nan=UNUSABLE_COST, posinf=UNUSABLE_COST, neginf=UNUSABLE_COST)
        return usable.reshape(*layer.boxes.shape[:2], len(instances))


def _class_cost(logits: Tensor) -> Tensor:
    """[n, C] focal loss as a positive minus that as a negative."""
    probability = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -(probability + 1e-6).log()
    negative = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -(1 - probability + 1e-6).log()
    return positive - negative


def _mask_cost(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean cross-entropy of all pairs of [n, R] logits and [m, R] masks: softplus(x) - x t, as a matmul."""
    return functional.softplus(logits).mean(1)[:, None] - logits @ truth.T / logits.shape[1]


def _dice_cost(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice loss of all pairs of [n, R] logits and [m, R] masks."""
    probability = logits.sigmoid()
    return 1 - (2 * (probability @ truth.T) + 1) / (probability.sum(1)[:, None] + truth.sum(1) + 1)


def _assign(cost: np.ndarray, counts: tuple[int, ...], device: torch.device) -> Pairs:
    """Solve each image's own block of one layer's [B, Q, N] costs."""
    queries, instances, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for image, count in enumerate(counts):
        query, instance = linear_sum_assignment(cost[image, :, start : start + count])
        queries.append(query + image * cost.shape[1])
        instances.append(instance + start)
        start += count
    return Pairs(
        query=torch.as_tensor(np.concatenate(queries), device=device),
        instance=torch.as_tensor(np.concatenate(instances), device=device),
    )
