"""Patch-like families of the surface itself: stain, burn, smear, chatter, pitting, abrasion, scale, dent."""

from math import pi

import cv2
import numpy as np

from unispector.data.mini.marks import (
    Mark,
    Site,
    blend,
    closed,
    contrast,
    ground_of,
    largest_piece,
    signed_contrast,
    soft,
)
from unispector.data.mini.noise import (
    Field,
    as_field,
    blurred,
    fractal_noise,
    grain,
    normalised,
    rotated,
    smooth_noise,
    streaks,
)
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Outline, Plate, depth, filled, local_axes, outline, slope, turned


def _blob(scene: Scene, rng: np.random.Generator, site: Site, kind: Outline) -> Field:
    """Coverage of one random outline of the site's extent."""
    plate = Plate(scene.size)
    plate.polygon(outline(rng, site.centre, site.extent / 2, site.angle, kind))
    return plate.coverage()


def stain(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A dried liquid: flat tint with a stronger tide line at its rim; the texture shows through."""
    plate = Plate(scene.size)
    radius = site.extent / 2
    plate.polygon(outline(rng, site.centre, 0.75 * radius, site.angle, Outline(rng.uniform(1, 1.8), 0.22)))
    for _ in range(int(rng.integers(0, 4))):
        step = np.array([[rng.uniform(0.3, 0.6) * radius, 0.0]])
        nearby = site.centre + turned(step, rng.uniform(0, 2 * pi))[0]
        plate.polygon(outline(rng, nearby, rng.uniform(0.25, 0.5) * radius, 0.0, Outline(1.2, 0.2)))
    wet = soft(plate.coverage(), rng.uniform(0.7, 2.0) * scene.unit)
    rim = np.exp(-depth(wet) / (rng.uniform(1.2, 3.0) * scene.unit))
    tint = rng.uniform(0.25, 0.6) + 0.12 * smooth_noise(scene.size, rng, 0.3 * site.extent + 3)
    change = signed_contrast(scene, rng, wet, 1.6, 4.5)
    return Mark(scene.reflectance + change * wet * np.maximum(tint, rim), wet)


def burn(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """Scorched: charred grainy core that fades outwards through a dark halo."""
    blob = _blob(scene, rng, site, Outline(rng.uniform(1, 1.7), 0.15, 0.03))
    inner = depth(soft(blob, 1.0))
    reach = max(float(inner.max()), 1.0)
    flicker = fractal_noise(scene.size, rng, 0.25 * site.extent + 3, decay=0.8) * (inner > 0)
    heat = np.clip(inner / reach + 0.16 * flicker, 0, 1)
    core = np.clip((heat - rng.uniform(0.35, 0.55)) / 0.15, 0, 1)
    scorch = rng.uniform(0.35, 0.75)
    ash = np.clip(1 - np.abs(heat - 0.35) / 0.08, 0, 1) * rng.choice([0.0, 0.12])
    halo = scene.reflectance * (1 - scorch * np.sqrt(np.maximum(heat, 0.5 * inner / reach))) + ash
    char = np.clip(0.09 + 0.045 * grain(scene.size, rng, 0.8 * scene.unit), 0.02, 0.4)
    painted = blend(halo, char, core * rng.uniform(0.6, 1.0))
    return Mark(blend(scene.reflectance, painted, blob), blob)


def smear(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A wiped trail: fine parallel streaks that fade and end raggedly on one side."""
    along, across = local_axes(scene.size, site.centre, site.angle)
    across = across + np.float32(rng.uniform(-0.5, 0.5)) * along**2 / np.float32(site.extent)
    half = rng.uniform(0.1, 0.25) * site.extent + 2 * scene.unit
    knots = int(2 * half / scene.unit) + 8
    where = np.clip((across / half + 1) / 2, 0, 1) * (knots - 1)
    fine = grain((1, knots), rng, 0.7)[0]
    ends = np.cumsum(rng.normal(0, 0.05, knots)) + rng.normal(0, 0.05, knots)
    reach = np.clip(0.8 + ends - ends.mean(), 0.4, 1.0)
    streak, stop = (np.interp(where, np.arange(knots), line) for line in (fine, reach))
    travel = along / site.extent + 0.5
    width = half * np.sqrt(np.clip(travel / rng.uniform(0.05, 0.4), 0, 1))
    begun = np.clip(travel * site.extent + 0.5, 0, 1)
    ended = np.clip((stop - travel) * site.extent + 0.5, 0, 1)
    trail = as_field(np.clip(width + 0.5 - np.abs(across), 0, 1) * begun * ended)
    change = signed_contrast(scene, rng, trail, 1.4, 4.2)
    wiped = blurred(scene.reflectance, 1.3 * scene.unit)
    fade = 1 - 0.55 * np.clip(travel, 0, 1)
    body = wiped + change * fade * np.clip(0.65 + 0.4 * streak, 0.05, 1.5)
    return Mark(blend(scene.reflectance, body, trail), trail)


def chatter(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """Tool chatter: a patch of regular, crisp, closely spaced parallel bars."""
    half_long, half_wide = site.extent / 2, site.extent * rng.uniform(0.15, 0.4)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [half_long, half_wide]
    corners[:, 0] += rng.uniform(-0.5, 0.5) * corners[:, 1]
    plate = Plate(scene.size)
    plate.polygon(site.centre + turned(corners, site.angle))
    patch = plate.coverage()
    along, across = local_axes(scene.size, site.centre, site.angle)
    period = rng.uniform(3.6, 7.5) * scene.unit
    arc = rng.uniform(-0.8, 0.8) * across**2 / np.float32(site.extent)
    bars = np.tanh(2.5 * np.cos(2 * pi * (along + arc) / period))
    change = contrast(scene, rng, patch, 1.2, 3.4)
    strength = np.clip(1 + 0.25 * smooth_noise(scene.size, rng, 0.4 * site.extent + 4), 0.5, 1.4)
    bias = rng.choice([-0.4, 0.0, 0.4])
    return Mark(blend(scene.reflectance, scene.reflectance + change * strength * (bars + bias), patch), patch)


def pitting(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A cluster of pits or pores, few and large or many and tiny, thinning out; the mask holds them all."""
    spacing = min(float(np.exp(rng.uniform(np.log(3.4), np.log(9.0)))) * scene.unit, site.extent / 5)
    reach = int(site.extent / spacing / 2) + 1
    cells = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    spots = cells * spacing + rng.uniform(-0.42, 0.42, cells.shape) * spacing
    turns = np.arctan2(spots[:, 1], spots[:, 0])
    limit = site.extent / 2 * (0.85 + 0.15 * np.sin(3 * turns + rng.uniform(0, 2 * pi)))
    distance = np.hypot(spots[:, 0], spots[:, 1] * rng.uniform(1, 1.9)) / np.maximum(limit, 0.8 * spacing)
    spots = spots[(distance < 1) & (rng.random(len(spots)) > rng.uniform(0.1, 0.5) * distance)]
    radii = np.clip(rng.uniform(0.2, 0.32) * spacing * rng.lognormal(0, 0.4, len(spots)), 0.7, 0.5 * spacing)
    plate = Plate(scene.size)
    plate.dots(site.centre + turned(spots, site.angle), radii)
    pits = plate.coverage()
    grown = as_field(cv2.dilate(pits, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))))
    ground = largest_piece(soft(closed(grown, 2.4 * spacing), 0.7))
    dull = scene.reflectance * (1 - rng.uniform(0.0, 0.14) * ground)
    deep = np.clip(rng.uniform(0.25, 0.85) * (1 + 0.3 * smooth_noise(scene.size, rng, spacing)), 0.1, 0.95)
    return Mark(as_field(dull * (1 - deep * pits * ground)), ground)


def abrasion(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A patch of another texture and the same grey: finer or coarser, directed or not, stronger or weaker."""
    blob = _blob(scene, rng, site, Outline(rng.uniform(1, 2.6), 0.18, 0.015))
    zone = soft(blob, float(rng.choice([0.5, rng.uniform(1, 4)])) * scene.unit)
    width = float(np.exp(rng.uniform(np.log(0.5), np.log(3.0)))) * scene.unit
    length = width * float(np.exp(rng.uniform(np.log(1.0), np.log(25.0))))
    rubbed = rotated(scene.size, rng.uniform(0, pi), lambda square: streaks(square, rng, length, width))
    rubbed -= rubbed[blob > 0.5].mean() if (blob > 0.5).any() else 0
    ground = ground_of(scene, 2.5 * scene.unit)
    kept = rng.uniform(0, 0.4) * (scene.reflectance - ground)
    amount = contrast(scene, rng, blob, 0.8, 2.2)
    return Mark(blend(scene.reflectance, ground + kept + amount * rubbed, zone), blob)


def scale(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """Rolled-in scale: large ragged dark blotches of soft mottled texture, several of which touch."""
    count = int(rng.integers(1, 6))
    largest = site.extent / 2 / (1 + 0.3 * (count - 1))
    plate = Plate(scene.size)
    centre, heading = (
        site.centre + turned(np.array([[largest - site.extent / 2, 0]]), site.angle)[0],
        site.angle,
    )
    for _ in range(count):
        radius = largest * rng.uniform(0.6, 1.0)
        shape = Outline(rng.uniform(1, 2.0), 0.28, 0.04)
        plate.polygon(outline(rng, centre, radius, rng.uniform(0, pi), shape))
        heading = site.angle + rng.normal(0, 0.6)
        centre = centre + turned(np.array([[0.9 * radius, 0.0]]), heading)[0]
    torn = fractal_noise(scene.size, rng, 0.3 * largest + 3, decay=0.8)
    patch = largest_piece(filled(blurred(plate.coverage(), 0.6) * 4 - 2 + 0.9 * torn))
    mottle = fractal_noise(scene.size, rng, rng.uniform(4, 14) * scene.unit, decay=0.75)
    dark = np.clip(rng.uniform(0.12, 0.65) * (1 + rng.uniform(0.1, 0.45) * mottle), 0, 0.9)
    smooth = blend(scene.reflectance, ground_of(scene, 2 * scene.unit), rng.uniform(0, 0.8))
    return Mark(blend(scene.reflectance, smooth * (1 - dark), soft(patch, rng.uniform(0.5, 2.0))), patch)


def dent(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A smooth hollow: bright on the side that faces the light, dark on the other; texture kept."""
    blob = _blob(scene, rng, site, Outline(rng.uniform(1, 2.2), 0.06))
    inner = depth(blob)
    share = np.clip(inner / max(float(inner.max()), 1.0), 0, 1)
    hollow = -(3 * share**2 - 2 * share**3)
    shade = slope(blurred(hollow, 0.04 * site.extent + 0.8), scene.light)
    lens = normalised(blurred(scene.reflectance, 1.0)) * 0.01
    amount = contrast(scene, rng, blob, 2.0, 5.5)
    return Mark(scene.reflectance + (amount * shade + lens * share) * soft(blob, 1.0), blob)
