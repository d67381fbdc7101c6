"""What a system found, as the benchmark takes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from unispector.detections import Detections
from unispector.ops.rle import BoolArray, encode_rle


@dataclass(frozen=True)
class Finding:
    """One instance of a class in an image."""

    score: float  # in [0, 1]
    label: int  # position of its class among the prompted ones
    box: tuple[float, float, float, float]  # xyxy in pixels of the image
    code: dict[str, object]  # COCO run-length code of its mask

    @classmethod
    def of_mask(cls, score: float, label: int, mask: BoolArray) -> Self:
        """Of a mask [h, w] that marks something; the box is tight around it."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
        return cls(score, label, box, encode_rle(mask[None])[0])


def as_detections(
    found: Sequence[Finding], class_names: Sequence[str], image_hw: Sequence[int]
) -> Detections:
    """Put findings in order, best first; none are a result, too."""
    best_first = sorted(found, key=lambda finding: -finding.score)
    return Detections(
        boxes_xyxy=torch.tensor([one.box for one in best_first], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([one.score for one in best_first], dtype=torch.float32),
        labels=torch.tensor([one.label for one in best_first], dtype=torch.int64),
        masks_rle=tuple(one.code for one in best_first),
        class_names=tuple(class_names),
        image_hw=(image_hw[0], image_hw[1]),
    )
