"""The VISION layout: products apart, labelled splits only, polygons under the size rule."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.sources.vision import VISION
from unispector.errors import DataError

WIDTH, HEIGHT = 200, 100
SQUARE = [10.0, 20.0, 30.0, 20.0, 30.0, 50.0, 10.0, 50.0]
SPECK = [5.0, 5.0, 6.0, 5.0, 6.0, 50.0, 5.0, 50.0]  # one pixel wide of 200


def put(folder: Path, names: list[str], annotations: list[tuple[int, int, Any]] | None, *images: str) -> None:
    """A split: images of `names`, of which `images` lie on disk; annotations image, class, polygons."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / image)
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
            for number, (image_id, category_id, polygons) in enumerate(annotations or [])
        ],
        "categories": [{"id": id_, "name": name, "supercategory": "x"} for id_, name in enumerate(names)],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


def convert(tmp_path: Path) -> Annotations:
    files = ConversionFiles.beside(tmp_path / "out/set.json")
    convert_set("VISION", VISION, tmp_path / "raw", files, min_side=0.01)
    return Annotations.read(files.annotations)


def found(annotations: Annotations) -> dict[str, list[str]]:
    names = {record.id: record.name for record in annotations.categories}
    return {
        record.file_name: [names[instance.category_id] for instance in annotations.instances_of(record.id)]
        for record in annotations.images
    }


def told(tmp_path: Path) -> list[tuple[str, str, int]]:
    with (tmp_path / "out/set.dropped.csv").open(encoding="utf-8", newline="") as table:
        return sorted(
            (row["reason"], row["file_name"], int(row["instances"])) for row in csv.DictReader(table)
        )


def test_a_class_is_known_by_product_and_name_in_its_own_file(tmp_path):
    raw = tmp_path / "raw"
    put(raw / "Console/train", ["Gap", "Scratch"], [(0, 1, [SQUARE]), (0, 0, [SQUARE])], "000001.jpg")
    put(raw / "Console/val", ["Scratch", "Gap"], [(0, 0, [SQUARE])], "000001.jpg")
    put(raw / "Groove/train", ["scratch"], [(0, 0, [SQUARE])], "000001.jpg")
    put(raw / "Capacitor/val", ["0"], [(0, 0, [SQUARE])], "000001.jpg")

    annotations = convert(tmp_path)

    assert found(annotations) == {
        "Capacitor/val/000001.jpg": ["Capacitor_0"],
        "Console/train/000001.jpg": ["Console_Scratch", "Console_Gap"],
        "Console/val/000001.jpg": ["Console_Scratch"],
        "Groove/train/000001.jpg": ["Groove_scratch"],
    }
    assert {(record.name, record.supercategory) for record in annotations.categories} == {
        ("Capacitor_0", "Capacitor"),
        ("Console_Gap", "Console"),
        ("Console_Scratch", "Console"),
        ("Groove_scratch", "Groove"),
    }


def test_marks_of_every_kind(tmp_path):
    over_the_edge = [190.0, 90.0, 203.0, 90.0, 203.0, 104.0, 190.0, 104.0]
    code = {"size": [HEIGHT, WIDTH], "counts": [50 * HEIGHT, 10 * HEIGHT, 140 * HEIGHT]}
    marks = [(0, 0, [SQUARE]), (0, 0, []), (0, 0, None), (0, 0, [over_the_edge]), (0, 0, code)]
    put(tmp_path / "raw/Screw/train", ["defect"], marks, "000001.jpg")
    annotations = convert(tmp_path)
    # The second box equals the first, which the release lists once more.
    assert [instance.bbox for instance in annotations.instances] == [
        (10, 20, 20, 30),
        (10, 20, 20, 30),
        (190, 90, 10, 10),
        (50, 0, 10, 100),
    ]
    assert told(tmp_path) == [("mark listed twice", "Screw/train/000001.jpg", 1)]


def test_quirks_are_told_by_reason(tmp_path):
    raw = tmp_path / "raw" / "VISION"
    put(
        raw / "Cable/train",
        ["break", "thunderbolt"],
        [(0, 0, [SQUARE]), (0, 1, [SPECK]), (2, 1, [SPECK])],
        "000001.jpg",
        "000002.jpg",
        "000003.jpg",
    )
    put(raw / "Cable/val", ["break"], [(0, 0, [SQUARE]), (0, 0, [SPECK])])
    Image.new("L", (5, 5)).save(raw / "Cable/val/000009.jpg")
    put(raw / "Cable/inference", [], None, "000001.jpg", "000002.jpg")
    (raw / "Cable/train/._000001.jpg").write_bytes(b"resource fork")
    (raw / "Cable/train/._annotations.coco.json").write_bytes(b"resource fork")
    (raw / "Wood/train").mkdir(parents=True)
    Image.new("L", (5, 5)).save(raw / "Wood/train/000001.jpg")
    (raw / "README.md").write_text("x")

    assert found(convert(tmp_path)) == {"VISION/Cable/train/000001.jpg": ["Cable_break"]}
    assert told(tmp_path) == [
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


def test_damage_is_named(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(DataError, match=r"raw: no image with a marked defect; VISION has <Product>/\{train"):
        convert(tmp_path)
    put(raw / "Screw/train", ["defect"], [(0, 3, [SQUARE])], "000001.jpg")
    file = raw / "Screw/train/_annotations.coco.json"
    with pytest.raises(DataError, match=r"_annotations\.coco\.json: annotations\[0\]: there is no category"):
        convert(tmp_path)
    put(raw / "Screw/train", ["defect"], [(0, 0, [SQUARE])], "000001.jpg")
    good = file.read_text()
    for bad, message in [
        (good[:-20], "not valid JSON"),
        ("[]", "no COCO file"),
        (good.replace("000001.jpg", "../../../000001.jpg"), "leaves the release"),
        (good.replace("[[10.0, 20.0", '[["a", 20.0'), r"annotations\[0\]: a polygon is no list of numbers"),
        (good.replace("[[10.0, 20.0", "[[1e6, 20.0"), "000001.jpg: defect: polygon leaves its 200x100 image"),
        (
            good.replace('"width": 200', '"width": 201'),
            "the image is 200x100 but its annotation says 201x100",
        ),
    ]:
        assert bad != good
        file.write_text(bad)
        with pytest.raises(DataError, match=message):
            convert(tmp_path)
    file.write_text(good)
    (raw / "Screw/train/000001.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"Screw/train/000001\.jpg: not a readable image"):
        convert(tmp_path)


def test_the_classes_are_the_papers():
    assert len(VISION.categories) == 44
    per_product = Counter(name.rpartition("_")[0] for name in VISION.categories if name.startswith("Lens"))
    assert per_product == {"Lens": 5}
    assert (VISION.insa_name, VISION.domain, VISION.drops_small) == ("VISION", "cross", True)
