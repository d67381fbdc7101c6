"""Families of liquids and of what they leave: oil spot, water spot, silk spot, rust."""

from math import pi

import numpy as np

from unispector.data.mini.marks import (
    Mark,
    Site,
    blend,
    closed,
    contrast,
    eased,
    largest_piece,
    signed_contrast,
    soft,
    tone_below,
)
from unispector.data.mini.noise import as_field, blurred, fractal_noise, grain, smooth_noise
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Outline, Plate, depth, filled, local_axes, outline, slope, turned


def oil_spot(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A wet dark drop, smooth and glossy, with glints of the lamp, inside a paler halo that soaked in."""
    radius = site.extent / 2
    halo, drop = Plate(scene.size), Plate(scene.size)
    stretch, size = rng.uniform(1, 1.5), rng.uniform(0.55, 0.8)
    halo.polygon(outline(rng, site.centre, radius, site.angle, Outline(stretch, 0.12, 0.012)))
    drop.polygon(outline(rng, site.centre, size * radius, site.angle, Outline(stretch, 0.08)))
    for _ in range(int(rng.integers(0, 4))):
        beside = site.centre + turned(
            np.array([[rng.uniform(0.4, 0.7) * radius, 0.0]]), rng.uniform(0, 2 * pi)
        )
        drop.polygon(outline(rng, beside[0], rng.uniform(0.08, 0.2) * radius, 0.0, Outline()))
    spot = halo.coverage()
    wet = drop.coverage() * spot
    soaked = eased(depth(spot) / (0.5 * (1 - size) * radius + 1))
    dull = scene.reflectance * (1 - rng.uniform(0.22, 0.42) * (0.6 + 0.4 * soaked))
    fringes = np.cos(2 * pi * depth(spot) / (rng.uniform(2.6, 4.5) * scene.unit))
    film = dull * (1 + rng.uniform(0.0, 0.16) * fringes)
    dome = np.sqrt(np.clip(depth(wet) / (0.5 * size * radius), 0, 1))
    shade = slope(blurred(as_field(dome), 0.03 * radius + 0.6 * scene.unit), scene.light)
    oil = blurred(scene.reflectance, 1.5 * scene.unit) * rng.uniform(0.3, 0.58) * (1 + 0.35 * shade)
    glint = np.clip((shade - 0.45) / 0.4, 0, 1) * rng.uniform(0.3, 0.65)
    return Mark(blend(blend(scene.reflectance, film, spot), oil + glint, wet), spot)


def water_spot(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A dried drop: a pale film with two to five thin concentric rims, strongest outside."""
    radius = site.extent / 2
    plate = Plate(scene.size)
    plate.polygon(outline(rng, site.centre, radius, site.angle, Outline(rng.uniform(1, 1.4), 0.1)))
    drop = plate.coverage()
    inner = blurred(depth(drop), 0.03 * site.extent)
    reach = max(float(inner.max()), 1.0)
    width = rng.uniform(0.7, 1.3) * scene.unit + 0.2
    count = int(np.clip(reach / (4 * width), 1, rng.integers(2, 6)))
    steps = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count
    film = 0.12 + 0.1 * smooth_noise(scene.size, rng, 0.3 * site.extent + 3)
    # Rims drift a little from the outline, and break where little was left to dry.
    drift = inner + 0.05 * reach * smooth_noise(scene.size, rng, 0.3 * site.extent + 3)
    for step in steps.tolist():
        kept = np.clip(
            0.9 - 0.5 * step + 0.45 * smooth_noise(scene.size, rng, 0.25 * site.extent + 3), 0.1, 1.2
        )
        place = 1.3 * width + max(step, 0.0) * 0.85 * reach
        film += kept * np.exp(-(((drift - place) / width) ** 2))
    change = contrast(scene, rng, drop, 2.6, 5.5)
    if tone_below(scene, drop) > 0.8:
        change = -change
    return Mark(as_field(scene.reflectance + change * film * drop), drop)


def silk_spot(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A zone of fine, wavy, parallel silk-like streaks that fade towards its ends."""
    narrow = rng.uniform(1.4, 3.2)
    plate = Plate(scene.size)
    plate.polygon(outline(rng, site.centre, site.extent / 2, site.angle, Outline(narrow, 0.12, 0.015)))
    zone = plate.coverage()
    along, across = local_axes(scene.size, site.centre, site.angle)
    waves = rng.uniform(0.02, 0.05) * site.extent / narrow
    length = rng.uniform(0.25, 0.6) * site.extent + 4
    sway = waves * np.sin(2 * pi * along / length + rng.uniform(0, 2 * pi))
    sway += 0.6 * waves * np.sin(2 * pi * (0.43 * along + 0.2 * across) / length + rng.uniform(0, 2 * pi))
    threads = max(int(1.6 * site.extent / scene.unit), 8)
    silk = grain((1, threads), rng, rng.uniform(0.45, 0.85))[0]
    where = (across + sway) / (0.65 * scene.unit) + threads / 2
    streak = np.interp(where, np.arange(threads), silk)
    broken = np.clip(0.75 + 0.5 * smooth_noise(scene.size, rng, 16 * scene.unit), 0.1, 1.5)
    fade = eased(depth(zone) / (0.16 * site.extent / narrow + 1))
    change = signed_contrast(scene, rng, zone, 1.2, 2.6)
    return Mark(
        as_field(scene.reflectance + change * (0.25 + 0.75 * fade) * (0.35 + streak * broken) * zone), zone
    )


def rust(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A corroded patch: mottled and granular darkening with crusts, its edge feathered into specks."""
    radius = site.extent / 2
    along, across = local_axes(scene.size, site.centre, site.angle)
    distance = np.hypot(along, across * rng.uniform(1, 1.8)) / radius
    eaten = fractal_noise(scene.size, rng, 0.35 * site.extent + 4, octaves=5, decay=0.7)
    strength = as_field(0.86 - distance + 0.2 * eaten)
    patch = largest_piece(closed(filled(blurred(strength, 0.7) * 0.5 * radius), 4 * scene.unit))
    mottle = fractal_noise(scene.size, rng, 7 * scene.unit, decay=0.85)
    grit = grain(scene.size, rng, 0.8 * scene.unit)
    bite = np.clip(0.3 + 1.2 * strength + 0.3 * mottle + 0.22 * grit, 0, 1)
    crust = np.clip(mottle + 0.5 * grit - 1.1, 0, 1) * eased(3 * strength)
    darkened = scene.reflectance * (1 - rng.uniform(0.4, 0.75) * bite) + rng.uniform(0.05, 0.3) * crust
    return Mark(blend(scene.reflectance, darkened + 0.02 * grit, soft(patch, 0.5)), patch)
