"""Outlines and paths, and what turns them into antialiased coverage."""

from collections.abc import Iterable
from math import pi
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from unispector.data.mini.noise import Field, Floats, Size, as_field

Points: TypeAlias = npt.NDArray[np.float64]  # [n, 2] x, y in pixels
Line: TypeAlias = tuple[Points, npt.ArrayLike]  # a path, and its width in pixels: one or [n]

OVERSAMPLING = 4  # shapes are drawn at so many times the image's resolution


def polygons(size: Size, outlines: Iterable[Points]) -> Field:
    """Coverage of filled closed outlines: share of every pixel inside one, [h, w] in 0..1."""
    ink = _ink(size)
    for points in outlines:
        cv2.fillPoly(ink, [_fine(points)], 255)
    return _coverage(ink, size)


def strokes(size: Size, lines: Iterable[Line]) -> Field:
    """Coverage of lines with round joints, [h, w] in 0..1."""
    ink = _ink(size)
    for points, widths in lines:
        fine = _fine(points).tolist()
        thick = np.broadcast_to(np.asarray(widths, np.float64), (len(fine),)) * OVERSAMPLING
        for start, end, width in zip(fine[:-1], fine[1:], thick[1:].tolist(), strict=True):
            cv2.line(ink, start, end, 255, max(round(width), 1))
    return _coverage(ink, size)


def dots(size: Size, centres: Points, radii: npt.NDArray[np.float64]) -> Field:
    """Coverage of discs of `radii` [n] pixels, [h, w] in 0..1."""
    ink = _ink(size)
    for centre, radius in zip(_fine(centres).tolist(), (radii * OVERSAMPLING).tolist(), strict=True):
        cv2.circle(ink, centre, max(round(radius), 1), 255, -1)
    return _coverage(ink, size)


def _ink(size: Size) -> npt.NDArray[np.uint8]:
    return np.zeros((size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), np.uint8)


def _fine(points: Points) -> npt.NDArray[np.int32]:
    return np.rint((points + 0.5) * OVERSAMPLING - 0.5).astype(np.int32)


def _coverage(ink: npt.NDArray[np.uint8], size: Size) -> Field:
    return cv2.resize(ink, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)


def outline(
    rng: np.random.Generator,
    radius: float,
    angle: float,
    elongation: float = 1.0,
    lobes: float = 0.15,
    roughness: float = 0.0,
) -> Points:
    """A random closed outline [120, 2] about the origin, its long half-axis about `radius` pixels at `angle`.

    `elongation` is long over short axis, at least 1; `lobes` and `roughness` are relative depths of the few
    large bulges and of the fine jags.
    """
    turns = np.linspace(0, 2 * pi, 120, endpoint=False)
    orders = np.arange(2, 7)
    heights = lobes * rng.standard_normal(len(orders)) / (orders - 0.5)
    bulges = np.cos(orders[:, None] * turns + rng.uniform(0, 2 * pi, (len(orders), 1)))
    jags = roughness * (rng.standard_normal(120) + np.roll(rng.standard_normal(120), 1))
    lengths = np.clip(1 + heights @ bulges + jags, 0.3, 1.6)
    across = lengths * radius / elongation * np.sin(turns)
    return turned(np.stack([lengths * radius * np.cos(turns), across], axis=1), angle)


def path(
    rng: np.random.Generator, centre: Points, length: float, angle: float, bend: float, jitter: float = 0.0
) -> Points:
    """A random path [n, 2] of `length` pixels, on the whole along `angle`, its bounding box about `centre`.

    Standard deviations in radians: `bend` of the slowly varying direction, `jitter` from step to step.
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


def turned(points: Floats, angle: float) -> Points:
    """`points` [n, 2] turned about the origin by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[c, s], [-s, c]]), np.float64)


def step(length: float, angle: float) -> Points:
    """The way [2] that leads `length` pixels in direction `angle`."""
    return np.asarray(turned(np.array([[length, 0.0]]), angle)[0])


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


def slope(height: Floats, light: float) -> Field:
    """Brightness of relief `height` lit from direction `light` (radians), scaled to at most 1; [h, w]."""
    dx, dy = (as_field(cv2.Sobel(height, cv2.CV_32F, *order)) for order in ((1, 0), (0, 1)))
    # A slope that falls away towards the lamp faces it.
    shade = -(np.float32(np.cos(light)) * dx + np.float32(np.sin(light)) * dy)
    return as_field(shade / np.float32(max(float(np.abs(shade).max()), 1e-6)))
