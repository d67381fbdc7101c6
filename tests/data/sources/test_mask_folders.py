"""Own folders of images and masks: what is read, what is set aside, what is refused."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.sources.mask_folders import MASKS
from unispector.errors import DataError

Found = dict[str, list[tuple[str, tuple[float, ...], float]]]


def picture(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)
    return path


def block(path: Path, value: int = 255) -> Path:
    """A mask of one block, 6 x 4 pixels (w x h) at (10, 5)."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 10:16] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


BLOCK = ((10.0, 5.0, 6.0, 4.0), 24.0)


def convert(raw: Path, out: Path, min_side: float = 0.01) -> Found:
    """Convert; file -> (class, box, area) of its instances."""
    convert_set("mine", MASKS, raw, ConversionFiles.beside(out / "set.json"), min_side=min_side)
    annotations = Annotations.read(out / "set.json")
    names = {category.id: category.name for category in annotations.categories}
    return {
        image.file_name: sorted(
            (names[i.category_id], i.bbox, i.area) for i in annotations.instances_of(image.id)
        )
        for image in annotations.images
    }


def dropped(out: Path) -> list[tuple[str, str]]:
    with (out / "set.dropped.csv").open() as stream:
        return sorted((row["reason"], row["file_name"]) for row in csv.DictReader(stream))


@pytest.mark.parametrize(
    ("image", "mask", "defect"),
    [
        ("a.jpg", "a.png", "defect"),
        ("a.JPG", "a_mask.png", "defect"),
        ("dent/a.png", "dent/a.bmp", "dent"),
        ("dent/a.jpeg", "dent/a_mask.tif", "dent"),
        ("dent/line 2/monday/a.bmp", "dent/line 2/monday/a.PNG", "dent"),
        ("deep scratch/b.c.tiff", "deep scratch/b.c_mask.tiff", "deep scratch"),
        ("Kratzer ä/a.webp", "Kratzer ä/a.png", "Kratzer ä"),
    ],
)
def test_first_folder_names_the_defect(tmp_path: Path, image: str, mask: str, defect: str) -> None:
    picture(tmp_path / "images" / image)
    block(tmp_path / "masks" / mask)
    assert convert(tmp_path, tmp_path) == {f"images/{image}": [(defect, *BLOCK)]}
    assert dropped(tmp_path) == []


@pytest.mark.parametrize("value", [1, 127, 128, 255])
def test_every_pixel_that_is_not_black_is_defect(tmp_path: Path, value: int) -> None:
    picture(tmp_path / "images/a.png")
    block(tmp_path / "masks/a.png", value)
    assert convert(tmp_path, tmp_path) == {"images/a.png": [("defect", *BLOCK)]}


def test_masks_fall_into_components_and_specks_are_dropped(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    masks = ndimage.zoom(rng.random((4, 10, 12)) > 0.8, (1, 5, 7), order=0)
    masks |= rng.random(masks.shape) > 0.995
    wanted: Found = {}
    for number, mask in enumerate(masks):
        picture(tmp_path / f"images/dent/{number}.png", (84, 50))
        path = tmp_path / f"masks/dent/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)  # 1 bit a pixel
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        slices = enumerate(ndimage.find_objects(labels), start=1)
        wanted[f"images/dent/{number}.png"] = sorted(
            (
                "dent",
                (float(x.start), float(y.start), float(x.stop - x.start), float(y.stop - y.start)),
                float((labels == label).sum()),
            )
            for label, (y, x) in slices
            if x.stop - x.start >= 0.05 * 84 and y.stop - y.start >= 0.05 * 50
        )
    found = convert(tmp_path, tmp_path, min_side=0.05)
    assert found == wanted
    assert sum(map(len, found.values())) > 8
    assert ("component too small", "images/dent/0.png") in dropped(tmp_path)


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    picture(raw / "images/dent/a.png")
    block(raw / "masks/dent/a.png")
    picture(raw / "images/dent/bare.png")
    block(raw / "masks/dent/orphan_mask.png")
    block(raw / "masks/a.png")  # in another folder than its image
    picture(raw / "images/hole/black.png")
    block(raw / "masks/hole/black.png", 0)
    (raw / "images/Thumbs.db").write_bytes(b"x")
    (raw / "masks/dent/notes.txt").write_text("x")
    (raw / "images/dent/.DS_Store").write_bytes(b"x")

    assert list(convert(raw, tmp_path)) == ["images/dent/a.png"]
    assert dropped(tmp_path) == [
        ("file outside the layout", "images/Thumbs.db"),
        ("file outside the layout", "masks/dent/notes.txt"),
        ("hidden file", "images/dent/.DS_Store"),
        ("image without its mask", "images/dent/bare.png"),
        ("mask marks nothing", "images/hole/black.png"),
        ("mask without its image", "masks/a.png"),
        ("mask without its image", "masks/dent/orphan_mask.png"),
    ]


def test_packed_folders(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        file = {"images": picture, "masks": block}[name](tmp_path / "plain" / name / "dent/a.png")
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.write(file, "dent/a.png")
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("images.zip", "masks.zip"):
        (tmp_path / name).rename(raw / name)
    assert convert(raw, tmp_path) == {"images/dent/a.png": [("dent", *BLOCK)]}


def test_refuses_damage_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"no image with a marked defect; images with masks has images/"):
        convert(tmp_path, tmp_path)

    mask = block(tmp_path / "masks/a.png")
    second = block(tmp_path / "masks/a_mask.bmp")
    with pytest.raises(DataError, match=r"images/a.png: has two masks, masks/a.png and masks/a_mask.bmp"):
        convert(tmp_path, tmp_path)
    second.unlink()

    twin = picture(tmp_path / "images/a.jpg")
    with pytest.raises(
        DataError, match=r"images/a.png: has one mask, masks/a.png, with images/a.jpg; rename"
    ):
        convert(tmp_path, tmp_path)
    twin.unlink()

    picture(tmp_path / "images/a.png", (61, 40))
    with pytest.raises(DataError, match=r"masks/a.png: mask is 60x40 but its image is 61x40"):
        convert(tmp_path, tmp_path)

    mask.write_bytes(mask.read_bytes()[:-30])
    picture(tmp_path / "images/a.png")
    with pytest.raises(DataError, match=r"masks/a.png: not a readable image"):
        convert(tmp_path, tmp_path)
    assert not (tmp_path / "set.json").exists()


def test_an_image_called_like_a_mask_keeps_its_own(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    picture(tmp_path / "images/a_mask.png")
    block(tmp_path / "masks/a_mask.png")
    with pytest.raises(
        DataError, match=r"images/a_mask.png: has one mask, masks/a_mask.png, with images/a.png"
    ):
        convert(tmp_path, tmp_path)
