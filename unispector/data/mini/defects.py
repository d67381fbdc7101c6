"""The defect families, and how their instances are put on a part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from unispector.data.mini import bands, bodies, edges, lines, patches
from unispector.data.mini.alike import Alike
from unispector.data.mini.marks import blend
from unispector.data.mini.noise import Field
from unispector.data.mini.scene import Scene
from unispector.data.mini.site import Painter, Site
from unispector.errors import DataError

ATTEMPTS = 400
TRIES_PER_INSTANCE = 12
GAP = 2
FAINTEST = 0.02  # mean change of reflectance of an instance that still can be seen
# How many instances of a family an image has, with their shares: alone on it, and beside others.
ALONE = [1, 2, 3, 4], [0.5, 0.27, 0.15, 0.08]
AMONG = [1, 2], [0.75, 0.25]


@dataclass(frozen=True)
class Family:
    """One defect category."""

    painter: Painter
    # Longest side as a share of the image's shorter side; of a band that crosses the part, its width.
    smallest: float
    largest: float
    most: int = 4  # instances on an image
    at_edge: bool = False  # on the part's edge or the frame's
    spanning: bool = False  # may start anywhere on the part and run on over its edge, which cuts it off
    overhangs: bool = False  # reaches over the part's edge onto the background


CATALOGUE: Mapping[str, Family] = {
    "Scratch": Family(lines.scratch, 0.06, 1.0),
    "Crack": Family(lines.crack, 0.08, 0.9),
    "Blowhole": Family(bodies.blowhole, 0.025, 0.2),
    "Stain": Family(patches.stain, 0.06, 0.75),
    "Dent": Family(patches.dent, 0.05, 0.5),
    "Fray": Family(lines.fray, 0.1, 0.6),
    "Contamination": Family(bodies.contamination, 0.03, 0.3),
    "Missing": Family(bodies.missing, 0.1, 0.7, at_edge=True),
    "Wrinkle": Family(lines.wrinkle, 0.12, 0.75),
    "Burn": Family(patches.burn, 0.06, 0.65),
    "Smear": Family(patches.smear, 0.1, 0.75),
    "Pitting": Family(patches.pitting, 0.06, 0.7),
    "Bubble": Family(bodies.bubble, 0.04, 0.4),
    "Thread": Family(lines.thread, 0.1, 0.65),
    "Chatter": Family(patches.chatter, 0.09, 0.6),
    "Glue": Family(lines.glue, 0.12, 0.75),
    "Uneven": Family(bands.uneven, 0.1, 0.5, most=2, spanning=True),
    "WeldLine": Family(bands.weld_line, 0.4, 3.2, spanning=True),
    "Crease": Family(bands.crease, 0.2, 2.4, spanning=True),
    "Crescent": Family(edges.crescent, 0.08, 0.7, at_edge=True),
    "OilSpot": Family(patches.oil_spot, 0.07, 0.6),
    "WaterSpot": Family(patches.water_spot, 0.08, 0.75),
    "SilkSpot": Family(patches.silk_spot, 0.15, 1.2),
    "RolledPit": Family(bands.rolled_pit, 0.15, 1.3, spanning=True),
    "Rust": Family(patches.rust, 0.08, 0.8),
    "Melt": Family(bodies.melt, 0.06, 0.5),
    "Bent": Family(bodies.bent, 0.15, 0.85),
    "Flash": Family(edges.flash, 0.12, 1.0, at_edge=True, overhangs=True),
    "Chip": Family(edges.chip, 0.1, 0.7, at_edge=True),
    "Delamination": Family(bodies.delamination, 0.09, 0.65),
    "Reground": Family(bands.reground, 0.08, 0.5, most=2, spanning=True),
    "Abrasion": Family(patches.abrasion, 0.1, 0.8),
    "Hairline": Family(lines.hairline, 0.15, 1.3, spanning=True),
    "RaggedEdge": Family(edges.ragged_edge, 0.15, 1.0, at_edge=True),
    "Scale": Family(patches.scale, 0.1, 0.9),
}
FAMILIES: tuple[str, ...] = tuple(CATALOGUE)


def paint_defects(
    scene: Scene, rng: np.random.Generator, families: Sequence[str], alike: Alike | None = None
) -> tuple[Field, dict[str, Field]]:
    """Put instances of every family on the part; those of different families never touch.

    Returns the reflectance with all defects, and the coverage of every family's. `families` are some of
    `FAMILIES`, each once; `alike` is what their instances have in common, None = only what a family has.

    Raises:
        DataError: the image is too small to hold an instance of every family.
    """
    counts, shares = ALONE if len(families) == 1 else AMONG
    wanted = {name: min(int(rng.choice(counts, p=shares)), CATALOGUE[name].most) for name in families}
    covered = np.zeros(scene.size, np.float32)
    coverages: dict[str, Field] = {}
    for name, count in wanted.items():
        kind = CATALOGUE[name]
        smallest, largest = kind.smallest, kind.largest
        if alike is not None:
            smallest, largest = alike.sizes(smallest, largest)
        # Many instances on an image are smaller than a few.
        largest = max(largest / sum(wanted.values()) ** 0.4, 1.3 * smallest)
        kind = replace(kind, smallest=smallest, largest=largest)
        reflectance, coverages[name] = _paint(scene, rng, kind, count, covered, alike)
        if not coverages[name].any():
            raise DataError(
                f"mini: no {name} fits into an image of {scene.size}; raise mini.size in params.yaml"
            )
        scene = replace(scene, reflectance=reflectance)
        covered = np.maximum(covered, coverages[name])
    return scene.reflectance, coverages


def _paint(
    scene: Scene, rng: np.random.Generator, kind: Family, wanted: int, others: Field, alike: Alike | None
) -> tuple[Field, Field]:
    """Reflectance with, and coverage of, up to `wanted` instances that are clear of `others`."""
    covered = np.zeros(scene.size, np.float32)
    placed = 0
    for attempt in range(ATTEMPTS):
        if placed == wanted or (placed and attempt >= TRIES_PER_INSTANCE * wanted):
            break
        site = _site(scene, rng, kind)
        painted, coverage = kind.painter(replace(site, rng=alike.numbers(rng)) if alike else site)
        if not kind.overhangs:
            painted, coverage = blend(scene.reflectance, painted, scene.part), coverage * scene.part
        room = 1 if rng.random() < 0.08 else round(6 * scene.unit) | 1
        change = np.abs(painted - scene.reflectance)
        if _fits(coverage, change, ((covered, room), (others, 2 * GAP + 1))):
            scene, covered = replace(scene, reflectance=painted), np.maximum(covered, coverage)
            placed += 1
    return scene.reflectance, covered


def _site(scene: Scene, rng: np.random.Generator, kind: Family) -> Site:
    """A random place, extent (log-uniform) and direction."""
    side = min(scene.size)
    extent = side * kind.smallest * float(kind.largest / kind.smallest) ** rng.random()
    # Zero padding counts the frame as an edge: wanted for edge defects, else to keep most of them whole.
    whole = kind.at_edge or rng.random() < 0.8
    solid = np.pad((scene.part > 0.5).astype(np.uint8), 1, constant_values=0 if whole else 1)
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, 5)[1:-1, 1:-1]
    near, far = (0.4 if whole else 0.15) * extent, np.inf
    if kind.at_edge:
        near, far = 0.0, 0.12 * extent + 2
    elif kind.spanning:
        near = 0.08 * side
    allowed = (distance > near) & (distance <= far)
    rows, columns = np.nonzero(allowed if allowed.any() else distance > 0)
    pick = int(rng.integers(len(rows)))
    centre = np.array([columns[pick], rows[pick]], np.float64)
    return Site(**vars(scene), rng=rng, centre=centre, extent=extent, angle=float(rng.uniform(0, 2 * np.pi)))


def _fits(coverage: Field, change: Field, others: Sequence[tuple[Field, int]]) -> bool:
    """Whether an instance is one visible piece of fair size, apart from others by so many pixels."""
    solid = (coverage > 0.5).astype(np.uint8)
    pieces, _, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if pieces != 2:
        return False
    height, width = solid.shape
    if stats[1, cv2.CC_STAT_WIDTH] < 0.013 * width + 1 or stats[1, cv2.CC_STAT_HEIGHT] < 0.013 * height + 1:
        return False
    for covered, room in others:
        if np.any(cv2.dilate(solid, np.ones((room, room), np.uint8))[covered > 0.1]):
            return False
    return float(change[solid > 0].mean()) > FAINTEST
