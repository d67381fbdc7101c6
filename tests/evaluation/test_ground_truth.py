"""Overlaps against brute force over pixels, the ranking, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from made_up_evaluation import code_of, filled, make_detections
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.evaluation.ground_truth import GroundTruth, filled_box_rle

HEIGHT, WIDTH = 30, 40
NAMES = ("crack", "hole")


def rectangle(*corners):
    return filled(corners, HEIGHT, WIDTH)


def instance(id_, name="crack", bbox=(2.0, 3.0, 10.0, 5.0), segmentation=None, *, crowd=False, image=7):
    return InstanceRecord(id_, image, NAMES.index(name) * 5, bbox, 1.0, segmentation, int(crowd))


def truth(*instances):
    """Images 7 and 3 of 40 x 30 pixels; `hole` has the greater category id and comes first in the file."""
    return GroundTruth(
        Annotations(
            images=tuple(ImageRecord(id_, f"{id_}.png", WIDTH, HEIGHT) for id_ in (7, 3)),
            instances=instances,
            categories=(CategoryRecord(5, "hole", ""), CategoryRecord(0, "crack", "")),
        )
    )


def found(rows, names=NAMES, size=(HEIGHT, WIDTH)):
    """Detections of (class name, xyxy, score, mask) rows."""
    return make_detections(rows, names, size)


def random_mask(rng):
    """A rectangle with holes, one pixel, or nothing."""
    if rng.random() < 0.2:
        return rectangle(4, 5, 4 + rng.integers(0, 2), 6)
    x0, y0 = rng.integers(0, 25, 2)
    mask = rectangle(x0, y0, x0 + rng.integers(1, 20), y0 + rng.integers(1, 15))
    return mask & (rng.random(mask.shape) < rng.choice([0.5, 1]))


def random_box(rng):
    """Corners; some boxes leave the image, some have no area."""
    x0, y0 = rng.uniform(-5, 35), rng.uniform(-5, 25)
    return (x0, y0, x0 + rng.choice([0, rng.uniform(0, 20)]), y0 + rng.uniform(0, 15))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), known=st.integers(1, 6), detected=st.integers(0, 8))
def test_overlaps_equal_brute_force(seed, known, detected):
    rng = np.random.default_rng(seed)
    masks = [random_mask(rng) | rectangle(20, 20, 21, 22) for _ in range(known)]
    boxes = [(*rng.uniform(0, 20, 2), *rng.uniform(0.1, 15, 2)) for _ in range(known)]
    crowd = [False, *(rng.random(known - 1) < 0.3)]
    names = [str(rng.choice(NAMES)) for _ in range(known)]
    rows = zip(names, boxes, map(code_of, masks), crowd, strict=True)
    judged = truth(*(instance(i, n, b, m, crowd=c) for i, (n, b, m, c) in enumerate(rows, start=1)))
    # Distinct scores: the order of the rows is the ranking.
    detections = [
        (str(rng.choice(NAMES)), random_box(rng), 1 - i / 9, random_mask(rng)) for i in range(detected)
    ]
    overlaps = judged.overlaps(7, found(detections))
    assert overlaps.box_iou.shape == overlaps.mask_iou.shape == (detected, known)
    for row, (name, corners, _, mask) in enumerate(detections):
        x0, y0, x1, y1 = map(float, np.float32(corners))
        assert overlaps.boxes_xywh[row].tolist() == [x0, y0, x1 - x0, y1 - y0]
        assert overlaps.mask_areas[row] == mask.sum()
        for column in range(known):
            same = name == names[column]
            x, y, w, h = boxes[column]
            inside = max(0, min(x1, x + w) - max(x0, x)) * max(0, min(y1, y + h) - max(y0, y))
            own = (x1 - x0) * (y1 - y0)
            whole = own if crowd[column] else own + w * h - inside
            assert overlaps.box_iou[row, column] == pytest.approx(same * inside / whole if inside else 0)
            inside = (mask & masks[column]).sum()
            whole = mask.sum() if crowd[column] else (mask | masks[column]).sum()
            assert overlaps.mask_iou[row, column] == pytest.approx(same * inside / whole if inside else 0)


@settings(max_examples=60, deadline=None)
@given(order=st.permutations(range(7)))
def test_ranking_is_score_then_class_name_then_box_then_mask(order):
    near, far = rectangle(0, 0, 5, 5), rectangle(9, 9, 20, 20)
    by_code = sorted((near, far), key=lambda mask: code_of(mask)["counts"])
    ranked = [
        ("hole", (5, 5, 9, 9), 0.75, near),
        ("crack", (0, 0, 5, 5), 0.5, by_code[0]),
        ("crack", (0, 0, 5, 5), 0.5, by_code[1]),
        ("crack", (0, 0, 5, 6), 0.5, near),
        ("crack", (1, 0, 5, 5), 0.5, near),
        ("hole", (0, 0, 1, 1), 0.5, near),
        ("crack", (0, 0, 1, 1), 0.25, near),
    ]
    overlaps = truth(instance(1, segmentation=code_of(near))).overlaps(7, found([ranked[i] for i in order]))
    assert overlaps.scores.tolist() == [0.75, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]
    assert overlaps.classes.tolist() == [1, 0, 0, 0, 0, 1, 0]
    assert overlaps.boxes_xywh[:, 0].tolist() == [5, 0, 0, 0, 1, 0, 0]
    assert overlaps.boxes_xywh[:, 3].tolist() == [4, 5, 5, 6, 5, 1, 1]
    assert overlaps.mask_areas[1:3].tolist() == [mask.sum() for mask in by_code]


def test_instances_come_by_id_with_classes_as_positions():
    judged = truth(
        instance(9, "hole", crowd=True), instance(4, bbox=(1.0, 1.0, 2.5, 3.0)), instance(5, image=3)
    )
    assert judged.class_names == ("crack", "hole")
    assert judged.image_ids == (7, 3)
    known = judged.instances(7)
    assert known.ids.tolist() == [4, 9]
    assert known.classes.tolist() == [0, 1]
    assert known.crowd.tolist() == [False, True]
    assert known.boxes_xywh.tolist() == [[1, 1, 2.5, 3], [2, 3, 10, 5]]
    assert known.mask_areas.tolist() == [9, 50]
    assert len(judged.instances(3)) == 1


def test_labels_follow_the_prompted_names():
    judged = truth(instance(1))
    rows = [
        ("hole", (0, 0, 1, 1), 0.9, rectangle(0, 0, 1, 1)),
        ("crack", (0, 0, 1, 1), 0.1, rectangle(0, 0, 1, 1)),
    ]
    assert judged.overlaps(7, found(rows, ("hole", "crack"))).classes.tolist() == [1, 0]


def test_nothing_found_and_nothing_to_find():
    judged = truth(instance(1), instance(2))
    none = judged.overlaps(7, found([]))
    assert (len(none), none.box_iou.shape, none.boxes_xywh.shape) == (0, (0, 2), (0, 4))
    alarm = judged.overlaps(3, found([("crack", (0, 0, 5, 5), 0.5, rectangle(0, 0, 5, 5))]))
    assert (len(alarm), alarm.box_iou.shape, alarm.mask_iou.shape) == (1, (1, 0), (1, 0))


def test_more_than_100_detections_are_all_kept():
    rows = [("crack", (0, 0, 5, 5), i / 300, rectangle(0, 0, 5, 5)) for i in range(300)]
    assert len(truth(instance(1)).overlaps(7, found(rows))) == 300


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-1, WIDTH - 0.5),
    st.floats(-1, HEIGHT - 0.5),
    st.floats(0.0625, WIDTH),
    st.floats(0.0625, HEIGHT),
)
def test_filled_box_is_every_pixel_the_box_touches(x, y, w, h):
    columns, rows = np.arange(WIDTH), np.arange(HEIGHT)
    expected = np.outer((rows < y + h) & (rows + 1 > y), (columns < x + w) & (columns + 1 > x))
    if expected.any():
        assert filled_box_rle((x, y, w, h), HEIGHT, WIDTH) == code_of(expected)


@pytest.mark.parametrize("box", [(-9, -9, 2, 2), (50, 60, 2, 2), (5, 5, 0, 0)])
def test_filled_box_has_at_least_one_pixel_of_the_image(box):
    assert coco_mask.area(filled_box_rle(box, HEIGHT, WIDTH)) == 1


def test_trap_scratch_thinner_than_a_pixel_counts_as_its_filled_box():
    scratch = [[10.0, 5.1, 30.0, 5.1, 30.0, 5.4, 10.0, 5.4]]
    assert coco_mask.area(coco_mask.frPyObjects(scratch, HEIGHT, WIDTH)[0]) == 0
    judged = truth(instance(1, bbox=(10.0, 5.1, 20.0, 0.3), segmentation=scratch))
    assert judged.instances(7).mask_areas.tolist() == [20]
    row = ("crack", (10, 5, 30, 6), 0.9, rectangle(10, 5, 30, 6))
    assert judged.overlaps(7, found([row])).mask_iou.tolist() == [[1]]


def test_trap_empty_code_counts_as_its_filled_box_and_one_pixel_stays_one():
    one = rectangle(8, 9, 9, 10)
    judged = truth(
        instance(1, segmentation=code_of(np.zeros_like(one))), instance(2, "hole", segmentation=code_of(one))
    )
    assert judged.instances(7).mask_areas.tolist() == [50, 1]
    overlaps = judged.overlaps(7, found([("hole", (8, 9, 9, 10), 0.9, one)]))
    assert overlaps.mask_iou.tolist() == [[0, 1]]


def test_trap_codes_run_down_the_columns_and_counts_may_be_text_bytes_or_numbers():
    mask = rectangle(3, 4, 5, 28)
    text = code_of(mask)
    in_bytes = text | {"counts": text["counts"].encode()}
    # 3 columns of background and 4 pixels, 24 of defect, 6 of background, ...
    numbers = {"size": [HEIGHT, WIDTH], "counts": [3 * HEIGHT + 4, 24, 6, 24, 2 + (WIDTH - 5) * HEIGHT]}
    judged = truth(
        *(instance(i, segmentation=form) for i, form in enumerate((text, in_bytes, numbers), start=1))
    )
    assert judged.instances(7).mask_areas.tolist() == [48, 48, 48]
    overlaps = judged.overlaps(7, found([("crack", (3, 4, 5, 28), 0.9, mask)]))
    assert overlaps.mask_iou.tolist() == [[1, 1, 1]]


BOX = ("crack", (1, 1, 5, 5), 0.5, rectangle(1, 1, 5, 5))


@pytest.mark.parametrize(
    ("image_id", "detections", "message"),
    [
        (1, found([BOX]), "image id 1"),
        (7, found([BOX], ("crack", "dent")), "'dent' was prompted"),
        (7, found([], size=(WIDTH, HEIGHT)), "7.png: the image has 30x40 pixels, its record says 40x30"),
        (7, found([(*BOX[:2], math.nan, BOX[3])]), "7.png: .*finite"),
        (7, found([("crack", (1, 1, math.inf, 5), 0.5, BOX[3])]), "7.png: .*finite"),
        (7, found([(*BOX[:3], BOX[3].T)]), "7.png: a detection's mask is not 40x30"),
    ],
)
def test_unusable_detections_are_refused_in_one_line(image_id, detections, message):
    with pytest.raises(DataError, match=message) as caught:
        truth(instance(1)).overlaps(image_id, detections)
    assert "\n" not in str(caught.value)


def test_unusable_ground_truth_is_refused():
    with pytest.raises(DataError, match="no instances"):
        truth()
    with pytest.raises(DataError, match="no instances"):
        truth(instance(1, crowd=True))
    with pytest.raises(DataError, match=r"7\.png: annotation 4: mask is 30x40"):
        truth(instance(4, segmentation=code_of(rectangle(1, 1, 5, 5).T)))
    twins = (CategoryRecord(0, "crack", ""), CategoryRecord(5, "crack", ""))
    with pytest.raises(DataError, match="same name"):
        GroundTruth(Annotations((ImageRecord(7, "7.png", WIDTH, HEIGHT),), (instance(1),), twins))
    with pytest.raises(DataError, match="image id 8"):
        truth(instance(1)).instances(8)
