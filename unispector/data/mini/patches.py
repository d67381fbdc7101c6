"""Families that change a patch of the surface.

Stain, burn, smear, chatter, pitting, abrasion, scale and dent; of liquids oil, water and silk spot, and rust.
"""

from math import pi

import cv2
import numpy as np

from unispector.data.mini import shapes
from unispector.data.mini.marks import blend, bump, closed, eased, largest_piece, soft
from unispector.data.mini.noise import as_field, blurred, grain, normalised
from unispector.data.mini.shapes import depth, filled, outline, polygons, slope, step, turned
from unispector.data.mini.site import Mark, Site


def stain(at: Site) -> Mark:
    """A dried liquid: flat tint with a stronger tide line at its rim; the texture shows through."""
    outlines = [at.outline(at.uniform(1, 1.8), 0.22, reach=0.75)]
    for _ in range(int(at.rng.integers(0, 4))):
        length = at.uniform(0.3, 0.6) * at.radius
        nearby = at.centre + step(length, at.uniform(0, 2 * pi))
        outlines.append(nearby + outline(at.rng, at.uniform(0.25, 0.5) * at.radius, 0.0, 1.2, 0.2))
    wet = soft(polygons(at.size, outlines), at.uniform(0.7, 2.0) * at.unit)
    rim = np.exp(-depth(wet) / (at.uniform(1.2, 3.0) * at.unit))
    tint = at.uniform(0.25, 0.6) + 0.12 * at.noise(0.3 * at.extent + 3)
    change = at.signed_contrast(wet, 1.6, 4.5)
    return at.reflectance + change * wet * np.maximum(tint, rim), wet


def burn(at: Site) -> Mark:
    """Scorched: charred grainy core that fades outwards through a dark halo."""
    blob = at.blob(at.uniform(1, 1.7), 0.15, 0.03)
    inner = depth(soft(blob, 1.0))
    reach = max(float(inner.max()), 1.0)
    flicker = at.fractal(0.25 * at.extent + 3, 0.8) * (inner > 0)
    heat = np.clip(inner / reach + 0.16 * flicker, 0, 1)
    core = np.clip((heat - at.uniform(0.35, 0.55)) / 0.15, 0, 1)
    scorch = at.uniform(0.35, 0.75)
    ash = np.clip(1 - np.abs(heat - 0.35) / 0.08, 0, 1) * at.rng.choice([0.0, 0.12])
    halo = at.reflectance * (1 - scorch * np.sqrt(np.maximum(heat, 0.5 * inner / reach))) + ash
    char = np.clip(0.09 + 0.045 * at.grain(0.8 * at.unit), 0.02, 0.4)
    return blend(at.reflectance, blend(halo, char, core * at.uniform(0.6, 1.0)), blob), blob


def smear(at: Site) -> Mark:
    """A wiped trail: fine parallel streaks that fade and end raggedly on one side."""
    along, across = at.axes()
    across = across + np.float32(at.uniform(-0.5, 0.5)) * along**2 / np.float32(at.extent)
    half = at.uniform(0.1, 0.25) * at.extent + 2 * at.unit
    knots = int(2 * half / at.unit) + 8
    where = np.clip((across / half + 1) / 2, 0, 1) * (knots - 1)
    fine = grain((1, knots), at.rng, 0.7)[0]
    ends = np.cumsum(at.rng.normal(0, 0.05, knots)) + at.rng.normal(0, 0.05, knots)
    reach = np.clip(0.8 + ends - ends.mean(), 0.4, 1.0)
    streak, stop = (np.interp(where, np.arange(knots), line) for line in (fine, reach))
    travel = along / at.extent + 0.5
    width = half * np.sqrt(np.clip(travel / at.uniform(0.05, 0.4), 0, 1))
    begun = np.clip(travel * at.extent + 0.5, 0, 1)
    ended = np.clip((stop - travel) * at.extent + 0.5, 0, 1)
    trail = as_field(np.clip(width + 0.5 - np.abs(across), 0, 1) * begun * ended)
    change = at.signed_contrast(trail, 1.4, 4.2)
    fade = 1 - 0.55 * np.clip(travel, 0, 1)
    body = blurred(at.reflectance, 1.3 * at.unit) + change * fade * np.clip(0.65 + 0.4 * streak, 0.05, 1.5)
    return blend(at.reflectance, body, trail), trail


def chatter(at: Site) -> Mark:
    """Tool chatter: a patch of regular, crisp, closely spaced parallel bars."""
    half_wide = at.extent * at.uniform(0.15, 0.4)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [at.radius, half_wide]
    corners[:, 0] += at.uniform(-0.5, 0.5) * corners[:, 1]
    patch = polygons(at.size, [at.centre + turned(corners, at.angle)])
    along, across = at.axes()
    period = at.uniform(3.6, 7.5) * at.unit
    arc = at.uniform(-0.8, 0.8) * across**2 / np.float32(at.extent)
    bars = np.tanh(2.5 * np.cos(2 * pi * (along + arc) / period))
    change = at.contrast(patch, 1.2, 3.4)
    strength = np.clip(1 + 0.25 * at.noise(0.4 * at.extent + 4), 0.5, 1.4)
    bias = at.rng.choice([-0.4, 0.0, 0.4])
    return blend(at.reflectance, at.reflectance + change * strength * (bars + bias), patch), patch


