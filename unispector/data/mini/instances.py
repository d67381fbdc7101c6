"""The instances on a drawn image, found in its masks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Instance:
    """One 8-connected component of a defect's exact mask."""

    defect: str
    box: tuple[int, int, int, int]  # left, top, width, height in pixels
    # Polygon x0, y0, x1, y1, ... a quarter of a pixel inside the component's outer edge; it covers holes too.
    outline: tuple[float, ...]


def exact(mask: Mask) -> Mask:
    """The pixels a soft mask marks, as 0 and 255."""
    return np.where(mask > 127, np.uint8(255), np.uint8(0))


def instances_of(masks: Mapping[str, Mask]) -> Iterator[Instance]:
    """The components of the exact masks, defect by defect."""
    for defect, mask in masks.items():
        count, labels, stats, _ = cv2.connectedComponentsWithStats(exact(mask), connectivity=8)
        for label in range(1, count):
            left, top, width, height = (int(side) for side in stats[label, : cv2.CC_STAT_AREA])
            crop = (labels[top : top + height, left : left + width] == label).astype(np.uint8)
            # Every pixel as two by two, so that the path of centres encloses the pixels' own centres.
            doubled = crop.repeat(2, axis=0).repeat(2, axis=1)
            paths, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            outline = (paths[0].reshape(-1, 2) + 0.5) / 2 + (left, top)
            yield Instance(defect, (left, top, width, height), tuple(outline.ravel().tolist()))
