"""The figure of a comparison: prompt, ground truth, UniSpector's findings and a rival's, in four columns.

After figure 2 of the paper's appendix, with its colours.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from unispector.errors import DataError
from unispector.evaluation.system_sample import Box, SystemSample
from unispector.ops.drawing import Colour, Image, Region, draw_regions, in_columns, write_image
from unispector.ops.files import read_image

logger = logging.getLogger(__name__)

_ORANGE, _BLUE, _GREEN, _RED = (255, 150, 30), (70, 140, 255), (70, 215, 100), (255, 60, 60)
MOST = 24  # rows: a higher image has more pixels than a JPEG can
_LINE = 4  # pixels of a box's line


def write_comparison(
    own: Sequence[SystemSample], rival: Sequence[SystemSample], title: str, root: Path, path: Path
) -> bool:
    """Draw the targets that both systems were shown, one a row.

    Args:
        own: what UniSpector found, in one measurement or in several.
        rival: what the other system found.
        title: the other system.
        root: the project, which the images' files are relative to.
        path: the image to write.

    Returns:
        Whether there was anything to draw; a target whose images cannot be read is left out and told.
    """
    known = {sample.key: sample for sample in reversed(own)}  # the first measurement's, of several
    rows = []
    for sample in [sample for sample in rival if sample.key in known][:MOST]:
        try:
            rows.append(_row(known[sample.key], sample, root))
        except DataError as error:
            logger.warning("not drawn: %s", error)
    if not rows:
        return False
    headings = ("Prompt", _ORANGE), ("Ground truth", _BLUE), ("UniSpector", _GREEN), (title, _RED)
    write_image(path, in_columns(headings, rows))
    return True


def _row(own: SystemSample, rival: SystemSample, root: Path) -> tuple[tuple[Image, ...], str]:
    for file in (own.prompt_image, own.target_image):
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise DataError(f"{file}: lies outside of the project")
    prompt, target = read_image(root / own.prompt_image), read_image(root / own.target_image)
    images = (
        _drawn(prompt, own.prompted, _ORANGE),
        _drawn(target, own.truth, _BLUE),
        _drawn(target, own.found, _GREEN),
        _drawn(target, rival.found, _RED),
    )
    return images, f"{own.data_set} · {own.class_name} · {own.target_image}"


def _drawn(image: Image, boxes: Sequence[Box], colour: Colour) -> Image:
    return draw_regions(image, [Region(box, None, "", colour, _LINE) for box in boxes])
