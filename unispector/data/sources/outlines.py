"""Outlines of shapes that several tools draw: ellipses and turned rectangles, as polygons."""

import math
from collections.abc import Iterable, Sequence

CORNERS = 64  # of an ellipse; they cover 99.8 % of it

Point = tuple[float, float]


def ellipse(centre: Point, radii: Point, degrees: float = 0.0) -> list[Point]:
    """Corners of an ellipse whose first radius was turned clockwise by `degrees` around the centre."""
    angles = (2 * math.pi * corner / CORNERS for corner in range(CORNERS))
    upright = [
        (centre[0] + radii[0] * math.cos(angle), centre[1] + radii[1] * math.sin(angle)) for angle in angles
    ]
    return turned(upright, centre, degrees)


def turned(points: Iterable[Point], around: Point, degrees: float) -> list[Point]:
    """Points turned clockwise, as one sees them (y grows downwards)."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    moved = ((x - around[0], y - around[1]) for x, y in points)
    return [(around[0] + x * cosine - y * sine, around[1] + x * sine + y * cosine) for x, y in moved]


def turned_box(ltrb: Sequence[float], degrees: float) -> list[Point]:
    """Corners of a box (left, top, right, bottom) turned clockwise around its centre."""
    left, top, right, bottom = ltrb
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return turned(corners, ((left + right) / 2, (top + bottom) / 2), degrees)


def flat(points: Iterable[Point]) -> tuple[float, ...]:
    """x0, y0, x1, y1, ..."""
    return tuple(value for point in points for value in point)
