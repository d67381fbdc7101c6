"""What painters do to coverage (how much of a pixel a defect covers, 0..1) and reflectance; all [h, w]."""

import cv2
import numpy as np
import numpy.typing as npt

from unispector.data.mini.noise import Field, Floats, as_field


def blend(below: Floats, above: npt.ArrayLike, coverage: npt.ArrayLike) -> Floats:
    """`above` laid over `below` where `coverage` says."""
    return np.asarray(below + as_field(coverage) * (as_field(above) - below))


def shifted(field: Field, length: float, angle: float) -> Field:
    """`field` moved by `length` pixels in direction `angle`, zeros moving in."""
    matrix = np.array([[1, 0, length * np.cos(angle)], [0, 1, length * np.sin(angle)]], np.float64)
    return as_field(cv2.warpAffine(field, matrix, field.shape[::-1], flags=cv2.INTER_LINEAR))


def closed(coverage: Field, gap: float) -> Field:
    """Coverage grown together over gaps of up to about `gap` pixels."""
    side = 2 * max(round(gap / 2), 1) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    grown = cv2.copyMakeBorder(coverage, side, side, side, side, cv2.BORDER_CONSTANT, value=0.0)
    return as_field(cv2.morphologyEx(grown, cv2.MORPH_CLOSE, disc)[side:-side, side:-side])


def soft(coverage: Field, sigma: float) -> Field:
    """Coverage with its border blurred by `sigma` pixels."""
    return as_field(cv2.GaussianBlur(coverage, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))


def eased(values: npt.ArrayLike) -> Field:
    """`values` held to 0..1, leaving 0 and reaching 1 without a kink."""
    share = np.clip(as_field(values), 0, 1)
    return share * share * (3 - 2 * share)


def bump(distance: Floats, width: float) -> Floats:
    """1 at `distance` 0, falling off on both sides as a Gaussian."""
    return np.exp(-((distance / width) ** 2))


def largest_piece(coverage: Field) -> Field:
    """Coverage without what does not hang together with its largest piece."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((coverage > 0.5).astype(np.uint8), connectivity=8)
    if len(stats) < 3:
        return coverage
    main = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    return as_field(coverage * cv2.dilate(main, np.ones((3, 3), np.uint8)))
