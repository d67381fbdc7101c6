"""Surfaces: how a sound part looks, before lighting, distractors and defects.

Every surface returns its reflectance's departure from the part's mean tone, [h, w]. Its kind says what parts
share, such as direction and spacing of the pattern; the pattern is every part's own. `unit` is the size of
one "design pixel" (image size / 256), so that a larger image shows the same part.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import pi
from typing import TypeAlias

import cv2
import numpy as np

from unispector.data.mini import noise
from unispector.data.mini.kind import Kind
from unispector.data.mini.noise import Floats, Size, as_field, fractal_noise, grain, normalised, rotated
from unispector.data.mini.shapes import slope

Surface: TypeAlias = Callable[[Size, Kind, float], Floats]


def _brushed_metal(size: Size, kind: Kind, unit: float) -> Floats:
    """Fine long parallel brush lines with a few bright ones."""
    length, width = kind.uniform(30, 140) * unit, kind.uniform(0.5, 1.4) * unit

    def upright(square: Size) -> Floats:
        lines = noise.streaks(square, kind.rng, length, width)
        bold = np.maximum(noise.streaks(square, kind.rng, 2 * length, width) - 1.6, 0)
        return as_field(lines + kind.uniform(0, 1.5) * bold)

    return kind.uniform(0.02, 0.06) * rotated(size, kind.mostly_upright(), upright)


def _rolled_metal(size: Size, kind: Kind, unit: float) -> Floats:
    """Broad soft bands along the rolling direction under a fine grain."""
    band = kind.uniform(4, 18) * unit

    def upright(square: Size) -> Floats:
        bands = noise.streaks(square, kind.rng, 220 * unit, band)
        return bands + 0.5 * noise.streaks(square, kind.rng, kind.uniform(6, 20) * unit, 0.6 * unit)

    rolled = rotated(size, kind.mostly_upright(), upright)
    return kind.uniform(0.02, 0.05) * rolled + kind.uniform(0.008, 0.02) * grain(size, kind.rng, 0.6 * unit)


def _ceramic_tile(size: Size, kind: Kind, unit: float) -> Floats:
    """Glazed: faint clouds and, on some, dark and light speckles."""
    clouds = kind.uniform(0.005, 0.035) * fractal_noise(size, kind.rng, kind.uniform(20, 70) * unit)
    specks = grain(size, kind.rng, kind.uniform(0.7, 1.6) * unit)
    amount = kind.uniform(0, 0.09)
    return as_field(clouds + amount * (np.maximum(specks - 2.0, 0) - np.maximum(-specks - 1.8, 0)))


def _fabric(size: Size, kind: Kind, unit: float) -> Floats:
    """Woven: plain or twill weave with uneven yarns."""
    period = kind.uniform(3.6, 9.0) * unit
    ratio, twill = kind.uniform(0.8, 1.25), float(kind.chance(0.5))

    def upright(square: Size) -> Floats:
        y, x = np.mgrid[: square[0], : square[1]].astype(np.float32)
        sway = 0.25 * period * noise.smooth_noise(square, kind.rng, 30 * unit)
        warp = 2 * pi * (x + sway) / period
        weft = 2 * pi * (y + 0.6 * sway) / (period * ratio)
        over = np.sin((warp + twill * weft) / 2) * np.sin((weft - twill * warp) / 2)
        yarns = np.where(over > 0, np.cos(warp), np.cos(weft)) + 0.5 * over
        return as_field(yarns + 0.5 * noise.streaks(square, kind.rng, 25 * unit, 1.0 * unit))

    woven = normalised(rotated(size, kind.mostly_upright(), upright))
    return kind.uniform(0.03, 0.085) * woven + 0.012 * grain(size, kind.rng, 0.5)


def _board(size: Size, kind: Kind, unit: float) -> Floats:
    """Laminate with printed tracks and pads, raised a little above the ground."""
    ground = kind.uniform(0.008, 0.02) * fractal_noise(size, kind.rng, 5 * unit, decay=0.8)
    pitch, thick = kind.uniform(14, 32) * unit, kind.uniform(2.5, 6) * unit
    tracks = np.zeros(size, np.uint8)
    steps = np.array([[1, 0], [1, 1], [0, 1], [-1, 1], [1, -1]])
    for _ in range(int(kind.rng.integers(4, 13))):
        corners = kind.rng.uniform(0, [size[1], size[0]]) // pitch * pitch
        moves = steps[kind.rng.integers(0, len(steps), 4)] * kind.rng.integers(1, 6, (4, 1)) * pitch
        path = np.vstack([corners, corners + np.cumsum(moves, axis=0)]).astype(np.int32)
        cv2.polylines(tracks, [path], False, 255, max(int(thick), 1), cv2.LINE_AA)
        for x, y in path[[0, -1]].tolist():
            cv2.circle(tracks, (x, y), max(int(1.3 * thick), 1), 255, -1, cv2.LINE_AA)
    raised = tracks.astype(np.float32) / 255
    sign = -1 if kind.chance(0.5) else 1
    return as_field(ground + sign * kind.uniform(0.04, 0.15) * (raised - raised.mean()))


def _wood(size: Size, kind: Kind, unit: float) -> Floats:
    """Wavering growth rings and short dark pores."""
    ring, sway = kind.uniform(8, 30) * unit, kind.uniform(0.3, 1.6)

    def upright(square: Size) -> Floats:
        y = np.arange(square[0], dtype=np.float32)[:, None]
        hills = cv2.resize(
            noise.smooth_noise((square[0], square[1] // 4 + 1), kind.rng, 30 * unit), square[::-1]
        )
        phase = y / ring + sway * hills
        rings = (phase - np.floor(phase)) ** 2 - 0.33
        pores = np.maximum(noise.streaks(square, kind.rng, 9 * unit, 0.5 * unit) - 1.2, 0)
        return as_field(1.6 * rings - kind.uniform(0.4, 1.2) * pores)

    grown = rotated(size, kind.mostly_upright(), upright)
    return as_field(kind.uniform(0.04, 0.09) * (grown - grown.mean()) + 0.01 * grain(size, kind.rng, 0.5))


def _plastic(size: Size, kind: Kind, unit: float) -> Floats:
    """Moulded: embossed pebbles lit from one side, from fine grain to leather."""
    pebbles = np.abs(grain(size, kind.rng, kind.uniform(1.0, 3.5) * unit))
    lit = normalised(slope(pebbles, kind.any_angle()))
    return kind.uniform(0.008, 0.045) * lit + 0.01 * fractal_noise(size, kind.rng, 50 * unit)


def _sintered_magnet(size: Size, kind: Kind, unit: float) -> Floats:
    """Pressed powder: speckle at several scales and faint upright grinding lines."""
    speckle = fractal_noise(size, kind.rng, kind.uniform(3, 9) * unit, decay=0.85)
    clouds = fractal_noise(size, kind.rng, 60 * unit, octaves=3)
    upright = pi / 2 + kind.rng.normal(0, 0.02)
    grinding = partial(noise.streaks, rng=kind.rng, length=90 * unit, width=0.8 * unit)
    lines = rotated(size, upright, grinding)
    mixed = kind.uniform(0.012, 0.04) * speckle + kind.uniform(0.005, 0.03) * clouds
    return as_field(mixed + kind.uniform(0.008, 0.035) * lines)


def _ground_steel(size: Size, kind: Kind, unit: float) -> Floats:
    """Turned or ground: fine arcs about a far centre."""
    height, width = size
    far, angle = kind.uniform(0.2, 2.5) * height, kind.any_angle()
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot(x - width / 2 - far * np.cos(angle), y - height / 2 - far * np.sin(angle))
    table = noise.streaks((int(radius.max()) + 4, 1), kind.rng, 1, kind.uniform(0.6, 1.5) * unit)[:, 0]
    arcs = np.interp(radius.ravel(), np.arange(len(table)), table).reshape(size).astype(np.float32)
    broken = 0.65 + 0.35 * noise.smooth_noise(size, kind.rng, 30 * unit)
    return as_field(kind.uniform(0.015, 0.045) * arcs * broken + 0.012 * grain(size, kind.rng, 0.6))


SURFACES: Mapping[str, Surface] = {
    "brushed metal": _brushed_metal,
    "rolled metal": _rolled_metal,
    "ceramic tile": _ceramic_tile,
    "fabric": _fabric,
    "board": _board,
    "wood": _wood,
    "plastic": _plastic,
    "sintered magnet": _sintered_magnet,
    "ground steel": _ground_steel,
}
