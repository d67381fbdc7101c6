"""insa-mini's VisA: `<object>/Data/Images/{Anomaly,Normal}/*.JPG`, masks in `Data/Masks/Anomaly/*.png`.

Planted, as the release has them: masks whose small pixel values are classes; several classes on an image;
pixels of the class OTHER, on one image nothing else; a value that the release's table does not have;
`image_anno.csv` with free text of its own, several labels joined by a comma; upper-case `.JPG`.
"""

import csv
from pathlib import Path

import numpy as np

from unispector.data.mini.files import Files
from unispector.data.mini.layouts.layout import PLANTED, Drawn, Layout, Shot
from unispector.data.mini.layouts.products import OTHER, UNLISTED
from unispector.data.mini.render import RenderedImage

WAX, EXTRA = "Chunk Of Wax Missing", "Extra Wax in Candle"
# Pixel value of each class in the masks of its object.
VALUES = {"candle": {WAX: 1, EXTRA: 5, OTHER: 8}, "pcb1": {"Bent": 1, "Melt": 2, "Missing": 4, UNLISTED: 9}}
KINDS: dict[str, list[tuple[str, ...]]] = {
    "candle": [(WAX,), (EXTRA,), (WAX, OTHER), (OTHER,)],
    "pcb1": [("Bent",), ("Melt",), ("Missing",), ("Bent", "Melt"), ("Missing", UNLISTED)],
}
# The last of each object is on one image only.
USUAL = {product: kinds[:-1] for product, kinds in KINDS.items()}
ODD = tuple(Shot(product, kinds[-1], PLANTED) for product, kinds in KINDS.items())
LABELS = {EXTRA: "extra wax", UNLISTED: "unknown"}


def _files(shot: Shot, picture: RenderedImage) -> Files:
    folder = f"{shot.product}/Data/Images"
    if not shot.defects:
        return [(f"{folder}/Normal/{shot.index:04d}.JPG", picture.image)]
    kinds = KINDS[shot.product]
    number = shot.index % PLANTED * len(kinds) + kinds.index(shot.defects)
    mask = np.zeros(picture.image.shape[:2], np.uint8)
    for defect, covered in picture.masks.items():
        mask[covered > 127] = VALUES[shot.product][defect]
    file = f"{folder}/Anomaly/{number:03d}.JPG"
    return [(file, picture.image), (_mask_of(file), mask)]


def _mask_of(file: str) -> str:
    return file.replace("/Images/", "/Masks/").replace(".JPG", ".png")


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for product in KINDS:
        images = [image for image in drawn if image.shot.product == product]
        with (root / product / "image_anno.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["image", "label", "mask"])
            for image in sorted(images, key=lambda image: image.file):
                labels = ",".join(LABELS.get(defect, defect.lower()) for defect in image.shot.defects)
                writer.writerow([image.file, labels or "normal", _mask_of(image.file) if labels else ""])


VISA = Layout("VisA", USUAL, _files, _finish, ODD, cross_domain=True)
