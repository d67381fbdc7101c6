"""Object-like families: blowhole, bubble, contamination, missing."""

from math import pi

import numpy as np

from unispector.data.mini.marks import blend, bump, soft
from unispector.data.mini.noise import blurred
from unispector.data.mini.shapes import depth, polygons, slope, turned
from unispector.data.mini.site import Mark, Site


def blowhole(at: Site) -> Mark:
    """A round gas hole: from shallow grey to near-black, its far wall and rim catching the light."""
    hole = at.blob(at.uniform(1, 1.6), 0.08, 0.01)
    sunk = np.clip(depth(hole) / (0.6 * at.radius), 0, 1)
    along, _ = at.axes(at.light)
    wall = np.clip(-along / at.radius, 0, 1) * (1 - sunk)
    dark = at.log_uniform(0.2, 0.92)
    floor = at.reflectance * (1 - dark * (0.55 + 0.45 * sunk) + 0.4 * dark * wall)
    ring = np.clip(soft(hole, 1.0 * at.unit) * 2 - hole, 0, 1) * (1 - hole)
    return blend(at.reflectance * (1 + at.uniform(0.0, 0.35) * ring), floor, hole), hole


def bubble(at: Site) -> Mark:
    """A clear blister: thin ring, bright spot towards the light, glowing crescent opposite."""
    radius = at.radius
    dome = at.blob(at.uniform(1, 1.35), 0.03)
    inner = depth(dome)
    ring = bump(inner - 0.8 * at.unit, 1.1 * at.unit) * dome
    along, across = at.axes(at.light)
    spot_size = max(0.13 * radius, 1.0)
    spot = np.exp(-(((along - 0.5 * radius) / spot_size) ** 2) - (across / (1.5 * spot_size)) ** 2)
    rim = bump(inner - 0.22 * radius, 0.14 * radius + 0.5) * np.clip(-along / radius, 0, 1)
    change = at.signed_contrast(dome, 1.4, 4.0)
    body = at.reflectance + change * (0.12 + ring) + abs(change) * 0.8 * rim
    return blend(at.reflectance, body + at.uniform(0.25, 0.6) * spot, dome), dome


def contamination(at: Site) -> Mark:
    """A foreign chip on the surface: opaque, angular, facetted, with a cast shadow."""
    corners = int(at.rng.integers(4, 9))
    turns = np.sort(np.arange(corners) + at.rng.uniform(-0.35, 0.35, corners)) * 2 * pi / corners
    reach = at.radius * at.rng.uniform(0.65, 1.0, corners)
    flat = at.uniform(0.45, 1.0)
    corner = np.stack([reach * np.cos(turns), reach * flat * np.sin(turns)], axis=1)
    chip = polygons(at.size, [at.centre + turned(corner, at.angle)])
    tone = np.clip(at.tone(chip) + at.signed_contrast(chip, 2.0, 6.0), 0.05, 1.0)
    facets = np.full(at.size, tone, np.float32)
    for _ in range(int(at.rng.integers(1, 4))):
        middle = at.centre + at.rng.normal(0, 0.15 * at.extent, 2)
        _, across = at.axes(at.uniform(0, 2 * pi), middle)
        facets += np.float32(at.uniform(0.04, 0.14)) * (np.clip(across, -0.5, 0.5))
    facets += np.float32(at.uniform(0.005, 0.03)) * at.grain(0.7)
    below = at.shadow(chip, np.clip(0.18 * at.extent, 1.5, 5), at.uniform(0.25, 0.6))
    return blend(below, facets, chip), chip


def missing(at: Site) -> Mark:
    """A piece broken off the part's edge: the background shows behind a rough fractured face."""
    whole = at.blob(at.uniform(1, 2.0), 0.22, 0.03)
    bite = whole * at.part
    # Depth from the break line only: the part's own edge and the frame are no fracture.
    inner = depth(np.maximum(whole, 1 - at.part))
    width = at.uniform(0.08, 0.3) * at.extent
    uneven = inner + 0.35 * width * at.fractal(0.5 * width + 3, 0.8)
    gone = np.clip((uneven - width) / 1.5 + 0.5, 0, 1)
    rough = at.fractal(5 * at.unit, 0.9)
    lit = slope(blurred(rough, 0.8), at.light)
    relief = at.contrast(bite, 1.0, 2.2) * (0.4 * rough + lit)
    face = at.tone(bite) * at.uniform(0.55, 1.2) + relief
    inside = blend(np.clip(face, 0.03, 1), at.void, gone)
    return blend(at.reflectance, inside, bite), bite
