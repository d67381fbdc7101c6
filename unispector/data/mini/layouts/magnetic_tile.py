"""insa-mini's Magnetic Tile: `MT_<Defect>/Imgs/exp<E>_num_<N>.jpg`, the mask beside it as `.png`.

Planted, as the release has them: masks with soft grey edges; an MT_Uneven mask that is entirely black; an
image of exposure 0; a tile twice, at two exposures and under two numbers; a mask with a speck of one
pixel; black masks of the tiles without defects; a README among the data.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import CLASSES
from unispector.data.mini.layouts.shots import (
    PLANTED,
    Drawn,
    Grey,
    Layout,
    Picture,
    Shot,
    save,
    shots_of,
    sound_shots,
    write_text,
)

FOLDER = "MagneticTile"
FREE = "Free"
BLACK_MASK = "black mask"
DARKER = "a step darker"
SPECK = "speck"
UNEXPOSED = "exposure 0"
STEP = 1.14  # the renderer's ratio of two exposures
FOLDERS = (FREE, *CLASSES[FOLDER][""])


def _shots(config: MiniConfig) -> Iterator[Shot]:
    yield from sound_shots(("",), config.defect_free_images)
    yield from shots_of("", ((name,) for name in CLASSES[FOLDER][""]), config.images_per_class)
    yield Shot("", ("Uneven",), PLANTED, BLACK_MASK)
    yield Shot("", ("Crack",), PLANTED, SPECK)
    yield Shot("", ("Blowhole",), PLANTED, UNEXPOSED)
    yield Shot("", ("Blowhole",), 0, DARKER)


def _write(root: Path, shot: Shot, picture: Picture) -> str:
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
    file = Path(f"MT_{name}/Imgs/exp{exposure}_num_{100_000 * FOLDERS.index(name) + number}.jpg")
    save(root / file, image)
    save(root / file.with_suffix(".png"), mask)
    return file.as_posix()


def _with_speck(mask: Grey) -> Grey:
    """The mask with one more pixel, as far from the others as there is room."""
    distance = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, 5)
    marked = mask.copy()
    marked[np.unravel_index(distance.argmax(), mask.shape)] = 255
    return marked


def _finish(root: Path, drawn: list[Drawn]) -> None:
    write_text(root / "README.md", f"{len(drawn)} drawn images in the layout of the Magnetic Tile release.\n")


MAGNETIC_TILE = Layout(FOLDER, _shots, _write, _finish)
