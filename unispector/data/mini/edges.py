"""Families on the part's edge: crescent, flash, chip, ragged edge."""

from itertools import pairwise
from math import atan2, pi

import cv2
import numpy as np

from unispector.data.mini.marks import blend, bump, eased, largest_piece, soft
from unispector.data.mini.noise import Field, as_field, blurred, smooth_noise
from unispector.data.mini.shapes import Points, depth, filled, slope, turned
from unispector.data.mini.site import Mark, Site


def crescent(at: Site) -> Mark:
    """A clean sickle-shaped cut whose horns point to the edge, with a dark gap and one shining flank."""
    place, outward = _nearest_edge(at)
    turn = outward + at.rng.normal(0, 0.2)
    along, across = at.axes(turn, place)
    bulge = at.uniform(0.75, 1.25)
    thick = at.uniform(0.25, 0.55) * at.radius
    outer = at.radius - np.hypot(along / bulge, across)
    inner = np.hypot((along - thick) / bulge, across) - (at.radius - 0.3 * thick)
    cut = filled(np.minimum(outer, inner))
    bevel = np.exp(-np.clip(outer, 0, None) / (0.12 * thick + 0.9 * at.unit))
    flank = at.tone(cut) + at.contrast(cut, 1.5, 4.0) * (0.4 + np.cos(at.light - turn))
    worn = 0.85 + 0.1 * at.noise(4 * at.unit)
    inside = blend(np.full(at.size, at.void, np.float32), np.clip(flank, 0.05, 1.1), bevel * worn)
    return blend(at.reflectance, inside, cut), cut


def flash(at: Site) -> Mark:
    """A thin fin of excess material along an edge: straight at its root, ragged and shining outside."""
    place, outward = _nearest_edge(at)
    along, across = at.axes(outward + pi / 2, place)
    knots = np.linspace(-0.5, 0.5, max(int(at.extent), 6))
    waves = smooth_noise((1, len(knots)), at.rng, at.uniform(5, 12) * at.unit + 1)[0]
    ragged = np.clip(1 + 0.35 * waves, 0.4, 2)
    taper = np.clip((0.5 - np.abs(knots)) / 0.12, 0.0, 1) ** 0.5
    base = at.uniform(4.0, 10.0) * at.unit
    width = np.interp(along, knots * at.extent, base * ragged * taper, left=-9, right=-9)
    away = _away_from_edge(at, place)
    # The same distance is found at the other edges too; the fin stays at its own, which may bow a little.
    own = 2 * at.unit + 0.03 * at.extent - np.abs(np.abs(across) - np.abs(away))
    fin = filled(np.minimum(np.minimum(away + 1.5, width - away), own))
    rim = bump(width - away, 0.9 * at.unit + 0.3)
    root = bump(away - 0.5, 0.8 * at.unit + 0.3)
    seen = at.reflectance[at.part > 0.9]
    thin = 0.02 * at.grain(0.8 * at.unit) - 0.1 * eased(away / base)
    change = at.rng.choice([-1.0, 1.0, 1.0]) * at.uniform(0.12, 0.28)
    body = np.clip(float(seen.mean()) + change + thin, 0.12, 0.9)
    sheet = body + at.uniform(0.12, 0.35) * rim - at.uniform(0.1, 0.3) * root * body
    below = at.shadow(fin, at.uniform(1.5, 3.0) * at.unit, at.uniform(0.3, 0.6))
    return blend(below, sheet, fin), fin


