"""Eq. (1): every decoder layer, the denoising queries, CPE and the token relevance, weighed and summed."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from unispector.losses.candidates import CandidateTerms, candidate_loss
from unispector.losses.contrastive import angular_margin_loss
from unispector.losses.instances import Instances
from unispector.losses.matcher import HungarianMatcher, Pairs
from unispector.losses.prior import prior_loss
from unispector.losses.relevance import relevance_targets
from unispector.losses.terms import box_loss, dice_loss, focal_loss, giou_loss, mask_loss, quality_focal_loss
from unispector.ops.collectives import counts_of_ranks, mean_over_ranks
from unispector.ops.points import sample_points, uncertain_points
from unispector.prior_structures import PriorMaps
from unispector.structures import LayerPrediction, ModelOutput, Targets


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the total loss, all >= 0 (paper appendix 3.4)."""

    # Terms of every decoder layer, in matching costs too.
    classification: float
    box: float
    giou: float
    mask: float
    dice: float
    contrastive: float  # CPE, once per step
    relevance: float  # token scores of PQS, once per step; the paper has no such term
    prior: float  # class masks of the similarity prior, once per step; the paper has no such part
    candidates: float  # scores, boxes and masks of the candidate head, once per step; nor this one


@dataclass(frozen=True)
class LossBreakdown:
    """The loss of one step."""

    total: Tensor  # scalar to differentiate
    # Detached scalars by name. `loss_last/box` is the last layer's, not weighted, and so for all
    # `BASE_TERMS`; `loss_first/...` is the first layer's where there are two, `loss_middle/...` the mean of
    # those between them, `loss_denoising/...` that of the denoising queries' layers. `loss/contrastive`,
    # `loss/relevance`, `loss/prior` and those of `CandidateTerms` (`loss_candidate/...`) are not weighted
    # either; `loss/denoising` is what the denoising queries of all layers add to the total.
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


