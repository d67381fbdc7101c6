"""Eq. (1): every decoder layer, the denoising queries, CPE and the token relevance, weighed and summed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from unispector.losses.contrastive import angular_margin_loss
from unispector.losses.instances import Instances
from unispector.losses.matcher import HungarianMatcher, Pairs
from unispector.losses.relevance import relevance_targets
from unispector.losses.terms import box_loss, dice_loss, focal_loss, giou_loss, mask_loss, quality_focal_loss
from unispector.ops.points import sample_points, uncertain_points
from unispector.structures import LayerPrediction, ModelOutput, Targets


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the total loss, all >= 0 (paper appendix 3.4).

    Attributes:
        classification, box, giou, mask, dice: terms of every decoder layer, in matching costs too.
        contrastive: CPE, once per step.
        relevance: token scores of PQS, once per step; the paper has no such term.
    """

    classification: float
    box: float
    giou: float
    mask: float
    dice: float
    contrastive: float
    relevance: float


@dataclass(frozen=True)
class LossBreakdown:
    """The loss of one step.

    Attributes:
        total: scalar to differentiate.
        terms: detached scalars. `classification`, `box`, `giou`, `mask` and `dice` are the last layer's, not
            weighted; neither are `contrastive` and `relevance`; `denoising` is what the denoising
            queries of all layers add to the total.
    """

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class _BaseTerms:
    """One layer's terms, scalars without weights."""

    classification: Tensor
    box: Tensor
    giou: Tensor
    mask: Tensor
    dice: Tensor

    def weighted(self, weights: LossWeights) -> Tensor:
        """Weighted sum."""
        return (
            weights.classification * self.classification
            + weights.box * self.box
            + weights.giou * self.giou
            + weights.mask * self.mask
            + weights.dice * self.dice
        )


