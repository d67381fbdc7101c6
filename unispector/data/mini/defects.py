"""The defect families, and how their instances are put on a part."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np

from unispector.data.mini.bodies import blowhole, bubble, contamination, missing
from unispector.data.mini.lines import crack, fray, glue, scratch, thread, wrinkle
from unispector.data.mini.marks import Mark, Painter, Site, blend
from unispector.data.mini.noise import Field
from unispector.data.mini.patches import burn, chatter, dent, pitting, smear, stain
from unispector.data.mini.scene import Scene
from unispector.errors import DataError

ATTEMPTS = 400
TRIES_PER_INSTANCE = 12


@dataclass(frozen=True)
class Family:
    """One defect category.

    Attributes:
        painter: paints one instance.
        smallest, largest: its longest side as a share of the image's shorter side.
        at_edge: instances sit on the part's edge or the frame's.
    """

    painter: Painter
    smallest: float
    largest: float
    at_edge: bool = False


CATALOGUE: Mapping[str, Family] = MappingProxyType(
    {
        "Scratch": Family(scratch, 0.1, 0.8),
        "Crack": Family(crack, 0.12, 0.7),
        "Blowhole": Family(blowhole, 0.03, 0.15),
        "Stain": Family(stain, 0.1, 0.6),
        "Dent": Family(dent, 0.09, 0.38),
        "Fray": Family(fray, 0.13, 0.45),
        "Contamination": Family(contamination, 0.035, 0.22),
        "Missing": Family(missing, 0.15, 0.6, at_edge=True),
        "Wrinkle": Family(wrinkle, 0.16, 0.55),
        "Burn": Family(burn, 0.09, 0.5),
        "Smear": Family(smear, 0.15, 0.55),
        "Pitting": Family(pitting, 0.08, 0.42),
        "Bubble": Family(bubble, 0.06, 0.3),
        "Thread": Family(thread, 0.12, 0.5),
        "Chatter": Family(chatter, 0.13, 0.45),
        "Glue": Family(glue, 0.18, 0.6),
    }
)
FAMILIES: tuple[str, ...] = tuple(CATALOGUE)


def paint_defects(scene: Scene, rng: np.random.Generator, family: str) -> Mark:
    """Put one to four instances of `family` on the part, mostly apart from each other.

    Args:
        scene: the sound part.
        rng: source of randomness.
        family: one of `FAMILIES`.

    Returns:
        The reflectance with the defects and the coverage of all of them together.

    Raises:
        DataError: the image is too small to hold an instance.
    """
    kind = CATALOGUE[family]
    wanted = int(rng.choice([1, 2, 3, 4], p=[0.5, 0.27, 0.15, 0.08]))
    total = Mark(scene.reflectance, np.zeros(scene.size, np.float32))
    placed = 0
    for attempt in range(ATTEMPTS):
        if placed == wanted or (placed and attempt >= TRIES_PER_INSTANCE * wanted):
            return total
        current = scene.with_reflectance(total.reflectance)
        mark = kind.painter(current, rng, _site(scene, rng, kind, crowd=wanted))
        mark = Mark(blend(current.reflectance, mark.reflectance, scene.part), mark.coverage * scene.part)
        room = 1 if rng.random() < 0.08 else round(6 * scene.unit) | 1
        if _is_sound(mark, total, room):
            total = Mark(mark.reflectance, np.maximum(total.coverage, mark.coverage))
            placed += 1
    if not placed:
        raise DataError(
            f"mini: no {family} fits into an image of {scene.size}; raise mini.size in params.yaml"
        )
    return total


def _site(scene: Scene, rng: np.random.Generator, kind: Family, crowd: int) -> Site:
    """A random place, extent (log scale, leaning to large, smaller in a crowd) and direction."""
    side = min(scene.size)
    largest = max(kind.largest / crowd**0.4, 1.3 * kind.smallest)
    # The square root favours the larger half of the range: small ones cost a detector most.
    share = rng.random() ** 0.5 if rng.random() < 0.6 else rng.random()
    extent = side * kind.smallest * float(largest / kind.smallest) ** share
    # Zero padding counts the frame as an edge: wanted for edge defects, else to keep most of them whole.
    whole = kind.at_edge or rng.random() < 0.8
    solid = np.pad((scene.part > 0.5).astype(np.uint8), 1, constant_values=0 if whole else 1)
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, 5)[1:-1, 1:-1]
    near, far = (0.0, 0.12 * extent + 2) if kind.at_edge else ((0.4 if whole else 0.15) * extent, np.inf)
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
    return float(np.abs(inside).mean()) > 0.026
