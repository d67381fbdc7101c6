"""From a map of a class to its instances, for systems that know none: the connected parts of a mask."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from unispector.ops.components import components
from unispector.ops.rle import BoolArray, encode_crop
from unispector.systems.findings import Finding

LEAST_AREA = 0.0001  # share of the image below which a part is noise
MOST = 100  # parts of one class in one image


def parts_of(
    label: int,
    mask: BoolArray,
    values: npt.NDArray[np.float32],
    score: Callable[[npt.NDArray[np.float32]], float],
) -> list[Finding]:
    """At most `MOST` parts that are no specks, best first.

    Args:
        label: position of the class among the prompted ones.
        mask: [H, W] of the class, in the image's pixels.
        values: [H, W] map that parts are judged by.
        score: from the values [n] of the map in a part to its score in [0, 1].
    """
    height, width = mask.shape
    found = []
    for crop, left, top in components(mask):
        h, w = crop.shape
        if crop.sum() >= LEAST_AREA * height * width:
            own = score(values[top : top + h, left : left + w][crop])
            code = encode_crop(crop, left, top, height, width)
            found.append(Finding(own, label, (left, top, left + w, top + h), code))
    return sorted(found, key=lambda finding: -finding.score)[:MOST]
