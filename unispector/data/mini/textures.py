"""Surfaces: how a sound part looks, before lighting, distractors and defects.

Every surface returns its reflectance's departure from the part's mean tone as float32 [h, w]. Its lot says
what parts of one kind share, such as direction and spacing of the pattern; the pattern is every part's own.
`unit` is the size of one "design pixel" (image size / 256), so that a larger image shows the same part.
"""

from collections.abc import Callable, Mapping
from math import pi
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np

from unispector.data.mini.lot import Lot
from unispector.data.mini.noise import (
    Field,
    Size,
    as_field,
    fractal_noise,
    grain,
    normalised,
    rotated,
    smooth_noise,
    streaks,
)
from unispector.data.mini.shapes import slope

Surface: TypeAlias = Callable[[Size, Lot, float], Field]


def brushed_metal(size: Size, lot: Lot, unit: float) -> Field:
    """Fine long parallel brush lines with a few bright ones."""
    length, width = lot.uniform(30, 140) * unit, lot.uniform(0.5, 1.4) * unit

    def upright(square: Size) -> Field:
        lines = streaks(square, lot.rng, length, width)
        bold = np.maximum(streaks(square, lot.rng, 2 * length, width) - 1.6, 0)
        return as_field(lines + lot.uniform(0, 1.5) * bold)

    return as_field(lot.uniform(0.02, 0.06) * rotated(size, lot.mostly_upright(), upright))


def rolled_metal(size: Size, lot: Lot, unit: float) -> Field:
    """Broad soft bands along the rolling direction under a fine grain."""
    band = lot.uniform(4, 18) * unit

    def upright(square: Size) -> Field:
        bands = streaks(square, lot.rng, 220 * unit, band)
        return bands + 0.5 * streaks(square, lot.rng, lot.uniform(6, 20) * unit, 0.6 * unit)

    rolled = rotated(size, lot.mostly_upright(), upright)
    return as_field(
        lot.uniform(0.02, 0.05) * rolled + lot.uniform(0.008, 0.02) * grain(size, lot.rng, 0.6 * unit)
    )


def ceramic_tile(size: Size, lot: Lot, unit: float) -> Field:
    """Glazed: faint clouds and, on some, dark and light speckles."""
    clouds = lot.uniform(0.005, 0.035) * fractal_noise(size, lot.rng, lot.uniform(20, 70) * unit)
    specks = grain(size, lot.rng, lot.uniform(0.7, 1.6) * unit)
    amount = lot.uniform(0, 0.09)
    return as_field(clouds + amount * (np.maximum(specks - 2.0, 0) - np.maximum(-specks - 1.8, 0)))


def fabric(size: Size, lot: Lot, unit: float) -> Field:
    """Woven: plain or twill weave with uneven yarns."""
    period = lot.uniform(3.6, 9.0) * unit
    ratio, twill = lot.uniform(0.8, 1.25), float(lot.chance(0.5))

    def upright(square: Size) -> Field:
        y, x = np.mgrid[: square[0], : square[1]].astype(np.float32)
        sway = 0.25 * period * smooth_noise(square, lot.rng, 30 * unit)
        warp = 2 * pi * (x + sway) / period
        weft = 2 * pi * (y + 0.6 * sway) / (period * ratio)
        over = np.sin((warp + twill * weft) / 2) * np.sin((weft - twill * warp) / 2)
        yarns = np.where(over > 0, np.cos(warp), np.cos(weft)) + 0.5 * over
        uneven = streaks(square, lot.rng, 25 * unit, 1.0 * unit)
        return as_field(yarns + 0.5 * uneven)

    woven = normalised(rotated(size, lot.mostly_upright(), upright))
    return as_field(lot.uniform(0.03, 0.085) * woven + 0.012 * grain(size, lot.rng, 0.5))


