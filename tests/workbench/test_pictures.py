"""Thumbnails and tiles: the image's own pixels, upright, of any kind of file."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.ops.files import read_image
from unispector.workbench import pictures
from unispector.workbench.pictures import OVERLAP, TILE, Pictures, deepest


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def smooth(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    red, green = 255 * rows / height, 255 * columns / width
    return np.stack([red, green, 128 + 0 * red], axis=2).astype(np.uint8)


def test_the_tiles_of_a_level_are_the_image_at_that_size(tmp_path: Path) -> None:
    width, height = 1300, 700
    pixels = smooth(width, height)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = Pictures(tmp_path / "cache")
    for halved in range(4):
        level = deepest(width, height) - halved
        wide, high = -(-width // 2**halved), -(-height // 2**halved)
        sheet = np.zeros((high, wide, 3), int)
        for row in range(-(-high // TILE)):
            for column in range(-(-wide // TILE)):
                tile = decoded(made.tile(tmp_path / "a.png", "1", level, column, row))
                top, left = max(row * TILE - OVERLAP, 0), max(column * TILE - OVERLAP, 0)
                sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        expected = np.asarray(Image.fromarray(pixels).resize((wide, high), Image.Resampling.BOX)).astype(int)
        assert np.abs(sheet - expected).mean() < 2
    for place in ((deepest(width, height), 3, 0), (99, 0, 0), (deepest(width, height), -1, 0)):
        with pytest.raises(DataError, match="no such tile"):
            made.tile(tmp_path / "a.png", "1", *place)


def test_what_is_held_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(
        pictures, "as_pixels", lambda path, depth: reads.append(path.name) or read_image(path)
    )
    monkeypatch.setattr(pictures, "HELD_BYTES", 5 * 200 * 200 * 3)
    made = Pictures(tmp_path / "cache")
    for name in "abcdef":
        Image.fromarray(smooth(200, 200)).save(tmp_path / f"{name}.png")
        made.tile(tmp_path / f"{name}.png", "1", 8, 0, 0)
    made.tile(tmp_path / "f.png", "1", 8, 0, 0)
    made.tile(tmp_path / "a.png", "1", 8, 0, 0)
    assert reads == ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "a.png"]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "I;16", "1", "LA"])
def test_images_of_any_mode_are_shown_as_they_are_read(tmp_path: Path, mode: str) -> None:
    base = Image.fromarray(smooth(90, 60))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257)
    else:
        image = base.convert(mode)
    file = tmp_path / "a.tif"
    image.save(file)
    made, expected = Pictures(tmp_path / "cache"), read_image(file).astype(int)
    level = deepest(90, 60)
    for data in (made.tile(file, "1", level, 0, 0), made.thumbnail(file, "1")):
        assert np.abs(decoded(data) - expected).mean() < (20 if mode in ("1", "P") else 4)


def test_images_are_upright(tmp_path: Path) -> None:
    image = Image.fromarray(smooth(400, 200))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    small = decoded(Pictures(tmp_path / "cache").thumbnail(tmp_path / "a.jpg", "1"))
    assert small.shape[:2] == (360, 180)
    expected = np.asarray(Image.fromarray(read_image(tmp_path / "a.jpg")).resize((180, 360))).astype(int)
    assert np.abs(small - expected).mean() < 4


@pytest.mark.parametrize(("width", "height"), [(1, 1), (30_000, 10), (10, 3000)])
def test_extreme_sizes_have_thumbnails_and_tiles(tmp_path: Path, width: int, height: int) -> None:
    Image.new("RGB", (width, height), (200, 30, 30)).save(tmp_path / "a.png")
    made = Pictures(tmp_path / "cache")
    small = decoded(made.thumbnail(tmp_path / "a.png", "1"))
    assert max(small.shape[:2]) <= 360
    assert min(small.shape[:2]) >= 1
    column, row = (width - 1) // TILE, (height - 1) // TILE
    last = decoded(made.tile(tmp_path / "a.png", "1", deepest(width, height), column, row))
    shared = OVERLAP if column else 0
    assert last.shape[:2] == (height - row * TILE + (OVERLAP if row else 0), width - column * TILE + shared)


def test_a_thumbnail_is_made_once_for_each_state_of_a_file(tmp_path: Path) -> None:
    file, made = tmp_path / "a.png", Pictures(tmp_path / "cache")
    Image.new("RGB", (10, 10), "red").save(file)
    first = made.thumbnail(file, "1")
    file.unlink()
    assert made.thumbnail(file, "1") == first
    with pytest.raises(DataError, match="no such image"):
        made.thumbnail(file, "2")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png"):
        made.thumbnail(tmp_path / "b.png", "1")
