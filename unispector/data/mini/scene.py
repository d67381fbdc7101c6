"""A sound part before any defect: surface, outline of the part, and harmless features on it.

The harmless features (grooves, drilled holes, printed marks, dust, shadows) keep the task from being
"find anything unusual".
"""

from dataclasses import dataclass
from math import pi

import cv2
import numpy as np

from unispector.data.mini.kind import Kind
from unispector.data.mini.noise import Field, Floats, Size, as_field, smooth_noise
from unispector.data.mini.shapes import depth, dots, local_axes, polygons, step, turned
from unispector.data.mini.textures import SURFACES

MARKS = ("26", "A7", "OK", "XR-3", "B/14", "+", "0451", "N", "8H", "T12")


@dataclass(frozen=True)
class Scene:
    """A part in its own light, before lamp and camera."""

    reflectance: Field  # [h, w], about 0..1
    part: Field  # [h, w] in 0..1, how much of a pixel the part covers; the rest is background
    void: float  # reflectance of the background
    light: float  # direction the light comes from, radians
    unit: float  # size of one design pixel (image size / 256), in pixels

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        height, width = self.reflectance.shape
        return height, width


def build_scene(kind: Kind, surface: str | None, size: Size, unit: float) -> Scene:
    """A random sound part of a kind, on one of `SURFACES`; None = the kind's."""
    rng = kind.rng
    texture = SURFACES[surface or kind.choice(list(SURFACES))]
    light = kind.any_angle()
    tone = kind.uniform(0.28, 0.72)
    void = kind.uniform(0.03, 0.12) if kind.chance(0.8) else kind.uniform(0.8, 0.95)
    part = _part(kind, size)
    reflectance = as_field(tone + as_field(texture(size, kind, unit)))
    for chance, feature in ((0.3, _grooves), (0.14, _drilled_holes), (0.25, _printed_mark), (0.5, _dust)):
        # Half of the kinds never have it.
        if kind.chance(0.5) and rng.random() < 2 * chance:
            reflectance = as_field(feature(rng, reflectance, unit))
    if rng.random() < 0.5:
        shadow = 1 + rng.uniform(0.03, 0.1) * smooth_noise(size, rng, 80 * unit)
        reflectance = as_field(reflectance * shadow)
    bevel = part - np.clip(depth(part) / (rng.uniform(1.5, 5) * unit), 0, 1) if part.min() < 0.5 else 0.0
    bevelled = reflectance * (1 + rng.uniform(-0.4, 0.3) * bevel)
    seen = np.clip(bevelled, 0.04, 1.0) * part + np.float32(void) * (1 - part)
    return Scene(as_field(seen), part, void, light, unit)


def _part(kind: Kind, size: Size) -> Field:
    """Outline of the part: fills the frame, as in a close view, or ends at all or some of the sides."""
    rng = kind.rng
    height, width = size
    whole = kind.chance(0.25)
    if rng.random() < (0.35 if whole else 0.55):
        return np.ones(size, np.float32)
    insets = rng.uniform(0.03, 0.11, 4)
    if not whole:
        insets = np.where(rng.random(4) < 0.4, insets, -0.3)
    left, top, right, bottom = insets * [width, height, width, height]
    arch = rng.normal(0, 0.02, 4) * [height, width, height, width]
    turns = np.sin(np.linspace(0, pi, 24))
    across = np.linspace(left, width - right, 24)
    down = np.linspace(top, height - bottom, 24)
    sides = [
        [across, top + arch[0] * turns],
        [width - right + arch[1] * turns, down],
        [across[::-1], height - bottom + arch[2] * turns],
        [left + arch[3] * turns, down[::-1]],
    ]
    middle = np.array([width / 2, height / 2])
    corners = np.hstack(sides).T - middle
    return polygons(size, [middle + turned(corners, rng.normal(0, 0.02))])


def _grooves(rng: np.random.Generator, reflectance: Field, unit: float) -> Floats:
    """Straight machined grooves that cross the whole image, evenly spaced."""
    angle = float(rng.choice([0, pi / 2]) + rng.normal(0, 0.03))
    height, width = reflectance.shape
    middle = np.array([width / 2, height / 2])
    _, across = local_axes((height, width), middle + rng.normal(0, 0.2 * width, 2), angle)
    spacing, half = rng.uniform(30, 90) * unit, rng.uniform(0.8, 3.0) * unit
    count = int(rng.integers(1, 4))
    offset = np.abs(across - spacing * np.clip(np.rint(across / spacing), 0, count - 1))
    groove = np.clip(half + 0.5 - offset, 0, 1)
    lip = np.clip(1 - np.abs(offset - half - 1.0), 0, 1)
    return as_field(reflectance * (1 - rng.uniform(0.25, 0.6) * groove + rng.uniform(0, 0.3) * lip))


def _drilled_holes(rng: np.random.Generator, reflectance: Field, unit: float) -> Floats:
    """One to three equal, countersunk, perfectly round holes in a row."""
    height, width = reflectance.shape
    radius = rng.uniform(6, 13) * unit
    first = rng.uniform([2 * radius] * 2, [width - 2 * radius, height - 2 * radius])
    to_next = step(rng.uniform(3, 6) * radius, float(rng.choice([0, pi / 2])))
    for index in range(int(rng.integers(1, 4))):
        along, across = local_axes((height, width), first + index * to_next, 0.0)
        distance = np.hypot(along, across)
        sunk = np.clip(radius * 1.45 + 0.5 - distance, 0, 1)
        bore = np.clip(radius + 0.5 - distance, 0, 1)
        countersunk = reflectance * (1 - sunk) + (0.8 * reflectance + 0.12 * across / radius) * sunk
        reflectance = as_field(countersunk * (1 - bore) + 0.06 * bore)
    return reflectance


def _printed_mark(rng: np.random.Generator, reflectance: Field, unit: float) -> Floats:
    """A short printed code, stamped darker or lighter than the ground."""
    height, width = reflectance.shape
    ink = np.zeros((height, width), np.uint8)
    text = str(rng.choice(MARKS))
    place = (int(rng.uniform(0.05, 0.65) * width), int(rng.uniform(0.2, 0.95) * height))
    scale, thick = rng.uniform(0.5, 1.4) * unit, max(round(rng.uniform(1, 2.5) * unit), 1)
    cv2.putText(ink, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    worn = np.clip(0.85 + 0.25 * smooth_noise((height, width), rng, 6 * unit), 0, 1)
    return as_field(reflectance + rng.choice([-1, 1]) * rng.uniform(0.06, 0.3) * worn * (ink / 255.0))


def _dust(rng: np.random.Generator, reflectance: Field, unit: float) -> Floats:
    """Specks of about a pixel, smaller than any defect that counts."""
    height, width = reflectance.shape
    count = int(rng.integers(4, 40))
    centres = rng.uniform(0, [width, height], (count, 2))
    specks = dots((height, width), centres, rng.uniform(0.3, 0.9, count) * min(unit, 1.2))
    return as_field(reflectance + rng.choice([-1, 1]) * rng.uniform(0.08, 0.3) * specks)
