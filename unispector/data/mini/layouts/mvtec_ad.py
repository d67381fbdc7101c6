"""insa-mini's MVTec AD: `<product>/test/<defect>/NNN.png`, masks `ground_truth/<defect>/NNN_mask.png`.

Planted, as the release has them: a product of grey images (mode L); a class `combined` of two kinds of
defect under one label; a tail class, with a third of the others' images; sound parts for training and
testing; licence and read-me beside the products.
"""

from collections.abc import Iterator
from pathlib import Path

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import CLASSES
from unispector.data.mini.layouts.shots import (
    Drawn,
    Layout,
    Picture,
    Shot,
    exact,
    save,
    shots_of,
    sound_shots,
    write_text,
)

FOLDER = "MVTec"
TAIL = ("wood", "color")


def _shots(config: MiniConfig) -> Iterator[Shot]:
    yield from sound_shots(tuple(CLASSES[FOLDER]), config.defect_free_images)
    for product, defects in CLASSES[FOLDER].items():
        for defect in defects:
            few = max(1, config.images_per_class // 3)
            yield from shots_of(
                product, [(defect,)], few if (product, defect) == TAIL else config.images_per_class
            )


def _write(root: Path, shot: Shot, picture: Picture) -> str:
    if shot.defects:
        (defect,) = shot.defects
        file = f"{shot.product}/test/{defect}/{shot.index:03d}.png"
        save(root / f"{shot.product}/ground_truth/{defect}/{shot.index:03d}_mask.png", exact(picture.mask))
    else:
        part = ("train", "test")[shot.index % 2]
        file = f"{shot.product}/{part}/good/{shot.index // 2:03d}.png"
    save(root / file, picture.image)
    return file


def _finish(root: Path, drawn: list[Drawn]) -> None:
    write_text(root / "license.txt", "Drawn by this project and under its licence.\n")
    write_text(root / "readme.txt", f"{len(drawn)} drawn images in the layout of the MVTec AD release.\n")


MVTEC_AD = Layout(FOLDER, _shots, _write, _finish)
