"""Line-like families: scratch, crack, hairline, thread, fray, wrinkle, glue."""

from math import pi

import cv2
import numpy as np

from unispector.data.mini.marks import blend, closed, shifted, soft
from unispector.data.mini.noise import as_field, blurred
from unispector.data.mini.shapes import Line, depth, slope, strokes, turned
from unispector.data.mini.site import Mark, Site


def scratch(at: Site) -> Mark:
    """A thin, smooth, nearly straight line with tapered ends and one flank lit."""
    points = at.path(at.extent, bend=at.rng.choice([0.03, 0.12, 0.3]))
    taper = np.sin(pi * np.linspace(0.04, 0.96, len(points))) ** 0.4
    line = strokes(at.size, [(points, np.maximum(at.uniform(1.6, 3.6) * at.unit * taper, 1.4))])
    change = at.signed_contrast(line, 1.3, 4.5)
    uneven = np.clip(0.9 + 0.25 * at.noise(10 * at.unit), 0.4, 1.3)
    flank = np.clip(shifted(line, 1.0, at.light) - line, 0, 1)
    return at.reflectance + change * uneven * line - 0.45 * change * flank, line


def crack(at: Site) -> Mark:
    """A dark, jagged, branching break that thins out towards its tips."""
    thick = at.uniform(1.8, 4.2) * at.unit
    trunk = at.path(1.25 * at.extent, bend=0.35, jitter=0.75)
    shape = np.clip(1.25 - np.linspace(-1, 1, len(trunk)) ** 2, 0.5, 1)
    widths = np.maximum(thick * shape * at.rng.uniform(0.7, 1.3, len(trunk)), 1.5)
    lines: list[Line] = [(trunk, widths)]
    for _ in range(int(at.rng.integers(0, 6))):
        root = trunk[at.rng.integers(len(trunk) // 6, max(len(trunk) * 5 // 6, len(trunk) // 6 + 1))]
        side = at.angle + at.sign() * at.uniform(0.5, 1.2)
        branch = at.branch(root, at.uniform(0.15, 0.5) * at.extent, side, bend=0.3, jitter=0.75)
        lines.append((branch, np.maximum(np.linspace(0.75, 0.3, len(branch)) * thick, 1.4)))
    gap = strokes(at.size, lines)
    dark = at.log_uniform(0.15, 0.92)
    lip = np.clip(shifted(gap, -1.2, at.light) - gap, 0, 1)
    return at.reflectance * (1 + at.uniform(0.05, 0.35) * lip) * (1 - dark * gap), gap


def hairline(at: Site) -> Mark:
    """A long fine crack, one or two pixels wide, jagged and often branching, faint in places."""
    jitter = at.uniform(0.15, 0.6)
    trunk = at.path(1.1 * at.extent, bend=at.uniform(0.05, 0.4), jitter=jitter)
    paths = [trunk]
    for _ in range(int(at.rng.choice([0, 1, 2, 4], p=[0.45, 0.25, 0.2, 0.1]))):
        root = trunk[at.rng.integers(len(trunk))]
        side = at.angle + at.sign() * at.uniform(0.3, 1.2)
        paths.append(at.branch(root, at.uniform(0.1, 0.45) * at.extent, side, bend=0.2, jitter=jitter))
    thick = at.uniform(1.0, 2.0) * max(at.unit, 0.8)
    widths = [thick * np.clip(at.rng.normal(1, 0.15, len(line)), 0.7, 1.3) for line in paths]
    gap = strokes(at.size, zip(paths, widths, strict=True))
    # A hand marks a line wider than it is.
    marked = strokes(at.size, [(line, max(thick + 0.6, 1.8)) for line in paths])
    faint = np.clip(0.9 + 0.3 * at.noise(12 * at.unit), 0.35, 1.2)
    dark = at.log_uniform(0.16, 0.8) * faint
    return at.reflectance * (1 - np.minimum(dark, 0.9) * gap), marked


def thread(at: Site) -> Mark:
    """A loose curling fibre of even width that casts a shadow."""
    points = at.path(at.uniform(1.6, 3.2) * at.extent, bend=at.uniform(1.6, 2.8))
    fibre = strokes(at.size, [(points, at.uniform(1.6, 2.8) * at.unit)])
    change = at.signed_contrast(fibre, 2.0, 5.0)
    tone = np.clip(at.tone(fibre) + change, 0.05, 1.0)
    twist = 0.03 * at.noise(2.5 * at.unit)
    below = at.shadow(fibre, at.uniform(1.5, 3.5) * at.unit, at.uniform(0.15, 0.4))
    return blend(below, tone + twist, fibre), fibre


def fray(at: Site) -> Mark:
    """A tuft of torn fibres that fan out from a dark root."""
    count = int(np.clip(at.uniform(0.5, 0.9) * at.extent / at.unit, 14, 70))
    spread, root_width = at.uniform(0.25, 0.75), at.uniform(0.25, 0.8) * at.extent
    along = np.array([[0.0, 1.0]]) * (np.linspace(-0.5, 0.5, count)[:, None] * root_width)
    roots = at.centre + turned(along - [0.35 * at.extent, 0.0], at.angle)
    lit: list[Line] = []
    shaded: list[Line] = []
    fan = np.linspace(-spread, spread, count) + at.rng.normal(0, 0.25, count)
    for root, lean, stretch in zip(roots, fan, at.rng.uniform(0.4, 1.0, count), strict=True):
        hair = at.branch(root, stretch * (0.75 * at.extent), at.angle + lean, bend=0.5)
        (lit if at.rng.random() < 0.6 else shaded).append((hair, at.uniform(0.7, 1.4) * at.unit))
    bright, dark = strokes(at.size, lit), strokes(at.size, shaded)
    # Grown by a pixel first: the tip of a single hair is thinner than one and would fall out of the mask.
    thick = as_field(cv2.dilate(np.maximum(bright, dark), np.ones((3, 3), np.uint8)))
    whole = soft(closed(thick, 7 * at.unit), 0.6)
    change = at.contrast(whole, 1.6, 3.6)
    torn = soft(strokes(at.size, [(roots, at.uniform(2, 4) * at.unit)]), 0.7) * whole
    painted = at.reflectance * (1 - 0.3 * torn) + change * bright - 0.8 * change * dark
    return painted - 0.15 * change * whole, whole


def wrinkle(at: Site) -> Mark:
    """A bundle of broad uneven folds, each lit on one side and shaded on the other."""
    narrow = at.uniform(1.3, 2.8)
    whole = at.blob(narrow, 0.12, 0.015)
    along, across = at.axes()
    period = max(at.extent / narrow / at.uniform(2.0, 4.0), 6 * at.unit)
    sway = 0.35 * at.noise(0.3 * at.extent + 4)
    slant = at.uniform(-0.6, 0.6) * along / at.extent
    phase = 2 * pi * (across / period + sway + slant)
    ridges = np.exp(1.6 * np.cos(phase)).astype(np.float32)
    inside = np.clip(depth(whole) / (0.1 * at.extent / narrow + 1), 0, 1)
    shade = slope(blurred(ridges * inside, 0.8 * at.unit), at.angle + pi / 2)
    return at.reflectance + at.contrast(whole, 2.6, 6.0) * shade * whole, whole


def glue(at: Site) -> Mark:
    """A rounded translucent bead with a glossy highlight; the texture below is blurred."""
    points = at.path(at.uniform(0.9, 1.3) * at.extent, bend=at.uniform(0.2, 0.9))
    base = np.clip(at.uniform(0.1, 0.22) * at.extent, 6 * at.unit, 26 * at.unit)
    swell = 1 + 0.35 * np.sin(np.linspace(0, at.uniform(3, 12), len(points)) + at.uniform(0, 6))
    bead = strokes(at.size, [(points, base * swell)])
    inner = depth(bead)
    rounded = np.sqrt(np.clip(inner / max(float(inner.max()), 1.0), 0, 1))
    shade = slope(blurred(rounded, 1.2 * at.unit), at.light)
    change = at.signed_contrast(bead, 0.6, 2.2)
    body = blurred(at.reflectance, 2.2 * at.unit) + change
    gloss = np.clip((shade - 0.45) / 0.4, 0, 1)
    lit = body * (1 + 0.3 * np.minimum(shade, 0.3)) + at.uniform(0.2, 0.5) * gloss
    return blend(at.reflectance, lit, bead), bead
