"""insa-mini: a procedural, seeded benchmark of seven sets in the native layouts of InsA's sources."""

from unispector.data.mini.defects import FAMILIES
from unispector.data.mini.generate import MiniReport, generate_mini
from unispector.data.mini.render import DEFECT_FREE, RenderedImage, render, render_several

__all__ = [
    "DEFECT_FREE",
    "FAMILIES",
    "MiniReport",
    "RenderedImage",
    "generate_mini",
    "render",
    "render_several",
]
