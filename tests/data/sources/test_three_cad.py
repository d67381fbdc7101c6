"""The 3CAD layout: what is read, what is set aside, what is refused."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.sources.three_cad import THREE_CAD
from unispector.errors import DataError

Boxes = dict[str, list[tuple[str, tuple[float, ...]]]]


def picture(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)
    return path


def spot(value: int = 255) -> npt.NDArray[np.uint8]:
    """A block of 7 x 5 pixels (w x h) and, touching its corner, one of 3 x 2: one component."""
    mask = np.zeros((40, 60), np.uint8)
    mask[10:15, 20:27] = value
    mask[15:17, 27:30] = value
    return mask


SPOT = (20.0, 10.0, 10.0, 7.0)


def marked(root: Path, folder: str, number: str, mask: Image.Image | None = None) -> Path:
    """`<product>/<defect>`: an image, and its mask; the mask's path."""
    product, defect = folder.split("/")
    picture(root / product / "test" / defect / f"{number}.png")
    path = root / product / "ground_truth" / defect / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    (mask or Image.fromarray(spot())).save(path)
    return path


def convert(raw: Path, out: Path) -> Annotations:
    convert_set("3CAD", THREE_CAD, raw, ConversionFiles.beside(out / "set.json"), min_side=0.01)
    return Annotations.read(out / "set.json")


def boxes(annotations: Annotations) -> Boxes:
    names = {category.id: category.name for category in annotations.categories}
    return {
        image.file_name: [(names[i.category_id], i.bbox) for i in annotations.instances_of(image.id)]
        for image in annotations.images
    }


def dropped(out: Path) -> set[tuple[str, str]]:
    with (out / "set.dropped.csv").open() as stream:
        return {(row["reason"], row["file_name"]) for row in csv.DictReader(stream)}


def test_folder_names_are_classes_as_they_stand(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    folders = (
        "Aluminum_New_Ipad/bump",
        "Aluminum_New_Ipad/scratche",
        "Aluminum_Middle-Frame/scratches",
        "Iron_Stator/aotu",
    )
    for folder in folders:
        marked(raw, folder, "000028")

    annotations = convert(raw, tmp_path)

    wanted = {}
    for folder in folders:
        product, defect = folder.split("/")
        wanted[f"{product}/test/{defect}/000028.png"] = [(f"{product}_{defect}", SPOT)]
    assert boxes(annotations) == wanted
    assert {category.supercategory for category in annotations.categories} == {
        "Aluminum_New_Ipad",
        "Aluminum_Middle-Frame",
        "Iron_Stator",
    }
    assert all(instance.area == 7 * 5 + 3 * 2 for instance in annotations.instances)


@pytest.mark.parametrize("value", [1, 90, 255])
@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "I;16"])
def test_any_mode_of_mask_and_any_value_counts(tmp_path: Path, mode: str, value: int) -> None:
    grey = Image.fromarray(spot(value))
    if mode == "P":
        mask = Image.fromarray(spot(value), "P")
        mask.putpalette([0, 0, 0, *(0, 0, 9) * 255])  # dark blue
    elif mode == "1":
        mask = grey.point(lambda level: 255 * (level > 0)).convert("1")
    elif mode.startswith("RGB"):
        black = Image.new("L", grey.size)
        mask = Image.merge("RGB", (black, black, grey)).convert(mode)
    else:
        mask = Image.fromarray(spot(value).astype(np.uint16)) if mode == "I;16" else grey
    path = marked(tmp_path, "Copper_Stator/scratch", "000001", mask)
    assert Image.open(path).mode == mode

    assert boxes(convert(tmp_path, tmp_path)) == {
        "Copper_Stator/test/scratch/000001.png": [("Copper_Stator_scratch", SPOT)]
    }


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    marked(raw, "Aluminum_Pc/bruise", "000000")
    spellings = ("Multiple-defects", "multiple_defects", "MULTIPLE-DEFECTS", "Multiple_defect")
    for spelling in spellings:
        marked(raw, f"Aluminum_New_Ipad/{spelling}", "000001")
    picture(raw / "Aluminum_Pc/train/good/000395.png")
    picture(raw / "Aluminum_Pc/test/good/000049.png")
    picture(raw / "Aluminum_Pc/test/bruise/000002.png")
    marked(raw, "Aluminum_Pc/empty", "000003", Image.new("L", (60, 40)))
    mask = marked(raw, "Aluminum_Pc/bruise", "000004")
    (raw / "Aluminum_Pc/test/bruise/000004.png").unlink()

    annotations = convert(raw, tmp_path)

    assert dropped(tmp_path) == {
        *(
            ("class the benchmark leaves out", f"Aluminum_New_Ipad/test/{spelling}/000001.png")
            for spelling in spellings
        ),
        ("image without defects", "Aluminum_Pc/train/good/000395.png"),
        ("image without defects", "Aluminum_Pc/test/good/000049.png"),
        ("image without its mask", "Aluminum_Pc/test/bruise/000002.png"),
        ("mask marks nothing", "Aluminum_Pc/test/empty/000003.png"),
        ("mask without its image", mask.relative_to(raw).as_posix()),
    }
    assert annotations.class_names == ("Aluminum_Pc_bruise",)


def test_the_english_and_the_pinyin_archive_are_not_mixed(tmp_path: Path) -> None:
    marked(tmp_path / "3CAD", "Aluminum_Pc/bump", "000000")
    assert list(boxes(convert(tmp_path, tmp_path))) == ["3CAD/Aluminum_Pc/test/bump/000000.png"]
    marked(tmp_path / "3CAD-Pinyin", "Aluminum_Pc/aotu", "000000")
    with pytest.raises(DataError, match="products lie in another folder too; give the folder of one release"):
        convert(tmp_path, tmp_path)


def test_refuses_damage_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image with a marked defect; 3CAD has <Product>/test"):
        convert(tmp_path, tmp_path)

    mask = marked(tmp_path, "Aluminum_Pc/bump", "000000", Image.new("L", (30, 20), 255))
    with pytest.raises(DataError, match=r"bump/000000.png: mask is 30x20 but its image is 60x40"):
        convert(tmp_path, tmp_path)

    mask.write_bytes(mask.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"ground_truth/bump/000000.png: not a readable image"):
        convert(tmp_path, tmp_path)

    picture(tmp_path / "Aluminum_Pc/test/bump/000000.jpg")
    with pytest.raises(DataError, match=r"bump/000000.png: two images share this name and so one mask"):
        convert(tmp_path, tmp_path)


def test_class_list_is_not_published() -> None:
    assert THREE_CAD.categories == frozenset()
    assert (THREE_CAD.insa_name, THREE_CAD.domain) == ("3CAD", "cross")
