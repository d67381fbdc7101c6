"""insa-mini's Magnetic Tile: `MT_<Defect>/Imgs/exp<E>_num_<N>.jpg`, the mask beside it as `.png`.

Planted, as the release has them: masks with soft grey edges; an MT_Uneven mask that is entirely black; an
image of exposure 0; a tile twice, at two exposures and under two numbers; a mask with a speck of one
pixel; black masks of the tiles without defects; a README among the data.
"""

from pathlib import Path

import cv2
import numpy as np

from unispector.data.mini.files import Files
from unispector.data.mini.instances import Mask
from unispector.data.mini.layouts.layout import PLANTED, Drawn, Layout, Shot, classes_alone, write_text
from unispector.data.mini.render import RenderedImage

FREE = "Free"
KINDS = classes_alone("MagneticTile")
FOLDERS = (FREE, *(name for (name,) in KINDS[""]))
BLACK_MASK = "black mask"
DARKER = "a step darker"
SPECK = "speck"
UNEXPOSED = "exposure 0"
STEP = 1.14  # the renderer's ratio of two exposures
ODD = (
    Shot("", ("Uneven",), PLANTED, BLACK_MASK),
    Shot("", ("Crack",), PLANTED, SPECK),
    Shot("", ("Blowhole",), PLANTED, UNEXPOSED),
    Shot("", ("Blowhole",), 0, DARKER),
)


def _files(shot: Shot, picture: RenderedImage) -> Files:
    name = shot.defects[0] if shot.defects else FREE
    number = shot.index + 1
    exposure, image, mask = picture.exposure, picture.image, picture.mask
    if shot.quirk == BLACK_MASK:
        mask = np.zeros_like(mask)
    elif shot.quirk == SPECK:
        mask = _with_speck(mask)
    elif shot.quirk == UNEXPOSED:
        exposure = 0
    elif shot.quirk == DARKER:
        exposure, number = max(exposure - 1, 1), PLANTED + 2
        image = np.rint(image / STEP).astype(np.uint8)
    stem = f"MT_{name}/Imgs/exp{exposure}_num_{100_000 * FOLDERS.index(name) + number}"
    return [(f"{stem}.jpg", image), (f"{stem}.png", mask)]


def _with_speck(mask: Mask) -> Mask:
    """The mask with one more pixel, as far from the others as there is room."""
    distance = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, 5)
    marked = mask.copy()
    marked[np.unravel_index(distance.argmax(), mask.shape)] = 255
    return marked


def _finish(root: Path, drawn: list[Drawn]) -> None:
    write_text(root / "README.md", f"{len(drawn)} drawn images in the layout of the Magnetic Tile release.\n")


MAGNETIC_TILE = Layout("MagneticTile", KINDS, _files, _finish, ODD)
