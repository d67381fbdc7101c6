"""Leave-one-out checks against banks and detections made one by one."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.inference.detector import UniSpector
from unispector.prompts.checks import WEIGHED, Enrolled, ImageCheck, _mark, leave_one_out, worth_of

SCORE = 0.02


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (70, 90, 3), dtype=np.uint8))
    return folder


def boxes(number: int) -> list[tuple[float, float, float, float]]:
    """Marks on an image: one, of the last image two."""
    return [(5.0 * number, 8.0, 30.0, 25.0), (50.0, 40.0, 20.0, 20.0)][: 1 + number // 4]


@pytest.fixture(scope="module")
def annotations(detector: UniSpector, folder: Path) -> Annotations:
    """Four images; what the model itself finds on each with prompts from the others is marked as well."""
    images = tuple(ImageRecord(number, f"{number}.png", 90, 70) for number in range(1, 5))
    drawn = [(image.id, box) for image in images for box in boxes(image.id)]
    marks = tuple(
        InstanceRecord(row, image, 1, box, box[2] * box[3], None) for row, (image, box) in enumerate(drawn, 1)
    )
    classes = (CategoryRecord(1, "hole", ""),)
    first = Annotations(images, marks, classes)
    found = []
    for image in images:
        bank = detector.encode_annotations(first.keep_images({1, 2, 3, 4} - {image.id}), folder)
        left, top, right, bottom = detector.detect([folder / image.file_name], bank)[0].boxes_xyxy[0].tolist()
        box = (left, top, right - left, bottom - top)
        found.append(InstanceRecord(len(marks) + image.id, image.id, 1, box, box[2] * box[3], None))
    return replace(first, instances=(*marks, *found))


def iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def best(found: Detections, box: tuple[float, ...], label: str) -> float:
    """The best score of a class on a box, by looking at every detection."""
    corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    scores = [
        float(found.scores[row])
        for row in range(len(found))
        if found.class_names[int(found.labels[row])] == label
        and float(found.scores[row]) >= SCORE
        and iou(found.boxes_xyxy[row].tolist(), corners) >= 0.5
    ]
    return max(scores, default=0.0)


def test_each_picture_is_looked_at_with_the_others_and_the_enrolled(detector, annotations, folder):
    dent = replace(annotations.keep_images([1]), categories=(CategoryRecord(1, "dent", ""),))
    enrolled = detector.encode_annotations(dent, folder)
    checks = list(leave_one_out(detector, annotations, folder, Enrolled(enrolled, "hole"), "box", SCORE))
    assert [check.file_name for check in checks] == ["1.png", "2.png", "3.png", "4.png"]
    hits = 0
    for image, check in zip(annotations.images, checks, strict=True):
        rest = {1, 2, 3, 4} - {image.id}
        marks = annotations.instances_of(image.id)

        def look(ids, file=folder / image.file_name):
            bank = detector.encode_annotations(annotations.keep_images(ids), folder)
            return detector.detect([file], enrolled.merge(bank))[0]

        found = look(rest)
        assert [mark.id for mark in check.marks] == [mark.id for mark in marks]
        for mark, own in zip(check.marks, marks, strict=True):
            assert mark.score == pytest.approx(best(found, own.bbox, "hole"), abs=1e-4)
            assert mark.other_score == pytest.approx(best(found, own.bbox, "dent"), abs=1e-4)
            hits += mark.found
        assert len(check.detections) == len(found.above(SCORE))
        fewer = {
            f"{left}.png": sum(best(look(rest - {left}), mark.bbox, "hole") > 0 for mark in marks)
            for left in rest
        }
        assert check.found_without == fewer
    assert hits


def test_a_class_that_grows_keeps_its_prompts(detector, annotations, folder):
    old = detector.encode_annotations(annotations.keep_images([1, 2]), folder)
    (check,) = leave_one_out(
        detector, annotations.keep_images([3]), folder, Enrolled(old, "hole"), "box", SCORE
    )
    found = detector.detect([folder / "3.png"], old)[0].above(SCORE)
    assert torch.allclose(check.detections.scores, found.scores, atol=1e-4)
    assert check.found_without == {}


def test_a_single_picture_has_nothing_to_be_found_with(detector, annotations, folder):
    alone = annotations.keep_images([1])
    assert list(leave_one_out(detector, alone, folder, Enrolled(None, "hole"), "box", SCORE)) == []
    pair = annotations.keep_images([1, 2])
    checks = list(leave_one_out(detector, pair, folder, Enrolled(None, "hole"), "box", SCORE))
    assert [check.found_without for check in checks] == [{}, {}]
    assert worth_of(checks) == ()


def detections(*rows: tuple[float, str, tuple[float, float, float, float]]) -> Detections:
    names = ("hole", "dent", "crack")
    return Detections(
        boxes_xyxy=torch.tensor([box for *_, box in rows]).reshape(-1, 4),
        scores=torch.tensor([score for score, *_ in rows]),
        labels=torch.tensor([names.index(name) for _, name, _ in rows]),
        masks_rle=tuple({"size": [70, 90], "counts": ""} for _ in rows),
        class_names=names,
        image_hw=(70, 90),
    )


def test_the_best_detection_on_a_mark_decides():
    mark = InstanceRecord(7, 1, 1, (10.0, 10.0, 20.0, 20.0), 400.0, None)
    there, near, far = (10.0, 10.0, 30.0, 30.0), (10.0, 10.0, 30.0, 21.0), (10.0, 10.0, 30.0, 19.0)
    seen = detections((0.9, "hole", far), (0.5, "hole", near), (0.4, "hole", there), (0.3, "dent", there))
    check = _mark(mark, seen, "hole")
    assert (check.id, check.box_xyxy) == (7, there)
    assert (check.score, check.other, check.other_score) == pytest.approx((0.5, "dent", 0.3))
    assert (check.found, check.confused) == (True, False)
    seen = detections((0.6, "crack", there), (0.5, "dent", there), (0.4, "hole", there))
    check = _mark(mark, seen, "hole")
    assert (check.other, check.found, check.confused) == ("crack", True, True)
    assert _mark(mark, detections((0.6, "dent", there)), "hole").confused
    missed = _mark(mark, detections((0.6, "hole", far)), "hole")
    assert (missed.score, missed.other, missed.found, missed.confused) == (0.0, "", False, False)
    assert not _mark(mark, detections(), "hole").found


def test_a_picture_hurts_where_more_is_found_without_it():
    mark = InstanceRecord(7, 1, 1, (10.0, 10.0, 20.0, 20.0), 400.0, None)
    there = (10.0, 10.0, 30.0, 30.0)
    hit, miss = (_mark(mark, detections((0.5, name, there)), "hole") for name in ("hole", "dent"))
    checks = [
        ImageCheck("a", (hit, miss), detections(), {"b": 2, "c": 0}),
        ImageCheck("b", (miss,), detections(), {"a": 0, "c": 0}),
        ImageCheck("c", (hit,), detections(), {"a": 1, "b": 1}),
    ]
    told = {
        worth.file_name: (worth.found, worth.without, worth.marks, worth.hurts) for worth in worth_of(checks)
    }
    assert told == {"a": (1, 1, 2, False), "b": (2, 3, 3, True), "c": (1, 0, 3, False)}


def test_what_many_pictures_are_worth_is_not_tried(detector, annotations, folder):
    names = [f"{number}.png" for number in range(1, WEIGHED + 2)]
    images = tuple(ImageRecord(number, name, 90, 70) for number, name in enumerate(names, 1))
    for name in names:
        if not (folder / name).exists():
            (folder / name).write_bytes((folder / "1.png").read_bytes())
    marks = tuple(
        InstanceRecord(image.id, image.id, 1, (5.0, 5.0, 30.0, 30.0), 900.0, None) for image in images
    )
    many = Annotations(images, marks, annotations.categories)
    checks = list(leave_one_out(detector, many, folder, Enrolled(None, "hole"), "box", SCORE))
    assert len(checks) == WEIGHED + 1
    assert all(check.found_without == {} for check in checks)
