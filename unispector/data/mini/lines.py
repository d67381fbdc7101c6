"""Line-like families: scratch, crack, hairline, thread, fray, wrinkle, glue."""

from math import pi

import cv2
import numpy as np

from unispector.data.mini.marks import (
    Mark,
    Site,
    blend,
    cast_shadow,
    closed,
    contrast,
    shifted,
    signed_contrast,
    soft,
    tone_below,
)
from unispector.data.mini.noise import as_field, blurred, smooth_noise
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Outline, Plate, depth, local_axes, outline, path, slope, turned


def scratch(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A thin, smooth, nearly straight line with tapered ends and one flank lit."""
    points = path(rng, site.centre, site.extent, site.angle, bend=rng.choice([0.03, 0.12, 0.3]))
    taper = np.sin(pi * np.linspace(0.04, 0.96, len(points))) ** 0.4
    widths = np.maximum(rng.uniform(1.6, 3.6) * scene.unit * taper, 1.4)
    plate = Plate(scene.size)
    plate.stroke(points, widths)
    line = plate.coverage()
    change = signed_contrast(scene, rng, line, 1.3, 4.5)
    uneven = np.clip(0.9 + 0.25 * smooth_noise(scene.size, rng, 10 * scene.unit), 0.4, 1.3)
    flank = np.clip(shifted(line, np.cos(scene.light), np.sin(scene.light)) - line, 0, 1)
    painted = scene.reflectance + change * uneven * line - 0.45 * change * flank
    return Mark(painted, line)


def crack(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A dark, jagged, branching break that thins out towards its tips."""
    plate = Plate(scene.size)
    thick = rng.uniform(1.8, 4.2) * scene.unit
    trunk = path(rng, site.centre, 1.25 * site.extent, site.angle, bend=0.35, jitter=0.75)
    shape = np.clip(1.25 - np.linspace(-1, 1, len(trunk)) ** 2, 0.5, 1)
    plate.stroke(trunk, np.maximum(thick * shape * rng.uniform(0.7, 1.3, len(trunk)), 1.5))
    for _ in range(int(rng.integers(0, 6))):
        root = trunk[rng.integers(len(trunk) // 6, max(len(trunk) * 5 // 6, len(trunk) // 6 + 1))]
        side = site.angle + rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
        branch = path(rng, root, rng.uniform(0.15, 0.5) * site.extent, side, bend=0.3, jitter=0.75)
        branch += root - branch[0]
        plate.stroke(branch, np.maximum(np.linspace(0.75, 0.3, len(branch)) * thick, 1.4))
    gap = plate.coverage()
    dark = float(np.exp(rng.uniform(np.log(0.15), np.log(0.92))))
    lip = np.clip(shifted(gap, -1.2 * np.cos(scene.light), -1.2 * np.sin(scene.light)) - gap, 0, 1)
    lit = scene.reflectance * (1 + rng.uniform(0.05, 0.35) * lip)
    return Mark(lit * (1 - dark * gap), gap)


def hairline(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A long fine crack, one or two pixels wide, jagged and often branching, faint in places."""
    gap, marked = Plate(scene.size), Plate(scene.size)
    jitter = rng.uniform(0.15, 0.6)
    trunk = path(rng, site.centre, 1.1 * site.extent, site.angle, bend=rng.uniform(0.05, 0.4), jitter=jitter)
    lines = [trunk]
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.45, 0.25, 0.2, 0.1]))):
        root = trunk[rng.integers(len(trunk))]
        side = site.angle + rng.choice([-1, 1]) * rng.uniform(0.3, 1.2)
        branch = path(rng, root, rng.uniform(0.1, 0.45) * site.extent, side, bend=0.2, jitter=jitter)
        lines.append(branch + root - branch[0])
    thick = rng.uniform(1.0, 2.0) * max(scene.unit, 0.8)
    for line in lines:
        gap.stroke(line, thick * np.clip(rng.normal(1, 0.15, len(line)), 0.7, 1.3))
        # A hand marks a line wider than it is.
        marked.stroke(line, max(thick + 0.6, 1.8))
    faint = np.clip(0.9 + 0.3 * smooth_noise(scene.size, rng, 12 * scene.unit), 0.35, 1.2)
    dark = float(np.exp(rng.uniform(np.log(0.16), np.log(0.8)))) * faint
    return Mark(as_field(scene.reflectance * (1 - np.minimum(dark, 0.9) * gap.coverage())), marked.coverage())


def thread(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A loose curling fibre of even width that casts a shadow."""
    length = rng.uniform(1.6, 3.2) * site.extent
    points = path(rng, site.centre, length, site.angle, bend=rng.uniform(1.6, 2.8))
    plate = Plate(scene.size)
    plate.stroke(points, rng.uniform(1.6, 2.8) * scene.unit)
    fibre = plate.coverage()
    change = signed_contrast(scene, rng, fibre, 2.0, 5.0)
    tone = np.clip(tone_below(scene, fibre) + change, 0.05, 1.0)
    twist = 0.03 * smooth_noise(scene.size, rng, 2.5 * scene.unit)
    below = cast_shadow(scene, fibre, rng.uniform(1.5, 3.5) * scene.unit, rng.uniform(0.15, 0.4))
    return Mark(blend(below, tone + twist, fibre), fibre)


def fray(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A tuft of torn fibres that fan out from a dark root."""
    count = int(np.clip(rng.uniform(0.5, 0.9) * site.extent / scene.unit, 14, 70))
    spread, root_width = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.8) * site.extent
    length = 0.75 * site.extent
    along = np.array([[0.0, 1.0]]) * (np.linspace(-0.5, 0.5, count)[:, None] * root_width)
    roots = site.centre + turned(along - [0.35 * site.extent, 0.0], site.angle)
    fibres, shade = Plate(scene.size), Plate(scene.size)
    fan = np.linspace(-spread, spread, count) + rng.normal(0, 0.25, count)
    for root, lean, stretch in zip(roots, fan, rng.uniform(0.4, 1.0, count), strict=True):
        hair = path(rng, root, stretch * length, site.angle + lean, bend=0.5)
        hair += root - hair[0]
        (fibres if rng.random() < 0.6 else shade).stroke(hair, rng.uniform(0.7, 1.4) * scene.unit)
    bright, dark = fibres.coverage(), shade.coverage()
    hairs = np.maximum(bright, dark)
    # Grown by a pixel first: the tip of a single hair is thinner than one and would fall out of the mask.
    thick = as_field(cv2.dilate(hairs, np.ones((3, 3), np.uint8)))
    whole = soft(closed(thick, 7 * scene.unit), 0.6)
    change = contrast(scene, rng, whole, 1.6, 3.6)
    base = Plate(scene.size)
    base.stroke(roots, rng.uniform(2, 4) * scene.unit)
    torn = soft(base.coverage(), 0.7) * whole
    painted = scene.reflectance * (1 - 0.3 * torn) + change * bright - 0.8 * change * dark
    return Mark(painted - 0.15 * change * whole, whole)


def wrinkle(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A bundle of broad uneven folds, each lit on one side and shaded on the other."""
    narrow = rng.uniform(1.3, 2.8)
    edge = Plate(scene.size)
    edge.polygon(outline(rng, site.centre, site.extent / 2, site.angle, Outline(narrow, 0.12, 0.015)))
    whole = edge.coverage()
    along, across = local_axes(scene.size, site.centre, site.angle)
    folds = rng.uniform(2.0, 4.0)
    period = max(site.extent / narrow / folds, 6 * scene.unit)
    sway = 0.35 * smooth_noise(scene.size, rng, 0.3 * site.extent + 4)
    slant = rng.uniform(-0.6, 0.6) * along / site.extent
    phase = 2 * pi * (across / period + sway + slant)
    ridges = np.exp(1.6 * np.cos(phase)).astype(np.float32)
    inside = np.clip(depth(whole) / (0.1 * site.extent / narrow + 1), 0, 1)
    shade = slope(blurred(ridges * inside, 0.8 * scene.unit), site.angle + pi / 2)
    amount = contrast(scene, rng, whole, 2.6, 6.0)
    return Mark(scene.reflectance + amount * shade * whole, whole)


def glue(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A rounded translucent bead with a glossy highlight; the texture below is blurred."""
    length = rng.uniform(0.9, 1.3) * site.extent
    points = path(rng, site.centre, length, site.angle, bend=rng.uniform(0.2, 0.9))
    base = np.clip(rng.uniform(0.1, 0.22) * site.extent, 6 * scene.unit, 26 * scene.unit)
    swell = 1 + 0.35 * np.sin(np.linspace(0, rng.uniform(3, 12), len(points)) + rng.uniform(0, 6))
    plate = Plate(scene.size)
    plate.stroke(points, base * swell)
    bead = plate.coverage()
    inner = depth(bead)
    rounded = np.sqrt(np.clip(inner / max(float(inner.max()), 1.0), 0, 1))
    shade = slope(blurred(rounded, 1.2 * scene.unit), scene.light)
    change = signed_contrast(scene, rng, bead, 0.6, 2.2)
    body = blurred(scene.reflectance, 2.2 * scene.unit) + change
    gloss = np.clip((shade - 0.45) / 0.4, 0, 1)
    lit = body * (1 + 0.3 * np.minimum(shade, 0.3)) + rng.uniform(0.2, 0.5) * gloss
    return Mark(blend(scene.reflectance, lit, bead), bead)