def board(size: Size, lot: Lot, unit: float) -> Field:
    """Laminate with printed tracks and pads, raised a little above the ground."""
    ground = lot.uniform(0.008, 0.02) * fractal_noise(size, lot.rng, 5 * unit, decay=0.8)
    pitch, thick = lot.uniform(14, 32) * unit, lot.uniform(2.5, 6) * unit
    tracks = np.zeros(size, np.uint8)
    steps = np.array([[1, 0], [1, 1], [0, 1], [-1, 1], [1, -1]])
    for _ in range(int(lot.rng.integers(4, 13))):
        corners = lot.rng.uniform(0, [size[1], size[0]]) // pitch * pitch
        moves = steps[lot.rng.integers(0, len(steps), 4)] * lot.rng.integers(1, 6, (4, 1)) * pitch
        path = np.vstack([corners, corners + np.cumsum(moves, axis=0)]).astype(np.int32)
        cv2.polylines(tracks, [path], False, 255, max(int(thick), 1), cv2.LINE_AA)
        for x, y in path[[0, -1]].tolist():
            cv2.circle(tracks, (x, y), max(int(1.3 * thick), 1), 255, -1, cv2.LINE_AA)
    raised = tracks.astype(np.float32) / 255
    return as_field(ground + lot.sign() * lot.uniform(0.04, 0.15) * (raised - raised.mean()))


def wood(size: Size, lot: Lot, unit: float) -> Field:
    """Wavering growth rings and short dark pores."""
    ring = lot.uniform(8, 30) * unit
    sway = lot.uniform(0.3, 1.6)

    def upright(square: Size) -> Field:
        y = np.arange(square[0], dtype=np.float32)[:, None]
        hills = cv2.resize(smooth_noise((square[0], square[1] // 4 + 1), lot.rng, 30 * unit), square[::-1])
        phase = y / ring + sway * hills
        rings = (phase - np.floor(phase)) ** 2 - 0.33
        pores = np.maximum(streaks(square, lot.rng, 9 * unit, 0.5 * unit) - 1.2, 0)
        return as_field(1.6 * rings - lot.uniform(0.4, 1.2) * pores)

    grown = rotated(size, lot.mostly_upright(), upright)
    return as_field(lot.uniform(0.04, 0.09) * (grown - grown.mean()) + 0.01 * grain(size, lot.rng, 0.5))


def plastic(size: Size, lot: Lot, unit: float) -> Field:
    """Moulded: embossed pebbles lit from one side, from fine grain to leather."""
    scale = lot.uniform(1.0, 3.5) * unit
    pebbles = np.abs(grain(size, lot.rng, scale))
    lit = normalised(slope(pebbles, lot.any_angle()))
    return as_field(lot.uniform(0.008, 0.045) * lit + 0.01 * fractal_noise(size, lot.rng, 50 * unit))


def sintered(size: Size, lot: Lot, unit: float) -> Field:
    """Pressed powder: speckle at several scales and faint upright grinding lines."""
    speckle = fractal_noise(size, lot.rng, lot.uniform(3, 9) * unit, decay=0.85)
    clouds = fractal_noise(size, lot.rng, 60 * unit, octaves=3)
    upright = pi / 2 + lot.rng.normal(0, 0.02)
    lines = rotated(size, upright, lambda square: streaks(square, lot.rng, 90 * unit, 0.8 * unit))
    mixed = lot.uniform(0.012, 0.04) * speckle + lot.uniform(0.005, 0.03) * clouds
    return as_field(mixed + lot.uniform(0.008, 0.035) * lines)


def ground_steel(size: Size, lot: Lot, unit: float) -> Field:
    """Turned or ground: fine arcs about a far centre."""
    height, width = size
    far = lot.uniform(0.2, 2.5) * height
    angle = lot.any_angle()
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot(x - width / 2 - far * np.cos(angle), y - height / 2 - far * np.sin(angle))
    table = streaks((int(radius.max()) + 4, 1), lot.rng, 1, lot.uniform(0.6, 1.5) * unit)[:, 0]
    arcs = np.interp(radius.ravel(), np.arange(len(table)), table).reshape(size).astype(np.float32)
    broken = 0.65 + 0.35 * smooth_noise(size, lot.rng, 30 * unit)
    return as_field(lot.uniform(0.015, 0.045) * arcs * broken + 0.012 * grain(size, lot.rng, 0.6))


SURFACES: Mapping[str, Surface] = MappingProxyType(
    {
        "brushed metal": brushed_metal,
        "rolled metal": rolled_metal,
        "ceramic tile": ceramic_tile,
        "fabric": fabric,
        "board": board,
        "wood": wood,
        "plastic": plastic,
        "sintered magnet": sintered,
        "ground steel": ground_steel,
    }
)
