"""insa-mini: a procedural, seeded benchmark of seven sets in the native layouts of InsA's sources."""

from unispector.data.mini.generate import MiniReport, generate_mini

__all__ = ["MiniReport", "generate_mini"]
