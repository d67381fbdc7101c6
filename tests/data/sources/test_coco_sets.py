"""Own COCO sets: where images may lie, merging of files, what is left out, what is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.sources.coco import COCO
from unispector.errors import DataError

WIDTH, HEIGHT = 30, 20
CLASSES = [{"id": 0, "name": "dent"}, {"id": 7, "name": "scratch", "supercategory": "none"}]


def put_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 128).save(path)


def put_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def image(id_: object, name: str, **more: object) -> dict[str, Any]:
    return {"id": id_, "file_name": name, **more}


def mark(image_id: object, category_id: object = 0, **more: object) -> dict[str, Any]:
    where = {} if "segmentation" in more else {"bbox": [3, 4, 8, 6]}
    return {"image_id": image_id, "category_id": category_id, **where, **more}


def coco(images: list[Any], annotations: list[Any], categories: list[Any] = CLASSES) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": categories}


def convert(tmp_path: Path) -> Annotations:
    files = ConversionFiles.beside(tmp_path / "out/set.json")
    convert_set("Own", COCO, tmp_path / "raw", files, min_side=0.01)
    return Annotations.read(files.annotations)


def found(annotations: Annotations) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Image -> (class, box) of its instances."""
    names = {record.id: record.name for record in annotations.categories}
    return {
        record.file_name: [
            (names[instance.category_id], instance.bbox) for instance in annotations.instances_of(record.id)
        ]
        for record in annotations.images
    }


def told(tmp_path: Path) -> list[tuple[str, str, int]]:
    with (tmp_path / "out/set.dropped.csv").open(encoding="utf-8", newline="") as table:
        return sorted(
            (row["reason"], row["file_name"], int(row["instances"])) for row in csv.DictReader(table)
        )


@pytest.mark.parametrize(
    ("listing", "written", "place"),
    [
        ("a.json", "x.png", "x.png"),
        ("a.json", "x.png", "images/x.png"),
        ("a.json", "images/x.png", "images/x.png"),
        ("a.json", "deep\\x.png", "images/deep/x.png"),
        ("annotations/a.json", "x.png", "annotations/x.png"),
        ("annotations/a.json", "x.png", "images/x.png"),
        ("annotations/a.json", "../images/x.png", "images/x.png"),
        ("annotations/a.json", "train/x.png", "train/x.png"),
        ("annotations/instances_train2017.json", "x.png", "train2017/x.png"),
        ("annotations/instances_default.json", "x.png", "images/default/x.png"),
        ("set/train/_annotations.coco.json", "x.png", "set/train/x.png"),
        ("set/labels/A.JSON", "x.png", "set/images/x.png"),
    ],
)
def test_where_images_may_lie(tmp_path, listing, written, place):
    put_image(tmp_path / "raw" / place)
    put_json(tmp_path / "raw" / listing, coco([image(1, written)], [mark(1)]))
    assert found(convert(tmp_path)) == {place: [("dent", (3, 4, 8, 6))]}
    assert told(tmp_path) == []


def test_the_nearest_place_wins(tmp_path):
    put_image(tmp_path / "raw/x.png")
    put_image(tmp_path / "raw/images/x.png")
    put_json(tmp_path / "raw/a.json", coco([image(1, "x.png")], [mark(1)]))
    assert list(found(convert(tmp_path))) == ["x.png"]
    assert told(tmp_path) == [("image without its annotation", "images/x.png", 0)]


def test_unlisted_images_of_a_folder_good_have_no_defect(tmp_path):
    for name in ("x.png", "good/1.png", "more/good/2.png", "good.png", "goods/3.png"):
        put_image(tmp_path / "raw" / name)
    put_json(
        tmp_path / "raw/a.json", coco([image(1, "x.png"), image(2, "more/good/2.png")], [mark(1), mark(2)])
    )
    assert list(found(convert(tmp_path))) == ["x.png", "more/good/2.png"]
    assert sorted(told(tmp_path)) == [
        ("image without defects", "good/1.png", 0),
        ("image without its annotation", "good.png", 0),
        ("image without its annotation", "goods/3.png", 0),
    ]


