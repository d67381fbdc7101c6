"""Oracles against trying every order and counting pixels."""

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_up_evaluation import evaluate_detections, make_detections
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.evaluation.coco_metrics import evaluate_overlaps
from unispector.evaluation.diagnosis import (
    DiagnosisReport,
    DiagnosisRow,
    Oracles,
    ap50,
    diagnosis_row,
    in_perfect_order,
    merged,
    shares_inside,
)
from unispector.evaluation.ground_truth import GroundTruth, best_overlaps
from unispector.evaluation.one_class import SkippedClass
from unispector.ops.rle import decode_rle, encode_rle
from unispector.reporting.diagnosis_report import diagnosis_json, diagnosis_report, largest_loss
from unispector.reporting.render import markdown

SIZE = 32
KINDS = ("bbox", "segm")


def filled(box):
    x, y, w, h = box
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


def box_of(mask):
    """x, y, w, h around a mask."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]


def truth_of(masks_of):
    """Image id -> masks, boxes tight around them."""
    images = tuple(ImageRecord(image_id, f"{image_id}.png", SIZE, SIZE) for image_id in masks_of)
    instances = []
    for image_id, masks in masks_of.items():
        for mask, code in zip(masks, encode_rle(np.array(masks).reshape(-1, SIZE, SIZE)), strict=True):
            box = tuple(float(side) for side in box_of(mask))
            instances.append(InstanceRecord(len(instances) + 1, image_id, 1, box, float(mask.sum()), code))
    return GroundTruth(Annotations(images, tuple(instances), (CategoryRecord(1, "hole", ""),)))


def found_of(rows):
    """(score, mask) of each candidate, best first; boxes are tight."""
    boxes = [box_of(mask) for _, mask in rows]
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    found = [("hole", box, score, mask) for (score, mask), box in zip(rows, corners, strict=True)]
    return make_detections(found, ("hole",), (SIZE, SIZE))


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


QUARTERS = [(0, 0, 12, 10), (18, 2, 10, 12), (3, 17, 9, 11)]  # apart from each other


@st.composite
def candidates(draw):
    """Boxes near instances that do not touch each other, with distinct scores."""
    count = draw(st.integers(0, 5))
    rows = []
    for number in range(count):
        x, y, w, h = draw(st.sampled_from(QUARTERS))
        dx, dy, dw = (draw(st.integers(0, 4)) for _ in range(3))
        rows.append(((count - number) / 10, filled((x + dx, y + dy, w - dw, h))))
    return rows


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(candidates())
def test_no_order_of_the_candidates_is_better_than_the_perfect_one(kind, rows):
    truth = truth_of({1: [filled(box) for box in QUARTERS]})
    perfect = ap50(truth, {1: in_perfect_order(truth.overlaps(1, found_of(rows)), kind)}, kind)
    best = 0.0
    for order in permutations(mask for _, mask in rows):
        ranked = found_of([(1 - place / 10, mask) for place, mask in enumerate(order)])
        metrics = evaluate_detections(truth.annotations, {1: ranked})
        best = max(best, (metrics.bbox if kind == "bbox" else metrics.segm).AP50)
    assert perfect == pytest.approx(best)


def test_in_perfect_order_a_late_candidate_counts_that_the_cap_hides_otherwise():
    truth = truth_of({1: [filled(QUARTERS[0])]})
    wrong = [(0.9 - place / 1000, filled((20, 20, 3, 3))) for place in range(120)]
    overlaps = truth.overlaps(1, found_of([*wrong, (0.01, filled(QUARTERS[0]))]))
    assert ap50(truth, {1: overlaps}, "bbox") == 0
    assert ap50(truth, {1: in_perfect_order(overlaps, "bbox")}, "bbox") == pytest.approx(100)
    assert list(best_overlaps(truth, {1: overlaps}, "bbox")) == [1]


def test_the_better_of_two_candidates_comes_first_and_the_other_is_wrong():
    truth = truth_of({1: [filled((0, 0, 10, 10))]})
    overlaps = truth.overlaps(1, found_of([(0.9, filled((0, 0, 10, 6))), (0.2, filled((0, 0, 10, 9)))]))
    ordered = in_perfect_order(overlaps, "bbox")
    assert ordered.box_iou[:, 0].tolist() == pytest.approx([0.9, 0.6])
    assert ordered.scores.tolist() == pytest.approx([1, 0.45])


@settings(max_examples=40)
@given(candidates())
def test_best_overlaps_and_shares_are_those_of_the_pixels(rows):
    instances = [filled(box) for box in QUARTERS]
    instances[0][:3, :3] = False  # a mask that is not its box
    truth, found = truth_of({1: instances, 2: instances[:1]}), found_of(rows)
    masks = [mask for _, mask in rows]
    overlaps = {1: truth.overlaps(1, found)}  # nothing was found on image 2
    best = [max((iou(mask, own) for mask in masks), default=0) for own in instances]
    assert best_overlaps(truth, overlaps, "segm").tolist() == pytest.approx([*best, 0])
    boxes = [filled(box_of(own)) for own in instances]
    best = [max((iou(mask, own) for mask in masks), default=0) for own in boxes]
    assert best_overlaps(truth, overlaps, "bbox").tolist() == pytest.approx([*best, 0])
    for kind, known in (("segm", instances), ("bbox", boxes)):
        shares = [[(mask & own).sum() / mask.sum() for own in known] for mask in masks]
        assert shares_inside(truth, 1, found, kind) == pytest.approx(np.array(shares).reshape(-1, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_an_instance_become_one_and_what_lies_outside_stays(kind):
    truth = truth_of({1: [filled((0, 0, 10, 20)), filled((20, 0, 10, 10))]})
    pieces = [filled((0, 0, 10, 7)), filled((0, 12, 10, 9)), filled((2, 7, 6, 5))]
    outside = filled((7, 5, 10, 10))  # 3 of 10 columns inside
    lone = filled((20, 0, 10, 3))
    found = found_of([(0.9, outside), (0.5, pieces[0]), (0.4, lone), (0.2, pieces[1]), (0.1, pieces[2])])
    joined = merged(found, shares_inside(truth, 1, found, kind))
    union = pieces[0] | pieces[1] | pieces[2]
    assert joined.scores.tolist() == pytest.approx([0.9, 0.5, 0.4])
    for code, mask in zip(joined.masks_rle, (outside, union, lone), strict=True):
        assert (decode_rle(code) == mask).all()
    assert joined.boxes_xyxy.tolist() == [[7, 5, 17, 15], [0, 0, 10, 21], [20, 0, 30, 3]]
    before, after = (ap50(truth, {1: truth.overlaps(1, each)}, kind) for each in (found, joined))
    assert before == 0
    assert after == pytest.approx(100 * 51 / 101 / 2)  # half of the instances at precision 1/2
    assert json.dumps(joined.masks_rle)


def test_nothing_found_is_zero_everywhere():
    truth, nothing = truth_of({1: [filled((0, 0, 5, 5))]}), found_of([])
    row = diagnosis_row(("hole", 1), truth, {1: nothing}, [nothing], masks=True)
    assert row.boxes == row.masks == Oracles(0, 0, 0, 0, 0)
    assert (row.candidates, row.first_right, row.sure_findings, row.sure_alarms) == (0, 0, 0, 0)
    assert (row.pieces_found, row.pieces_missed) == (None, 0)
    assert (row.true_score, row.false_score) == (None, None)


def test_a_row_by_hand():
    truth = truth_of(
        {1: [filled((0, 0, 10, 10)), filled((20, 20, 8, 8))], 2: [filled((4, 4, 12, 12))], 3: []}
    )
    found = {
        1: found_of(
            [(0.5, filled((0, 0, 10, 8))), (0.3, filled((1, 1, 4, 4))), (0.1, filled((0, 0, 10, 9)))]
        ),
        2: found_of(
            [(0.6, filled((25, 25, 4, 4))), (0.2, filled((4, 4, 6, 12))), (0.15, filled((4, 4, 3, 3)))]
        ),
        3: found_of([(0.04, filled((0, 0, 3, 3)))]),
    }
    row = diagnosis_row(("hole", 7), truth, found, [found[2], found_of([])], masks=True)
    metrics = evaluate_overlaps(
        truth, {image_id: truth.overlaps(image_id, f) for image_id, f in found.items()}
    )
    assert (row.boxes.as_is, row.masks.as_is) == pytest.approx((metrics.bbox.AP50, metrics.segm.AP50))
    assert row.boxes.recall == pytest.approx(200 / 3)  # 0.9, 0 and exactly 0.5
    assert row.boxes.cover == pytest.approx(50)
    assert row.candidates == pytest.approx(7 / 3)
    assert row.instances == 3
    assert row.first_right == pytest.approx(100 / 3)
    assert row.pieces_found == 2.5  # three and two
    assert row.pieces_missed == 0
    assert row.true_score == pytest.approx(0.35)
    assert row.false_score == pytest.approx(0.15)  # of 0.6, 0.3, 0.15, 0.1, 0.04
    assert row.sure_findings == pytest.approx(6 / 3)
    assert row.sure_alarms == 1.5
    assert diagnosis_row(("hole", 7), truth, found, [], masks=False).masks is None


def row(seed, boxes, masks):
    rest = (2.0, None, 0.3, 0.1, 50.0, 1.0, None)
    return DiagnosisRow("hole", seed, 4, 5, 20.0, boxes, masks, *rest)


def report(*rows):
    return DiagnosisReport("tile", "box", "f" * 64, 4, 0, rows, (SkippedClass("dent", "1 image(s)"),))


def test_the_largest_loss_is_named():
    rows = (
        row(1, Oracles(20, 70, 60, 50, 30), Oracles(10, 50, 40, 40, 15)),
        row(2, Oracles(30, 90, 80, 60, 20), Oracles(20, 50, 40, 40, 15)),
    )
    assert [(loss.cause, loss.boxes, loss.masks) for loss in report(*rows).losses] == [
        ("ranking", 45, 25),
        ("candidates", 30, 60),
        ("fragments", 0, 0),
    ]
    assert largest_loss(report(*rows)).startswith("Largest loss: ranking +45.0 boxes, +25.0 masks (")
    page = markdown(diagnosis_report(report(*rows)))
    assert "| hole | 25.0 / 15.0 | 80.0 / 50.0 | 70.0 / 40.0 | 25.0 / 15.0 | 55.0 / 40.0 |" in page
    assert "| mean | 20 | 2.0 | - | 0.300 | 0.100 | 50 | 1.0 | - |" in page
    assert "- dent: 1 image(s)" in page
    content = json.loads(json.dumps(diagnosis_json(report(*rows)), allow_nan=False))
    assert content["mean"]["boxes.as_is"] == {"mean": 25, "deviation": 5}
    assert content["mean"]["pieces_missed"] is None
    assert content["rows"][1]["masks"]["recall"] == 50


def test_without_masks_the_loss_is_told_in_boxes():
    only = report(row(1, Oracles(20, 30, 30, 50, 60), None))
    assert largest_loss(only).startswith("Largest loss: candidates +70.0 boxes (")
    assert "| hole | 20.0 | 30.0 | 30.0 | 60.0 | 50.0 |" in markdown(diagnosis_report(only))
