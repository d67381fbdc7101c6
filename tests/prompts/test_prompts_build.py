"""Building a bank from a COCO file: what is left out is said."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unispector.benchmark.one_class import read_coco_set
from unispector.cli.prompts import prompts_calibrate, prompts_doctor
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import CheckpointError, DataError
from unispector.inference.detector import UniSpector
from unispector.inference.marking import check_annotated
from unispector.ops.rle import encode_rle
from unispector.prompts.build import build_prompts


def by_build(file, tmp_path):
    build_prompts(file, tmp_path, tmp_path / "no model", tmp_path / "bank.safetensors")


def by_doctor(file, tmp_path):
    prompts_doctor(annotations=file, images=tmp_path, model=str(tmp_path / "no model"))


def by_calibrate(file, tmp_path):
    (tmp_path / "good").mkdir()
    for number in range(60):
        Image.new("L", (9, 9)).save(tmp_path / f"good/{number}.png")
    prompts_calibrate(
        tmp_path / "bank", tmp_path / "good", "1/10", 0.95, file, tmp_path, str(tmp_path / "no model")
    )


def by_measure(file, tmp_path):
    read_coco_set(file, tmp_path)
    raise CheckpointError("read")


@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.parametrize("door", [by_build, by_doctor, by_calibrate, by_measure])
def test_marks_of_groups_are_told_once_with_their_number(tmp_path, caplog, groups, door):
    marks = [
        {"id": id_, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": int(id_ <= groups)}
        for id_ in (1, 2, 3)
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}]
    content = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "dent"}]}
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        door(file, tmp_path)
    told = [f"{file}: 2 of 3 marks are groups (iscrowd) and left out"] if groups else []
    assert [record.getMessage().split(";")[0] for record in caplog.records] == told


# Marks that mark nothing

BOX = (60.0, 30.0, 40.0, 20.0)
EMPTY = encode_rle(np.zeros((1, 80, 120), np.bool_))[0]
LINE, POINT = [10.0, 10.0, 50.0, 10.0, 30.0, 10.0], [10.0, 10.0] * 3
OUTSIDE = [130.0, 10.0, 140.0, 10.0, 135.0, 20.0]


def marked(bbox=BOX, segmentation=None, crowd=0):
    return Annotations(
        (ImageRecord(1, "a.png", 120, 80),),
        (InstanceRecord(7, 1, 1, bbox, 1.0, segmentation, crowd),),
        (CategoryRecord(1, "dent", ""),),
    )


@pytest.mark.parametrize(
    ("bbox", "segmentation"),
    [
        ((60.0, 30.0, 0.0, 20.0), None),
        ((60.0, 30.0, 40.0, -20.0), None),
        ((60.0, 30.0, 1e-9, 1e-9), None),
        ((math.nan, 30.0, 40.0, 20.0), None),
        ((60.0, 30.0, math.inf, math.nan), None),
        ((120.0, 30.0, 40.0, 20.0), None),
        ((-50.0, 30.0, 40.0, 20.0), None),
        (BOX, EMPTY),
        (BOX, {"size": [80, 120], "counts": [9600]}),
        (BOX, [LINE]),
        (BOX, [POINT, LINE]),
        (BOX, [OUTSIDE]),
    ],
)
def test_a_mark_without_area_is_refused_with_image_and_mark(bbox, segmentation, tiny_model, tmp_path):
    with pytest.raises(
        DataError, match=r"^a\.png: annotation 7: its (box|mask) .*marks no pixel of the image"
    ):
        check_annotated(marked(bbox, segmentation))
    Image.new("RGB", (120, 80)).save(tmp_path / "a.png")
    detector = UniSpector.load(tiny_model)
    for roi in ("box", "mask"):
        with pytest.raises(DataError, match=r"a\.png: annotation 7"):
            detector.encode_annotations(marked(bbox, segmentation), tmp_path, roi)
    check_annotated(marked(bbox, segmentation, crowd=1))  # a group prompts nothing


@pytest.mark.parametrize("bbox", ["60, 30, 0, 20", "60, 30, NaN, 20", "500, 30, 4, 20", "60, 30, -4, 20"])
def test_a_file_with_such_a_box_is_refused_with_image_and_mark(bbox, tmp_path):
    file = tmp_path / "a.json"
    mark = f'{{"id": 7, "image_id": 1, "category_id": 1, "bbox": [{bbox}]}}'
    images = '[{"id": 1, "file_name": "part.png", "width": 120, "height": 80}]'
    classes = '[{"id": 1, "name": "x"}]'
    file.write_text(f'{{"images": {images}, "annotations": [{mark}], "categories": {classes}}}')
    with pytest.raises(DataError, match=r"a\.json: .*\b7\b.*: .*part\.png"):
        build_prompts(file, tmp_path, tmp_path / "no model", tmp_path / "bank.safetensors")


@given(st.integers(0, 100), st.integers(0, 60), st.integers(1, 20), st.integers(1, 20))
def test_a_mark_of_a_pixel_is_one(x, y, width, height):
    mask = np.zeros((1, 80, 120), np.bool_)
    mask[0, y : y + height, x : x + width] = True
    box = (float(x), float(y), float(width), float(height))
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    for segmentation in (None, encode_rle(mask)[0], [[float(value) for value in corners]]):
        check_annotated(marked(box, segmentation))
    thin = [x, y, x + width, y, x + width, y + 0.2]
    check_annotated(replace(marked(box, [[float(value) for value in thin]])))
