"""Families that run on, up to all across the part: uneven, reground, weld line, crease, rolled pit."""

from math import pi

import numpy as np

from unispector.data.mini.marks import blend, bump, eased, shifted
from unispector.data.mini.noise import Field, as_field, blurred, mostly_upright
from unispector.data.mini.shapes import filled, outline, polygons, turned
from unispector.data.mini.site import Mark, Site


def uneven(at: Site) -> Mark:
    """A band all across the part, faintly darker or brighter, its own texture weaker or stronger in it."""
    inside, border, _ = _crossing(at)
    # The mask ends where a fifth of the change is left.
    zone = filled(inside - 0.28 * border)
    change = at.signed_contrast(zone, 0.8, 2.6)
    clouds = 1 + 0.18 * at.noise(0.15 * min(at.size))
    texture = np.clip(at.reflectance - at.ground(3 * at.unit), -0.15, 0.15)
    stronger = float(at.rng.choice([at.uniform(-0.9, -0.3), 0.0, at.uniform(0.4, 1.6)]))
    return at.reflectance + (change * clouds + stronger * texture) * eased(inside / border), zone


def reground(at: Site) -> Mark:
    """A band all across the part that was ground again: lines of another direction, spacing and depth."""
    inside, border, angle = _crossing(at)
    zone = filled(inside - 0.28 * border)
    length, width = np.exp(at.rng.uniform(np.log([12, 0.35]), np.log([120, 1.1]))) * at.unit
    turn = angle + float(at.rng.choice([0.0, pi / 2, at.uniform(0, pi)]) + at.rng.normal(0, 0.05))
    lines = at.streaks(turn, length, width)
    depth_of_lines = at.contrast(zone, 0.8, 1.8)
    shade = 0.3 * depth_of_lines * at.rng.standard_normal()
    ground = at.ground(2.5 * at.unit)
    kept = at.uniform(0, 0.5) * (at.reflectance - ground)
    cut = ground + kept + depth_of_lines * lines + shade
    return blend(at.reflectance, cut, eased(inside / border)), zone


def _crossing(at: Site) -> tuple[Field, float, float]:
    """A straight or wavy band as wide as the site's extent that runs on to both ends of the part.

    Returns distance of every pixel to its outline (pixels, positive inside; [h, w]), width of its soft or
    hard border in pixels, and its direction in radians.
    """
    side = min(at.size)
    angle = float(at.rng.choice([0.0, pi / 2]) + at.rng.normal(0, 0.04))
    along, across = at.axes(angle)
    half = 0.5 * at.extent
    wave = at.uniform(0.5, 2.0) * side
    sway = at.rng.choice([0.0, at.uniform(0.05, 0.5)]) * half * np.sin(2 * pi * along / wave)
    ragged = at.uniform(0, 0.06) * half * at.noise(0.06 * side + 3)
    border = at.log_uniform(0.02, 0.9) * half
    return as_field(half - np.abs(across + sway + ragged)), min(border + 0.7, 40 * at.unit), angle


def weld_line(at: Site) -> Mark:
    """A straight seam: a band of even width with a bright or dark bead, rippled, between two dark toes."""
    along, across = at.axes(mostly_upright(at.rng))
    wobble = at.noise(6 * at.unit)
    half = at.uniform(2.6, 8.0) * at.unit
    seam = filled(np.minimum(half * (1 + 0.06 * wobble) - np.abs(across), 0.5 * at.extent - np.abs(along)))
    share = np.clip(across / half, -1, 1)
    period = at.uniform(0.45, 0.9) * half + 2 * at.unit
    ripples = np.cos(2 * pi * (along + at.sign() * 0.8 * half * share**2) / period)
    change = at.signed_contrast(seam, 1.4, 4.0)
    bead = change * (1 - share**4) + at.uniform(0.15, 0.5) * abs(change) * ripples * (1 - share**2)
    toes = at.uniform(0.3, 0.9) * abs(change) * bump(np.abs(share) - 0.88, 0.16)
    return blend(at.reflectance, blurred(at.reflectance, 0.8 * at.unit) + bead - toes, seam), seam


def crease(at: Site) -> Mark:
    """A long sharp fold, straight or zigzag: one flank light, the other dark, a thin line between."""
    along, across = at.axes()
    corners = int(at.rng.choice([2, 2, 3, 4, 5, 7]))
    turns = np.linspace(-0.5, 0.5, corners) + at.rng.uniform(-0.15, 0.15, corners) / corners
    zigzag = at.uniform(0.1, 0.22) if corners > 2 else 0.0
    rises = zigzag / (corners - 1) * (-1.0) ** np.arange(corners) * at.rng.uniform(0.6, 1.4, corners)
    line = np.interp(along, turns * at.extent, rises * at.extent)
    offset = (across - line) * np.cos(np.arctan(2 * zigzag))
    half = at.uniform(2.2, 5.5) * at.unit
    taper = np.sqrt(np.clip(1.06 - np.abs(2 * along / at.extent) ** 4, 0, 1))
    fold = filled(np.minimum(half * taper - np.abs(offset), 0.5 * at.extent - np.abs(along)))
    facing = 1.0 if np.sin(at.light - at.angle) > 0 else -1.0
    flanks = np.tanh(facing * offset / (0.5 * at.unit)) * np.clip(1 - np.abs(offset) / (half + 0.5), 0, 1)
    amount = at.contrast(fold, 2.4, 5.5)
    worn = np.clip(1 + 0.2 * at.noise(14 * at.unit), 0.5, 1.4)
    ridge = at.rng.choice([-0.8, 0.6]) * bump(offset, 0.6 * at.unit)
    return at.reflectance + amount * worn * (flanks + ridge) * fold, fold


def rolled_pit(at: Site) -> Mark:
    """A row of equal small pits at even distance, pressed in by a roll, on a faint track."""
    radius = at.uniform(1.6, 3.6) * at.unit
    pitch = radius * at.uniform(3.0, 5.5)
    count = max(int(at.extent / pitch), 3)
    steps = (np.arange(count) - (count - 1) / 2) * pitch
    rows = np.stack([steps, 0.12 * radius * at.rng.standard_normal(count)], axis=1)
    elongation = at.uniform(1.0, 1.7)
    outlines = [
        place + outline(at.rng, radius * at.uniform(0.85, 1.15), at.angle, elongation, 0.1, 0.02)
        for place in at.centre + turned(rows, at.angle)
    ]
    pits = polygons(at.size, outlines)
    along, across = at.axes()
    overrun = np.maximum(np.abs(along) - abs(float(steps[0])), 0)
    track = filled(at.uniform(1.3, 1.9) * radius - np.hypot(overrun, across))
    shine = at.signed_contrast(track, 0.5, 1.1)
    polished = blurred(at.reflectance, 0.8) + shine + 0.01 * at.grain(0.6)
    floor = shifted(pits, 0.7 * radius, at.light)
    wall = at.uniform(0.1, 0.4) * pits * (1 - floor)
    rolled = blend(at.reflectance, polished, track)
    return rolled * (1 - at.uniform(0.45, 0.85) * pits) + wall, track
