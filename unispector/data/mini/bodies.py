"""Families with height or depth: blowhole, bubble, contamination, missing, melt, bent, delamination."""

from math import pi

import cv2
import numpy as np

from unispector.data.mini.marks import blend, bump, eased, soft
from unispector.data.mini.noise import Field, as_field, blurred
from unispector.data.mini.shapes import depth, filled, outline, polygons, slope, step, turned
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


def melt(at: Site) -> Mark:
    """A molten, frozen blob: smooth and lobed, with a swollen rim that shines towards the lamp."""
    radius = at.radius
    outlines = [at.outline(at.uniform(1, 1.6), 0.2, reach=0.8)]
    for _ in range(int(at.rng.integers(1, 5))):
        turn = at.uniform(0, 2 * pi)
        lobe = at.centre + step(at.uniform(0.45, 0.7) * radius, turn)
        outlines.append(lobe + outline(at.rng, at.uniform(0.22, 0.42) * radius, turn, 1.3, 0.1))
    blob = polygons(at.size, outlines)
    inner = depth(blob)
    rim = np.clip(at.uniform(0.12, 0.22) * radius, 1.6 * at.unit, 6 * at.unit)
    swell = bump(inner - rim, 0.8 * rim) * blob
    shade = slope(blurred(as_field(swell), 0.3 * rim), at.light)
    flow = 0.06 * at.noise(0.3 * at.extent + 3)
    change = at.signed_contrast(blob, 0.8, 3.0)
    body = blurred(at.reflectance, 3 * at.unit) + change * (1 + flow) - 0.1 * eased(inner / (3 * rim))
    gloss = at.uniform(0.3, 0.65) * np.clip((shade - 0.3) / 0.5, 0, 1)
    lit = body * (1 + 0.45 * np.minimum(shade, 0.3)) + 0.1 * swell + gloss
    return blend(at.shadow(blob, 0.6 * rim, 0.3), lit, blob), blob


def bent(at: Site) -> Mark:
    """A bulge pushed sideways: the surface's own pattern runs round it, with a glint along its crest."""
    along, across = at.axes()
    half_wide = at.extent * at.uniform(0.11, 0.22) + 2 * at.unit
    bow = across + at.sign() * at.uniform(0.3, 0.9) * (along**2 / at.extent - 0.1 * at.extent)
    offset = np.hypot(along / at.radius, bow / half_wide)
    # Next to nothing has moved in the outermost tenth.
    zone = filled((0.88 - offset) * half_wide)
    push = eased(1.1 * (1 - offset))
    amount = at.sign() * at.uniform(0.45, 0.8) * half_wide
    warped = _pulled(at.reflectance, push, -amount * np.sin(at.angle), amount * np.cos(at.angle))
    facing = 1.0 if np.sin(at.light - at.angle) > 0 else -1.0
    shade = facing * np.sin(pi * np.clip(bow / half_wide, -1, 1)) * np.sqrt(push)
    glint = bump(bow / half_wide - facing * 0.12, 0.13) * eased(1.6 * push)
    strength = at.contrast(zone, 1.5, 3.6)
    lit = warped + strength * (0.8 * shade + at.uniform(0.8, 1.6) * glint)
    return blend(at.reflectance, lit, eased(8 * push)), zone


def _pulled(field: Field, push: Field, dx: float, dy: float) -> Field:
    """`field` moved by (dx, dy) pixels where `push` is 1, less where it is less; [h, w]."""
    y, x = np.mgrid[: field.shape[0], : field.shape[1]].astype(np.float32)
    places = as_field(x - np.float32(dx) * push), as_field(y - np.float32(dy) * push)
    return as_field(cv2.remap(field, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def delamination(at: Site) -> Mark:
    """A flake of the top layer that lifts: bright towards its torn lip, which shades the bare layer below."""
    whole = at.blob(at.uniform(1, 1.6), 0.15, 0.02)
    _, across = at.axes(at.uniform(0, 2 * pi))
    torn = 0.09 * at.extent * at.fractal(0.22 * at.extent + 3, 0.6)
    lip = as_field(across + torn - at.uniform(-0.05, 0.18) * at.extent)
    flake = filled(-lip) * whole
    change = at.signed_contrast(whole, 1.6, 3.6)
    grit = at.fractal(2.5 * at.unit + 1, 0.9)
    bare = np.clip(at.tone(whole) + change + 0.025 * grit, 0.04, 1)
    reach = np.clip(0.14 * at.extent, 2.5 * at.unit, 10 * at.unit)
    shadow = at.uniform(0.5, 0.8) * np.exp(-np.clip(lip, 0, None) / reach)
    walls = 0.3 * np.exp(-depth(whole) / (1.2 * at.unit))
    lifted = eased(1 + lip / (0.45 * at.extent))
    edge = bump(lip + 1.2 * at.unit, 1.1 * at.unit)
    shine = at.contrast(whole, 0.8, 2.4)
    top = at.reflectance * (1 + 0.15 * lifted) + shine * (lifted + 1.2 * edge)
    return blend(at.reflectance, blend(bare * (1 - shadow - walls), top, flake), soft(whole, 0.4)), whole
