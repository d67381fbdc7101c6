"""Own folders of images and masks: what is read, what is set aside, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from releases import Components, components_of, convert, put, put_image, refused


def block(path: Path, value: int = 255) -> Path:
    """A mask of one block, 6 x 4 pixels (w x h) at (10, 5)."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 10:16] = value
    return put(path, mask)


BLOCK = ((10.0, 5.0, 6.0, 4.0), 24.0)


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
def test_first_folder_names_the_defect(tmp_path, image, mask, defect, raw):
    put_image(raw / "images" / image)
    block(raw / "masks" / mask)
    found = convert("masks", raw, tmp_path)
    assert found.components == {f"images/{image}": [(defect, *BLOCK)]}
    assert found.told == []


@pytest.mark.parametrize("value", [1, 127, 128, 255])
def test_every_pixel_that_is_not_black_is_defect(tmp_path, value, raw):
    put_image(raw / "images/a.png")
    block(raw / "masks/a.png", value)
    found = convert("masks", raw, tmp_path)
    assert found.components == {"images/a.png": [("defect", *BLOCK)]}


def test_the_noise_of_compression_is_no_defect(tmp_path, raw):
    put_image(raw / "images/a.png")
    block(tmp_path / "mask.png")
    Image.open(tmp_path / "mask.png").save(tmp_path / "mask.jpg", quality=60)
    noisy = Image.open(tmp_path / "mask.jpg")
    assert np.count_nonzero(noisy) > 3 * BLOCK[1]
    (raw / "masks").mkdir()
    noisy.save(raw / "masks/a.png")
    assert convert("masks", raw, tmp_path).components == {"images/a.png": [("defect", *BLOCK)]}


def test_masks_fall_into_components_and_specks_are_dropped(tmp_path, raw):
    rng = np.random.default_rng(3)
    masks = ndimage.zoom(rng.random((4, 10, 12)) > 0.8, (1, 5, 7), order=0)
    masks |= rng.random(masks.shape) > 0.995
    wanted: dict[str, Components] = {}
    for number, mask in enumerate(masks):
        put_image(raw / f"images/dent/{number}.png", (84, 50))
        put(raw / f"masks/dent/{number}.png", mask)  # 1 bit a pixel
        wanted[f"images/dent/{number}.png"] = components_of(mask, "dent", 0.05)
    found = convert("masks", raw, tmp_path, min_side=0.05)
    assert found.components == wanted
    assert sum(map(len, wanted.values())) > 8
    assert ("component too small", "images/dent/0.png") in {row[:2] for row in found.told}


def test_sets_aside_by_reason(tmp_path, raw):
    put_image(raw / "images/dent/a.png")
    block(raw / "masks/dent/a.png")
    put_image(raw / "images/dent/bare.png")
    block(raw / "masks/dent/orphan_mask.png")
    block(raw / "masks/a.png")  # in another folder than its image
    put_image(raw / "images/hole/black.png")
    block(raw / "masks/hole/black.png", 0)
    for name in ("images/Thumbs.db", "masks/dent/notes.txt", "images/dent/.DS_Store"):
        put(raw / name, "x")

    found = convert("masks", raw, tmp_path)

    assert list(found.marks) == ["images/dent/a.png"]
    assert found.told == [
        ("file outside the layout", "images/Thumbs.db", 0),
        ("file outside the layout", "masks/dent/notes.txt", 0),
        ("hidden file", "images/dent/.DS_Store", 0),
        ("image without its mask", "images/dent/bare.png", 0),
        ("mask marks nothing", "images/hole/black.png", 0),
        ("mask without its image", "masks/a.png", 0),
        ("mask without its image", "masks/dent/orphan_mask.png", 0),
    ]


def test_two_masks_of_an_image_are_refused(raw):
    put_image(raw / "images/a.png")
    block(raw / "masks/a.png")
    block(raw / "masks/a_mask.bmp")
    refused("masks", raw, r"images/a.png: has two masks, masks/a.png and masks/a_mask.bmp")


def test_an_image_called_like_a_mask_keeps_its_own(raw):
    put_image(raw / "images/a.png")
    put_image(raw / "images/a_mask.png")
    block(raw / "masks/a_mask.png")
    refused("masks", raw, r"images/a_mask.png: has one mask, masks/a_mask.png, with")
