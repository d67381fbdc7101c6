"""Greedy matching and weighted AP50 against pycocotools, and against a plain loop where images repeat."""

import io
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from made_up_evaluation import code_of, filled, make_detections
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import average_precision_50, match

SIZE = 24
NAMES = ("hole", "crack", "stain")  # by category id, so not in the order of the alphabet
KINDS = ("bbox", "segm")


def corners(box):
    x, y, w, h = box
    return (x, y, x + w, y + h)


def rle(box):
    return code_of(filled(corners(box), SIZE, SIZE))


def annotations(rows, images):
    """Ground truth of (image id, class name, box xywh, mask box, crowd) rows, numbered from 1."""
    return Annotations(
        images=tuple(ImageRecord(id_, f"{id_}.png", SIZE, SIZE) for id_ in images),
        instances=tuple(
            InstanceRecord(
                number, image_id, 10 * NAMES.index(name), box, float(mask[2] * mask[3]), rle(mask), int(crowd)
            )
            for number, (image_id, name, box, mask, crowd) in enumerate(rows, start=1)
        ),
        categories=tuple(CategoryRecord(10 * NAMES.index(name), name, "part") for name in sorted(NAMES)),
    )


def detections(rows):
    """Detections of one image from (class name, box xywh, mask box, score) rows."""
    of_corners = [
        (name, corners(box), score, filled(corners(mask), SIZE, SIZE)) for name, box, mask, score in rows
    ]
    return make_detections(of_corners, NAMES, (SIZE, SIZE))


def matched(truth_rows, found_rows, images, kind="bbox"):
    """`found_rows`: image id -> rows for `detections`."""
    truth = GroundTruth(annotations(truth_rows, images))
    overlaps = {id_: truth.overlaps(id_, detections(rows)) for id_, rows in found_rows.items()}
    return match(truth, overlaps, kind)


def judged(truth_rows, found_rows, images, kind):
    """pycocotools' COCOeval at IoU 0.5, detections in the order in which the project breaks ties."""
    truth, found = COCO(), COCO()
    truth.dataset = annotations(truth_rows, images).as_coco()
    ranked = [
        (id_, row)
        for id_, rows in found_rows.items()
        for row in sorted(
            rows, key=lambda row: (-np.float32(row[3]), row[0], corners(row[1]), rle(row[2])["counts"])
        )
    ]
    found.dataset = truth.dataset | {
        "annotations": [
            {
                "id": number,
                "image_id": id_,
                "category_id": 10 * NAMES.index(name),
                "score": float(np.float32(score)),
                "bbox": list(box),
                "segmentation": rle(mask),
                "area": 1,
                "iscrowd": 0,
            }
            for number, (id_, (name, box, mask, score)) in enumerate(ranked, start=1)
        ]
    }
    with redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        judge = COCOeval(truth, found, kind)
        judge.params.iouThrs = np.array([0.5])
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return judge


def ap50(judge):
    precision = judge.eval["precision"][0, :, :, 0, -1]
    return 100 * precision[:, precision[0] >= 0].mean(axis=0).mean()


