"""Readers of raw releases: one module per layout, all found in `SOURCES`."""

from unispector.data.sources.magnetic_tile import MAGNETIC_TILE
from unispector.data.sources.source import Source

__all__ = ["SOURCES", "Source"]

SOURCES = {
    "magnetic_tile": MAGNETIC_TILE,
}
