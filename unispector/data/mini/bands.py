"""Families that run on, up to all across the part: uneven, reground, weld line, crease, rolled pit."""

from math import pi

import numpy as np

from unispector.data.mini.marks import (
    Mark,
    Site,
    blend,
    contrast,
    eased,
    ground_of,
    shifted,
    signed_contrast,
)
from unispector.data.mini.noise import (
    Field,
    as_field,
    blurred,
    grain,
    mostly_upright,
    rotated,
    smooth_noise,
    streaks,
)
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Outline, Plate, filled, local_axes, outline, turned


def uneven(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A band all across the part, faintly darker or brighter, its own texture weaker or stronger in it."""
    inside, border, _ = _crossing(scene, rng, site)
    # The mask ends where a fifth of the change is left.
    zone = filled(inside - 0.28 * border)
    change = signed_contrast(scene, rng, zone, 0.8, 2.6)
    clouds = 1 + 0.18 * smooth_noise(scene.size, rng, 0.15 * min(scene.size))
    texture = np.clip(scene.reflectance - ground_of(scene, 3 * scene.unit), -0.15, 0.15)
    stronger = float(rng.choice([rng.uniform(-0.9, -0.3), 0.0, rng.uniform(0.4, 1.6)]))
    seen = scene.reflectance + (change * clouds + stronger * texture) * eased(inside / border)
    return Mark(as_field(seen), zone)


def reground(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A band all across the part that was ground again: lines of another direction, spacing and depth."""
    inside, border, angle = _crossing(scene, rng, site)
    zone = filled(inside - 0.28 * border)
    length, width = np.exp(rng.uniform(np.log([12, 0.35]), np.log([120, 1.1]))) * scene.unit
    turn = angle + float(rng.choice([0.0, pi / 2, rng.uniform(0, pi)]) + rng.normal(0, 0.05))
    lines = rotated(scene.size, turn, lambda square: streaks(square, rng, length, width))
    depth_of_lines = contrast(scene, rng, zone, 0.8, 1.8)
    shade = 0.3 * depth_of_lines * rng.standard_normal()
    ground = ground_of(scene, 2.5 * scene.unit)
    kept = rng.uniform(0, 0.5) * (scene.reflectance - ground)
    return Mark(
        blend(scene.reflectance, ground + kept + depth_of_lines * lines + shade, eased(inside / border)), zone
    )


def _crossing(scene: Scene, rng: np.random.Generator, site: Site) -> tuple[Field, float, float]:
    """A straight or wavy band as wide as the site's extent that runs on to both ends of the part.

    Returns:
        Distance of every pixel to its outline (pixels, positive inside; [h, w]), width of its soft or hard
        border in pixels, and its direction in radians.
    """
    side = min(scene.size)
    angle = float(rng.choice([0.0, pi / 2]) + rng.normal(0, 0.04))
    along, across = local_axes(scene.size, site.centre, angle)
    half = 0.5 * site.extent
    wave = rng.uniform(0.5, 2.0) * side
    sway = rng.choice([0.0, rng.uniform(0.05, 0.5)]) * half * np.sin(2 * pi * along / wave)
    ragged = rng.uniform(0, 0.06) * half * smooth_noise(scene.size, rng, 0.06 * side + 3)
    border = float(np.exp(rng.uniform(np.log(0.02), np.log(0.9)))) * half
    return as_field(half - np.abs(across + sway + ragged)), min(border + 0.7, 40 * scene.unit), angle


def weld_line(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A straight seam: a band of even width with a bright or dark bead, rippled, between two dark toes."""
    along, across = local_axes(scene.size, site.centre, mostly_upright(rng))
    wobble = smooth_noise(scene.size, rng, 6 * scene.unit)
    half = rng.uniform(2.6, 8.0) * scene.unit
    inside = np.minimum(half * (1 + 0.06 * wobble) - np.abs(across), 0.5 * site.extent - np.abs(along))
    seam = filled(inside)
    share = np.clip(across / half, -1, 1)
    period = rng.uniform(0.45, 0.9) * half + 2 * scene.unit
    ripples = np.cos(2 * pi * (along + rng.choice([-1, 1]) * 0.8 * half * share**2) / period)
    change = signed_contrast(scene, rng, seam, 1.4, 4.0)
    bead = change * (1 - share**4) + rng.uniform(0.15, 0.5) * abs(change) * ripples * (1 - share**2)
    toes = rng.uniform(0.3, 0.9) * abs(change) * np.exp(-(((np.abs(share) - 0.88) / 0.16) ** 2))
    smooth = blurred(scene.reflectance, 0.8 * scene.unit)
    return Mark(blend(scene.reflectance, smooth + bead - toes, seam), seam)


def crease(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A long sharp fold, straight or zigzag: one flank light, the other dark, a thin line between."""
    along, across = local_axes(scene.size, site.centre, site.angle)
    corners = int(rng.choice([2, 2, 3, 4, 5, 7]))
    turns = np.linspace(-0.5, 0.5, corners) + rng.uniform(-0.15, 0.15, corners) / corners
    zigzag = rng.uniform(0.1, 0.22) if corners > 2 else 0.0
    rises = zigzag / (corners - 1) * (-1.0) ** np.arange(corners) * rng.uniform(0.6, 1.4, corners)
    line = np.interp(along, turns * site.extent, rises * site.extent)
    slant = np.cos(np.arctan(2 * zigzag))
    offset = (across - line) * slant
    half = rng.uniform(2.2, 5.5) * scene.unit
    taper = np.sqrt(np.clip(1.06 - np.abs(2 * along / site.extent) ** 4, 0, 1))
    inside = np.minimum(half * taper - np.abs(offset), 0.5 * site.extent - np.abs(along))
    fold = filled(inside)
    facing = 1.0 if np.sin(scene.light - site.angle) > 0 else -1.0
    flanks = np.tanh(facing * offset / (0.5 * scene.unit)) * np.clip(1 - np.abs(offset) / (half + 0.5), 0, 1)
    amount = contrast(scene, rng, fold, 2.4, 5.5)
    worn = np.clip(1 + 0.2 * smooth_noise(scene.size, rng, 14 * scene.unit), 0.5, 1.4)
    ridge = rng.choice([-0.8, 0.6]) * np.exp(-((offset / (0.6 * scene.unit)) ** 2))
    return Mark(as_field(scene.reflectance + amount * worn * (flanks + ridge) * fold), fold)


def rolled_pit(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A row of equal small pits at even distance, pressed in by a roll, on a faint track."""
    radius = rng.uniform(1.6, 3.6) * scene.unit
    pitch = radius * rng.uniform(3.0, 5.5)
    count = max(int(site.extent / pitch), 3)
    steps = (np.arange(count) - (count - 1) / 2) * pitch
    rows = np.stack([steps, 0.12 * radius * rng.standard_normal(count)], axis=1)
    places = site.centre + turned(rows, site.angle)
    shape = Outline(rng.uniform(1.0, 1.7), 0.1, 0.02)
    plate = Plate(scene.size)
    for place in places:
        plate.polygon(outline(rng, place, radius * rng.uniform(0.85, 1.15), site.angle, shape))
    pits = plate.coverage()
    along, across = local_axes(scene.size, site.centre, site.angle)
    overrun = np.maximum(np.abs(along) - abs(float(steps[0])), 0)
    half = rng.uniform(1.3, 1.9) * radius
    track = filled(half - np.hypot(overrun, across))
    shine = signed_contrast(scene, rng, track, 0.5, 1.1)
    polished = blurred(scene.reflectance, 0.8) + shine + 0.01 * grain(scene.size, rng, 0.6)
    toward = 0.7 * radius
    floor = shifted(pits, toward * np.cos(scene.light), toward * np.sin(scene.light))
    wall = rng.uniform(0.1, 0.4) * pits * (1 - floor)
    rolled = blend(scene.reflectance, polished, track)
    return Mark(as_field(rolled * (1 - rng.uniform(0.45, 0.85) * pits) + wall), track)
