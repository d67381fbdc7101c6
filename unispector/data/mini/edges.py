"""Families on the part's edge: crescent, flash, chip, ragged edge."""

from itertools import pairwise
from math import atan2, pi

import cv2
import numpy as np

from unispector.data.mini.marks import (
    Mark,
    Site,
    blend,
    cast_shadow,
    contrast,
    eased,
    ground_of,
    largest_piece,
    signed_contrast,
    soft,
    tone_below,
)
from unispector.data.mini.noise import Field, as_field, blurred, fractal_noise, grain, smooth_noise
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Points, depth, filled, local_axes, slope, turned


def crescent(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A clean sickle-shaped cut whose horns point to the edge, with a dark gap and one shining flank."""
    place, outward = _nearest_edge(scene, site)
    turn = outward + rng.normal(0, 0.2)
    along, across = local_axes(scene.size, place, turn)
    radius = site.extent / 2
    bulge = rng.uniform(0.75, 1.25)
    thick = rng.uniform(0.25, 0.55) * radius
    outer = radius - np.hypot(along / bulge, across)
    inner = np.hypot((along - thick) / bulge, across) - (radius - 0.3 * thick)
    cut = filled(np.minimum(outer, inner))
    bevel = np.exp(-np.clip(outer, 0, None) / (0.12 * thick + 0.9 * scene.unit))
    facing = np.cos(scene.light - turn)
    flank = tone_below(scene, cut) + contrast(scene, rng, cut, 1.5, 4.0) * (0.4 + facing)
    worn = 0.85 + 0.1 * smooth_noise(scene.size, rng, 4 * scene.unit)
    inside = blend(np.full(scene.size, scene.void, np.float32), np.clip(flank, 0.05, 1.1), bevel * worn)
    return Mark(blend(scene.reflectance, inside, cut), cut)


def flash(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A thin fin of excess material along an edge: straight at its root, ragged and shining outside."""
    place, outward = _nearest_edge(scene, site)
    along, across = local_axes(scene.size, place, outward + pi / 2)
    knots = np.linspace(-0.5, 0.5, max(int(site.extent), 6))
    ragged = np.clip(
        1 + 0.35 * smooth_noise((1, len(knots)), rng, rng.uniform(5, 12) * scene.unit + 1)[0], 0.4, 2
    )
    taper = np.clip((0.5 - np.abs(knots)) / 0.12, 0.0, 1) ** 0.5
    base = rng.uniform(4.0, 10.0) * scene.unit
    width = np.interp(along, knots * site.extent, base * ragged * taper, left=-9, right=-9)
    away = _away_from_edge(scene, place)
    # The same distance is found at the other edges too; the fin stays at its own, which may bow a little.
    own = 2 * scene.unit + 0.03 * site.extent - np.abs(np.abs(across) - np.abs(away))
    fin = filled(np.minimum(np.minimum(away + 1.5, width - away), own))
    rim = np.exp(-(((width - away) / (0.9 * scene.unit + 0.3)) ** 2))
    root = np.exp(-(((away - 0.5) / (0.8 * scene.unit + 0.3)) ** 2))
    seen = scene.reflectance[scene.part > 0.9]
    thin = 0.02 * grain(scene.size, rng, 0.8 * scene.unit) - 0.1 * eased(away / base)
    change = rng.choice([-1.0, 1.0, 1.0]) * rng.uniform(0.12, 0.28)
    body = np.clip(float(seen.mean()) + change + thin, 0.12, 0.9)
    sheet = body + rng.uniform(0.12, 0.35) * rim - rng.uniform(0.1, 0.3) * root * body
    below = cast_shadow(scene, fin, rng.uniform(1.5, 3.0) * scene.unit, rng.uniform(0.3, 0.6))
    return Mark(blend(below, sheet, fin), fin)


def chip(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """An angular shell broken off an edge: flat facets of different tone, and arcs about the impact."""
    place, outward = _nearest_edge(scene, site)
    count = int(rng.integers(4, 7))
    turns = np.linspace(-0.5, 0.5, count) + rng.uniform(-0.3, 0.3, count) / count
    reach = site.extent / 2 * rng.uniform(0.75, 1.0, count)
    hollow = rng.uniform(0.7, 1.4)
    shell = np.stack([-hollow * reach * np.cos(pi * turns), reach * np.sin(pi * turns)], axis=1)
    corners = np.vstack([[0.6 * site.extent, shell[0, 1]], shell, [0.6 * site.extent, shell[-1, 1]]])
    sides = [_inside_of(scene, *pair) for pair in pairwise(place + turned(corners, outward))]
    broken = filled(np.minimum.reduce([distance for distance, _ in sides]))
    steep = rng.uniform(0.7, 1.5, len(sides))
    floor = rng.uniform(0.15, 0.3) * site.extent
    facing = np.array([np.cos(scene.light - normal) for _, normal in sides] + [0.3])
    tones = facing + rng.normal(0, 0.35, len(facing))
    # The shallowest of the planes that fall from the sides, and of the floor, is the one to see.
    lowest = np.full(scene.size, floor, np.float32)
    facets = np.full(scene.size, tones[-1], np.float32)
    for (inside, _), steepness, tone in zip(sides, steep.tolist(), tones.tolist(), strict=False):
        drop = np.float32(steepness) * inside
        facets = np.where(drop < lowest, np.float32(tone), facets)
        lowest = np.minimum(drop, lowest)
    centre = place + turned(rng.normal(0, 0.08 * site.extent, (1, 2)), 0.0)[0]
    distance = np.hypot(*local_axes(scene.size, centre, 0.0))
    period = rng.uniform(0.07, 0.13) * site.extent + 1.5 * scene.unit
    arcs = np.cos(2 * pi * distance / period) * np.clip(distance / (0.5 * site.extent), 0, 1)
    amount = contrast(scene, rng, broken, 1.4, 3.2)
    lift = signed_contrast(scene, rng, broken, 0.6, 1.6)
    ridge = np.exp(-depth(np.maximum(broken, 1 - scene.part)) / (0.9 * scene.unit))
    face = tone_below(scene, broken) + lift + amount * (facets + 0.35 * arcs + 0.8 * ridge)
    grit = 0.012 * grain(scene.size, rng, 0.7)
    return Mark(blend(scene.reflectance, np.clip(face + grit, 0.04, 1.1), broken), broken)


def ragged_edge(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A worn border: rough, torn and mostly darker along a stretch of the edge, with bites of background."""
    place, outward = _nearest_edge(scene, site)
    along, across = local_axes(scene.size, place, outward + pi / 2)
    inner = depth(scene.part)
    base = rng.uniform(0.1, 0.35) * site.extent + 3 * scene.unit
    torn = fractal_noise(scene.size, rng, rng.uniform(0.4, 1.2) * base + 3, decay=0.75)
    taper = np.sqrt(np.clip(1 - (2 * along / site.extent) ** 2, 0, 1))
    inside = base * taper * (1 + rng.uniform(0.15, 0.4) * torn) - inner
    # The other sides of the part are edges too.
    own = np.minimum(0.5 * site.extent - np.abs(along), 0.7 * site.extent - np.abs(across))
    zone = largest_piece(filled(np.minimum(inside, own)) * scene.part)
    rough = fractal_noise(scene.size, rng, rng.uniform(2.5, 8) * scene.unit, decay=0.85)
    relief = contrast(scene, rng, zone, 0.6, 2.0) * (slope(blurred(rough, 0.8), scene.light) + 0.4 * rough)
    ground = ground_of(scene, 2 * scene.unit) * rng.uniform(0.35, 1.15)
    bites = filled(rng.uniform(-0.1, 0.25) * base * (1 + 0.6 * torn) - inner)
    worn = blend(np.clip(ground + relief, 0.03, 1.1), scene.void, bites)
    return Mark(blend(scene.reflectance, worn, soft(zone, rng.uniform(0.4, 1.6))), zone)


def _nearest_edge(scene: Scene, site: Site) -> tuple[Points, float]:
    """The point [2] beyond the part, or just beyond the frame, that is nearest, and the way there."""
    outside = np.pad(scene.part <= 0.5, 1, constant_values=True)
    rows, columns = np.nonzero(outside)
    steps = np.stack([columns - 1, rows - 1], axis=1) - site.centre
    nearest = int(np.argmin((steps**2).sum(axis=1)))
    across, down = steps[nearest].tolist()
    return site.centre + steps[nearest], atan2(down, across)


def _away_from_edge(scene: Scene, place: Points) -> Field:
    """Distance in pixels from the edge at `place`: outwards from the part, or inwards from the frame."""
    height, width = scene.size
    if not (0 <= place[0] < width and 0 <= place[1] < height):
        return depth(scene.part)
    beyond = cv2.distanceTransform((scene.part <= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return blurred(as_field(beyond), 0.6) - depth(scene.part)


def _inside_of(scene: Scene, start: Points, end: Points) -> tuple[Field, float]:
    """Distance of every pixel to the line start -> end, and the direction that leads away across it."""
    angle = atan2(end[1] - start[1], end[0] - start[0])
    _, across = local_axes(scene.size, start, angle)
    return -across, angle + pi / 2
