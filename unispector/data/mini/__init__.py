"""insa-mini: a procedural, seeded set of defect images in Magnetic Tile's raw layout."""

from unispector.data.mini.defects import FAMILIES
from unispector.data.mini.generate import MiniReport, generate_mini
from unispector.data.mini.render import DEFECT_FREE, RenderedImage, render

__all__ = ["DEFECT_FREE", "FAMILIES", "MiniReport", "RenderedImage", "generate_mini", "render"]
