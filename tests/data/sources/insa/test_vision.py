"""The VISION layout: products apart, labelled splits only, polygons under the size rule."""

from pathlib import Path
from typing import Any

from releases import convert, put, put_image, refused
from unispector.data.sources.insa.vision import VISION

WIDTH, HEIGHT = 200, 100
SQUARE = [10.0, 20.0, 30.0, 20.0, 30.0, 50.0, 10.0, 50.0]
SPECK = [5.0, 5.0, 6.0, 5.0, 6.0, 50.0, 5.0, 50.0]  # one pixel wide of 200


def split(folder: Path, names: list[str], annotations: list[tuple[int, int, Any]], *images: str) -> None:
    """A split of classes `names` whose `images` lie on disk; annotations image, class, polygons."""
    for image in images:
        put_image(folder / image, (WIDTH, HEIGHT))
    content = {
        "images": [
            {"id": id_, "file_name": image, "width": WIDTH, "height": HEIGHT}
            for id_, image in enumerate(sorted({*images, "000001.jpg"}))
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": [10, 20, 20, 30],
                "area": 600,
                "iscrowd": 0,
                "segmentation": polygons,
            }
            for number, (image_id, category_id, polygons) in enumerate(annotations)
        ],
        "categories": [{"id": id_, "name": name, "supercategory": "x"} for id_, name in enumerate(names)],
    }
    put(folder / "_annotations.coco.json", content)


def test_a_class_is_known_by_product_and_name_in_its_own_file(tmp_path):
    raw = tmp_path / "raw"
    split(raw / "Console/train", ["Gap", "Scratch"], [(0, 1, [SQUARE]), (0, 0, [SQUARE])], "000001.jpg")
    split(raw / "Console/val", ["Scratch", "Gap"], [(0, 0, [SQUARE])], "000001.jpg")
    split(raw / "Groove/train", ["scratch"], [(0, 0, [SQUARE])], "000001.jpg")
    split(raw / "Capacitor/val", ["0"], [(0, 0, [SQUARE])], "000001.jpg")

    found = convert("vision", raw, tmp_path)

    assert list(found.by_class) == [
        ("Capacitor/val/000001.jpg", "Capacitor_0"),
        ("Console/train/000001.jpg", "Console_Scratch"),
        ("Console/train/000001.jpg", "Console_Gap"),
        ("Console/val/000001.jpg", "Console_Scratch"),
        ("Groove/train/000001.jpg", "Groove_scratch"),
    ]
    assert all(len(marks) == 1 for marks in found.by_class.values())
    assert {(record.name, record.supercategory) for record in found.annotations.categories} == {
        ("Capacitor_0", "Capacitor"),
        ("Console_Gap", "Console"),
        ("Console_Scratch", "Console"),
        ("Groove_scratch", "Groove"),
    }


def test_marks_of_every_kind(tmp_path):
    over_the_edge = [190.0, 90.0, 203.0, 90.0, 203.0, 104.0, 190.0, 104.0]
    code = {"size": [HEIGHT, WIDTH], "counts": [50 * HEIGHT, 10 * HEIGHT, 140 * HEIGHT]}
    marks = [(0, 0, [SQUARE]), (0, 0, []), (0, 0, None), (0, 0, [over_the_edge]), (0, 0, code)]
    split(tmp_path / "raw/Screw/train", ["defect"], marks, "000001.jpg")
    found = convert("vision", tmp_path / "raw", tmp_path)
    # The second box equals the first, which the release lists once more.
    assert [mark.bbox for mark in found.annotations.instances] == [
        (10, 20, 20, 30),
        (10, 20, 20, 30),
        (190, 90, 10, 10),
        (50, 0, 10, 100),
    ]
    assert found.told == [("mark listed twice", "Screw/train/000001.jpg", 1)]


def test_quirks_are_told_by_reason(tmp_path):
    raw = tmp_path / "raw/VISION"
    split(
        raw / "Cable/train",
        ["break", "thunderbolt"],
        [(0, 0, [SQUARE]), (0, 1, [SPECK]), (2, 1, [SPECK])],
        "000001.jpg",
        "000002.jpg",
        "000003.jpg",
    )
    split(raw / "Cable/val", ["break"], [(0, 0, [SQUARE]), (0, 0, [SPECK])])
    split(raw / "Cable/inference", [], [], "000001.jpg", "000002.jpg")
    for image in ("Cable/val/000009.jpg", "Wood/train/000001.jpg"):
        put_image(raw / image, (5, 5))
    for name in ("Cable/train/._000001.jpg", "Cable/train/._annotations.coco.json", "README.md"):
        put(raw / name, "resource fork")

    found = convert("vision", tmp_path / "raw", tmp_path)

    assert list(found.by_class) == [("VISION/Cable/train/000001.jpg", "Cable_break")]
    assert found.told == [
        ("annotation without its image", "VISION/Cable/val/000001.jpg", 2),
        ("component too small", "VISION/Cable/train/000001.jpg", 1),
        ("every component too small", "VISION/Cable/train/000003.jpg", 1),
        ("file outside the layout", "VISION/README.md", 0),
        ("hidden file", "VISION/Cable/train/._000001.jpg", 0),
        ("hidden file", "VISION/Cable/train/._annotations.coco.json", 0),
        ("image without defects", "VISION/Cable/train/000002.jpg", 0),
        ("image without its annotation", "VISION/Cable/val/000009.jpg", 0),
        ("image without its annotation", "VISION/Wood/train/000001.jpg", 0),
        ("split without labels", "VISION/Cable/inference/000001.jpg", 0),
        ("split without labels", "VISION/Cable/inference/000002.jpg", 0),
        ("split without labels", "VISION/Cable/inference/_annotations.coco.json", 0),
    ]


def test_a_polygon_far_from_its_image_is_refused(tmp_path):
    split(tmp_path / "raw/Screw/train", ["defect"], [(0, 0, [[1e6, *SQUARE[1:]]])], "000001.jpg")
    refused("vision", tmp_path / "raw", r"000001\.jpg: defect: polygon leaves its 200x100 image")


def test_the_classes_are_the_papers():
    assert len(VISION.categories) == 44
    assert sum(name.startswith("Lens_") for name in VISION.categories) == 5
    assert {name.rpartition("_")[0] for name in VISION.categories if name.startswith("Lens")} == {"Lens"}
    assert (VISION.insa_name, VISION.domain, VISION.drops_small) == ("VISION", "cross", True)
