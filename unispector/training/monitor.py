"""Monitoring of training: figures since the last report, and the latest prompts."""

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from unispector.ops.directions import Floats, Labels, angle_between, angle_within, class_means
from unispector.ops.peak_memory import peak_mib

RECENT = 16
"""Batches whose prompts are looked at together; over more, the model itself would move too far."""


@dataclass(frozen=True)
class SeenPrompts:
    """Prompt embeddings of some batches."""

    embeddings: Floats  # [N, D]
    labels: Labels  # [N] data-set class of each

    def angles(self) -> dict[str, float]:
        """`prompt/angle_within` and `prompt/angle_between` classes in degrees; those that there are."""
        if not len(self.labels) or not self.embeddings.any(axis=1).all():
            return {}
        figures = {
            "prompt/angle_within": angle_within(self.embeddings, self.labels),
            "prompt/angle_between": angle_between(class_means(self.embeddings, self.labels)),
        }
        return {name: angle for name, angle in figures.items() if angle is not None}


class Monitor:
    """Gathers figures step by step; nothing is read from the device before a report."""

    def __init__(self, device: torch.device) -> None:
        """Start the clock."""
        self._device = device
        self._recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=RECENT)
        self._start_over()

    def _start_over(self) -> None:
        self._figures: dict[str, list[Tensor]] = {}
        self._steps = self._images = 0
        self._waited, self._since = 0.0, time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def apart(self) -> Iterator[None]:
        """The block's time is no step's."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def step(self, figures: Mapping[str, Tensor], images: int, embeddings: Tensor, labels: Tensor) -> None:
        """Note one step.

        Args:
            figures: name -> scalar; a report tells its mean over the steps that have it.
            images: of this process.
            embeddings: [N, D] of the batch's prompts.
            labels: [N] their data-set classes.
        """
        for name, value in figures.items():
            self._figures.setdefault(name, []).append(value.detach())
        self._steps, self._images = self._steps + 1, self._images + images
        self._recent.append((embeddings.detach(), labels))

    def recent(self) -> SeenPrompts:
        """The prompts of the last `RECENT` steps."""
        return _read(list(self._recent))

    def report(self) -> dict[str, float]:
        """Figures of the steps since the last report, at least one; a figure that has no value is absent.

        Prompts are those of the last `RECENT` of these steps, so that a resumed training tells the same.
        """
        took = max(time.monotonic() - self._since, 1e-9)
        means = {name: float(torch.stack(values).double().mean()) for name, values in self._figures.items()}
        figures = {
            **means,
            **_read(list(self._recent)[-self._steps :]).angles(),
            "speed/images_per_second": self._images / took,
            "speed/seconds_per_step": took / self._steps,
            "speed/data_share": min(self._waited / took, 1.0),
            "memory/peak_mib": peak_mib(self._device),
        }
        self._start_over()
        return {name: value for name, value in figures.items() if math.isfinite(value)}


def box_coverage(chosen: Tensor, image_index: Tensor, boxes: Tensor) -> Tensor:
    """Share of boxes that contain the centre of at least one selected token of their image.

    Args:
        chosen: [B, Q, 2] x, y of the selected tokens' centres.
        image_index: [N] image of each box.
        boxes: [N, 4] cxcywh in the same unit, edges included.

    Returns:
        Scalar in [0, 1]; NaN without boxes.
    """
    distance = (chosen[image_index] - boxes[:, None, :2]).abs()
    inside = (distance <= boxes[:, None, 2:] / 2).all(-1).any(-1)
    return inside.float().mean()


def levels_used(indices: Tensor, level_hw: Sequence[tuple[int, int]]) -> Tensor:
    """Mean number of feature levels among the selected tokens of an image.

    Args:
        indices: [B, Q] positions among all tokens.
        level_hw: (height, width) of the levels in the order of the tokens.

    Returns:
        Scalar from 1 to the number of levels.
    """
    ends = torch.tensor([h * w for h, w in level_hw], device=indices.device).cumsum(0)
    level = torch.bucketize(indices, ends, right=True)
    numbers = torch.arange(len(ends), device=indices.device)
    return (level[..., None] == numbers).any(1).sum(-1).float().mean()


def _read(batches: Sequence[tuple[Tensor, Tensor]]) -> SeenPrompts:
    if not batches:
        return SeenPrompts(torch.zeros(0, 1).double().numpy(), torch.zeros(0, dtype=torch.int64).numpy())
    embeddings = torch.cat([embeddings.double() for embeddings, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    return SeenPrompts(embeddings.cpu().numpy(), labels.cpu().numpy())
