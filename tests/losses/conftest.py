"""Random predictions and ground truth of a batch, small enough for brute force."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from unispector.structures import LayerPrediction, ModelOutput, QuerySelection, Targets

PADDED = 64
LEVELS = ((1, 1), (2, 2), (4, 4), (8, 8))
CLASSES = 4


def draw_targets(count: int, generator: torch.Generator) -> Targets:
    boxes = torch.rand(count, 4, generator=generator) * 0.3 + 0.2
    edges = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1) * PADDED
    x1, y1, x2, y2 = edges[:, :, None].unbind(1)
    line = torch.arange(PADDED) + 0.5
    masks = ((line >= y1) & (line <= y2))[:, :, None] & ((line >= x1) & (line <= x2))[:, None, :]
    return Targets(torch.randint(CLASSES, (count,), generator=generator), boxes, masks)


def draw_layer(images: int, queries: int, generator: torch.Generator) -> LayerPrediction:
    def normal(*shape: int) -> Tensor:
        return torch.randn(images, queries, *shape, generator=generator)

    boxes = (normal(4).sigmoid() * 0.5 + 0.2).requires_grad_()
    # Every query has a mask feature of its own, so that masks can be set one by one.
    kernels = torch.eye(queries).repeat(images, 1, 1).requires_grad_()
    return LayerPrediction(
        normal(CLASSES).requires_grad_(), boxes, kernels, normal(PADDED // 4, PADDED // 4).requires_grad_()
    )


def draw_output(
    counts: Sequence[int], *, queries: int, layers: int, groups: int, seed: int
) -> tuple[ModelOutput, list[Targets]]:
    """Predictions and targets of images with `counts` instances; `groups` of denoising queries."""
    generator = torch.Generator().manual_seed(seed)
    targets = [draw_targets(count, generator) for count in counts]
    images, slots = len(counts), groups * max(counts)
    tokens = sum(height * width for height, width in LEVELS)
    output = ModelOutput(
        layers=tuple(draw_layer(images, queries, generator) for _ in range(layers)),
        denoising=tuple(draw_layer(images, slots, generator) for _ in range(layers if slots else 0)),
        selection=QuerySelection(
            content=torch.zeros(images, queries, 8),
            reference=torch.zeros(images, queries, 4),
            relevance=torch.randn(images, tokens, CLASSES, generator=generator).requires_grad_(),
            indices=None,
        ),
    )
    return output, targets


@pytest.fixture
def batch() -> Callable[..., tuple[ModelOutput, list[Targets]]]:
    """`batch(counts, queries=, layers=, groups=, seed=)` -> predictions and targets."""

    def make(
        counts: Sequence[int], *, queries: int = 5, layers: int = 2, groups: int = 2, seed: int = 0
    ) -> tuple[ModelOutput, list[Targets]]:
        return draw_output(counts, queries=queries, layers=layers, groups=groups, seed=seed)

    return make