BASE_TERMS = tuple(field.name for field in fields(_BaseTerms))
"""Names of the terms that every layer has."""


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
            embeddings: [N, D] prompt embedding of each instance, those of all ranks; [0, D] if none.
            embedding_labels: [N] int64 class of each embedding.
            level_hw: (height, width) of the token levels, in the order of the tokens.
            generator: source of randomness for sampled points; None = one seeded 0, for a repeatable value.

        Returns:
            Total and terms of this rank. Sums are divided by the mean count per rank, so that the mean over
            ranks is the loss of their images in one batch.
        """
        generator = generator or torch.Generator().manual_seed(0)
        with torch.autocast(embeddings.device.type, enabled=False):
            instances = Instances.of(targets)
            count = mean_over_ranks(len(instances), embeddings.device)
            matches = self.matcher(output.layers, instances, generator)
            layers = [
                self._matched_terms(layer, pairs, instances, count, generator)
                for layer, pairs in zip(output.layers, matches, strict=True)
            ]
            denoised = self._denoising(output.denoising, instances, count, generator)
            denoising = self._weighted(denoised, instances)
            contrastive = self._contrastive(embeddings, embedding_labels)
            relevance = self._relevance(output.selection.relevance, instances, level_hw)
            prior = self._prior(output.prior, instances)
            judged = self._candidates(output, instances)
            total = (
                self._weighted(layers, instances)
                + denoising
                + self.weights.contrastive * contrastive
                + self.weights.relevance * relevance
                + self.weights.prior * prior
                + self.weights.candidates * (judged.score + judged.box + judged.mask)
            )
        terms = {
            **_mean_terms("loss_last", layers[-1:]),
            **_mean_terms("loss_first", layers[:-1][:1]),
            **_mean_terms("loss_middle", layers[1:-1]),
            **_mean_terms("loss_denoising", denoised),
            "loss/denoising": denoising.detach(),
            "loss/contrastive": contrastive.detach(),
            "loss/relevance": relevance.detach(),
            "loss/prior": prior.detach(),
            **{f"loss_candidate/{f.name}": getattr(judged, f.name).detach() for f in fields(judged)},
        }
        return LossBreakdown(total=total, terms=terms)

    def _weighted(self, layers: Sequence[_BaseTerms], instances: Instances) -> Tensor:
        """Weighted terms of all layers summed; 0 without any."""
        weighted = [terms.weighted(self.weights) for terms in layers]
        return torch.stack(weighted).sum() if weighted else instances.boxes.new_zeros(())

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
    ) -> list[_BaseTerms]:
        """Terms of the denoising queries, layer by layer."""
        if not layers:
            return []
        most = max(counts_of_ranks(max(instances.counts), instances.boxes.device))
        slots = layers[0].boxes.shape[1]
        pairs = denoising_pairs(instances, slots, most)
        count = count * (slots // most)
        labels = instances.labels[pairs.instance]
        found = []
        for layer in layers:
            logits = layer.logits.float().flatten(0, 1).index_select(0, pairs.query)
            classes = torch.zeros_like(logits).scatter(1, labels[:, None], 1)
            classification = focal_loss(logits, classes, count)
            terms = self._base_terms(
                classification, layer, pairs, instances, instances.masks, count, generator
            )
            found.append(terms)
        return found

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
        predicted_masks = layer.masks_of(pairs.query)
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
        """CPE, the mean over the instances of all ranks, the same on each; 0 when switched off."""
        if self.weights.contrastive == 0:
            return embeddings.new_zeros((), dtype=torch.float32)
        losses = angular_margin_loss(embeddings.float(), labels, self.scale, self.margin)
        return losses.sum() / max(len(losses), 1)

    def _relevance(
        self, logits: Tensor | None, instances: Instances, level_hw: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Focal loss of [B, T, C] token scores per positive token; 0 when off or with learned queries."""
        if logits is None:
            return instances.boxes.new_zeros(())
        if self.weights.relevance == 0:
            return _unjudged(logits)
        targets = relevance_targets(instances, logits.shape[2], level_hw)
        positives = mean_over_ranks(int((targets == 1).sum()), logits.device)
        return quality_focal_loss(logits.float(), targets, positives)

    def _prior(self, maps: PriorMaps | None, instances: Instances) -> Tensor:
        """Loss of the similarity prior; 0 when off or without one."""
        if maps is None:
            return instances.boxes.new_zeros(())
        if self.weights.prior == 0:
            return _unjudged(maps.logits, maps.presence)
        return prior_loss(maps, instances)

    def _candidates(self, output: ModelOutput, instances: Instances) -> CandidateTerms:
        """Loss of the candidate head; 0 without one."""
        judged = output.candidates
        if judged is None or output.prior is None:
            return CandidateTerms(*(instances.boxes.new_zeros(()) for _ in range(3)))
        if self.weights.candidates == 0:
            return CandidateTerms(*map(_unjudged, (judged.scores, judged.boxes, judged.change)))
        return candidate_loss(judged, output.prior.presence.shape[1], instances)


def _unjudged(*outputs: Tensor) -> Tensor:
    """0, and as a gradient 0: data-parallel training waits for a gradient of whatever the model puts out."""
    return 0 * torch.stack([output.float().sum() for output in outputs]).sum()


def _mean_terms(group: str, layers: Sequence[_BaseTerms]) -> dict[str, Tensor]:
    """`group/box` and so on: mean over these layers of each term, detached; nothing without a layer."""
    if not layers:
        return {}
    return {
        f"{group}/{name}": torch.stack([getattr(terms, name).detach() for terms in layers]).mean()
        for name in BASE_TERMS
    }


def denoising_pairs(instances: Instances, slots: int, most: int) -> Pairs:
    """The fixed assignment of denoising queries.

    With n = `most`, slot g * n + t of image b belongs to instance t of that image, for G = slots // n
    groups g. Slots of images with fewer instances are padding.

    Args:
        instances: ground truth of B images.
        slots: denoising queries per image.
        most: the largest number of instances in an image of any rank, at least 1.

    Returns:
        N * G pairs, instance after instance.

    Raises:
        ValueError: there are fewer slots than instances in some image.
    """
    if slots < most:
        raise ValueError(f"{slots} denoising slots per image cannot hold the {most} instances of an image")
    groups = torch.arange(slots // most, device=instances.image.device)
    first = instances.image * slots + instances.position
    return Pairs(
        query=(first[:, None] + groups * most).flatten(),
        instance=torch.arange(len(instances), device=first.device).repeat_interleave(len(groups)),
    )
