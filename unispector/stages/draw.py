"""`unispector data draw`: a set of drawn defects, on drawn parts or on your own good pictures."""

from dataclasses import replace
from pathlib import Path

from unispector.data.drawn_set import DrawnSet, draw_set
from unispector.stages.detect import list_images
from unispector.stages.progress import progress_bar


def draw(drawn: DrawnSet, surfaces: Path | None, out: Path) -> int:
    """Draw a set; what lay at `out` is replaced.

    Args:
        drawn: what to draw, without surfaces.
        surfaces: folder of pictures of sound parts; None = parts are drawn too.
        out: folder to make.

    Returns:
        The number of images.

    Raises:
        DataError: see `draw_set`; or the folder has no image.
    """
    if surfaces is not None:
        drawn = replace(drawn, surfaces=tuple(list_images([surfaces])))
    with progress_bar(out.name) as progress:
        return draw_set(drawn, out, progress)