def chip(at: Site) -> Mark:
    """An angular shell broken off an edge: flat facets of different tone, and arcs about the impact."""
    place, outward = _nearest_edge(at)
    count = int(at.rng.integers(4, 7))
    turns = np.linspace(-0.5, 0.5, count) + at.rng.uniform(-0.3, 0.3, count) / count
    reach = at.radius * at.rng.uniform(0.75, 1.0, count)
    hollow = at.uniform(0.7, 1.4)
    shell = np.stack([-hollow * reach * np.cos(pi * turns), reach * np.sin(pi * turns)], axis=1)
    corners = np.vstack([[0.6 * at.extent, shell[0, 1]], shell, [0.6 * at.extent, shell[-1, 1]]])
    sides = [_inside_of(at, *pair) for pair in pairwise(place + turned(corners, outward))]
    broken = filled(np.minimum.reduce([distance for distance, _ in sides]))
    steep = at.rng.uniform(0.7, 1.5, len(sides))
    floor = at.uniform(0.15, 0.3) * at.extent
    facing = np.array([np.cos(at.light - normal) for _, normal in sides] + [0.3])
    tones = facing + at.rng.normal(0, 0.35, len(facing))
    # The shallowest of the planes that fall from the sides, and of the floor, is the one to see.
    lowest = np.full(at.size, floor, np.float32)
    facets = np.full(at.size, tones[-1], np.float32)
    for (inside, _), steepness, tone in zip(sides, steep.tolist(), tones.tolist(), strict=False):
        drop = np.float32(steepness) * inside
        facets = np.where(drop < lowest, np.float32(tone), facets)
        lowest = np.minimum(drop, lowest)
    centre = place + turned(at.rng.normal(0, 0.08 * at.extent, (1, 2)), 0.0)[0]
    distance = np.hypot(*at.axes(0.0, centre))
    period = at.uniform(0.07, 0.13) * at.extent + 1.5 * at.unit
    arcs = np.cos(2 * pi * distance / period) * np.clip(distance / (0.5 * at.extent), 0, 1)
    amount = at.contrast(broken, 1.4, 3.2)
    lift = at.signed_contrast(broken, 0.6, 1.6)
    ridge = np.exp(-depth(np.maximum(broken, 1 - at.part)) / (0.9 * at.unit))
    face = at.tone(broken) + lift + amount * (facets + 0.35 * arcs + 0.8 * ridge)
    return blend(at.reflectance, np.clip(face + 0.012 * at.grain(0.7), 0.04, 1.1), broken), broken


def ragged_edge(at: Site) -> Mark:
    """A worn border: rough, torn and mostly darker along a stretch of the edge, with bites of background."""
    place, outward = _nearest_edge(at)
    along, across = at.axes(outward + pi / 2, place)
    inner = depth(at.part)
    base = at.uniform(0.1, 0.35) * at.extent + 3 * at.unit
    torn = at.fractal(at.uniform(0.4, 1.2) * base + 3, 0.75)
    taper = np.sqrt(np.clip(1 - (2 * along / at.extent) ** 2, 0, 1))
    inside = base * taper * (1 + at.uniform(0.15, 0.4) * torn) - inner
    # The other sides of the part are edges too.
    own = np.minimum(0.5 * at.extent - np.abs(along), 0.7 * at.extent - np.abs(across))
    zone = largest_piece(filled(np.minimum(inside, own)) * at.part)
    rough = at.fractal(at.uniform(2.5, 8) * at.unit, 0.85)
    relief = at.contrast(zone, 0.6, 2.0) * (slope(blurred(rough, 0.8), at.light) + 0.4 * rough)
    ground = at.ground(2 * at.unit) * at.uniform(0.35, 1.15)
    bites = filled(at.uniform(-0.1, 0.25) * base * (1 + 0.6 * torn) - inner)
    worn = blend(np.clip(ground + relief, 0.03, 1.1), at.void, bites)
    return blend(at.reflectance, worn, soft(zone, at.uniform(0.4, 1.6))), zone


def _nearest_edge(at: Site) -> tuple[Points, float]:
    """The point [2] beyond the part, or just beyond the frame, that is nearest, and the way there."""
    rows, columns = np.nonzero(np.pad(at.part <= 0.5, 1, constant_values=True))
    steps = np.stack([columns - 1, rows - 1], axis=1) - at.centre
    nearest = steps[int(np.argmin((steps**2).sum(axis=1)))]
    return at.centre + nearest, atan2(nearest[1], nearest[0])


def _away_from_edge(at: Site, place: Points) -> Field:
    """Distance in pixels from the edge at `place`: outwards from the part, or inwards from the frame."""
    height, width = at.size
    if not (0 <= place[0] < width and 0 <= place[1] < height):
        return depth(at.part)
    beyond = cv2.distanceTransform((at.part <= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return blurred(as_field(beyond), 0.6) - depth(at.part)


def _inside_of(at: Site, start: Points, end: Points) -> tuple[Field, float]:
    """Distance of every pixel to the line start -> end, and the direction that leads away across it."""
    angle = atan2(end[1] - start[1], end[0] - start[0])
    _, across = at.axes(angle, start)
    return -across, angle + pi / 2
