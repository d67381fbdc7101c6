"""Families of liquids and of what they leave: oil spot, water spot, silk spot, rust."""

from math import pi

import numpy as np

from unispector.data.mini.marks import blend, bump, closed, eased, largest_piece, soft
from unispector.data.mini.noise import as_field, blurred, grain
from unispector.data.mini.shapes import depth, filled, outline, polygons, slope, step
from unispector.data.mini.site import Mark, Site


def oil_spot(at: Site) -> Mark:
    """A wet dark drop, smooth and glossy, with glints of the lamp, inside a paler halo that soaked in."""
    radius = at.radius
    stretch, size = at.uniform(1, 1.5), at.uniform(0.55, 0.8)
    spot = at.blob(stretch, 0.12, 0.012)
    drops = [at.outline(stretch, 0.08, reach=size)]
    for _ in range(int(at.rng.integers(0, 4))):
        length = at.uniform(0.4, 0.7) * radius
        beside = at.centre + step(length, at.uniform(0, 2 * pi))
        drops.append(beside + outline(at.rng, at.uniform(0.08, 0.2) * radius, 0.0))
    wet = polygons(at.size, drops) * spot
    soaked = eased(depth(spot) / (0.5 * (1 - size) * radius + 1))
    dull = at.reflectance * (1 - at.uniform(0.22, 0.42) * (0.6 + 0.4 * soaked))
    fringes = np.cos(2 * pi * depth(spot) / (at.uniform(2.6, 4.5) * at.unit))
    film = dull * (1 + at.uniform(0.0, 0.16) * fringes)
    dome = np.sqrt(np.clip(depth(wet) / (0.5 * size * radius), 0, 1))
    shade = slope(blurred(as_field(dome), 0.03 * radius + 0.6 * at.unit), at.light)
    oil = blurred(at.reflectance, 1.5 * at.unit) * at.uniform(0.3, 0.58) * (1 + 0.35 * shade)
    glint = np.clip((shade - 0.45) / 0.4, 0, 1) * at.uniform(0.3, 0.65)
    return blend(blend(at.reflectance, film, spot), oil + glint, wet), spot


def water_spot(at: Site) -> Mark:
    """A dried drop: a pale film with two to five thin concentric rims, strongest outside."""
    drop = at.blob(at.uniform(1, 1.4), 0.1)
    inner = blurred(depth(drop), 0.03 * at.extent)
    reach = max(float(inner.max()), 1.0)
    width = at.uniform(0.7, 1.3) * at.unit + 0.2
    count = int(np.clip(reach / (4 * width), 1, at.rng.integers(2, 6)))
    steps = (np.arange(count) + at.rng.uniform(-0.25, 0.25, count)) / count
    film = 0.12 + 0.1 * at.noise(0.3 * at.extent + 3)
    # Rims drift a little from the outline, and break where little was left to dry.
    drift = inner + 0.05 * reach * at.noise(0.3 * at.extent + 3)
    for part in steps.tolist():
        kept = np.clip(0.9 - 0.5 * part + 0.45 * at.noise(0.25 * at.extent + 3), 0.1, 1.2)
        film += kept * bump(drift - (1.3 * width + max(part, 0.0) * 0.85 * reach), width)
    change = at.contrast(drop, 2.6, 5.5)
    if at.tone(drop) > 0.8:
        change = -change
    return at.reflectance + change * film * drop, drop


def silk_spot(at: Site) -> Mark:
    """A zone of fine, wavy, parallel silk-like streaks that fade towards its ends."""
    narrow = at.uniform(1.4, 3.2)
    zone = at.blob(narrow, 0.12, 0.015)
    along, across = at.axes()
    waves = at.uniform(0.02, 0.05) * at.extent / narrow
    length = at.uniform(0.25, 0.6) * at.extent + 4
    sway = waves * np.sin(2 * pi * along / length + at.uniform(0, 2 * pi))
    sway += 0.6 * waves * np.sin(2 * pi * (0.43 * along + 0.2 * across) / length + at.uniform(0, 2 * pi))
    threads = max(int(1.6 * at.extent / at.unit), 8)
    silk = grain((1, threads), at.rng, at.uniform(0.45, 0.85))[0]
    streak = np.interp((across + sway) / (0.65 * at.unit) + threads / 2, np.arange(threads), silk)
    broken = np.clip(0.75 + 0.5 * at.noise(16 * at.unit), 0.1, 1.5)
    fade = eased(depth(zone) / (0.16 * at.extent / narrow + 1))
    change = at.signed_contrast(zone, 1.2, 2.6)
    return at.reflectance + change * (0.25 + 0.75 * fade) * (0.35 + streak * broken) * zone, zone


def rust(at: Site) -> Mark:
    """A corroded patch: mottled and granular darkening with crusts, its edge feathered into specks."""
    along, across = at.axes()
    distance = np.hypot(along, across * at.uniform(1, 1.8)) / at.radius
    strength = as_field(0.86 - distance + 0.2 * at.fractal(0.35 * at.extent + 4, 0.7, octaves=5))
    patch = largest_piece(closed(filled(blurred(strength, 0.7) * 0.5 * at.radius), 4 * at.unit))
    mottle = at.fractal(7 * at.unit, 0.85)
    grit = at.grain(0.8 * at.unit)
    bite = np.clip(0.3 + 1.2 * strength + 0.3 * mottle + 0.22 * grit, 0, 1)
    crust = np.clip(mottle + 0.5 * grit - 1.1, 0, 1) * eased(3 * strength)
    darkened = at.reflectance * (1 - at.uniform(0.4, 0.75) * bite) + at.uniform(0.05, 0.3) * crust
    return blend(at.reflectance, darkened + 0.02 * grit, soft(patch, 0.5)), patch
