"""The 3CAD layout: what is read, what is set aside, what is refused."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from releases import convert, put_image, refused
from unispector.data.sources.insa.three_cad import THREE_CAD


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
    put_image(root / product / "test" / defect / f"{number}.png")
    path = root / product / "ground_truth" / defect / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    (mask or Image.fromarray(spot())).save(path)
    return path


def test_folder_names_are_classes_as_they_stand(tmp_path, raw):
    folders = (
        "Aluminum_New_Ipad/bump",
        "Aluminum_New_Ipad/scratche",
        "Aluminum_Middle-Frame/scratches",
        "Iron_Stator/aotu",
    )
    for folder in folders:
        marked(raw, folder, "000028")

    found = convert("three_cad", raw, tmp_path)

    wanted = {}
    for folder in folders:
        product, defect = folder.split("/")
        wanted[f"{product}/test/{defect}/000028.png"] = [(f"{product}_{defect}", SPOT, 7 * 5 + 3 * 2)]
    assert found.components == wanted
    assert {category.supercategory for category in found.annotations.categories} == {
        "Aluminum_New_Ipad",
        "Aluminum_Middle-Frame",
        "Iron_Stator",
    }


@pytest.mark.parametrize("value", [1, 90, 255])
@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "I;16"])
def test_any_mode_of_mask_and_any_value_counts(tmp_path, mode, value, raw):
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
    path = marked(raw, "Copper_Stator/scratch", "000001", mask)
    assert Image.open(path).mode == mode

    assert convert("three_cad", raw, tmp_path).boxes == {
        "Copper_Stator/test/scratch/000001.png": [("Copper_Stator_scratch", SPOT)]
    }


def test_sets_aside_by_reason(tmp_path, raw):
    marked(raw, "Aluminum_Pc/bruise", "000000")
    spellings = ("Multiple-defects", "multiple_defects", "MULTIPLE-DEFECTS", "Multiple_defect")
    for spelling in spellings:
        marked(raw, f"Aluminum_New_Ipad/{spelling}", "000001")
    for name in ("train/good/000395", "test/good/000049", "test/bruise/000002"):
        put_image(raw / f"Aluminum_Pc/{name}.png")
    marked(raw, "Aluminum_Pc/empty", "000003", Image.new("L", (60, 40)))
    mask = marked(raw, "Aluminum_Pc/bruise", "000004")
    (raw / "Aluminum_Pc/test/bruise/000004.png").unlink()

    found = convert("three_cad", raw, tmp_path)

    assert {row[:2] for row in found.told} == {
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
    assert found.annotations.class_names == ("Aluminum_Pc_bruise",)


def test_the_english_and_the_pinyin_archive_are_not_mixed(tmp_path, raw):
    marked(raw / "3CAD", "Aluminum_Pc/bump", "000000")
    assert list(convert("three_cad", raw, tmp_path).marks) == ["3CAD/Aluminum_Pc/test/bump/000000.png"]
    marked(raw / "3CAD-Pinyin", "Aluminum_Pc/aotu", "000000")
    refused("three_cad", raw, "products lie in another folder too; give the folder of one release")


def test_class_list_is_not_published() -> None:
    assert THREE_CAD.categories == frozenset()
    assert (THREE_CAD.insa_name, THREE_CAD.domain) == ("3CAD", "cross")
