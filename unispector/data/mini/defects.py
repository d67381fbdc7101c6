"""The defect families, and how their instances are put on a part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import cv2
import numpy as np

from unispector.data.mini.alike import Alike
from unispector.data.mini.bands import crease, reground, rolled_pit, uneven, weld_line
from unispector.data.mini.bodies import blowhole, bubble, contamination, missing
from unispector.data.mini.edges import chip, crescent, flash, ragged_edge
from unispector.data.mini.lines import crack, fray, glue, hairline, scratch, thread, wrinkle
from unispector.data.mini.marks import Mark, Painter, Site, blend
from unispector.data.mini.noise import Field
from unispector.data.mini.patches import abrasion, burn, chatter, dent, pitting, scale, smear, stain
from unispector.data.mini.reliefs import bent, delamination, melt
from unispector.data.mini.scene import Scene
from unispector.data.mini.spots import oil_spot, rust, silk_spot, water_spot
from unispector.errors import DataError

ATTEMPTS = 400
TRIES_PER_INSTANCE = 12
GAP = 2
FAINTEST = 0.02  # mean change of reflectance of an instance that still can be seen


@dataclass(frozen=True)
class Family:
    """One defect category.

    Attributes:
        painter: paints one instance.
        smallest, largest: its longest side as a share of the image's shorter side; of a band that crosses
            the part, its width.
        most: instances on an image at most.
        at_edge: instances sit on the part's edge or the frame's.
        spanning: instances may start anywhere on the part and run on over its edge, which cuts them off.
        overhangs: instances reach over the part's edge onto the background.
    """

    painter: Painter
    smallest: float
    largest: float
    most: int = 4
    at_edge: bool = False
    spanning: bool = False
    overhangs: bool = False


CATALOGUE: Mapping[str, Family] = MappingProxyType(
    {
        "Scratch": Family(scratch, 0.06, 1.0),
        "Crack": Family(crack, 0.08, 0.9),
        "Blowhole": Family(blowhole, 0.025, 0.2),
        "Stain": Family(stain, 0.06, 0.75),
        "Dent": Family(dent, 0.05, 0.5),
        "Fray": Family(fray, 0.1, 0.6),
        "Contamination": Family(contamination, 0.03, 0.3),
        "Missing": Family(missing, 0.1, 0.7, at_edge=True),
        "Wrinkle": Family(wrinkle, 0.12, 0.75),
        "Burn": Family(burn, 0.06, 0.65),
        "Smear": Family(smear, 0.1, 0.75),
        "Pitting": Family(pitting, 0.06, 0.7),
        "Bubble": Family(bubble, 0.04, 0.4),
        "Thread": Family(thread, 0.1, 0.65),
        "Chatter": Family(chatter, 0.09, 0.6),
        "Glue": Family(glue, 0.12, 0.75),
        "Uneven": Family(uneven, 0.1, 0.5, most=2, spanning=True),
        "WeldLine": Family(weld_line, 0.4, 3.2, spanning=True),
        "Crease": Family(crease, 0.2, 2.4, spanning=True),
        "Crescent": Family(crescent, 0.08, 0.7, at_edge=True),
        "OilSpot": Family(oil_spot, 0.07, 0.6),
        "WaterSpot": Family(water_spot, 0.08, 0.75),
        "SilkSpot": Family(silk_spot, 0.15, 1.2),
        "RolledPit": Family(rolled_pit, 0.15, 1.3, spanning=True),
        "Rust": Family(rust, 0.08, 0.8),
        "Melt": Family(melt, 0.06, 0.5),
        "Bent": Family(bent, 0.15, 0.85),
        "Flash": Family(flash, 0.12, 1.0, at_edge=True, overhangs=True),
        "Chip": Family(chip, 0.1, 0.7, at_edge=True),
        "Delamination": Family(delamination, 0.09, 0.65),
        "Reground": Family(reground, 0.08, 0.5, most=2, spanning=True),
        "Abrasion": Family(abrasion, 0.1, 0.8),
        "Hairline": Family(hairline, 0.15, 1.3, spanning=True),
        "RaggedEdge": Family(ragged_edge, 0.15, 1.0, at_edge=True),
        "Scale": Family(scale, 0.1, 0.9),
    }
)
FAMILIES: tuple[str, ...] = tuple(CATALOGUE)


def paint_defects(scene: Scene, rng: np.random.Generator, family: str, alike: Alike | None = None) -> Mark:
    """Put one to four instances of `family` (bands: two) on the part, mostly apart from each other.

    Args:
        scene: the sound part.
        rng: source of randomness.
        family: one of `FAMILIES`.
        alike: what they have in common; None = only what their family has.

    Returns:
        The reflectance with the defects and the coverage of all of them together.

    Raises:
        DataError: the image is too small to hold an instance.
    """
    wanted = min(int(rng.choice([1, 2, 3, 4], p=[0.5, 0.27, 0.15, 0.08])), CATALOGUE[family].most)
    nothing = np.zeros(scene.size, np.float32)
    return _paint(scene, rng, family, wanted, crowd=wanted, others=nothing, alike=alike)


def paint_several(
    scene: Scene, rng: np.random.Generator, families: Sequence[str]
) -> tuple[Field, dict[str, Field]]:
    """Put one or two instances of every family on the part; those of different families never touch.

    Args:
        scene: the sound part.
        rng: source of randomness.
        families: some of `FAMILIES`, each once.

    Returns:
        The reflectance with all defects, and the coverage of every family's.

    Raises:
        DataError: the image is too small to hold an instance of every family.
    """
    wanted = {family: int(rng.choice([1, 2], p=[0.75, 0.25])) for family in families}
    crowd = sum(wanted.values())
    reflectance, covered = scene.reflectance, np.zeros(scene.size, np.float32)
    coverages: dict[str, Field] = {}
    for family, count in wanted.items():
        mark = _paint(scene.with_reflectance(reflectance), rng, family, count, crowd, covered)
        reflectance, coverages[family] = mark.reflectance, mark.coverage
        covered = np.maximum(covered, mark.coverage)
    return reflectance, coverages


def _paint(
    scene: Scene,
    rng: np.random.Generator,
    family: str,
    wanted: int,
    crowd: int,
    others: Field,
    alike: Alike | None = None,
) -> Mark:
    """Up to `wanted` instances, at least one, sized for a crowd of `crowd` and clear of `others`."""
    kind = CATALOGUE[family]
    if alike is not None:
        smallest, largest = alike.sizes(kind.smallest, kind.largest)
        kind = replace(kind, smallest=smallest, largest=largest)
    total = Mark(scene.reflectance, np.zeros(scene.size, np.float32))
    placed = 0
    for attempt in range(ATTEMPTS):
        if placed == wanted or (placed and attempt >= TRIES_PER_INSTANCE * wanted):
            return total
        current = scene.with_reflectance(total.reflectance)
        site = _site(scene, rng, kind, crowd)
        mark = kind.painter(current, alike.numbers(rng) if alike is not None else rng, site)
        if not kind.overhangs:
            kept = blend(current.reflectance, mark.reflectance, scene.part)
            mark = Mark(kept, mark.coverage * scene.part)
        room = 1 if rng.random() < 0.08 else round(6 * scene.unit) | 1
        if _is_sound(mark, total, room) and _is_apart(mark, others):
            total = Mark(mark.reflectance, np.maximum(total.coverage, mark.coverage))
            placed += 1
    if not placed:
        raise DataError(
            f"mini: no {family} fits into an image of {scene.size}; raise mini.size in params.yaml"
        )
    return total


def _site(scene: Scene, rng: np.random.Generator, kind: Family, crowd: int) -> Site:
    """A random place, extent (log-uniform, smaller in a crowd) and direction."""
    side = min(scene.size)
    largest = max(kind.largest / crowd**0.4, 1.3 * kind.smallest)
    extent = side * kind.smallest * float(largest / kind.smallest) ** rng.random()
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
    return Site(np.array([columns[pick], rows[pick]], np.float64), extent, float(rng.uniform(0, 2 * np.pi)))


def _is_sound(mark: Mark, total: Mark, room: int) -> bool:
    """Whether an instance is one visible piece of fair size with `room` pixels to the others."""
    solid = (mark.coverage > 0.5).astype(np.uint8)
    pieces, _, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    if pieces != 2:
        return False
    height, width = solid.shape
    if stats[1, cv2.CC_STAT_WIDTH] < 0.013 * width + 1 or stats[1, cv2.CC_STAT_HEIGHT] < 0.013 * height + 1:
        return False
    grown = cv2.dilate(solid, np.ones((room, room), np.uint8))
    if np.any(grown[total.coverage > 0.1]):
        return False
    inside: Field = mark.reflectance[solid > 0] - total.reflectance[solid > 0]
    return float(np.abs(inside).mean()) > FAINTEST


def _is_apart(mark: Mark, others: Field) -> bool:
    """Whether at least `GAP` pixels lie between an instance and the other families' defects."""
    side = 2 * GAP + 1
    grown = cv2.dilate((mark.coverage > 0.5).astype(np.uint8), np.ones((side, side), np.uint8))
    return not np.any(grown[others > 0.1])
