"""insa-mini's Real-IAD: `realiad_1024/<product>/{OK,NG/<code>}/S0001/*.jpg`, labels in `realiad_jsons`.

Planted, as the release has them: views below NG that show no defect, labelled OK and without a mask; the
double underscore in the names of audiojack's NG images; sample numbers that start again in every folder;
one mask with `_mask` in its name, found through the annotation file; the doubled folder `realiad_jsons`;
annotation files of another protocol (`*_sv.json`); a product as an archive, as all are published.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import CLASSES
from unispector.data.mini.layouts.shots import (
    PLANTED,
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

FOLDER = "RealIAD"
IMAGES = "realiad_1024"
ANNOTATIONS = "realiad_jsons/realiad_jsons"
PRODUCTS = tuple(CLASSES[FOLDER])
PACKED = "toy_brick"
NOT_VISIBLE = "defect not visible in this view"
VIEWS = 4  # of a sample that show its defect; in one sample of each code there is a fifth that does not
NORMAL = "OK"
_TAKEN = 20231021130716  # date and time in the names, counted up by the index


def _shots(config: MiniConfig) -> Iterator[Shot]:
    yield from sound_shots(PRODUCTS, config.defect_free_images)
    for product, codes in CLASSES[FOLDER].items():
        yield from shots_of(product, ((code,) for code in codes), config.images_per_class)
        yield from (Shot(product, (code,), PLANTED, NOT_VISIBLE) for code in codes)


def _write(root: Path, shot: Shot, picture: Picture) -> str:
    folder = root / IMAGES / shot.product
    image = folder / f"{_stem(shot)}.jpg"
    hidden = shot.quirk == NOT_VISIBLE
    save(image, picture.clean if hidden else picture.image)
    mask = _mask_path(shot)
    if mask:
        save(folder / mask, exact(picture.mask))
    return image.relative_to(root).as_posix()


def _stem(shot: Shot) -> str:
    """Path of an image below its product's folder, without the ending."""
    sample, view = divmod(shot.index, VIEWS)
    if shot.quirk == NOT_VISIBLE:
        sample, view = 0, VIEWS
    place, kind = NORMAL, NORMAL
    if shot.defects:
        (code,) = shot.defects
        place, kind = f"NG/{code}", f"NG_{code}"
    joint = "__" if shot.defects and shot.product == "audiojack" else "_"
    name = f"{shot.product}{joint}{sample + 1:04d}_{kind}_C{view + 1}_{_TAKEN + sample % 40}"
    return f"{place}/S{sample + 1:04d}/{name}"


def _mask_path(shot: Shot) -> str | None:
    """Path of an image's mask below its product's folder; None where nothing is marked."""
    if not shot.defects or shot.quirk == NOT_VISIBLE:
        return None
    return f"{_stem(shot)}_mask.png" if shot.defects == ("AK",) and shot.index == 0 else f"{_stem(shot)}.png"


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for product in PRODUCTS:
        shots = [image.shot for image in drawn if image.shot.product == product]
        write_text(root / ANNOTATIONS / f"{product}.json", _annotations(product, shots))
        first_views = [shot for shot in shots if shot.index % VIEWS == 0 and not shot.quirk]
        write_text(root / ANNOTATIONS / f"{product}_sv.json", _annotations(product, first_views))
    _pack(root / IMAGES / PACKED)


def _annotations(product: str, shots: list[Shot]) -> str:
    """The labels of a product: half of the sound parts are for training, all else for testing."""
    sound = [shot for shot in shots if not shot.defects]
    train = sound[::2]
    test = sound[1::2] + [shot for shot in shots if shot.defects]
    content = {
        "meta": {"prefix": f"{product}/", "normal_class": NORMAL},
        "train": [_view(shot) for shot in train],
        "test": [_view(shot) for shot in test],
    }
    return json.dumps(content, indent=1) + "\n"


def _view(shot: Shot) -> dict[str, str | None]:
    mask = _mask_path(shot)
    return {
        "category": shot.product,
        "anomaly_class": shot.defects[0] if mask else NORMAL,
        "image_path": f"{_stem(shot)}.jpg",
        "mask_path": mask,
    }


def _pack(folder: Path) -> None:
    """Replace a folder by an archive of it with the same bytes at every run."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with ZipFile(folder.with_suffix(".zip"), "w", ZIP_STORED) as archive:
        for file in files:
            # An entry that is named only by its path carries the earliest date there is.
            archive.writestr(ZipInfo(file.relative_to(folder.parent).as_posix()), file.read_bytes())
    shutil.rmtree(folder)


REAL_IAD = Layout(FOLDER, _shots, _write, _finish)
