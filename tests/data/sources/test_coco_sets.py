"""Own COCO sets: where images may lie, merging of files, what is left out, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from releases import Converted, put, put_image, refused
from releases import convert as convert_release

WIDTH, HEIGHT = 30, 20
CLASSES = [{"id": 0, "name": "dent"}, {"id": 7, "name": "scratch", "supercategory": "none"}]
BOX = (3, 4, 8, 6)


def put_images(root: Path, *names: str) -> None:
    for name in names:
        put_image(root / name, (WIDTH, HEIGHT))


def image(id_: object, name: str, **more: object) -> dict[str, Any]:
    return {"id": id_, "file_name": name, **more}


def mark(image_id: object, category_id: object = 0, **more: object) -> dict[str, Any]:
    where = {} if "segmentation" in more else {"bbox": BOX}
    return {"image_id": image_id, "category_id": category_id, **where, **more}


def coco(images: list[Any], annotations: list[Any], categories: list[Any] = CLASSES) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": categories}


def convert(raw: Path) -> Converted:
    return convert_release("coco", raw, raw.parent / "out")


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
def test_where_images_may_lie(raw, listing, written, place):
    put_images(raw, place)
    put(raw / listing, coco([image(1, written)], [mark(1)]))
    found = convert(raw)
    assert found.boxes == {place: [("dent", BOX)]}
    assert found.told == []


def test_the_nearest_place_wins(raw):
    put_images(raw, "x.png", "images/x.png")
    put(raw / "a.json", coco([image(1, "x.png")], [mark(1)]))
    found = convert(raw)
    assert list(found.boxes) == ["x.png"]
    assert found.told == [("image without its annotation", "images/x.png", 0)]


def test_unlisted_images_of_a_folder_good_have_no_defect(raw):
    put_images(raw, "x.png", "good/1.png", "more/good/2.png", "good.png", "goods/3.png")
    put(raw / "a.json", coco([image(1, "x.png"), image(2, "more/good/2.png")], [mark(1), mark(2)]))
    found = convert(raw)
    assert list(found.boxes) == ["x.png", "more/good/2.png"]
    assert found.told == [
        ("image without defects", "good/1.png", 0),
        ("image without its annotation", "good.png", 0),
        ("image without its annotation", "goods/3.png", 0),
    ]


def test_an_absent_image_that_was_meant_above_is_told(raw):
    put_images(raw, "y.png")
    listed = coco([image(1, "../x.png"), image(2, "../y.png")], [mark(1), mark(2)])
    put(raw / "annotations/a.json", listed)
    found = convert(raw)
    assert list(found.boxes) == ["y.png"]
    assert found.told == [("annotation without its image", "x.png", 1)]


def test_files_are_merged_by_the_names_of_classes(raw):
    put_images(raw, "train/x.png", "val/x.png")
    put(raw / "train/a.json", coco([image(0, "x.png")], [mark(0, 0), mark(0, 7, bbox=[1, 1, 5, 5])]))
    other = [{"id": 0, "name": "scratch"}, {"id": 1, "name": "dent"}, {"id": 2, "name": "unused"}]
    put(raw / "val/a.json", coco([image(0, "x.png")], [mark(0, 0), mark(0, 1)], other))

    found = convert(raw)

    assert found.annotations.class_names == ("dent", "scratch")
    assert found.boxes == {
        "train/x.png": [("dent", BOX), ("scratch", (1, 1, 5, 5))],
        "val/x.png": [("scratch", BOX), ("dent", BOX)],
    }


def test_an_image_listed_twice_has_the_marks_of_both(raw):
    put_images(raw, "x.png", "y.png")
    put(raw / "all.json", coco([image(1, "x.png"), image(2, "y.png")], [mark(1), mark(2)]))
    again = image(5, "./x.png", width=WIDTH, height=HEIGHT)
    put(raw / "some.json", coco([again], [mark(5), mark(5, 7), mark(5, 7)]))
    found = convert(raw)
    assert found.boxes == {"x.png": [("dent", BOX), ("scratch", BOX)], "y.png": [("dent", BOX)]}
    assert found.told == [("image listed twice", "x.png", 0), ("mark listed twice", "x.png", 2)]


def test_boxes_polygons_and_codes(raw):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[2:7, 20:29] = 1
    code = coco_mask.encode(np.asfortranarray(pixels))
    square = [10, 10, 14, 10, 14, 15, 10, 15]
    put_images(raw, "x.png")
    put(
        raw / "a.json",
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
    found = convert(raw)
    assert [box for _, box in found.boxes["x.png"]] == [
        (0.5, 1, 4.5, 2),
        (0, 18, 7, 2),
        (29, 0, 1, 1),
        (10, 10, 4, 5),
        (0, 0, 14, 15),
        (20, 2, 9, 5),
    ]
    instances = found.annotations.instances
    assert instances[3].area == 20
    assert instances[0].segmentation == [[0.5, 1, 5, 1, 5, 3, 0.5, 3]]
    assert found.told == []


def test_small_instances_stay_for_people_drew_them(raw):
    put_image(raw / "x.png", (1000, 1000))
    put(raw / "a.json", coco([image(1, "x.png")], [mark(1, bbox=[5, 5, 1, 1])]))
    assert convert(raw).boxes == {"x.png": [("dent", (5, 5, 1, 1))]}


def test_what_is_left_out_is_told(raw):
    put_images(raw, "x.png", "crowd.png", "empty.png", "stranger.JPG", "line.png")
    put(
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
    put(raw / "settings.json", {"images": "none"})
    put(raw / "list.json", [1, 2])
    put(raw / "notes.txt", "x")
    put(raw / "._a.json", b"\0resource fork")

    found = convert(raw)

    assert found.boxes == {"x.png": [("dent", BOX)]}
    assert found.told == [
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


def brush(image_id: object, x: int, y: int, w: int, h: int, **more: object) -> dict[str, Any]:
    """A mask as CVAT writes each: counts along the columns, and `iscrowd`."""
    counts = [x * HEIGHT + y, h, *[HEIGHT - h, h] * (w - 1), (WIDTH - x - w) * HEIGHT + HEIGHT - y - h]
    code = {"size": [HEIGHT, WIDTH], "counts": counts}
    return mark(image_id, segmentation=code, bbox=[x, y, w, h], iscrowd=1, **more)


POLYGON = [[1, 1, 5, 1, 5, 4, 1, 4]]
OCCLUDED = {"attributes": {"occluded": False}}


@pytest.mark.parametrize(
    ("marks", "areas", "groups"),
    [
        ([brush(1, 3, 4, 8, 6), brush(1, 20, 0, 10, 20)], [48, 200], 0),
        ([brush(1, 3, 4, 8, 6), mark(1)], [48, 48], 0),
        ([brush(1, 3, 4, 8, 6, **OCCLUDED), mark(1, segmentation=POLYGON, **OCCLUDED)], [48, 12], 0),
        ([brush(1, 3, 4, 8, 6), mark(1, segmentation=POLYGON)], [12], 1),
        ([brush(1, 3, 4, 8, 6, attributes={}), mark(1, segmentation=POLYGON)], [12], 1),
        ([brush(1, 3, 4, 8, 6), brush(1, 0, 0, 2, 2) | {"iscrowd": 0}], [4], 1),
        ([mark(1), mark(1, iscrowd=1, **OCCLUDED), mark(1, segmentation=POLYGON, iscrowd=1)], [48], 2),
    ],
    ids=["masks only", "beside a box", "beside a polygon", "group", "attributes", "beside a code", "no code"],
)
def test_a_single_mask_with_iscrowd_is_told_from_a_group(raw, marks, areas, groups):
    put_images(raw, "x.png")
    put(raw / "a.json", coco([image(1, "x.png")], marks))
    found = convert(raw)
    assert [instance.area for instance in found.annotations.instances] == areas
    boxes = {48: (3, 4, 8, 6), 200: (20, 0, 10, 20), 12: (1, 1, 4, 3), 4: (0, 0, 2, 2)}
    assert found.boxes["x.png"] == [("dent", boxes[area]) for area in areas]
    told = [("region of many instances (iscrowd)", "x.png", groups)] if groups else []
    if not groups and not any("attributes" in each for each in marks):  # nothing but the lack of others tells
        told = [
            ("region with iscrowd taken for one instance, as the file has no other segmentation", "x.png", 0)
        ]
    assert found.told == told


def test_a_set_of_groups_only_is_told_so(raw):
    put_images(raw, "x.png")
    put(raw / "a.json", coco([image(1, "x.png")], [mark(1, iscrowd=1)]))
    told = r"no image with a marked defect; dropped: region of many instances \(iscrowd\) \(1, as x\.png\)"
    refused("coco", raw, told)


@pytest.mark.parametrize("nowhere", [{"bbox": []}, {"bbox": None}, {"bbox": [], "segmentation": []}])
def test_a_mark_without_a_place_is_counted(raw, nowhere):
    put_images(raw, "x.png", "y.png")
    without = [{"image_id": id_, "category_id": 0, **nowhere} for id_ in (1, 2)]
    put(raw / "a.json", coco([image(1, "x.png"), image(2, "y.png")], [without[0], mark(1), without[1]]))
    found = convert(raw)
    assert found.boxes == {"x.png": [("dent", BOX)]}
    assert found.told == [("mark without box and segmentation", name, 1) for name in ("x.png", "y.png")]


@pytest.mark.parametrize(
    ("listing", "path"),
    [
        ("a.json", "..\\..\\label-studio\\media\\upload\\4\\0e1f-x.png"),
        ("deep/down/here/a.json", "../../label-studio/media/upload/4/0e1f-x.png"),
        ("a.json", "/label-studio/data/media/upload/4/0e1f-x.png"),
        ("a.json", "C:\\label-studio\\media\\0e1f-x.png"),
        ("a.json", "http://localhost:8080/data/upload/4/0e1f-x.png"),
    ],
)
def test_a_path_of_another_machine_is_found_by_its_unique_name(raw, listing, path):
    put_images(raw, "images/0e1f-x.png")
    put_images(raw.parent, "label-studio/media/upload/4/0e1f-x.png")
    put(raw / listing, coco([image(1, path)], [mark(1)]))
    found = convert(raw)
    assert found.boxes == {"images/0e1f-x.png": [("dent", BOX)]}
    told = "image found by its name, its path in the annotations leads elsewhere"
    assert found.told == [(told, "images/0e1f-x.png", 0)]

    put_images(raw, "more/0e1f-x.png")
    refused("coco", raw, r"a\.json: the path .* may be images/0e1f-x\.png or more/0e1f-x\.png; correct it")


def test_a_path_of_another_machine_never_leads_outside(raw):
    put_images(raw, "x.png")
    put_images(raw.parent, "secret.png")
    put(raw / "a.json", coco([image(1, "x.png"), image(2, "../secret.png")], [mark(1), mark(2)]))
    refused("coco", raw, r"a\.json: the path '\.\./secret\.png' in it leaves the release .*; correct it")


ELSEWHERE = r"a\.json: the paths .* of two images both lead to (?:images/)?x\.png; correct one, or restore"


@pytest.mark.parametrize(
    "paths",
    [
        ("../../media/a/x.png", "../../media/b/x.png"),
        ("..\\..\\media\\a\\x.png", "..\\..\\media\\b\\x.png"),
        ("/data/a/x.png", "/data/b/x.png"),
        ("C:\\a\\x.png", "D:\\a\\x.png"),
        ("http://h/a/x.png", "http://h/b/x.png"),
        ("s3://one/x.png", "s3://two/x.png"),
        ("x.png", "../../media/b/x.png"),
        ("/data/a/x.png", "x.png"),
        ("x.png", "images/x.png"),
        ("../gone/x.png", "../lost/x.png"),
    ],
)
def test_marks_of_one_image_never_land_on_another(raw, paths):
    place = "images/x.png" if "images/x.png" in paths else "x.png"
    put_images(raw, place)
    put(raw / "a.json", coco([image(n, path) for n, path in enumerate(paths)], [mark(0), mark(1, 7)]))
    refused("coco", raw, ELSEWHERE)


def test_marks_of_one_image_never_land_on_another_of_two_files(raw):
    put_images(raw, "x.png")
    put(raw / "A.json", coco([image(1, "x.png")], [mark(1)]))
    put(raw / "a.json", coco([image(1, "../../media/x.png")], [mark(1, 7)]))
    refused("coco", raw, ELSEWHERE)
    put(raw / "A.json", coco([image(1, "../../media/./x.png")], [mark(1)]))
    assert convert(raw).boxes == {"x.png": [("dent", BOX), ("scratch", BOX)]}
    for folder in ("one", "two"):  # one path, but two folders that it is meant from
        put(raw / folder / "sub/a.json", coco([image(1, "../pictures/x.png")], [mark(1)]))
    (raw / "a.json").unlink()
    (raw / "A.json").unlink()
    refused("coco", raw, ELSEWHERE)


@pytest.mark.parametrize("more", [{}, {"segmentation": []}, {"segmentation": None}])
def test_a_box_that_cvat_turned_is_turned(raw, more):
    put_images(raw, "x.png")
    turned = mark(1, bbox=[10, 6, 8, 4], **more, attributes={"occluded": False, "rotation": 90.0})
    straight = mark(1, bbox=[10, 6, 8, 4], **more, attributes={"rotation": 360, "occluded": False})
    drawn = mark(1, segmentation=POLYGON, attributes={"rotation": 45.0})
    other = mark(1, attributes={"rotation": "clockwise"})
    put(raw / "a.json", coco([X], [turned, straight, drawn, other]))
    found = convert(raw)
    boxes = [(12, 4, 4, 8), (10, 6, 8, 4), (1, 1, 4, 3), BOX]
    assert found.boxes == {"x.png": [("dent", box) for box in boxes]}
    assert found.annotations.instances[0].area == 32


X = image(1, "x.png")
NO_CODE = "its segmentation are no run-length code"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco([3], [mark(1)]), r"images\[0\] is no object"),
        (coco([{"file_name": "x.png"}], [mark(1)]), r"images\[0\]: id None is no id"),
        (coco([image(1, "")], [mark(1)]), r"images\[0\]: file_name '' is no text"),
        (coco([X, image(1, "y.png")], []), r"images\[1\]: the id 1 stands for 'x\.png'"),
        (coco([X | {"width": "30", "height": 20}], [mark(1)]), "width '30' and height 20 are no"),
        (coco([X | {"width": 30}], [mark(1)]), "width 30 and height None are no"),
        (
            coco([image(id_, "x.png", width=w, height=50 - w) for id_, w in ((1, 30), (2, 20))], [mark(1)]),
            r"images\[1\]: 'x\.png' is listed with another width",
        ),
        (coco([X], [mark(1)], [{"id": 0}]), r"categories\[0\]: name None is no text"),
        (coco([X], [mark(1)], [{"id": 0, "name": "\ud800"}]), r"categories\[0\]: name '\\ud800'"),
        (coco([X], [mark(1)], [*CLASSES, {"id": 0, "name": "x"}]), "the id 0 stands for 'dent'"),
        *(
            (coco([X], annotations), message)
            for annotations, message in (
                (["x"], r"annotations\[0\] is no object"),
                ([mark(1), mark(2)], r"annotations\[1\]: there is no image with the id 2"),
                ([mark(1, [3])], r"annotations\[0\]: category_id \[3\] is no id"),
                ([mark(1, bbox="")], r"annotations\[0\]: bbox is no list of numbers"),
                ([mark(1, bbox=[1, 2, 3])], r"bbox \[1\.0, 2\.0, 3\.0\] is not x, y"),
                ([mark(1, bbox=[1, 2, -3, 4])], "is not x, y, width, height"),
                ([mark(1, bbox=[1, 2, 3, float("nan")])], "bbox is no list of numbers"),
                ([mark(1, segmentation="x")], "segmentation is neither a list"),
                ([mark(1, segmentation=[1, 2, 3, 4, 5, 6])], "a polygon is no list"),
                ([mark(1, segmentation=[[1, 2, 3, 4, 5]])], "an x without its y"),
                ([mark(1, segmentation={"size": [2, 3]})], NO_CODE),
                ([mark(1, segmentation={"size": [2, 3], "counts": [0.5]})], NO_CODE),
                ([mark(1, segmentation={"size": [2, 3], "counts": 7})], NO_CODE),
                ([mark(1, iscrowd="0")], "iscrowd '0' is neither 0 nor 1"),
            )
        ),
    ],
)
def test_a_malformed_record_is_named(raw, content, message):
    put_images(raw, "x.png")
    put(raw / "a.json", content)
    refused("coco", raw, rf"a\.json: .*{message}")


def test_a_code_that_does_not_fill_its_size_is_named(raw):
    put_images(raw, "x.png")
    short = {"size": [HEIGHT, WIDTH], "counts": [1, 2]}
    put(raw / "a.json", coco([X], [mark(1, segmentation=short)]))
    refused("coco", raw, r"x\.png: dent: mask code does not fill its size")
