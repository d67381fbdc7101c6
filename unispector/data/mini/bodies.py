"""Object-like families: blowhole, bubble, contamination, missing."""

from math import pi

import numpy as np

from unispector.data.mini.marks import (
    Mark,
    Site,
    blend,
    cast_shadow,
    contrast,
    signed_contrast,
    soft,
    tone_below,
)
from unispector.data.mini.noise import blurred, fractal_noise, grain
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Outline, Plate, depth, local_axes, outline, slope, turned


def blowhole(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A round gas hole: from shallow grey to near-black, its far wall and rim catching the light."""
    plate = Plate(scene.size)
    radius = site.extent / 2
    plate.polygon(outline(rng, site.centre, radius, site.angle, Outline(rng.uniform(1, 1.6), 0.08, 0.01)))
    hole = plate.coverage()
    inner = depth(hole)
    sunk = np.clip(inner / (0.6 * radius), 0, 1)
    along, _ = local_axes(scene.size, site.centre, scene.light)
    wall = np.clip(-along / radius, 0, 1) * (1 - sunk)
    dark = float(np.exp(rng.uniform(np.log(0.2), np.log(0.92))))
    floor = scene.reflectance * (1 - dark * (0.55 + 0.45 * sunk) + 0.4 * dark * wall)
    ring = np.clip(soft(hole, 1.0 * scene.unit) * 2 - hole, 0, 1) * (1 - hole)
    lit = scene.reflectance * (1 + rng.uniform(0.0, 0.35) * ring)
    return Mark(blend(lit, floor, hole), hole)


def bubble(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A clear blister: thin ring, bright spot towards the light, glowing crescent opposite."""
    plate = Plate(scene.size)
    radius = site.extent / 2
    plate.polygon(outline(rng, site.centre, radius, site.angle, Outline(rng.uniform(1, 1.35), 0.03)))
    dome = plate.coverage()
    inner = depth(dome)
    ring = np.exp(-(((inner - 0.8 * scene.unit) / (1.1 * scene.unit)) ** 2)) * dome
    along, across = local_axes(scene.size, site.centre, scene.light)
    spot_along, spot_size = 0.5 * radius, max(0.13 * radius, 1.0)
    spot = np.exp(-(((along - spot_along) / spot_size) ** 2) - (across / (1.5 * spot_size)) ** 2)
    rim = np.exp(-(((inner - 0.22 * radius) / (0.14 * radius + 0.5)) ** 2)) * np.clip(-along / radius, 0, 1)
    change = signed_contrast(scene, rng, dome, 1.4, 4.0)
    body = scene.reflectance + change * (0.12 + ring) + abs(change) * 0.8 * rim
    return Mark(blend(scene.reflectance, body + rng.uniform(0.25, 0.6) * spot, dome), dome)


def contamination(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A foreign chip on the surface: opaque, angular, facetted, with a cast shadow."""
    corners = int(rng.integers(4, 9))
    turns = np.sort(np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * pi / corners
    reach = site.extent / 2 * rng.uniform(0.65, 1.0, corners)
    flat = rng.uniform(0.45, 1.0)
    plate = Plate(scene.size)
    corner = np.stack([reach * np.cos(turns), reach * flat * np.sin(turns)], axis=1)
    plate.polygon(site.centre + turned(corner, site.angle))
    chip = plate.coverage()
    tone = np.clip(tone_below(scene, chip) + signed_contrast(scene, rng, chip, 2.0, 6.0), 0.05, 1.0)
    facets = np.full(scene.size, tone, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        middle = site.centre + rng.normal(0, 0.15 * site.extent, 2)
        _, across = local_axes(scene.size, middle, rng.uniform(0, 2 * pi))
        facets += np.float32(rng.uniform(0.04, 0.14)) * (np.clip(across, -0.5, 0.5))
    facets += np.float32(rng.uniform(0.005, 0.03)) * grain(scene.size, rng, 0.7)
    below = cast_shadow(scene, chip, np.clip(0.18 * site.extent, 1.5, 5), rng.uniform(0.25, 0.6))
    return Mark(blend(below, facets, chip), chip)


def missing(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A piece broken off the part's edge: the background shows behind a rough fractured face."""
    plate = Plate(scene.size)
    shape = Outline(rng.uniform(1, 2.0), 0.22, 0.03)
    plate.polygon(outline(rng, site.centre, site.extent / 2, site.angle, shape))
    bite = plate.coverage() * scene.part
    # Depth from the break line only: the part's own edge and the frame are no fracture.
    inner = depth(np.maximum(plate.coverage(), 1 - scene.part))
    width = rng.uniform(0.08, 0.3) * site.extent
    uneven = inner + 0.35 * width * fractal_noise(scene.size, rng, 0.5 * width + 3, decay=0.8)
    gone = np.clip((uneven - width) / 1.5 + 0.5, 0, 1)
    rough = fractal_noise(scene.size, rng, 5 * scene.unit, decay=0.9)
    lit = slope(blurred(rough, 0.8), scene.light)
    relief = contrast(scene, rng, bite, 1.0, 2.2) * (0.4 * rough + lit)
    face = tone_below(scene, bite) * rng.uniform(0.55, 1.2) + relief
    inside = blend(np.clip(face, 0.03, 1), scene.void, gone.astype(np.float32))
    return Mark(blend(scene.reflectance, inside, bite), bite)
