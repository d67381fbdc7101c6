"""What a painted defect is, and what all painters share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from unispector.data.mini.noise import Field, as_field, blurred
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Points

FAINTEST = 0.6


@dataclass(frozen=True)
class Site:
    """Where one instance goes.

    Attributes:
        centre: [2] x, y in pixels.
        extent: length of its longest side in pixels.
        angle: direction in radians.
    """

    centre: Points
    extent: float
    angle: float


@dataclass(frozen=True)
class Mark:
    """One painted instance.

    Attributes:
        reflectance: [h, w] of the whole scene with the defect on it.
        coverage: [h, w] in 0..1, how much of a pixel the defect covers.
    """

    reflectance: Field
    coverage: Field


Painter: TypeAlias = Callable[[Scene, np.random.Generator, Site], Mark]


def tone_below(scene: Scene, coverage: Field) -> float:
    """Mean reflectance of what lies below `coverage`; a middle grey where it is empty."""
    below = scene.reflectance[coverage > 0.5]
    return float(below.mean()) if below.size else 0.5


def contrast(scene: Scene, rng: np.random.Generator, coverage: Field, low: float, high: float) -> float:
    """Size of a change that stands out from the texture below it by a factor, log-uniform from faint to high.

    Args:
        scene: the part.
        rng: source of randomness.
        coverage: [h, w], where the change will be.
        low: factor that still shows at a glance; the faintest changes have `FAINTEST` times that.
        high: largest factor.
    """
    below = scene.reflectance[coverage > 0.5]
    texture = float(below.std()) if below.size else 0.0
    return float(np.exp(rng.uniform(np.log(FAINTEST * low), np.log(high)))) * (
        0.045 + 0.7 * min(texture, 0.1)
    )


def signed_contrast(
    scene: Scene, rng: np.random.Generator, coverage: Field, low: float, high: float
) -> float:
    """`contrast`, darker or brighter at random, but away from black and white."""
    change = contrast(scene, rng, coverage, low, high)
    if rng.random() < 0.5:
        change = -change
    return change if 0.06 < tone_below(scene, coverage) + change < 0.96 else -change


def blend(below: Field, above: npt.ArrayLike, coverage: npt.ArrayLike) -> Field:
    """`above` laid over `below` where `coverage` says; [h, w]."""
    return below + as_field(coverage) * (as_field(above) - below)


def ground_of(scene: Scene, sigma: float) -> Field:
    """The part's reflectance without texture finer than `sigma` pixels; its edge does not blur in; [h, w]."""
    weight = blurred(scene.part, sigma)
    return as_field(blurred(scene.reflectance * scene.part, sigma) / np.maximum(weight, 0.02))


def shifted(field: Field, dx: float, dy: float) -> Field:
    """`field` moved by (dx, dy) pixels, zeros moving in; [h, w]."""
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    return as_field(cv2.warpAffine(field, matrix, field.shape[::-1], flags=cv2.INTER_LINEAR))


def cast_shadow(scene: Scene, coverage: Field, reach: float, strength: float) -> Field:
    """The scene darkened beside an object that covers `coverage` and stands up `reach` pixels; [h, w]."""
    dx, dy = -reach * np.cos(scene.light), -reach * np.sin(scene.light)
    shade = blurred(shifted(coverage, dx, dy), max(0.4 * reach, 0.4))
    return as_field(scene.reflectance * (1 - strength * shade))


def closed(coverage: Field, gap: float) -> Field:
    """Coverage grown together over gaps of up to about `gap` pixels; [h, w]."""
    side = 2 * max(round(gap / 2), 1) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    border = side
    grown = cv2.copyMakeBorder(coverage, border, border, border, border, cv2.BORDER_CONSTANT, value=0.0)
    return as_field(cv2.morphologyEx(grown, cv2.MORPH_CLOSE, disc)[border:-border, border:-border])


def soft(coverage: Field, sigma: float) -> Field:
    """Coverage with its border blurred by `sigma` pixels; [h, w]."""
    return as_field(cv2.GaussianBlur(coverage, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))


def eased(values: npt.ArrayLike) -> Field:
    """`values` held to 0..1, leaving 0 and reaching 1 without a kink; [h, w]."""
    share = np.clip(as_field(values), 0, 1)
    return as_field(share * share * (3 - 2 * share))


def largest_piece(coverage: Field) -> Field:
    """Coverage without what does not hang together with its largest piece; [h, w]."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((coverage > 0.5).astype(np.uint8), connectivity=8)
    if len(stats) < 3:
        return coverage
    main = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    return as_field(coverage * cv2.dilate(main, np.ones((3, 3), np.uint8)))
