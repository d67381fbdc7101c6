"""The ground truth of a whole batch as flat tensors, so that nothing loops over images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from unispector.movable import Movable
from unispector.structures import Targets


@dataclass(frozen=True)
class Instances(Movable):
    """All N instances of B images, in image order."""

    counts: tuple[int, ...]  # number of instances of each image, B entries
    image: Tensor  # [N] int64, the image each instance lies in
    position: Tensor  # [N] int64, its place within that image
    labels: Tensor  # [N] int64 prompt columns
    boxes: Tensor  # [N, 4] float32 cxcywh in [0, 1]
    masks: Tensor  # [N, P, P] float32, 0 or 1

    @classmethod
    def of(cls, targets: Sequence[Targets]) -> Self:
        """Flatten the targets of B images (B >= 1), all in frames of the same size."""
        device = targets[0].labels.device
        counts = tuple(len(target) for target in targets)
        sizes = torch.tensor(counts, device=device)
        image = torch.arange(len(counts), device=device).repeat_interleave(sizes)
        position = torch.cat([torch.arange(count, device=device) for count in counts])
        return cls(
            counts=counts,
            image=image,
            position=position,
            labels=torch.cat([target.labels for target in targets]),
            boxes=torch.cat([target.boxes for target in targets]).float(),
            masks=torch.cat([target.masks for target in targets]).float(),
        )

    def __len__(self) -> int:
        return len(self.labels)
