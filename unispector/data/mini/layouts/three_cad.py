"""insa-mini's 3CAD: `<Product>/test/<defect>/NNNNNN.png`, masks of the same name below `ground_truth`.

Planted, as the release has them: a folder `Multiple-defects`; an image of two defects in a folder that
names one; a defect spelt in two ways (`scratche`, `scratches`); one image under two names; a sound part
among both the training and the test images; masks of modes L, 1, P and RGB, and such of 0 and 1.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from unispector.data.mini.files import Files
from unispector.data.mini.instances import Mask, exact
from unispector.data.mini.layouts.layout import PLANTED, Drawn, Layout, Shot, classes_alone
from unispector.data.mini.render import RenderedImage

IPAD = "Aluminum_New_Ipad"
BOTH = ("bump", "scratche")
ALONE = classes_alone("3CAD")
ONE_LABEL = "one label for two defects"
TWICE = "one image under two names"
ODD = (Shot(IPAD, BOTH, PLANTED, ONE_LABEL), Shot(IPAD, ("bump",), 0, TWICE))
RED = (0, 0, 0, 200, 30, 30)


def _files(shot: Shot, picture: RenderedImage) -> Files:
    number = shot.index + (500_000 if shot.quirk == TWICE else 0)
    if not shot.defects:
        part = ("train", "test")[shot.index % 2]
        return [(f"{shot.product}/{part}/good/{number:06d}.png", picture.image)]
    several = shot.defects == BOTH and shot.quirk != ONE_LABEL
    place = f"{'Multiple-defects' if several else shot.defects[0]}/{number:06d}.png"
    mask = _in_some_mode(exact(picture.mask), shot.index)
    return [(f"{shot.product}/test/{place}", picture.image), (f"{shot.product}/ground_truth/{place}", mask)]


def _in_some_mode(mask: Mask, index: int) -> Image.Image:
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
    for image in [image for image in drawn if "/train/good/" in image.file][:1]:
        copy = root / image.shot.product / "test/good/900000.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((root / image.file).read_bytes())


THREE_CAD = Layout("3CAD", {**ALONE, IPAD: [*ALONE[IPAD], BOTH]}, _files, _finish, ODD, cross_domain=True)