def test_an_absent_image_that_was_meant_above_is_told(tmp_path):
    put_image(tmp_path / "raw/y.png")
    listed = coco([image(1, "../x.png"), image(2, "../y.png")], [mark(1), mark(2)])
    put_json(tmp_path / "raw/annotations/a.json", listed)
    assert list(found(convert(tmp_path))) == ["y.png"]
    assert told(tmp_path) == [("annotation without its image", "x.png", 1)]


def test_files_are_merged_by_the_names_of_classes(tmp_path):
    raw = tmp_path / "raw"
    for name in ("train/x.png", "val/x.png"):
        put_image(raw / name)
    put_json(raw / "train/a.json", coco([image(0, "x.png")], [mark(0, 0), mark(0, 7, bbox=[1, 1, 5, 5])]))
    other = [{"id": 0, "name": "scratch"}, {"id": 1, "name": "dent"}, {"id": 2, "name": "unused"}]
    put_json(raw / "val/a.json", coco([image(0, "x.png")], [mark(0, 0), mark(0, 1)], other))

    annotations = convert(tmp_path)

    assert annotations.class_names == ("dent", "scratch")
    assert found(annotations) == {
        "train/x.png": [("dent", (3, 4, 8, 6)), ("scratch", (1, 1, 5, 5))],
        "val/x.png": [("scratch", (3, 4, 8, 6)), ("dent", (3, 4, 8, 6))],
    }


def test_an_image_listed_twice_has_the_marks_of_both(tmp_path):
    raw = tmp_path / "raw"
    for name in ("x.png", "y.png"):
        put_image(raw / name)
    put_json(raw / "all.json", coco([image(1, "x.png"), image(2, "y.png")], [mark(1), mark(2)]))
    put_json(
        raw / "some.json",
        coco([image(5, "./x.png", width=WIDTH, height=HEIGHT)], [mark(5), mark(5, 7), mark(5, 7)]),
    )
    assert found(convert(tmp_path)) == {
        "x.png": [("dent", (3, 4, 8, 6)), ("scratch", (3, 4, 8, 6))],
        "y.png": [("dent", (3, 4, 8, 6))],
    }
    assert told(tmp_path) == [("image listed twice", "x.png", 0), ("mark listed twice", "x.png", 2)]


