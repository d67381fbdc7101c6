"""The similarity prior's way into the detector: selection, content and masks of queries."""

from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.prior_structures import PriorMaps
from unispector.structures import LayerPrediction

SURE = 0.98  # probabilities are kept this far from certainty, so that logits stay moderate
COARSENESS = 4  # of the maps that a query's class evidence is read from, relative to the prior's


def token_evidence(maps: PriorMaps, level_hw: tuple[tuple[int, int], ...]) -> Tensor:
    """Logits that tokens show classes, by the prior: [R, T, C], levels in the given order.

    As in the targets of PQS's scores, a token is a full positive where half its cell is covered.

    Args:
        maps: of R images and C classes.
        level_hw: (height, width) of the token levels.
    """
    probabilities = maps.logits.detach().float().sigmoid()
    levels = [2 * F.adaptive_avg_pool2d(probabilities, hw).flatten(2) for hw in level_hw]
    return _logit(torch.cat(levels, dim=2)).transpose(1, 2)


class PriorEvidence(nn.Module):
    """Adds the prior's view to a decoder layer's predictions.

    A query's class logit rises with the share of its mask that the prior gives to the class; its mask
    logits with the strongest class of the prior, by as much as the query asks for.
    """

    def __init__(self, width: int) -> None:
        """Build the addition for queries of `width` channels."""
        super().__init__()
        self.class_weight = nn.Parameter(torch.ones(()))
        self.mask_weight = nn.Linear(width, 1)
        nn.init.zeros_(self.mask_weight.weight)
        nn.init.constant_(self.mask_weight.bias, 0.5)

    def forward(self, prediction: LayerPrediction, queries: Tensor, maps: PriorMaps) -> LayerPrediction:
        """Add to one layer's predictions.

        Args:
            prediction: of Q queries in R images.
            queries: [R, Q, D] their normalised tokens.
            maps: of the R images and C classes.
        """
        features = prediction.mask_features
        hw = (features.shape[-2], features.shape[-1])
        prior = F.adaptive_avg_pool2d(maps.logits.detach().float().clamp(-4, 4), hw)
        # The strongest class is one more mask feature, what a query asks of it one more number in its kernel.
        rows = features.repeat_interleave(len(queries) // len(features), dim=0)
        joined = replace(
            prediction,
            kernels=torch.cat((prediction.kernels, self.mask_weight(queries)), dim=-1),
            mask_features=torch.cat((rows, prior.amax(1, keepdim=True)), dim=1),
        )
        coarse = maps.logits.shape[-1] // COARSENESS
        shown = F.adaptive_avg_pool2d(maps.logits.detach().float().sigmoid(), coarse).flatten(2)
        with torch.no_grad():
            covered = F.adaptive_avg_pool2d(joined.masks.sigmoid(), coarse).flatten(2)
        share = covered @ shown.transpose(1, 2) / (covered.sum(2, keepdim=True) + 1e-3)
        return replace(joined, logits=joined.logits + self.class_weight * _logit(share))


def _logit(probabilities: Tensor) -> Tensor:
    return torch.logit(probabilities.clamp(1 - SURE, SURE))
