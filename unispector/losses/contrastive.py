"""CPE: the angular-margin loss that spreads prompts over the sphere by class (paper appendix 3.2)."""

import math

import torch
from torch import Tensor
from torch.nn import functional

ZERO_NORM = 1e-6
ZERO_SINE_SQUARED = 1e-6


def angular_margin_loss(embeddings: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    """Contrastive prompt loss of each instance against the prototypes of all classes present.

    A prototype is the mean of all instances of its class, the instance itself included. The angle to the own
    prototype is widened by `margin` before a softmax with factor `scale`. The cosine of the widened
    angle is expanded, because arccos has an infinite gradient at 1, where every one-instance class lies.

    Args:
        embeddings: [N, D] instance embeddings, not normalised; N may be 0.
        labels: [N] int64 class of each, any numbers.
        scale: s, factor on the cosines.
        margin: m in radians, in [0, pi).

    Returns:
        [N] losses; all 0 when there is one class only.
    """
    if len(embeddings) == 0:
        return embeddings.sum(dim=1)
    classes, columns, sizes = labels.unique(return_inverse=True, return_counts=True)
    sums = embeddings.new_zeros(len(classes), embeddings.shape[1]).index_add(0, columns, embeddings)
    prototypes = functional.normalize(sums / sizes[:, None], dim=1, eps=ZERO_NORM)
    cosines = functional.normalize(embeddings, dim=1, eps=ZERO_NORM) @ prototypes.T
    own = cosines.gather(1, columns[:, None])
    return functional.cross_entropy(
        scale * cosines.scatter(1, columns[:, None], _widened(own, margin)), columns, reduction="none"
    )


def _widened(cosine: Tensor, margin: float) -> Tensor:
    """cos(angle + margin); beyond angle + margin = pi a line goes on falling, so the loss stays monotone."""
    sine = (1 - cosine**2).clamp(min=ZERO_SINE_SQUARED).sqrt()
    widened = cosine * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine < math.cos(math.pi - margin), cosine - margin * math.sin(margin), widened)
