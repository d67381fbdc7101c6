"""Annotation files: round trips, refusals that name the problem, selections."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.names import name_problem
from unispector.ops.rle import encode_rle

CONVERT = "run `unispector convert coco`"


def content() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "a/one.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "two.jpg", "width": 20, "height": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 4], "area": 40, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 40, 30]},
            {
                "id": 9,
                "image_id": 3,
                "category_id": 5,
                "bbox": [2, 2, 3, 3],
                "segmentation": [[2, 2, 5, 2, 5, 5]],
                "area": 4.5,
                "iscrowd": 1,
            },
        ],
        "categories": [{"id": 5, "name": "crack", "supercategory": "tile"}, {"id": 2, "name": "hole"}],
    }


def save(tmp_path: Path, value: object) -> Path:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(value))
    return path


def test_reads_what_a_user_may_leave_out(tmp_path):
    annotations = Annotations.read(save(tmp_path, content()))

    assert annotations.images[0] == ImageRecord(7, "a/one.jpg", 40, 30)
    assert annotations.instances[1] == InstanceRecord(2, 7, 2, (0.0, 0.0, 40.0, 30.0), 1200.0, None, 0)
    assert annotations.instances[2].iscrowd == 1
    assert annotations.categories[1] == CategoryRecord(2, "hole", "")
    assert annotations.class_names == ("hole", "crack")
    assert annotations.class_index == {2: 0, 5: 1}


def test_selections_keep_ids(tmp_path):
    annotations = Annotations.read(save(tmp_path, content()))

    assert [item.id for item in annotations.instances_of(7)] == [1, 2]
    assert annotations.instances_of(99) == ()
    assert annotations.labels_of(7) == {2, 5}
    one = annotations.keep_images([3])
    assert ([image.id for image in one.images], [item.id for item in one.instances]) == ([3], [9])
    assert one.categories == annotations.categories
    cracks = annotations.keep_categories([5])
    assert ([item.id for item in cracks.instances], cracks.class_names) == ([1, 9], ("crack",))
    assert cracks.images == annotations.images


@pytest.mark.parametrize(
    ("where", "change", "words"),
    [
        (("images", 0), {"width": 0}, ["images[0] (id 7)", "width 0"]),
        (("images", 0), {"width": 40.5}, ["width 40.5"]),
        (("images", 0), {"id": True}, ["id True"]),
        (("images", 0), {"file_name": "/etc/passwd"}, ["/etc/passwd", "below"]),
        (("images", 0), {"file_name": "x/../../y.jpg"}, ["below"]),
        (("images", 0), {"file_name": "x\\..\\y.jpg"}, ["below"]),
        (("images", 0), {"file_name": None}, ["file_name None"]),
        (("images", 0), {"file_name": "two.jpg"}, ["two.jpg", "twice"]),
        (("images", 0), {"id": 3}, ["id 3 occurs twice"]),
        (("annotations", 0), {"id": 0}, ["annotations[0] (id 0)", "at least 1", CONVERT]),
        (("annotations", 0), {"id": "m-1"}, ["annotations[0] (id m-1)", "whole number", CONVERT]),
        (("annotations", 0), {"id": None}, ["annotations[0] (id None)", "whole number", CONVERT]),
        (("annotations", 0), {"image_id": "x"}, ["annotations[0]", "image_id 'x'", CONVERT]),
        (("images", 0), {"id": "x"}, ["images[0] (id x)", "whole number", CONVERT]),
        (("categories", 0), {"id": "dent"}, ["categories[0] (id dent)", "whole number", CONVERT]),
        (("annotations", 0), {"bbox": []}, ["annotations[0]", "four numbers", CONVERT]),
        (("annotations", 0), {"id": 2}, ["id 2 occurs twice", CONVERT]),
        (("annotations", 0), {"image_id": 8}, ["annotation 1", "unknown image_id 8"]),
        (("annotations", 0), {"category_id": 1}, ["annotation 1", "unknown category_id 1"]),
        (("annotations", 0), {"bbox": [1, 2, 10]}, ["bbox", "four numbers"]),
        (("annotations", 0), {"bbox": [1, 2, 10, float("nan")]}, ["bbox", "four numbers"]),
        (("annotations", 0), {"bbox": [1, 2, 10, 10**400]}, ["bbox", "four numbers"]),
        (("annotations", 0), {"bbox": [1, 2, 10, 0]}, ["bbox", "empty"]),
        (("annotations", 0), {"bbox": [35, 2, 10, 4]}, ["annotation 1", "a/one.jpg", "40x30"]),
        (("annotations", 0), {"bbox": [1, 26, 10, 6]}, ["annotation 1", "leaves"]),
        (("annotations", 0), {"bbox": [-3, 2, 10, 4]}, ["annotation 1", "leaves"]),
        (("annotations", 0), {"bbox": [40.5, 2, 0.4, 4]}, ["annotation 1", "leaves"]),
        (("annotations", 0), {"area": -1}, ["area -1"]),
        (("annotations", 0), {"area": float("inf")}, ["area inf"]),
        (("annotations", 0), {"iscrowd": 2}, ["iscrowd 2"]),
        (("annotations", 0), {"segmentation": [[1, 2, 3, 4]]}, ["segmentation"]),
        (("annotations", 0), {"segmentation": [[1, 2, 3, 4, 5, "x"]]}, ["segmentation"]),
        (("annotations", 0), {"segmentation": {"counts": "x"}}, ["segmentation"]),
        (
            ("annotations", 0),
            {"segmentation": {"size": [40, 30], "counts": "x"}},
            ["annotation 1", "[30, 40]"],
        ),
        (("categories", 0), {"name": ""}, ["categories[0] (id 5)", "name"]),
        (("categories", 0), {"name": "hole"}, ["hole", "twice"]),
        (("categories", 0), {"id": 2}, ["id 2 occurs twice"]),
    ],
)
def test_refuses_a_bad_record_in_one_line(tmp_path, where, change, words):
    raw = content()
    raw[where[0]][where[1]] |= change
    path = save(tmp_path, raw)

    with pytest.raises(DataError) as caught:
        Annotations.read(path)

    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ([], "top level"),
        ({}, "no list 'images'"),
        (content() | {"images": {}}, "no list 'images'"),
        (content() | {"annotations": []}, "no annotations"),
        (content() | {"images": []}, "no images"),
        (content() | {"categories": []}, "no categories"),
        (content() | {"images": [3]}, "images[0] is no object"),
    ],
)
def test_refuses_what_is_no_annotation_file(tmp_path, value, word):
    with pytest.raises(DataError, match=r"set\.json") as caught:
        Annotations.read(save(tmp_path, value))
    assert word in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_refuses_what_is_no_json(tmp_path, data):
    path = tmp_path / "set.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"set.json: not valid JSON"):
        Annotations.read(path)


def test_names_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"absent.json: cannot be read \(No such file"):
        Annotations.read(tmp_path / "absent.json")


def test_a_rounded_corner_may_stick_out(tmp_path):
    raw = content()
    raw["annotations"][0]["bbox"] = [-0.4, 2, 41, 28.7]
    assert Annotations.read(save(tmp_path, raw)).instances[0].bbox == (-0.4, 2.0, 41.0, 28.7)


@st.composite
def tables(draw: st.DrawFn) -> Annotations:
    sizes = draw(st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=4))
    ids = draw(st.lists(st.integers(0, 2**40), min_size=len(sizes), max_size=len(sizes), unique=True))
    words = st.text(min_size=1).filter(lambda text: not name_problem(text))
    names = draw(st.lists(words, min_size=1, max_size=3, unique=True))
    images = [ImageRecord(i, f"f{i}.png", w, h) for i, (w, h) in zip(ids, sizes, strict=True)]
    instances = []
    for number in range(draw(st.integers(1, 5))):
        image = draw(st.sampled_from(images))
        mask = np.zeros((1, image.height, image.width), dtype=bool)
        mask[0, draw(st.integers(0, image.height - 1)), draw(st.integers(0, image.width - 1))] = True
        y, x = np.argwhere(mask[0])[0].tolist()
        code = encode_rle(mask)[0] if draw(st.booleans()) else None
        category = draw(st.integers(0, len(names) - 1))
        instances.append(InstanceRecord(number + 1, image.id, category, (x, y, 1.0, 1.0), 1.0, code))
    categories = tuple(CategoryRecord(i, name, "p") for i, name in enumerate(names))
    return Annotations(tuple(images), tuple(instances), categories)


@given(tables())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip(tmp_path, annotations):
    path = tmp_path / "deep" / "set.json"
    annotations.write(path)
    first = path.read_bytes()

    assert Annotations.read(path) == annotations
    annotations.write(path)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_pycocotools_takes_it(tmp_path):
    annotations = Annotations.read(save(tmp_path, content()))
    truth = COCO()
    truth.dataset = annotations.as_coco()
    truth.createIndex()
    found = truth.loadRes([{"image_id": 7, "category_id": 5, "bbox": [1, 2, 10, 4], "score": 1.0}])
    assert sorted(truth.getAnnIds(imgIds=[7])) == [1, 2]
    assert found.anns[1]["area"] == 40
    assert truth.anns[9]["segmentation"] == [[2, 2, 5, 2, 5, 5]]
    assert "segmentation" not in truth.anns[1]
