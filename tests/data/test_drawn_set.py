"""Drawn sets: what is written is what was asked for, marked where it differs from the sound part."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from unispector.data import drawn_set as module
from unispector.data.coco import Annotations
from unispector.data.drawn_set import DrawnSet, draw_set
from unispector.data.mini.defects import FAMILIES
from unispector.errors import DataError
from unispector.ops.rle import segmentation_to_mask

SMALL = DrawnSet(seed=5, parts=2, classes=2, images=2, good=1, size=96)


def flat(folder: Path, greys: list[int], shape: tuple[int, int] = (120, 150)) -> tuple[Path, ...]:
    """Photographs of one colour each."""
    folder.mkdir()
    files = []
    for number, grey in enumerate(greys):
        files.append(folder / f"{number}.png")
        cv2.imwrite(str(files[-1]), np.full((*shape, 3), (grey // 2, grey, min(grey + 40, 255)), np.uint8))
    return tuple(files)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_set_has_the_parts_classes_and_images_asked_for(tmp_path):
    told: list[tuple[int, int]] = []
    count = draw_set(SMALL, tmp_path / "set", lambda done, total: told.append((done, total)), workers=1)
    assert count == 2 * (2 * 2 + 1)
    assert told == [(done, count) for done in range(1, count + 1)]
    content = Annotations.read(tmp_path / "set" / "annotations.json")
    assert len(content.images) == 8
    parts = [
        {name.partition("_")[2] for name in content.class_names if name.startswith(p)} for p in ("00_", "01_")
    ]
    assert [len(families) for families in parts] == [2, 2]
    assert set().union(*parts) <= set(FAMILIES)
    for image in content.images:
        pixels = cv2.imread(str(tmp_path / "set" / image.file_name))
        assert pixels.shape[:2] == (image.height, image.width)
        (label,) = content.labels_of(image.id)
        name = next(c.name for c in content.categories if c.id == label)
        assert image.file_name.split("/")[:2] == ["images", name]
    assert sorted(file.name for file in (tmp_path / "set" / "good").iterdir()) == ["00", "01"]


def test_the_same_request_gives_the_same_files_and_another_seed_others(tmp_path):
    surfaces = flat(tmp_path / "photos", [90, 130, 170])
    for name, request in (
        ("a", replace(SMALL, surfaces=surfaces)),
        ("b", replace(SMALL, surfaces=surfaces)),
        ("c", replace(SMALL, surfaces=surfaces, seed=6)),
    ):
        draw_set(request, tmp_path / name, workers=1)
    a, b, c = (everything(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() != c.keys() or a != c


def test_more_images_leave_those_that_are_there_as_they_are(tmp_path):
    draw_set(SMALL, tmp_path / "few", workers=1)
    draw_set(replace(SMALL, images=3, good=2), tmp_path / "more", workers=1)
    few, more = everything(tmp_path / "few"), everything(tmp_path / "more")
    assert all(more[name] == few[name] for name in few if name != "annotations.json")


def test_on_a_photograph_the_marks_are_where_it_was_changed(tmp_path, monkeypatch):
    """On a photograph of one colour, every pixel that differs lies in or beside a mark, and marks differ."""
    monkeypatch.setattr(module, "FAMILIES", ("Scratch", "Blowhole", "Stain", "Burn"))
    monkeypatch.setattr(module, "save", _save_png)
    request = DrawnSet(3, 3, 3, 2, 1, 128, ("Burn",), flat(tmp_path / "photos", [80, 120, 160]))
    draw_set(request, tmp_path / "set", workers=1)
    content = Annotations.read(tmp_path / "set" / "annotations.json")
    assert {name.partition("_")[2] for name in content.class_names} == {"Scratch", "Blowhole", "Stain"}
    for image in content.images:
        part = int(image.file_name.split("/")[1][:2])
        grey = [80, 120, 160][part]
        pixels = cv2.imread(str(tmp_path / "set" / image.file_name).replace(".jpg", ".png")).astype(int)
        changed = np.abs(pixels - (grey // 2, grey, grey + 40)).max(2) > 8
        masks = [
            segmentation_to_mask(i.segmentation, image.height, image.width)
            for i in content.instances_of(image.id)
        ]
        marked = np.any(masks, axis=0)
        near = cv2.dilate(marked.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert not (changed & ~near).any()
        for mask in masks:
            assert (changed & mask).sum() > 0.2 * mask.sum()
    good = cv2.imread(str(next((tmp_path / "set" / "good" / "01").glob("*"))))
    assert (good == (60, 120, 160)).all()


def _save_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path.with_suffix(".png")), image[..., ::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left_out": ("Scrtch",)}, "no family 'Scrtch'"),
        ({"classes": 40}, "40 classes a part, but 35 families"),
        ({"classes": 2, "left_out": FAMILIES[1:]}, "2 classes a part, but 1 families"),
    ],
)
def test_what_cannot_be_drawn_is_told_before_the_work(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        draw_set(replace(SMALL, **change), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_more_parts_than_photographs_are_refused(tmp_path):
    with pytest.raises(DataError, match="2 parts, but 1 photographs"):
        draw_set(replace(SMALL, surfaces=flat(tmp_path / "photos", [90])), tmp_path / "set")


def test_a_broken_photograph_is_named_and_the_old_set_stays(tmp_path):
    draw_set(SMALL, tmp_path / "set", workers=1)
    before = everything(tmp_path / "set")
    surfaces = flat(tmp_path / "photos", [90, 100])
    surfaces[1].write_bytes(surfaces[1].read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png"):
        draw_set(replace(SMALL, surfaces=surfaces), tmp_path / "set", workers=1)
    assert everything(tmp_path / "set") == before


def test_an_image_without_room_says_so(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise DataError("full")

    monkeypatch.setattr(module, "paint_defects", full)
    with pytest.raises(DataError, match=r"no room for \w+ on an image of 96 pixels"):
        draw_set(replace(SMALL, surfaces=flat(tmp_path / "photos", [90, 91])), tmp_path / "set", workers=1)


def test_the_file_is_coco(tmp_path):
    draw_set(replace(SMALL, parts=1), tmp_path / "set", workers=1)
    content = json.loads((tmp_path / "set" / "annotations.json").read_text())
    for annotation in content["annotations"]:
        image = next(i for i in content["images"] if i["id"] == annotation["image_id"])
        mask = segmentation_to_mask(annotation["segmentation"], image["height"], image["width"])
        rows, columns = mask.nonzero()
        left, top, wide, high = annotation["bbox"]
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max() + 1 - left, rows.max() + 1 - top) == (wide, high)
        assert annotation["area"] == pytest.approx(mask.sum(), rel=0.35, abs=4)


def test_only_an_older_drawn_set_is_replaced(tmp_path):
    small = replace(SMALL, parts=1, classes=1, images=1)
    out, photos = tmp_path / "set", tmp_path / "photos"
    draw_set(small, out, workers=1)
    first = everything(out)
    draw_set(replace(small, seed=6), out, workers=1)
    assert everything(out) != first
    surfaces = flat(photos, [90])
    before = everything(tmp_path)
    for folder, message in (
        (photos, "no drawn set"),
        (tmp_path, "no drawn set"),
        (surfaces[0], "no drawn set"),
    ):
        with pytest.raises(DataError, match=message):
            draw_set(small, folder, workers=1)
    for folder in (photos, tmp_path):
        with pytest.raises(DataError, match="images to draw on are in this folder"):
            draw_set(replace(small, surfaces=surfaces), folder, workers=1)
    (out / "annotations.json").unlink()
    with pytest.raises(DataError, match="no drawn set"):
        draw_set(small, out, workers=1)
    del before[str(Path("set") / "annotations.json")]
    assert everything(tmp_path) == before
