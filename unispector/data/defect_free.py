"""The defect-free images of a set: no instance to find, so every detection on them is a false alarm."""

import csv
from pathlib import Path

import numpy as np

from unispector.data.sources.rows import DEFECT_FREE
from unispector.errors import DataError


def defect_free_images(dropped: Path, count: int, seed: int) -> tuple[str, ...]:
    """Draw some of the images that conversion left out for having no defect.

    Args:
        dropped: the table of dropped files the stage convert wrote.
        count: how many at most.
        seed: of the lot.

    Returns:
        File names relative to the set's raw folder, sorted; empty where the release has no such images.

    Raises:
        DataError: the table cannot be read.
    """
    try:
        with dropped.open(encoding="utf-8", newline="") as file:
            names = sorted(row["file_name"] for row in csv.DictReader(file) if row["reason"] == DEFECT_FREE)
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise DataError(f"{dropped}: no table of dropped files; run the convert stage again") from error
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    return tuple(names[i] for i in sorted(drawn.tolist()))
