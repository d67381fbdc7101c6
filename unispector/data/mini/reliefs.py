"""Families that change the part's shape: melt, bent, delamination."""

from math import pi

import cv2
import numpy as np

from unispector.data.mini.marks import (
    Mark,
    Site,
    blend,
    cast_shadow,
    contrast,
    eased,
    signed_contrast,
    soft,
    tone_below,
)
from unispector.data.mini.noise import Field, as_field, blurred, fractal_noise, smooth_noise
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Outline, Plate, depth, filled, local_axes, outline, slope, turned


def melt(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A molten, frozen blob: smooth and lobed, with a swollen rim that shines towards the lamp."""
    plate = Plate(scene.size)
    radius = site.extent / 2
    plate.polygon(outline(rng, site.centre, 0.8 * radius, site.angle, Outline(rng.uniform(1, 1.6), 0.2)))
    for _ in range(int(rng.integers(1, 5))):
        turn = rng.uniform(0, 2 * pi)
        lobe = site.centre + turned(np.array([[rng.uniform(0.45, 0.7) * radius, 0.0]]), turn)[0]
        plate.polygon(outline(rng, lobe, rng.uniform(0.22, 0.42) * radius, turn, Outline(1.3, 0.1)))
    blob = plate.coverage()
    inner = depth(blob)
    rim = np.clip(rng.uniform(0.12, 0.22) * radius, 1.6 * scene.unit, 6 * scene.unit)
    swell = np.exp(-(((inner - rim) / (0.8 * rim)) ** 2)) * blob
    shade = slope(blurred(as_field(swell), 0.3 * rim), scene.light)
    flow = 0.06 * smooth_noise(scene.size, rng, 0.3 * site.extent + 3)
    change = signed_contrast(scene, rng, blob, 0.8, 3.0)
    body = blurred(scene.reflectance, 3 * scene.unit) + change * (1 + flow) - 0.1 * eased(inner / (3 * rim))
    gloss = rng.uniform(0.3, 0.65) * np.clip((shade - 0.3) / 0.5, 0, 1)
    lit = body * (1 + 0.45 * np.minimum(shade, 0.3)) + 0.1 * swell + gloss
    return Mark(blend(cast_shadow(scene, blob, 0.6 * rim, 0.3), lit, blob), blob)


def bent(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A bulge pushed sideways: the surface's own pattern runs round it, with a glint along its crest."""
    along, across = local_axes(scene.size, site.centre, site.angle)
    half_long, half_wide = site.extent / 2, site.extent * rng.uniform(0.11, 0.22) + 2 * scene.unit
    bow = across + rng.choice([-1, 1]) * rng.uniform(0.3, 0.9) * (along**2 / site.extent - 0.1 * site.extent)
    offset = np.hypot(along / half_long, bow / half_wide)
    # Next to nothing has moved in the outermost tenth.
    zone = filled((0.88 - offset) * half_wide)
    push = eased(1.1 * (1 - offset))
    amount = rng.choice([-1, 1]) * rng.uniform(0.45, 0.8) * half_wide
    warped = _pulled(scene.reflectance, push, -amount * np.sin(site.angle), amount * np.cos(site.angle))
    facing = 1.0 if np.sin(scene.light - site.angle) > 0 else -1.0
    shade = facing * np.sin(pi * np.clip(bow / half_wide, -1, 1)) * np.sqrt(push)
    crest = bow / half_wide - facing * 0.12
    glint = np.exp(-((crest / 0.13) ** 2)) * eased(1.6 * push)
    strength = contrast(scene, rng, zone, 1.5, 3.6)
    lit = warped + strength * (0.8 * shade + rng.uniform(0.8, 1.6) * glint)
    return Mark(blend(scene.reflectance, lit, eased(8 * push)), zone)


def _pulled(field: Field, push: Field, dx: float, dy: float) -> Field:
    """`field` moved by (dx, dy) pixels where `push` is 1, less where it is less; [h, w]."""
    y, x = np.mgrid[: field.shape[0], : field.shape[1]].astype(np.float32)
    places = as_field(x - np.float32(dx) * push), as_field(y - np.float32(dy) * push)
    return as_field(cv2.remap(field, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def delamination(scene: Scene, rng: np.random.Generator, site: Site) -> Mark:
    """A flake of the top layer that lifts: bright towards its torn lip, which shades the bare layer below."""
    plate = Plate(scene.size)
    shape = Outline(rng.uniform(1, 1.6), 0.15, 0.02)
    plate.polygon(outline(rng, site.centre, site.extent / 2, site.angle, shape))
    whole = plate.coverage()
    _, across = local_axes(scene.size, site.centre, rng.uniform(0, 2 * pi))
    torn = 0.09 * site.extent * fractal_noise(scene.size, rng, 0.22 * site.extent + 3, decay=0.6)
    lip = as_field(across + torn - rng.uniform(-0.05, 0.18) * site.extent)
    flake = filled(-lip) * whole
    change = signed_contrast(scene, rng, whole, 1.6, 3.6)
    grit = fractal_noise(scene.size, rng, 2.5 * scene.unit + 1, decay=0.9)
    bare = np.clip(tone_below(scene, whole) + change + 0.025 * grit, 0.04, 1)
    reach = np.clip(0.14 * site.extent, 2.5 * scene.unit, 10 * scene.unit)
    shadow = rng.uniform(0.5, 0.8) * np.exp(-np.clip(lip, 0, None) / reach)
    walls = 0.3 * np.exp(-depth(whole) / (1.2 * scene.unit))
    lifted = eased(1 + lip / (0.45 * site.extent))
    edge = np.exp(-(((lip + 1.2 * scene.unit) / (1.1 * scene.unit)) ** 2))
    shine = contrast(scene, rng, whole, 0.8, 2.4)
    top = scene.reflectance * (1 + 0.15 * lifted) + shine * (lifted + 1.2 * edge)
    return Mark(
        blend(scene.reflectance, blend(bare * (1 - shadow - walls), top, flake), soft(whole, 0.4)), whole
    )
