"""The defect-free images of a set: no instance to find, so every detection on them is a false alarm.

About half of them may train, at random once and for all; false alarms are counted on the others.
"""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unispector.data.sources.reasons import DEFECT_FREE
from unispector.errors import DataError


def defect_free_images(dropped: Path, count: int, seed: int) -> tuple[str, ...]:
    """Draw some of the images that conversion left out for having no defect.

    `dropped` is the table that the stage convert wrote; at most `count` are drawn. Returns file names
    relative to the set's raw folder, sorted; empty where the release has no such images.

    Raises:
        DataError: the table cannot be read.
    """
    return _lot(_listed(dropped), count, seed)


def defect_free_for_tests(dropped: Path, count: int) -> tuple[str, ...]:
    """Like `defect_free_images`, but only of the half that never trains."""
    return _lot([name for name in _listed(dropped) if not _trains(name)], count, seed=0)


def defect_free_for_training(dropped: Path, count: int) -> tuple[str, ...]:
    """Like `defect_free_images`, but only of the half that false alarms are never counted on."""
    return _lot([name for name in _listed(dropped) if _trains(name)], count, seed=0)


def _trains(name: str) -> bool:
    """A coin tossed by the name alone: it falls the same in a set that has grown, and in every split."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0


def _listed(dropped: Path) -> list[str]:
    try:
        with dropped.open(encoding="utf-8", newline="") as file:
            return sorted(row["file_name"] for row in csv.DictReader(file) if row["reason"] == DEFECT_FREE)
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise DataError(f"{dropped}: no table of dropped files; run the convert stage again") from error


def _lot(names: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    return tuple(names[i] for i in sorted(drawn.tolist()))
