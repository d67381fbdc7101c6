"""insa-mini's VisA: `<object>/Data/Images/{Anomaly,Normal}/*.JPG`, masks in `Data/Masks/Anomaly/*.png`.

Planted, as the release has them: masks whose small pixel values are classes; several classes on an image;
pixels of the class OTHER, on one image nothing else; a value that the release's table does not have;
`image_anno.csv` with free text of its own, several labels joined by a comma; upper-case `.JPG`.
"""

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import CLASSES, OTHER, UNLISTED
from unispector.data.mini.layouts.shots import (
    PLANTED,
    Drawn,
    Layout,
    Picture,
    Shot,
    cross_domain_images,
    save,
    shots_of,
    sound_shots,
    write_text,
)

FOLDER = "VisA"
# Pixel value of each class in the masks of its object.
VALUES = {
    "candle": {"Chunk Of Wax Missing": 1, "Extra Wax in Candle": 5, OTHER: 8},
    "pcb1": {"Bent": 1, "Melt": 2, "Missing": 4, UNLISTED: 9},
}
KINDS: dict[str, list[tuple[str, ...]]] = {
    "candle": [
        ("Chunk Of Wax Missing",),
        ("Extra Wax in Candle",),
        ("Chunk Of Wax Missing", OTHER),
        (OTHER,),
    ],
    "pcb1": [("Bent",), ("Melt",), ("Missing",), ("Bent", "Melt"), ("Missing", UNLISTED)],
}
ODD = ((OTHER,), ("Missing", UNLISTED))
LABELS = {
    "Chunk Of Wax Missing": "chunk of wax missing",
    "Extra Wax in Candle": "extra wax",
    UNLISTED: "unknown",
}


def _shots(config: MiniConfig) -> Iterator[Shot]:
    yield from sound_shots(tuple(CLASSES[FOLDER]), config.defect_free_images)
    for product, kinds in KINDS.items():
        usual = [kind for kind in kinds if kind not in ODD]
        yield from shots_of(product, usual, cross_domain_images(config))
        yield from (Shot(product, kind, PLANTED) for kind in kinds if kind in ODD)


def _write(root: Path, shot: Shot, picture: Picture) -> str:
    if shot.defects:
        kinds = KINDS[shot.product]
        number = shot.index % PLANTED * len(kinds) + kinds.index(shot.defects)
        file = f"{shot.product}/Data/Images/Anomaly/{number:03d}.JPG"
        mask = np.zeros(picture.image.shape[:2], np.uint8)
        for defect, covered in picture.masks.items():
            mask[covered > 127] = VALUES[shot.product][defect]
        save(root / _mask_of(file), mask)
    else:
        file = f"{shot.product}/Data/Images/Normal/{shot.index:04d}.JPG"
    save(root / file, picture.image)
    return file


def _mask_of(file: str) -> str:
    return file.replace("/Images/", "/Masks/").replace(".JPG", ".png")


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for product in KINDS:
        table = StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["image", "label", "mask"])
        for image in sorted((image for image in drawn if image.shot.product == product), key=_by_file):
            labels = ",".join(LABELS.get(defect, defect.lower()) for defect in image.shot.defects)
            writer.writerow([image.file, labels or "normal", _mask_of(image.file) if labels else ""])
        write_text(root / product / "image_anno.csv", table.getvalue())


def _by_file(image: Drawn) -> str:
    return image.file


VISA = Layout(FOLDER, _shots, _write, _finish)
