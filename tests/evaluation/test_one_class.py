"""Figures of one class at a time against counting by hand and by plain loops."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_up_evaluation import filled, make_detections, make_matches
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import match
from unispector.evaluation.one_class import (
    ClassRow,
    DetectorFigures,
    FailureImage,
    OneClassReport,
    ScoreBin,
    SkippedClass,
    alarms_from,
    box_fit,
    half_found_score,
    score_bins,
)
from unispector.reporting.one_class_report import one_class_json, one_class_report, real_report
from unispector.reporting.render import markdown

SIZE = 40


def annotations(boxes_of):
    """Image id -> boxes in whole pixels (x, y, w, h); one class."""
    images = tuple(ImageRecord(image_id, f"{image_id}.png", SIZE, SIZE) for image_id in boxes_of)
    pairs = [(image_id, box) for image_id, boxes in boxes_of.items() for box in boxes]
    instances = tuple(
        InstanceRecord(number, image_id, 1, tuple(map(float, box)), float(box[2] * box[3]), None)
        for number, (image_id, box) in enumerate(pairs, start=1)
    )
    return Annotations(images, instances, (CategoryRecord(1, "hole", ""),))


def detections(rows):
    """Score, box (x, y, w, h) of each; masks are the filled boxes."""
    corners = [(score, (x, y, x + w, y + h)) for score, (x, y, w, h) in rows]
    found = [("hole", box, score, filled(box, SIZE, SIZE)) for score, box in corners]
    return make_detections(found, ("hole",), (SIZE, SIZE))


def test_a_marked_box_is_given_back_from_the_overlap_on_that_is_asked_for():
    truth = GroundTruth(annotations({1: [(0, 0, 10, 10), (20, 20, 10, 10)], 2: [(5, 5, 10, 10)]}))
    # 80 of 100 pixels; 60 of 100; image 2 has no result at all.
    found = detections([(0.01, (0, 0, 10, 8)), (0.9, (20, 20, 6, 10)), (0.5, (0, 0, 2, 2))])
    overlaps = {1: truth.overlaps(1, found)}
    assert box_fit(truth, overlaps, 0.5) == pytest.approx(200 / 3)
    assert box_fit(truth, overlaps, 0.8) == pytest.approx(100 / 3)
    assert box_fit(truth, overlaps, 0.81) == 0


def truth_found_with(scores):
    return make_matches(truth=[(score, 0, 0) for score in scores])


@given(st.lists(st.sampled_from([-np.inf, 0.1, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=9))
def test_the_score_that_finds_half_is_the_highest_that_does(truth_score):
    found = half_found_score(truth_found_with(truth_score))
    enough = [
        score
        for score in sorted(set(truth_score), reverse=True)
        if score > -np.inf and 2 * sum(other >= score for other in truth_score) >= len(truth_score)
    ]
    assert found == (enough[0] if enough else None)


def test_alarms_are_counted_from_the_score_on():
    good = [np.array(scores, dtype=np.float32) for scores in ([0.7, 0.3], [], [0.3, 0.2], [0.29])]
    assert alarms_from(good, float(np.float32(0.3))) == 3 / 4
    assert alarms_from(good, None) is None
    assert alarms_from([], 0.3) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0.05, 0.1, 0.3, 0.34, 0.6, 0.7, 0.9, 1]), st.booleans(), st.booleans()),
        max_size=20,
    )
)
def test_bins_hold_every_finding_that_counts_once(findings):
    ignored = [crowd and not right for _, right, crowd in findings]
    rows = [
        (np.float32(score), 0, 0, 0 if right else -1, left_out)
        for (score, right, _), left_out in zip(findings, ignored, strict=True)
    ]
    bins = score_bins(make_matches(rows))
    for number, bin_ in enumerate(bins):
        low, high = np.float32(number / 10), np.float32((number + 1) / 10)
        own = [
            right
            for (score, right, _), left_out in zip(findings, ignored, strict=True)
            if low <= np.float32(score) and (np.float32(score) < high or number == 9) and not left_out
        ]
        assert (bin_.findings, bin_.true) == (len(own), sum(own))
    assert [(bin_.low, bin_.high) for bin_ in bins] == [(n / 10, (n + 1) / 10) for n in range(10)]


def test_of_two_finds_of_an_instance_one_is_right():
    truth = GroundTruth(annotations({1: [(0, 0, 10, 10)]}))
    found = detections([(0.95, (0, 0, 10, 9)), (0.35, (0, 0, 10, 10)), (0.34, (30, 30, 5, 5))])
    bins = score_bins(match(truth, {1: truth.overlaps(1, found)}, "bbox"))
    assert [(bin_.findings, bin_.true) for bin_ in bins if bin_.findings] == [(2, 0), (1, 1)]


def row(class_name, seed, boxes, masks=None, alarms=None, more=0, seconds=(1.0, 2.0)):
    bins = tuple(ScoreBin(n / 10, (n + 1) / 10, n, n // 2) for n in range(10))
    half = None if alarms is None else 0.5
    counts = (5, 7, 2, 2 + more, 9)
    return ClassRow(class_name, seed, *counts, boxes, masks, 80.0, 40.0, half, alarms, seconds, bins)


FIGURES = DetectorFigures(
    "fast",
    "f" * 64,
    (
        row("crack", 1, 10.0, 4.0, alarms=1.5, more=3),
        row("hole", 1, 30.0, 8.0),
        row("crack", 2, 50.0, 0.0, alarms=0.5, more=3),
        row("hole", 2, 70.0, 0.0, seconds=(9.0, 9.0, 9.0)),
    ),
)


def test_means_are_of_the_classes_first_and_the_spread_is_that_of_the_draws():
    by_draw = np.array([[10.0, 30.0], [50.0, 70.0]]).mean(axis=1)
    mean = FIGURES.mean("box_ap50")
    assert (mean.mean, mean.deviation) == (by_draw.mean(), by_draw.std()) == (40, 20)
    crack = FIGURES.of_class("crack", "box_ap50")
    assert (crack.mean, crack.deviation) == (30, 20)
    assert FIGURES.of_class("hole", "false_alarms") is None
    assert FIGURES.mean("false_alarms").mean == 1  # of the class that has it
    assert FIGURES.having("false_alarms") == 2
    assert FIGURES.seconds == 2  # the median of nine images, not of four rows
    assert [(bin_.findings, bin_.true) for bin_ in FIGURES.bins] == [(4 * n, 4 * (n // 2)) for n in range(10)]


def report(figures=FIGURES, roi="box"):
    floor = DetectorFigures("floor", "", tuple(replace(one, box_ap50=1.25) for one in figures.rows))
    skipped = (SkippedClass("dent", "1 image(s)"),)
    pictures = (FailureImage("pictures/a-miss-01.jpg", "hole", "x/1.png", "never found"),)
    return OneClassReport("tile", roi, 5, 2, 4, (figures, floor), skipped, pictures)


def test_the_page_says_what_was_measured_and_whether_targets_were_capped():
    page = markdown(one_class_report(report()))
    assert "capped at 2 a class, at random: 1 of 2 classes have more" in page
    assert "marked by boxes; prompt seeds 1, 2" in page
    assert "| crack | 2 | 30.0 ± 20.0 / 2.0 ± 2.0 | 1.2 / 2.0 ± 2.0 |" in page
    assert "| mean |  | 40.0 ± 20.0 / 3.0 ± 3.0 |" in page
    assert "| 0.9 to 1 | 36 | 44 | 36 | 44 |" in page
    assert "found in 2 of 4 draws" in page
    assert "- dent: 1 image(s)" in page
    assert "(<pictures/a-miss-01.jpg>)" in page
    whole = DetectorFigures("fast", "", tuple(replace(one, possible_targets=2) for one in FIGURES.rows))
    assert "not capped: no class has more than 2" in markdown(one_class_report(report(whole)))


def test_without_masks_there_are_boxes_only():
    boxes = DetectorFigures("fast", "", tuple(replace(one, mask_ap50=None) for one in FIGURES.rows))
    assert "| crack | 2 | 30.0 ± 20.0 | 1.2 |" in markdown(one_class_report(report(boxes)))


def test_json_has_the_means_and_every_row():
    content = json.loads(json.dumps(one_class_json(report()), allow_nan=False))
    fast = content["detectors"][0]
    assert fast["mean"]["box_ap50"] == {"mean": 40, "deviation": 20}
    assert fast["classes"]["hole"]["false_alarms"] is None
    assert fast["median_seconds"] == 2
    assert [one["box_ap50"] for one in fast["rows"]] == [10, 30, 50, 70]


def test_boxes_and_masks_as_prompts_stand_side_by_side():
    other = DetectorFigures("fast", "f" * 64, tuple(replace(one, box_ap50=5.0) for one in FIGURES.rows))
    page = markdown(real_report([report(), report(other, roi="mask")]))
    heads = (
        "fast, boxes as prompts | floor, boxes as prompts | fast, masks as prompts | floor, masks as prompts"
    )
    assert heads in page
    assert "| 30.0 ± 20.0 / 2.0 ± 2.0 | 1.2 / 2.0 ± 2.0 | 5.0 / 2.0 ± 2.0 | 1.2 / 2.0 ± 2.0 |" in page
    assert page.count("## tile") == 1
    assert "- fast: model ffffffffffff\n" in page