def test_boxes_polygons_and_codes(tmp_path):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[2:7, 20:29] = 1
    code = coco_mask.encode(np.asfortranarray(pixels))
    square = [10, 10, 14, 10, 14, 15, 10, 15]
    put_image(tmp_path / "raw/x.png")
    put_json(
        tmp_path / "raw/a.json",
        coco(
            [image("x", "x.png", width=WIDTH, height=HEIGHT)],
            [
                mark("x", segmentation=[], bbox=[0.5, 1, 4.5, 2]),
                mark("x", segmentation=None, bbox=[-3, 18.0, 10, 10]),
                mark("x", segmentation=[[]], bbox=[29, 0, 1, 1], id=None, area="?"),
                mark("x", segmentation=[square], id=1),
                mark("x", segmentation=[square, [0, 0, 5, 0, 5, 5, 0, 5], [1, 1]], id=1),
                mark("x", segmentation={"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}),
            ],
        ),
    )
    annotations = convert(tmp_path)
    assert [box for _, box in found(annotations)["x.png"]] == [
        (0.5, 1, 4.5, 2),
        (0, 18, 7, 2),
        (29, 0, 1, 1),
        (10, 10, 4, 5),
        (0, 0, 14, 15),
        (20, 2, 9, 5),
    ]
    assert [instance.area for instance in annotations.instances][3] == 20
    assert annotations.instances[0].segmentation == [[0.5, 1, 5, 1, 5, 3, 0.5, 3]]
    assert told(tmp_path) == []


def test_small_instances_stay_for_people_drew_them(tmp_path):
    put_image(tmp_path / "raw/x.png", (1000, 1000))
    put_json(tmp_path / "raw/a.json", coco([image(1, "x.png")], [mark(1, bbox=[5, 5, 1, 1])]))
    assert found(convert(tmp_path)) == {"x.png": [("dent", (5, 5, 1, 1))]}


def test_what_is_left_out_is_told(tmp_path):
    raw = tmp_path / "raw"
    for name in ("x.png", "crowd.png", "empty.png", "stranger.JPG", "line.png"):
        put_image(raw / name)
    put_json(
        raw / "a.json",
        coco(
            [image(id_, f"{id_}.png") for id_ in ("x", "crowd", "empty", "absent", "line")],
            [
                mark("x"),
                mark("x", iscrowd=1, bbox=[0, 0, 30, 20]),
                mark("x", bbox=[40, 2, 5, 5]),
                mark("x", bbox=[4, 2, 0, 5]),
                mark("crowd", iscrowd=1),
                mark("crowd", iscrowd=True, bbox=[0, 0, 3, 3]),
                mark("absent"),
                mark("absent", iscrowd=1),
                mark("line", segmentation=[[1, 1, 9, 9]], bbox=[1, 1, 8, 8]),
            ],
        ),
    )
    put_json(raw / "settings.json", {"images": "none"})
    put_json(raw / "list.json", [1, 2])
    (raw / "notes.txt").write_text("x")
    (raw / "._a.json").write_bytes(b"\0resource fork")

    assert found(convert(tmp_path)) == {"x.png": [("dent", (3, 4, 8, 6))]}
    assert told(tmp_path) == [
        ("JSON that is no COCO file", "list.json", 0),
        ("JSON that is no COCO file", "settings.json", 0),
        ("annotation without its image", "absent.png", 2),
        ("file outside the layout", "notes.txt", 0),
        ("hidden file", "._a.json", 0),
        ("image without defects", "empty.png", 0),
        ("image without its annotation", "stranger.JPG", 0),
        ("mark that is no region", "line.png", 1),
        ("region of many instances (iscrowd)", "crowd.png", 2),
        ("region of many instances (iscrowd)", "x.png", 1),
        ("region without a pixel of its image", "x.png", 2),
    ]


@pytest.mark.parametrize(
    ("images", "annotations", "categories", "message"),
    [
        ([3], [mark(1)], CLASSES, r"images\[0\] is no object"),
        ([{"file_name": "x.png"}], [mark(1)], CLASSES, r"images\[0\]: id None is no id"),
        ([image(1, "")], [mark(1)], CLASSES, r"images\[0\]: file_name '' is no text"),
        ([{"id": 1}], [mark(1)], CLASSES, r"images\[0\]: file_name None is no text"),
        ([image(1, "x.png"), image(1, "y.png")], [], CLASSES, r"images\[1\]: the id 1 stands for 'x\.png'"),
        ([image(1, "../x.png")], [mark(1)], CLASSES, r"the path '\.\./x\.png' in it leaves the release"),
        ([image(1, "/etc/x.png")], [mark(1)], CLASSES, r"the path '/etc/x\.png' in it leaves"),
        ([image(1, "C:\\x.png")], [mark(1)], CLASSES, r"in it leaves the release"),
        ([image(1, "x.png", width="30", height=20)], [mark(1)], CLASSES, r"width '30' and height 20 are no"),
        ([image(1, "x.png", width=30)], [mark(1)], CLASSES, r"width 30 and height None are no"),
        (
            [image(1, "x.png", width=30, height=20), image(2, "x.png", width=20, height=30)],
            [mark(1)],
            CLASSES,
            r"images\[1\]: 'x\.png' is listed with another width",
        ),
        ([image(1, "x.png")], ["x"], CLASSES, r"annotations\[0\] is no object"),
        (
            [image(1, "x.png")],
            [mark(1), mark(2)],
            CLASSES,
            r"annotations\[1\]: there is no image with the id 2",
        ),
        ([image(1, "x.png")], [mark(None)], CLASSES, r"annotations\[0\]: image_id None is no id"),
        ([image(1, "x.png")], [mark(1, 3)], CLASSES, r"annotations\[0\]: there is no category with the id 3"),
        ([image(1, "x.png")], [mark(1, [3])], CLASSES, r"annotations\[0\]: category_id \[3\] is no id"),
        ([image(1, "x.png")], [mark(1, bbox=None)], CLASSES, r"annotations\[0\]: bbox is no list of numbers"),
        ([image(1, "x.png")], [mark(1, bbox=[1, 2, 3])], CLASSES, r"bbox \[1\.0, 2\.0, 3\.0\] is not x, y"),
        ([image(1, "x.png")], [mark(1, bbox=[1, 2, -3, 4])], CLASSES, r"is not x, y, width, height"),
        (
            [image(1, "x.png")],
            [mark(1, bbox=[1, 2, 3, float("nan")])],
            CLASSES,
            r"bbox is no list of numbers",
        ),
        ([image(1, "x.png")], [mark(1, segmentation="x")], CLASSES, r"segmentation is neither a list"),
        ([image(1, "x.png")], [mark(1, segmentation=[1, 2, 3, 4, 5, 6])], CLASSES, r"a polygon is no list"),
        ([image(1, "x.png")], [mark(1, segmentation=[[1, 2, 3, 4, 5]])], CLASSES, r"an x without its y"),
        (
            [image(1, "x.png")],
            [mark(1, segmentation=[[1, 2, 3, 4, 5, "6"]])],
            CLASSES,
            r"a polygon is no list",
        ),
        *(
            (
                [image(1, "x.png")],
                [mark(1, segmentation=code)],
                CLASSES,
                "its segmentation are no run-length code",
            )
            for code in (
                {"size": [2, 3]},
                *({"size": [2, 3], "counts": c} for c in ([1, [2]], [0.5], "\ud800", 7)),
            )
        ),
        ([image(1, "x.png")], [mark(1, iscrowd="0")], CLASSES, r"iscrowd '0' is neither 0 nor 1"),
        ([image(1, "x.png")], [mark(1)], [{"id": 0}], r"categories\[0\]: name None is no text"),
        ([image(1, "x.png")], [mark(1)], [{"id": 0, "name": "\ud800"}], r"categories\[0\]: name '\\ud800'"),
        ([image(1, "x.png")], [mark(1)], [*CLASSES, {"id": 0, "name": "x"}], r"the id 0 stands for 'dent'"),
    ],
)
def test_a_malformed_record_is_named(tmp_path, images, annotations, categories, message):
    put_image(tmp_path / "raw/x.png")
    put_json(tmp_path / "raw/a.json", coco(images, annotations, categories))
    with pytest.raises(DataError, match=rf"a\.json: .*{message}") as caught:
        convert(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


def test_damage_is_named(tmp_path):
    raw = tmp_path / "raw"
    put_image(raw / "x.png")
    (raw / "a.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"a\.json: not valid JSON"):
        convert(tmp_path)
    put_json(raw / "a.json", coco([image(1, "x.png", width=20, height=30)], [mark(1)]))
    with pytest.raises(DataError, match=r"x\.png: the image is 30x20 but its annotation says 20x30"):
        convert(tmp_path)
    short = {"size": [HEIGHT, WIDTH], "counts": [1, 2]}
    put_json(raw / "a.json", coco([image(1, "x.png")], [mark(1, segmentation=short)]))
    with pytest.raises(DataError, match=r"x\.png: dent: mask code does not fill its size"):
        convert(tmp_path)
    (raw / "x.png").write_bytes((raw / "x.png").read_bytes()[:20])
    with pytest.raises(DataError, match=r"x\.png: not a readable image"):
        convert(tmp_path)
    put_json(raw / "a.json", {"images": []})
    with pytest.raises(DataError, match=r"raw: no image with a marked defect; COCO has \*\.json"):
        convert(tmp_path)
