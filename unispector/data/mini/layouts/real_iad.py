"""insa-mini's Real-IAD: `realiad_1024/<product>/{OK,NG/<code>}/S0001/*.jpg`, labels in `realiad_jsons`.

Planted, as the release has them: views below NG that show no defect, labelled OK and without a mask; the
double underscore in the names of audiojack's NG images; sample numbers that start again in every folder;
one mask with `_mask` in its name, found through the annotation file; the doubled folder `realiad_jsons`;
annotation files of another protocol (`*_sv.json`); a product as an archive, as all are published.
"""

import json
import shutil
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from unispector.data.mini.files import Files
from unispector.data.mini.instances import exact
from unispector.data.mini.layouts.layout import PLANTED, Drawn, Layout, Shot, classes_alone, write_text
from unispector.data.mini.render import RenderedImage

IMAGES = "realiad_1024"
ANNOTATIONS = "realiad_jsons/realiad_jsons"
KINDS = classes_alone("RealIAD")
PACKED = "toy_brick"
HIDDEN = "defect not visible in this view"
VIEWS = 4  # of a sample that show its defect; in one sample of each code there is a fifth that does not
NORMAL = "OK"
_TAKEN = 20231021130716  # date and time in the names, counted up by the index
ODD = tuple(Shot(product, kind, PLANTED, HIDDEN) for product, kinds in KINDS.items() for kind in kinds)


def _files(shot: Shot, picture: RenderedImage) -> Files:
    folder, mask = f"{IMAGES}/{shot.product}", _mask(shot)
    image = f"{folder}/{_stem(shot)}.jpg"
    if not mask:
        return [(image, picture.clean)]
    return [(image, picture.image), (f"{folder}/{mask}", exact(picture.mask))]


def _stem(shot: Shot) -> str:
    """Path of an image below its product's folder, without the ending."""
    sample, view = (0, VIEWS) if shot.quirk else divmod(shot.index, VIEWS)
    place, kind, joint = NORMAL, NORMAL, "_"
    if shot.defects:
        (code,) = shot.defects
        place, kind, joint = f"NG/{code}", f"NG_{code}", "__" if shot.product == "audiojack" else "_"
    name = f"{shot.product}{joint}{sample + 1:04d}_{kind}_C{view + 1}_{_TAKEN + sample % 40}"
    return f"{place}/S{sample + 1:04d}/{name}"


def _mask(shot: Shot) -> str | None:
    """Path of an image's mask below its product's folder; None where nothing is marked."""
    if not shot.defects or shot.quirk:
        return None
    return f"{_stem(shot)}_mask.png" if shot.defects == ("AK",) and shot.index == 0 else f"{_stem(shot)}.png"


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for product in KINDS:
        shots = [image.shot for image in drawn if image.shot.product == product]
        first_views = [shot for shot in shots if shot.index % VIEWS == 0 and not shot.quirk]
        write_text(root / ANNOTATIONS / f"{product}.json", _annotations(product, shots))
        write_text(root / ANNOTATIONS / f"{product}_sv.json", _annotations(product, first_views))
    # An archive with the same bytes at every run.
    folder = root / IMAGES / PACKED
    with ZipFile(folder.with_suffix(".zip"), "w", ZIP_STORED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            # An entry that is named only by its path carries the earliest date there is.
            archive.writestr(ZipInfo(file.relative_to(folder.parent).as_posix()), file.read_bytes())
    shutil.rmtree(folder)


def _annotations(product: str, shots: list[Shot]) -> str:
    """The labels of a product: half of the sound parts are for training, all else for testing."""
    sound = [shot for shot in shots if not shot.defects]
    test = sound[1::2] + [shot for shot in shots if shot.defects]
    content = {
        "meta": {"prefix": f"{product}/", "normal_class": NORMAL},
        "train": [_view(shot) for shot in sound[::2]],
        "test": [_view(shot) for shot in test],
    }
    return json.dumps(content, indent=1) + "\n"


def _view(shot: Shot) -> dict[str, str | None]:
    mask = _mask(shot)
    return {
        "category": shot.product,
        "anomaly_class": shot.defects[0] if mask else NORMAL,
        "image_path": f"{_stem(shot)}.jpg",
        "mask_path": mask,
    }


REAL_IAD = Layout("RealIAD", KINDS, _files, _finish, ODD)