def pitting(at: Site) -> Mark:
    """A cluster of pits or pores, few and large or many and tiny, thinning out; the mask holds them all."""
    spacing = min(at.log_uniform(3.4, 9.0) * at.unit, at.extent / 5)
    reach = int(at.extent / spacing / 2) + 1
    cells = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    spots = cells * spacing + at.rng.uniform(-0.42, 0.42, cells.shape) * spacing
    turns = np.arctan2(spots[:, 1], spots[:, 0])
    limit = at.radius * (0.85 + 0.15 * np.sin(3 * turns + at.uniform(0, 2 * pi)))
    distance = np.hypot(spots[:, 0], spots[:, 1] * at.uniform(1, 1.9)) / np.maximum(limit, 0.8 * spacing)
    spots = spots[(distance < 1) & (at.rng.random(len(spots)) > at.uniform(0.1, 0.5) * distance)]
    sizes = at.uniform(0.2, 0.32) * spacing * at.rng.lognormal(0, 0.4, len(spots))
    pits = shapes.dots(at.size, at.centre + turned(spots, at.angle), np.clip(sizes, 0.7, 0.5 * spacing))
    grown = as_field(cv2.dilate(pits, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))))
    ground = largest_piece(soft(closed(grown, 2.4 * spacing), 0.7))
    dull = at.reflectance * (1 - at.uniform(0.0, 0.14) * ground)
    deep = np.clip(at.uniform(0.25, 0.85) * (1 + 0.3 * at.noise(spacing)), 0.1, 0.95)
    return dull * (1 - deep * pits * ground), ground


def abrasion(at: Site) -> Mark:
    """A patch of another texture and the same grey: finer or coarser, directed or not, stronger or weaker."""
    blob = at.blob(at.uniform(1, 2.6), 0.18, 0.015)
    zone = soft(blob, float(at.rng.choice([0.5, at.uniform(1, 4)])) * at.unit)
    width = at.log_uniform(0.5, 3.0) * at.unit
    length = width * at.log_uniform(1.0, 25.0)
    rubbed = at.streaks(at.uniform(0, pi), length, width)
    rubbed -= rubbed[blob > 0.5].mean() if (blob > 0.5).any() else 0
    ground = at.ground(2.5 * at.unit)
    kept = at.uniform(0, 0.4) * (at.reflectance - ground)
    return blend(at.reflectance, ground + kept + at.contrast(blob, 0.8, 2.2) * rubbed, zone), blob


def scale(at: Site) -> Mark:
    """Rolled-in scale: large ragged dark blotches of soft mottled texture, several of which touch."""
    count = int(at.rng.integers(1, 6))
    largest = at.radius / (1 + 0.3 * (count - 1))
    centre = at.centre + step(largest - at.radius, at.angle)
    outlines = []
    for _ in range(count):
        radius = largest * at.uniform(0.6, 1.0)
        elongation = at.uniform(1, 2.0)
        outlines.append(centre + outline(at.rng, radius, at.uniform(0, pi), elongation, 0.28, 0.04))
        centre = centre + step(0.9 * radius, at.angle + at.rng.normal(0, 0.6))
    torn = at.fractal(0.3 * largest + 3, 0.8)
    patch = largest_piece(filled(blurred(polygons(at.size, outlines), 0.6) * 4 - 2 + 0.9 * torn))
    mottle = at.fractal(at.uniform(4, 14) * at.unit, 0.75)
    dark = np.clip(at.uniform(0.12, 0.65) * (1 + at.uniform(0.1, 0.45) * mottle), 0, 0.9)
    smooth = blend(at.reflectance, at.ground(2 * at.unit), at.uniform(0, 0.8))
    return blend(at.reflectance, smooth * (1 - dark), soft(patch, at.uniform(0.5, 2.0))), patch


def dent(at: Site) -> Mark:
    """A smooth hollow: bright on the side that faces the light, dark on the other; texture kept."""
    blob = at.blob(at.uniform(1, 2.2), 0.06)
    inner = depth(blob)
    share = np.clip(inner / max(float(inner.max()), 1.0), 0, 1)
    hollow = -(3 * share**2 - 2 * share**3)
    shade = slope(blurred(hollow, 0.04 * at.extent + 0.8), at.light)
    lens = normalised(blurred(at.reflectance, 1.0)) * 0.01
    amount = at.contrast(blob, 2.0, 5.5)
    return at.reflectance + (amount * shade + lens * share) * soft(blob, 1.0), blob


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
