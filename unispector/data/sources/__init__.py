"""Readers of raw releases: one module per layout, all found in `SOURCES`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unispector.data.sources.magnetic_tile import read_magnetic_tile
from unispector.data.sources.rows import SourceSet


@dataclass(frozen=True)
class Source:
    """A raw layout the project can read.

    Attributes:
        insa_name: name of the set in InsA, also its folder below the data's root.
        read: raw folder -> its rows; raises `DataError` where the layout is broken.
    """

    insa_name: str
    read: Callable[[Path], SourceSet]


SOURCES = {
    "magnetic_tile": Source(insa_name="MagneticTile", read=read_magnetic_tile),
}