coordinate = st.integers(0, SIZE // 2)
side = st.integers(2, SIZE // 2 - 1)
box = st.tuples(coordinate, coordinate, side, side)


@st.composite
def near(draw, boxes):
    """A box close to one of `boxes`, often just at IoU 0.5 or as far from two of them."""
    x, y, w, h = draw(st.sampled_from(boxes))
    move = st.sampled_from((0, 0, 1, 2, -1))
    return (max(x + draw(move), 0), max(y + draw(move), 0), max(w + draw(move), 1), max(h + draw(move), 1))


@st.composite
def cases(draw, distinct_scores=False):
    """Ground truth, detections and image ids; boxes crowd together so that they compete."""
    images = draw(st.permutations((3, 7, 20, 21)))
    name = st.sampled_from(NAMES[:2] if draw(st.booleans()) else NAMES)
    image = st.sampled_from(images[:3])  # the last has no instance
    places = draw(st.lists(box, min_size=1, max_size=3))
    instance = st.tuples(image, name, near(places), near(places), st.integers(0, 3).map(lambda n: n == 0))
    truth = draw(st.lists(instance, max_size=9))
    truth.append((images[0], "hole", places[0], places[0], False))
    rows = draw(st.lists(st.tuples(st.sampled_from(images), name, near(places), near(places)), max_size=16))
    if distinct_scores:
        scores = draw(st.permutations([n / 32 for n in range(len(rows))]))
    else:
        scores = draw(st.lists(st.sampled_from((0.0, 0.3, 0.6, 0.9)), min_size=len(rows), max_size=len(rows)))
    found = {}
    for (image_id, *rest), score in zip(rows, scores, strict=True):
        found.setdefault(image_id, []).append((*rest, score))
    return truth, found, images


@pytest.mark.parametrize("kind", KINDS)
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_matches_and_ap50_are_those_of_pycocotools(kind, case):
    matches = matched(*case, kind)
    judge = judged(*case, kind)
    pairs, on_crowds = [], 0
    for one in filter(None, judge.evalImgs):
        fates = zip(one["dtMatches"][0], one["dtIgnore"][0], one["dtScores"], strict=True)
        pairs += [(int(id_), score) for id_, ignored, score in fates if id_ and not ignored]
        on_crowds += int(one["dtIgnore"][0].sum())
    hits = matches.instance >= 0
    mine = zip(matches.truth_ids[matches.instance[hits]].tolist(), matches.scores[hits].tolist(), strict=True)
    assert sorted(mine) == sorted(pairs)
    assert matches.ignored.sum() == on_crowds
    found = np.isfinite(matches.truth_score)
    assert sorted(zip(matches.truth_ids[found], matches.truth_score[found], strict=True)) == sorted(pairs)
    figures = average_precision_50(matches, np.ones((2, len(matches.images))))
    assert figures == pytest.approx([ap50(judge)] * 2, abs=1e-9)


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_rows_point_at_the_right_images_classes_and_instances(case):
    truth, found, images = case
    matches = matched(*case)
    assert matches.images.tolist() == sorted(images)
    assert matches.class_names == NAMES
    counted = [(number, *row[:2]) for number, row in enumerate(truth, start=1) if not row[4]]
    mine = [
        (id_, matches.images[place], NAMES[label])
        for id_, place, label in zip(
            matches.truth_ids.tolist(), matches.truth_image, matches.truth_classes, strict=True
        )
    ]
    assert sorted(mine) == counted
    assert mine == sorted(mine, key=lambda row: (row[1], row[0]))
    rows = sorted((id_, row[0], np.float32(row[3])) for id_ in found for row in found[id_])
    seen = zip(matches.images[matches.image], matches.classes, matches.scores, strict=True)
    assert sorted((id_, NAMES[label], score) for id_, label, score in seen) == rows
    hits = matches.instance >= 0
    assert (matches.truth_image[matches.instance[hits]] == matches.image[hits]).all()
    assert (matches.truth_classes[matches.instance[hits]] == matches.classes[hits]).all()
    assert not (hits & matches.ignored).any()


@given(case=cases(distinct_scores=True), times=st.tuples(*[st.integers(0, 3)] * 4))
@settings(max_examples=40, deadline=None)
def test_whole_weights_are_repeated_images(case, times):
    truth, found, images = case
    matches = matched(truth, found, images)
    copies = {id_: [100 * id_ + n for n in range(count)] for id_, count in zip(images, times, strict=True)}
    again = [(copy, *row[1:]) for row in truth for copy in copies[row[0]]]
    weights = np.array([[len(copies[id_]) for id_ in matches.images]])
    figure = average_precision_50(matches, weights)[0]
    if all(row[4] for row in again):
        assert np.isnan(figure)
        return
    repeated = {copy: rows for id_, rows in found.items() for copy in copies[id_]}
    judge = judged(again, repeated, [copy for each in copies.values() for copy in each], "bbox")
    assert figure == pytest.approx(ap50(judge), abs=1e-9)


def slow_ap50(matches, weights):
    """The definition, one detection and one recall point at a time."""
    figures = []
    for label in range(len(matches.class_names)):
        instances = sum(weights[matches.truth_image[matches.truth_classes == label]])
        if instances == 0:
            continue
        rows = [
            i for i in range(len(matches.scores)) if matches.classes[i] == label and not matches.ignored[i]
        ]
        rows.sort(key=lambda i: (-matches.scores[i], matches.image[i], i))
        curve, right, shown = [], 0, 0
        for i in rows:
            for _ in range(weights[matches.image[i]]):
                right, shown = right + (matches.instance[i] >= 0), shown + 1
                curve.append((right / instances, right / shown))
        points = [max((p for r, p in curve if r >= k * 0.01), default=0) for k in range(101)]
        figures.append(100 * sum(points) / 101)
    return sum(figures) / len(figures)


@given(case=cases(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_weighted_ap50_with_equal_scores_is_the_plain_loop(case, seed):
    matches = matched(*case, "segm")
    weights = np.random.default_rng(seed).integers(0, 4, size=(5, 4))
    for row, figure in zip(weights, average_precision_50(matches, weights), strict=True):
        if row[matches.truth_image].sum():
            assert figure == pytest.approx(slow_ap50(matches, row), abs=1e-9)
        else:
            assert np.isnan(figure)


def test_many_resamples_are_done_in_parts(monkeypatch):
    places = [(0, 0, 4, 4), (8, 8, 4, 4)]
    truth = [(id_, "hole", place, place, False) for id_ in (1, 2, 3) for place in places]
    found = {id_: [("hole", places[0], places[0], id_ / 4)] for id_ in (1, 2)}
    matches = matched(truth, found, (1, 2, 3))
    weights = np.random.default_rng(0).integers(0, 3, size=(11, 3)).clip((1, 0, 0))
    whole = average_precision_50(matches, weights)
    monkeypatch.setattr("unispector.evaluation.matching._CHUNK", 7)  # two resamples of three images
    assert average_precision_50(matches, weights).tolist() == whole.tolist()
    assert whole == pytest.approx([slow_ap50(matches, row) for row in weights])


def test_of_two_instances_as_near_the_later_one_is_found():
    left, middle, right = (0, 4, 6, 6), (1, 4, 6, 6), (2, 4, 6, 6)
    truth = [(1, "hole", left, left, False), (1, "hole", right, right, False)]
    matches = matched(truth, {1: [("hole", middle, middle, 0.5)]}, (1,))
    assert matches.truth_ids[matches.instance].tolist() == [2]
    assert matches.truth_score.tolist() == [-np.inf, 0.5]


def test_an_instance_is_found_once_and_a_crowd_absorbs_the_rest():
    place, far = (2, 2, 8, 8), (14, 14, 8, 8)
    crowded = [(1, "hole", place, place, True), (1, "hole", place, place, False)]
    rows = [("hole", place, place, score) for score in (0.5, 0.75, 0.25)] + [("hole", far, far, 1.0)]
    matches = matched(crowded, {1: rows}, (1,))
    assert matches.scores.tolist() == [1.0, 0.75, 0.5, 0.25]
    assert matches.instance.tolist() == [-1, 0, -1, -1]
    assert matches.ignored.tolist() == [False, False, True, True]
    assert matches.truth_ids.tolist() == [2]
    assert matches.truth_score.tolist() == [0.75]


@pytest.mark.parametrize("other", NAMES[:2])
def test_the_hundred_and_first_detection_of_a_class_does_not_count(other):
    place, far = (2, 2, 8, 8), (14, 14, 8, 8)
    rows = [(other, far, far, 0.9)] * 100 + [("hole", place, place, 0.5)]
    matches = matched([(1, "hole", place, place, False)], {1: rows}, (1,))
    judge = judged([(1, "hole", place, place, False)], {1: rows}, (1,), "bbox")
    assert len(matches.scores) == (100 if other == "hole" else 101)
    assert np.isfinite(matches.truth_score).tolist() == [other != "hole"]
    assert average_precision_50(matches, np.ones((1, 1))) == pytest.approx([ap50(judge)], abs=1e-9)


def test_boxes_and_masks_are_matched_apart():
    place, far = (2, 2, 8, 8), (14, 14, 8, 8)
    case = [(1, "hole", place, place, False)], {1: [("hole", place, far, 0.5)]}, (1,)
    assert matched(*case, "bbox").instance.tolist() == [0]
    assert matched(*case, "segm").instance.tolist() == [-1]


def test_no_detections_at_all_are_zero():
    place = (2, 2, 8, 8)
    for found in ({}, {2: []}):
        matches = matched([(1, "hole", place, place, False)], found, (1, 2))
        assert average_precision_50(matches, np.ones((3, 2))).tolist() == [0, 0, 0]
        assert matches.truth_score.tolist() == [-np.inf]


def test_perfect_detections_are_exactly_100():
    places = [(n, n, 6, 6) for n in (0, 8, 16)]
    truth = [
        (id_, name, place, place, False) for id_ in (1, 2) for name, place in zip(NAMES, places, strict=True)
    ]
    found = {id_: [(name, place, place, 0.5 + id_ / 8) for _, name, place, *_ in truth[:3]] for id_ in (1, 2)}
    assert average_precision_50(matched(truth, found, (1, 2)), np.array([[1, 1], [3, 0]])).tolist() == [
        100,
        100,
    ]


def test_an_image_the_ground_truth_lacks_is_refused():
    place = (2, 2, 8, 8)
    truth = GroundTruth(annotations([(1, "hole", place, place, False)], (1,)))
    overlaps = truth.overlaps(1, detections([("hole", place, place, 0.5)]))
    with pytest.raises(DataError, match="image id 2"):
        match(truth, {1: overlaps, 2: overlaps}, "bbox")