class Criterion:
    """The training loss of paper eq. (1).

    All decoder layers weigh the same and each is matched anew. Denoising queries have the same terms in
    all layers, with the assignment they were made with. Everything is computed in float32.

    Args:
        weights: weights of the terms.
        scale: s of CPE.
        margin: m of CPE in radians.
        points: points sampled per mask.
    """

    def __init__(self, weights: LossWeights, *, scale: float, margin: float, points: int) -> None:
        self.weights = weights
        self.scale = scale
        self.margin = margin
        self.points = points
        self.matcher = HungarianMatcher(
            classification=weights.classification,
            box=weights.box,
            giou=weights.giou,
            mask=weights.mask,
            dice=weights.dice,
            points=points,
        )

    def __call__(
        self,
        output: ModelOutput,
        targets: Sequence[Targets],
        embeddings: Tensor,
        embedding_labels: Tensor,
        level_hw: Sequence[tuple[int, int]],
        generator: torch.Generator | None = None,
    ) -> LossBreakdown:
        """Loss of a batch; finite also where images, or all of them, have no instance.

        Args:
            output: predictions for B images.
            targets: their ground truth, labels being prompt columns 0..C-1.
            embeddings: [N, D] prompt embedding of each instance this process answers for; [0, D] if none.
            embedding_labels: [N] int64 class of each embedding.
            level_hw: (height, width) of the token levels, in the order of the tokens.
            generator: source of randomness for sampled points; None = one seeded 0, for a repeatable value.

        Returns:
            Total and terms. Where processes train together, sums are divided by the mean count per process.
        """
        generator = generator or torch.Generator().manual_seed(0)
        with torch.autocast(embeddings.device.type, enabled=False):
            instances = Instances.of(targets)
            count = _mean_over_ranks(len(instances), embeddings.device)
            matches = self.matcher(output.layers, instances, generator)
            layers = [
                self._matched_terms(layer, pairs, instances, count, generator)
                for layer, pairs in zip(output.layers, matches, strict=True)
            ]
            denoising = self._denoising(output.denoising, instances, count, generator)
            contrastive = self._contrastive(embeddings, embedding_labels)
            relevance = self._relevance(output.selection.relevance, instances, level_hw)
            total = (
                torch.stack([terms.weighted(self.weights) for terms in layers]).sum()
                + denoising
                + self.weights.contrastive * contrastive
                + self.weights.relevance * relevance
            )
        last = layers[-1]
        terms = {
            "classification": last.classification,
            "box": last.box,
            "giou": last.giou,
            "mask": last.mask,
            "dice": last.dice,
            "denoising": denoising,
            "contrastive": contrastive,
            "relevance": relevance,
        }
        return LossBreakdown(total=total, terms={name: term.detach() for name, term in terms.items()})

    def _matched_terms(
        self,
        layer: LayerPrediction,
        pairs: Pairs,
        instances: Instances,
        count: float,
        generator: torch.Generator,
    ) -> _BaseTerms:
        """Terms of one layer's object queries; every query is classified, matched ones are located."""
        logits = layer.logits.float().flatten(0, 1)
        classes = torch.zeros_like(logits)
        classes[pairs.query, instances.labels[pairs.instance]] = 1
        classification = focal_loss(logits, classes, count)
        masks = instances.masks[pairs.instance]
        return self._base_terms(classification, layer, pairs, instances, masks, count, generator)

    def _denoising(
        self,
        layers: Sequence[LayerPrediction],
        instances: Instances,
        count: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Weighted terms of the denoising queries, all layers; 0 without any."""
        most = max(instances.counts)
        if not layers or most == 0:
            return instances.boxes.new_zeros(())
        slots = layers[0].boxes.shape[1]
        pairs = denoising_pairs(instances, slots)
        count = count * (slots // most)
        labels = instances.labels[pairs.instance]
        losses = []
        for layer in layers:
            logits = layer.logits.float().flatten(0, 1).index_select(0, pairs.query)
            classes = torch.zeros_like(logits).scatter(1, labels[:, None], 1)
            classification = focal_loss(logits, classes, count)
            terms = self._base_terms(
                classification, layer, pairs, instances, instances.masks, count, generator
            )
            losses.append(terms.weighted(self.weights))
        return torch.stack(losses).sum()

    def _base_terms(
        self,
        classification: Tensor,
        layer: LayerPrediction,
        pairs: Pairs,
        instances: Instances,
        masks: Tensor,
        count: float,
        generator: torch.Generator,
    ) -> _BaseTerms:
        """Box and mask terms of the M pairs of one layer, joined to its classification term.

        `masks` [m, P, P] are the pairs' masks in order, each standing for M / m pairs in a row: so a mask
        that many denoising queries share is neither copied nor visited more than once.
        """
        boxes = instances.boxes[pairs.instance]
        predicted_boxes = layer.boxes.float().flatten(0, 1).index_select(0, pairs.query)
        predicted_masks = layer.masks.flatten(0, 1).index_select(0, pairs.query).float()
        points = uncertain_points(predicted_masks.detach(), self.points, generator)
        sampled = sample_points(predicted_masks, points)
        share = len(points) // max(len(masks), 1) * self.points
        truth = sample_points(masks, points.reshape(len(masks), share, 2)).reshape(sampled.shape)
        return _BaseTerms(
            classification=classification,
            box=box_loss(predicted_boxes, boxes, count),
            giou=giou_loss(predicted_boxes, boxes, count),
            mask=mask_loss(sampled, truth, count),
            dice=dice_loss(sampled, truth, count),
        )

    def _contrastive(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """CPE, the mean over the instances of all processes; 0 when switched off."""
        if self.weights.contrastive == 0:
            return embeddings.new_zeros((), dtype=torch.float32)
        losses = angular_margin_loss(embeddings.float(), labels, self.scale, self.margin)
        return losses.sum() / _mean_over_ranks(len(losses), embeddings.device)

    def _relevance(
        self, logits: Tensor | None, instances: Instances, level_hw: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Focal loss of [B, T, C] token scores per positive token; 0 when off or with learned queries."""
        if self.weights.relevance == 0 or logits is None:
            return instances.boxes.new_zeros(())
        targets = relevance_targets(instances, logits.shape[2], level_hw)
        positives = _mean_over_ranks(int((targets == 1).sum()), logits.device)
        return quality_focal_loss(logits.float(), targets, positives)


def denoising_pairs(instances: Instances, slots: int) -> Pairs:
    """The fixed assignment of denoising queries.

    With n the largest number of instances in an image, slot g * n + t of image b belongs to instance t of
    that image, for G = slots // n groups g. Slots of images with fewer instances are padding.

    Args:
        instances: ground truth of B images, at least one instance.
        slots: denoising queries per image.

    Returns:
        N * G pairs, instance after instance.

    Raises:
        ValueError: there are fewer slots than instances in some image.
    """
    most = max(instances.counts)
    if slots < most:
        raise ValueError(f"{slots} denoising slots per image cannot hold the {most} instances of an image")
    groups = torch.arange(slots // most, device=instances.image.device)
    first = instances.image * slots + instances.position
    return Pairs(
        query=(first[:, None] + groups * most).flatten(),
        instance=torch.arange(len(instances), device=first.device).repeat_interleave(len(groups)),
    )


def _mean_over_ranks(count: int, device: torch.device) -> float:
    """Mean of `count` over the processes that train together, at least 1."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return max(float(count), 1.0)
    total = torch.tensor(float(count), device=device)
    distributed.all_reduce(total)
    return max(total.item() / distributed.get_world_size(), 1.0)
