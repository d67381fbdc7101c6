"""The sources of object queries: Prompt-guided Query Selection (PQS), or learned ones (DINOv)."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.modeling.layers import MLP
from unispector.modeling.pixel_decoder import token_centres
from unispector.ops.boxes import inverse_sigmoid
from unispector.ops.collectives import uniform_rows
from unispector.structures import ImageFeatures, QuerySelection

ANCHOR_SIDE = 0.05  # of the frame, at stride 8; doubles with every coarser level
BORDER = 0.01  # anchors closer to the frame's edge are not selected
PRIOR = 0.02  # share of relevant tokens the relevance logits start from


class PromptGuidedSelection(nn.Module):
    """PQS: the vision tokens most similar to any class prompt become object queries.

    Training draws them by Gumbel-Softmax with a straight-through estimator: the forward pass is the
    plain top-K of the perturbed scores, the backward pass lets tokens and prompts learn to rank.
    """

    def __init__(self, width: int, *, queries: int, temperature: float, noise: float, scale: float) -> None:
        """Build the selection.

        Args:
            width: channels D.
            queries: object queries Q.
            temperature: Gumbel-Softmax temperature tau.
            noise: factor on the Gumbel noise.
            scale: factor on the cosine, so that the softmax can single tokens out.
        """
        super().__init__()
        self.queries, self.temperature, self.noise, self.scale = queries, temperature, noise, scale
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.box = MLP((width, width, width, 4), zero=True)
        self.relevance_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.relevance_bias = nn.Parameter(torch.tensor(-math.log(1 / PRIOR - 1) - scale / 2))
        nn.init.eye_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(
        self, features: ImageFeatures, prompts: Tensor, evidence: Tensor | None = None
    ) -> QuerySelection:
        """Select queries.

        Args:
            features: of B images.
            prompts: [N, C, D] class prompts, C >= 1: the B images' in order, equally many of each.
            evidence: [N, T, C] what is known beforehand, added to the scores; None = nothing.

        Returns:
            Q queries for each of the N prompts (all T tokens when T < Q), with relevance logits of
            every token.
        """
        batch, width = len(features.memory), prompts.shape[-1]
        with torch.autocast(features.memory.device.type, enabled=False):
            tokens = self.norm(self.project(features.memory.float()))
            directions = F.normalize(prompts.float(), dim=-1, eps=1e-6).view(batch, -1, width)
            cosine = directions @ F.normalize(tokens, dim=-1).transpose(1, 2)
            cosine = cosine.view(*prompts.shape[:2], -1).transpose(1, 2)
            anchors, usable = _anchors(features.level_hw, features.valid, tokens.device)
            alike = self.scale * cosine
            relevance = self.relevance_scale.exp() * cosine + self.relevance_bias
            if evidence is not None:
                alike, relevance = alike + evidence, relevance + evidence
            scores = alike.amax(-1).masked_fill(~usable, -torch.inf)
            indices, weights = self._choose(scores)
        image = torch.arange(batch, device=indices.device).repeat_interleave(len(prompts) // batch)
        chosen = tokens[image[:, None], indices]
        return QuerySelection(
            content=chosen * weights[..., None],
            reference=inverse_sigmoid(anchors)[indices] + self.box(chosen),
            relevance=relevance,
            indices=indices,
        )

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Top-K of the scores [B, T]: indices [B, Q] and weights of value 1 that carry the gradient."""
        count = min(self.queries, scores.shape[1])
        if not self.training:
            # A stable sort, so that equal scores rank the same on every device.
            return scores.argsort(dim=1, descending=True, stable=True)[:, :count], torch.ones_like(
                scores[:, :count]
            )
        uniform = uniform_rows(scores).clamp(1e-9, 1 - 1e-7)
        perturbed = scores - self.noise * (-uniform.log()).log()
        indices = perturbed.topk(count, dim=1).indices
        soft = count * (perturbed / self.temperature).softmax(dim=1).gather(1, indices)
        return indices, 1 + (soft - soft.detach())


class LearnedQueries(nn.Module):
    """Queries that do not depend on image or prompt (DINOv; the ablation's base)."""

    def __init__(self, width: int, *, queries: int) -> None:
        """Build `queries` learned contents of `width` channels and their boxes."""
        super().__init__()
        self.content = nn.Parameter(torch.randn(queries, width))
        self.reference = nn.Parameter(torch.randn(queries, 4))

    def forward(
        self, features: ImageFeatures, prompts: Tensor, evidence: Tensor | None = None
    ) -> QuerySelection:
        """The same Q queries for every row of `prompts`; their values and the rest play no part."""
        del features, evidence
        batch = len(prompts)
        return QuerySelection(
            content=self.content.expand(batch, -1, -1),
            reference=self.reference.expand(batch, -1, -1),
            relevance=None,
            indices=None,
        )


def _anchors(
    level_hw: tuple[tuple[int, int], ...], valid: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Box around every token [T, 4] (levels coarse to fine) and whether it may be selected [T]."""
    centres = token_centres(level_hw, device)
    finest = len(level_hw) - 1
    sides = torch.cat(
        [
            torch.full((h * w, 2), ANCHOR_SIDE * 2.0 ** (finest - i), device=device)
            for i, (h, w) in enumerate(level_hw)
        ]
    )
    usable = ((centres > BORDER) & (centres < min(valid, 1 - BORDER))).all(-1)
    return torch.cat((centres, sides), dim=-1), usable
