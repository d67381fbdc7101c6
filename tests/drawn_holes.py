"""Drawn parts with a hole, and their marks, for tests with the shipped model."""

from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord

SIDE = 200


def holes(folder: Path, count: int, spoiled: Collection[int] = ()) -> Annotations:
    """Grey cast surfaces with a dark hole each, marked by a box; of spoiled ones it lies beside the hole."""
    folder.mkdir(parents=True, exist_ok=True)
    images, marks = [], []
    for number in range(1, count + 1):
        rng = np.random.default_rng(number)
        pixels = 150 + cv2.GaussianBlur(rng.normal(0, 60, (SIDE, SIDE)), (0, 0), 1.5)
        x, y = (int(value) for value in rng.integers(40, SIDE - 40, 2))
        radius = int(rng.integers(18, 24))
        hole = np.zeros((SIDE, SIDE), np.uint8)
        cv2.circle(hole, (x, y), radius, 255, -1)
        pixels[hole > 0] -= 90
        cv2.imwrite(str(folder / f"{number}.png"), pixels.clip(0, 255).astype(np.uint8))
        if number in spoiled:
            x, y = (value - 20 if value >= 60 else value + 100 for value in (x, y))
        box = (float(x - radius), float(y - radius), 2.0 * radius, 2.0 * radius)
        images.append(ImageRecord(number, f"{number}.png", SIDE, SIDE))
        marks.append(InstanceRecord(number, number, 1, box, box[2] * box[3], None))
    return Annotations(tuple(images), tuple(marks), (CategoryRecord(1, "hole", ""),))
