"""Random fields every surface and defect is made of; all float32, zero mean, about unit deviation."""

from collections.abc import Callable
from math import ceil, cos, hypot, pi, sin, sqrt
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Field: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[Any]
Size: TypeAlias = tuple[int, int]  # height and width in pixels


def as_field(values: npt.ArrayLike) -> Field:
    """`values` as float32; free where they are."""
    return np.asarray(values, np.float32)


def blurred(field: Floats, sigma: float) -> Field:
    """`field` blurred by a Gaussian of `sigma` pixels, mirrored at the frame."""
    return as_field(cv2.GaussianBlur(field, (0, 0), sigma))


def smooth_noise(size: Size, rng: np.random.Generator, scale: float) -> Field:
    """Soft random hills about `scale` pixels across, at least 1."""
    height, width = size
    rows, columns = ceil(height / scale) + 3, ceil(width / scale) + 3
    knots = rng.standard_normal((rows, columns), dtype=np.float32)
    grown = cv2.resize(knots, (round(columns * scale), round(rows * scale)), interpolation=cv2.INTER_CUBIC)
    top, left = (round(shift * scale) for shift in rng.uniform(0.5, 1.5, 2))
    return as_field(grown[top : top + height, left : left + width]) * np.float32(1.3)


def fractal_noise(
    size: Size, rng: np.random.Generator, scale: float, octaves: int = 4, decay: float = 0.6
) -> Field:
    """Sum of `smooth_noise` at halving scales, each `decay` times weaker than the one before."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        total += np.float32(decay**octave) * smooth_noise(size, rng, max(scale / 2**octave, 1.0))
    return total / np.float32(sqrt(sum(decay ** (2 * octave) for octave in range(octaves))))


def grain(size: Size, rng: np.random.Generator, sigma: float) -> Field:
    """White noise blurred by a Gaussian of `sigma` pixels (under 0.3: not blurred)."""
    white = rng.standard_normal(size, dtype=np.float32)
    return white if sigma < 0.3 else normalised(blurred(white, sigma))


def streaks(size: Size, rng: np.random.Generator, length: float, width: float) -> Field:
    """Noise drawn out along x: streaks about `length` pixels long and `width` pixels wide."""
    white = rng.standard_normal(size, dtype=np.float32)
    # Two box filters are near a Gaussian and cost the same at any length.
    box = (max(int(length), 1) | 1, 1)
    drawn = cv2.blur(cv2.blur(white, box), box)
    return normalised(cv2.GaussianBlur(drawn, (1, 0), sigmaX=0.01, sigmaY=max(width, 0.1)))


def normalised(field: Floats) -> Field:
    """`field` with its mean taken to 0 and its standard deviation to 1."""
    centred = field - field.mean()
    return as_field(centred / np.float32(max(float(centred.std()), 1e-6)))


def rotated(size: Size, angle: float, make: Callable[[Size], Floats]) -> Field:
    """A field that `make` makes upright on a larger square, its x axis turned by `angle` radians, cropped."""
    height, width = size
    side = ceil(hypot(height, width)) + 2
    upright = as_field(make((side, side)))
    half_side, half_width, half_height = (side - 1) / 2, (width - 1) / 2, (height - 1) / 2
    c, s = cos(angle), sin(angle)
    # Maps result pixels to upright ones (WARP_INVERSE_MAP), centre to centre.
    across = [c, s, half_side - c * half_width - s * half_height]
    down = [-s, c, half_side + s * half_width - c * half_height]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(
        upright, np.array([across, down]), (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    return as_field(turned)


def mostly_upright(rng: np.random.Generator) -> float:
    """A direction in radians: often within 3 degrees of an axis, else any."""
    if rng.random() < 0.7:
        return float(rng.choice([0.0, pi / 2]) + rng.normal(0, 0.03))
    return float(rng.uniform(0, pi))
