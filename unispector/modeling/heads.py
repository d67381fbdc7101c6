"""Class by similarity to the prompts, mask by similarity to the mask features."""

import torch
from torch import Tensor, nn

from unispector.modeling.layers import MLP
from unispector.structures import LayerPrediction

PRIOR = 0.01  # probability a class logit starts from, when it has a bias


class PredictionHeads(nn.Module):
    """Heads shared by all decoder layers.

    A class logit is the inner product of a query and the prompt token of the same decoder layer,
    both projected by one matrix, so a class needs no weight of its own.
    """

    def __init__(self, width: int, *, class_bias: bool) -> None:
        """Build the heads.

        Args:
            width: channels D.
            class_bias: learn a bias on class logits, starting at a low prior; needed when training
                from scratch, absent from published checkpoints.
        """
        super().__init__()
        self.classes = nn.Parameter(torch.empty(width, 2 * width))
        nn.init.trunc_normal_(self.classes, std=0.02)
        bias = torch.logit(torch.tensor(PRIOR))
        self.class_bias = nn.Parameter(bias) if class_bias else None
        self.mask = MLP((width, width, width, width))

    def forward(
        self, norm: nn.Module, queries: Tensor, prompts: Tensor, boxes: Tensor, mask_features: Tensor
    ) -> LayerPrediction:
        """Predict.

        Args:
            norm: the decoder's norm; class and mask heads see its output normalised once more
                (as the published base does, whose weights expect it).
            queries: [N, Q, D] normalised decoder tokens; the B images' in order, equally many of each.
            prompts: [N, C, D] normalised prompt tokens of the same layer.
            boxes: [N, Q, 4], passed on.
            mask_features: [B, D, h, w].
        """
        queries, prompts = norm(queries), norm(prompts)
        # A class logit is a long sum and not normalised: too much for the eight bits of bf16.
        with torch.autocast(queries.device.type, enabled=False):
            precise = torch.promote_types(queries.dtype, torch.float32)
            rows, columns = (tokens.to(precise) @ self.classes for tokens in (queries, prompts))
            logits = rows @ columns.transpose(1, 2)
        if self.class_bias is not None:
            logits = logits + self.class_bias
        return LayerPrediction(
            logits=logits, boxes=boxes, kernels=self.mask(queries), mask_features=mask_features
        )
