"""insa-mini's 3CAD: `<Product>/test/<defect>/NNNNNN.png`, masks of the same name below `ground_truth`.

Planted, as the release has them: a folder `Multiple-defects`; an image of two defects in a folder that
names one; a defect spelt in two ways (`scratche`, `scratches`); one image under two names; a sound part
among both the training and the test images; masks of modes L, 1, P and RGB, and such of 0 and 1.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import CLASSES
from unispector.data.mini.layouts.shots import (
    PLANTED,
    Drawn,
    Grey,
    Layout,
    Picture,
    Shot,
    cross_domain_images,
    exact,
    save,
    shots_of,
    sound_shots,
)

FOLDER = "3CAD"
IPAD = "Aluminum_New_Ipad"
SEVERAL = "Multiple-defects"
ONE_LABEL = "one label for two defects"
TWICE = "one image under two names"
RED = (0, 0, 0, 200, 30, 30)


def _shots(config: MiniConfig) -> Iterator[Shot]:
    images = cross_domain_images(config)
    yield from sound_shots(tuple(CLASSES[FOLDER]), config.defect_free_images)
    for product, defects in CLASSES[FOLDER].items():
        yield from shots_of(product, ((defect,) for defect in defects), images)
    yield from shots_of(IPAD, [("bump", "scratche")], images)
    yield Shot(IPAD, ("bump", "scratche"), PLANTED, ONE_LABEL)
    yield Shot(IPAD, ("bump",), 0, TWICE)


def _write(root: Path, shot: Shot, picture: Picture) -> str:
    number = shot.index + (500_000 if shot.quirk == TWICE else 0)
    if not shot.defects:
        part = ("train", "test")[shot.index % 2]
        file = f"{shot.product}/{part}/good/{number:06d}.png"
    else:
        single = len(shot.defects) == 1 or shot.quirk == ONE_LABEL
        place = f"{shot.defects[0] if single else SEVERAL}/{number:06d}.png"
        file = f"{shot.product}/test/{place}"
        save(root / shot.product / "ground_truth" / place, _in_some_mode(exact(picture.mask), shot.index))
    save(root / file, picture.image)
    return file


def _in_some_mode(mask: Grey, index: int) -> Image.Image:
    """The mask in one of the modes that are met; what is not black in it is marked."""
    image = Image.fromarray(mask)
    match index % 5:
        case 1:
            return image.convert("1")
        case 2:
            flat = Image.fromarray(mask // 255).convert("P")
            flat.putpalette(RED)
            return flat
        case 3:
            return Image.merge("RGB", (image, image, image))
        case 4:
            return Image.fromarray(np.minimum(mask, 1))
    return image


def _finish(root: Path, drawn: list[Drawn]) -> None:
    trained = next((image for image in drawn if "/train/good/" in image.file), None)
    if trained:
        copy = root / trained.shot.product / "test/good/900000.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / trained.file, copy)


THREE_CAD = Layout(FOLDER, _shots, _write, _finish)
