"""Outlines and paths, and the plate that turns them into antialiased coverage."""

from dataclasses import dataclass
from math import pi
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from unispector.data.mini.noise import Field, Size, as_field

Points: TypeAlias = npt.NDArray[np.float64]

OVERSAMPLING = 4


class Plate:
    """A drawing plate at four times the image's resolution; coordinates are image pixels (x, y)."""

    def __init__(self, size: Size) -> None:
        """Make an empty plate for an image of `size` (height, width)."""
        self._size = size
        self._ink = np.zeros((size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), np.uint8)

    def polygon(self, points: Points) -> None:
        """Fill the closed outline `points` [n, 2]."""
        cv2.fillPoly(self._ink, [_fine(points)], 255)

    def stroke(self, points: Points, widths: npt.ArrayLike) -> None:
        """Draw the path `points` [n, 2] with round joints; `widths` in pixels, one or [n]."""
        fine = _fine(points).tolist()
        thick = np.broadcast_to(np.asarray(widths, np.float64), (len(fine),)) * OVERSAMPLING
        for start, end, width in zip(fine[:-1], fine[1:], thick[1:].tolist(), strict=True):
            cv2.line(self._ink, start, end, 255, max(round(width), 1))

    def dots(self, centres: Points, radii: npt.NDArray[np.float64]) -> None:
        """Fill discs at `centres` [n, 2] with `radii` [n] pixels."""
        for centre, radius in zip(_fine(centres).tolist(), (radii * OVERSAMPLING).tolist(), strict=True):
            cv2.circle(self._ink, centre, max(round(radius), 1), 255, -1)

    def coverage(self) -> Field:
        """Share of every pixel that was drawn on: float32 [h, w] in 0..1."""
        small = cv2.resize(self._ink, self._size[::-1], interpolation=cv2.INTER_AREA)
        return small.astype(np.float32) / np.float32(255)


def _fine(points: Points) -> npt.NDArray[np.int32]:
    return np.rint((points + 0.5) * OVERSAMPLING - 0.5).astype(np.int32)


@dataclass(frozen=True)
class Outline:
    """Character of a random closed outline.

    Attributes:
        elongation: long over short axis, at least 1.
        lobes: relative depth of the few large bulges.
        roughness: relative depth of the fine jags.
    """

    elongation: float = 1.0
    lobes: float = 0.15
    roughness: float = 0.0


def outline(rng: np.random.Generator, centre: Points, radius: float, angle: float, kind: Outline) -> Points:
    """A random closed outline [n, 2] whose long half-axis is about `radius` pixels.

    Args:
        rng: source of randomness.
        centre: [2] x, y in pixels.
        radius: long half-axis in pixels.
        angle: direction of the long axis in radians.
        kind: character of the outline.
    """
    turns = np.linspace(0, 2 * pi, 120, endpoint=False)
    orders = np.arange(2, 7)
    heights = kind.lobes * rng.standard_normal(len(orders)) / (orders - 0.5)
    bulges = np.cos(orders[:, None] * turns + rng.uniform(0, 2 * pi, (len(orders), 1)))
    jags = kind.roughness * (rng.standard_normal(120) + np.roll(rng.standard_normal(120), 1))
    lengths = np.clip(1 + heights @ bulges + jags, 0.3, 1.6)
    across = lengths * radius / kind.elongation * np.sin(turns)
    return centre + turned(np.stack([lengths * radius * np.cos(turns), across], axis=1), angle)


def path(
    rng: np.random.Generator, centre: Points, length: float, angle: float, bend: float, jitter: float = 0.0
) -> Points:
    """A random path [n, 2] of `length` pixels through `centre`, on the whole along `angle`.

    Args:
        rng: source of randomness.
        centre: [2] x, y in pixels; the middle of the path's bounding box.
        length: arc length in pixels.
        angle: mean direction in radians.
        bend: standard deviation of the slowly varying direction, radians.
        jitter: standard deviation of the direction's change from step to step, radians.
    """
    steps = int(np.clip(length / 2.5, 6, 400))
    waves = np.arange(1, 4)
    amounts = rng.standard_normal(3) * bend / waves
    t = np.linspace(0, 1, steps)
    slow = amounts @ np.sin(pi * waves[:, None] * t + rng.uniform(0, 2 * pi, (3, 1)))
    heading = angle + slow - slow.mean() + jitter * rng.standard_normal(steps)
    moves = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length / steps)
    points = np.vstack([np.zeros((1, 2)), np.cumsum(moves, axis=0)])
    middle: Points = (points.min(axis=0) + points.max(axis=0)) / 2
    return centre + points - middle


def turned(points: Points, angle: float) -> Points:
    """`points` [n, 2] turned about the origin by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    rotation: Points = np.array([[c, s], [-s, c]])
    return np.asarray(points @ rotation, np.float64)


def local_axes(size: Size, centre: Points, angle: float) -> tuple[Field, Field]:
    """Coordinates (along, across) of every pixel about `centre`, in pixels; each [h, w]."""
    dx = np.arange(size[1], dtype=np.float32)[None, :] - np.float32(centre[0])
    dy = np.arange(size[0], dtype=np.float32)[:, None] - np.float32(centre[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return c * dx + s * dy, c * dy - s * dx


def depth(coverage: Field) -> Field:
    """Distance in pixels of every covered pixel from the outline, 0 outside; [h, w]."""
    inside = np.pad((coverage > 0.5).astype(np.uint8), 1)
    return as_field(cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1])


def filled(inside: npt.ArrayLike) -> Field:
    """Coverage of a shape, from every pixel's distance to its outline (pixels, positive inside); [h, w]."""
    return as_field(np.clip(as_field(inside) + np.float32(0.5), 0, 1))


def slope(height: Field, light: float) -> Field:
    """Brightness of relief `height` lit from direction `light` (radians), scaled to at most 1; [h, w]."""
    dx, dy = (as_field(cv2.Sobel(height, cv2.CV_32F, *order)) for order in ((1, 0), (0, 1)))
    # A slope that falls away towards the lamp faces it.
    shade = -(np.float32(np.cos(light)) * dx + np.float32(np.sin(light)) * dy)
    return as_field(shade / np.float32(max(float(np.abs(shade).max()), 1e-6)))
