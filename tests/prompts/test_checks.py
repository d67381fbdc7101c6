"""Leave-one-out checks against banks and detections made one by one."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.evaluation.coco_metrics import evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth
from unispector.inference.detector import UniSpector
from unispector.prompts import checks
from unispector.prompts.checks import CheckSettings, check_class
from unispector.prompts.figures import ClassFigures, MarkCheck
from unispector.prompts.trials import MarkedClass, best_on

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
    first = Annotations(images, marks, (CategoryRecord(1, "hole", ""),))
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


def best(found: Detections, box: tuple[float, ...], label: str = "hole") -> float:
    """The best score of a class on a box, by looking at every detection."""
    corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    scores = [
        float(found.scores[row])
        for row in range(len(found))
        if found.class_names[int(found.labels[row])] == label
        and iou(found.boxes_xyxy[row].tolist(), corners) >= 0.5
    ]
    return max(scores, default=0.0)


class ByHand:
    """Banks and detections one by one."""

    def __init__(self, detector: UniSpector, annotations: Annotations, folder: Path) -> None:
        self.detector, self.annotations, self.folder = detector, annotations, folder

    def look(self, prompts: set[int], target: int) -> Detections:
        bank = self.detector.encode_annotations(self.annotations.keep_images(prompts), self.folder)
        return self.detector.detect([self.folder / f"{target}.png"], bank)[0]

    def ap50(self, prompts: dict[int, set[int]]) -> float:
        """AP50 of targets, each with its prompts, as the benchmark computes it."""
        truth = GroundTruth(self.annotations.keep_images(prompts))
        found = {target: truth.overlaps(target, self.look(own, target)) for target, own in prompts.items()}
        return float(evaluate_overlaps(truth, found).bbox.AP50)

    def share(self, prompts: set[int], targets: set[int]) -> tuple[int, int]:
        marks = [mark for target in targets for mark in self.annotations.instances_of(target)]
        seen = {target: self.look(prompts, target) for target in targets}
        return sum(best(seen[mark.image_id], mark.bbox) >= SCORE for mark in marks), len(marks)


WHOLE, PART = CheckSettings("box", SCORE), CheckSettings("box", SCORE, changes=False, curve=False)


def check(detector, annotations, folder, *, base=None, rivals=None, settings=WHOLE) -> ClassFigures:
    plain = detector.encode_instances(annotations, folder, settings.roi)
    marked = MarkedClass(annotations, folder, base)
    return check_class(detector, marked, plain, lambda _: rivals, settings, lambda *_: None)


@pytest.fixture(scope="module")
def figures(detector, annotations, folder) -> ClassFigures:
    return check(detector, annotations, folder)


def test_each_image_is_looked_at_with_the_others(detector, annotations, folder, figures):
    by_hand, hits = ByHand(detector, annotations, folder), 0
    everything = {1, 2, 3, 4}
    for image, one in zip(annotations.images, figures.checks, strict=True):
        found = by_hand.look(everything - {image.id}, image.id)
        marks = annotations.instances_of(image.id)
        assert [mark.id for mark in one.marks] == [mark.id for mark in marks]
        for mark, own in zip(one.marks, marks, strict=True):
            assert mark.score == pytest.approx(best(found, own.bbox), abs=1e-4)
            assert mark.found == (mark.score >= SCORE)
            hits += mark.found
        assert len(one.detections) == len(found.above(SCORE))
    assert hits
    assert figures.ap50 == pytest.approx(by_hand.ap50({n: everything - {n} for n in everything}), abs=0.1)


def test_what_an_image_is_worth(detector, annotations, folder, figures):
    by_hand, everything = ByHand(detector, annotations, folder), {1, 2, 3, 4}
    for left in (1, 4):
        own, others = figures.images[f"{left}.png"], everything - {left}
        before = by_hand.ap50({n: everything - {n} for n in others})
        after = by_hand.ap50({n: everything - {n, left} for n in others})
        assert (own.dropped.before, own.dropped.after) == pytest.approx((before, after), abs=0.1)
        # Of three images drawn with replacement, the plain difference is one of the possible ones.
        assert own.dropped.interval.low <= after - before + 1e-6
        assert own.dropped.interval.high >= after - before - 1e-6
        assert (own.alone.found, own.alone.marks) == by_hand.share({left}, others)
        assert (own.given_back.found, own.given_back.marks) == by_hand.share({left}, {left})
        assert own.shifted.marks == own.blurred.marks == own.alone.marks


def test_the_distance_from_the_class(detector, annotations, folder, figures):
    instances = detector.encode_instances(annotations, folder)
    for image in annotations.images:
        own = instances.only({mark.id for mark in annotations.instances_of(image.id)})
        rest = instances.only(set(instances.instance_ids) - set(own.instance_ids))
        a, b = own.encoded.embeddings.mean(0).numpy(), rest.encoded.embeddings.mean(0).numpy()
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert figures.images[image.file_name].cosine == pytest.approx(cosine, abs=1e-4)


def test_the_curve_ends_where_every_other_image_prompts(detector, annotations, folder, figures):
    assert [point.images for point in figures.curve] == [1, 2, 3]
    assert figures.curve[-1].mean == pytest.approx(figures.ap50)
    assert figures.curve[-1].deviation == 0
    order = [int(n) for n in next(iter(_orders(annotations, folder)))]
    by_hand = ByHand(detector, annotations, folder)
    first = by_hand.ap50({n: {next(m for m in order if m != n)} for n in (1, 2, 3, 4)})
    single = figures.curve[0]
    assert abs(first - single.mean) <= single.deviation * (checks.ORDERS - 1) ** 0.5 + 0.1
    # No value lies farther from the mean of n values than that.


def _orders(annotations, folder) -> list[list[int]]:
    """The orders in which the images come, read from the choices of one image."""
    plan = checks._Plan(MarkedClass(annotations, folder), WHOLE)
    orders = []
    for number in range(checks.ORDERS):
        chains = [plan.curve[count, number][1].prompts for count in (1, 2, 3)]
        steps = [chains[0], chains[1] - chains[0], chains[2] - chains[1]]
        rest = [next(iter(step)) for step in steps]
        place = next((k for k, n in enumerate(rest) if plan.curve[1, number][n].prompts == {1}), 3)
        orders.append([*rest[:place], 1, *rest[place:]])
    return orders


def test_no_image_is_looked_at_with_itself(annotations, folder):
    plan = checks._Plan(MarkedClass(annotations, folder), CheckSettings())
    for (count, _), choices in plan.curve.items():
        for own, trial in choices.items():
            assert own == trial.target
            assert own not in trial.prompts
            assert len(trial.prompts) == count
    own = [trial for trial in plan.trials() if trial.target in trial.prompts]
    assert {trial.prompts for trial in own} == {frozenset({n}) for n in (1, 2, 3, 4)}  # given back


def test_other_classes_are_rivals(detector, annotations, folder, figures):
    dent = replace(annotations.keep_images([1]), categories=(CategoryRecord(1, "dent", ""),))
    rivals = detector.encode_annotations(dent, folder)
    found = check(detector, annotations, folder, rivals=rivals, settings=PART)
    for image, one in zip(annotations.images, found.checks, strict=True):
        (seen,) = detector.detect([folder / image.file_name], rivals)
        for mark, own in zip(one.marks, annotations.instances_of(image.id), strict=True):
            score = best(seen, own.bbox, "dent")
            drawn = score if score >= rivals.thresholds[0] else 0.0
            assert mark.other_score == pytest.approx(drawn, abs=1e-4)
            assert mark.other == ("dent" if drawn else "")


def test_a_class_that_grows_keeps_its_prompts(detector, annotations, folder):
    old = detector.encode_annotations(annotations.keep_images([1, 2]), folder)
    found = check(detector, annotations.keep_images([3]), folder, base=old)
    own = found.images["3.png"]
    expected = detector.detect([folder / "3.png"], old)[0].above(SCORE)
    assert torch.allclose(own.check.detections.scores, expected.scores, atol=1e-4)
    assert (own.dropped, own.alone, own.given_back, found.curve) == (None, None, None, ())


def test_a_single_image_has_nothing_to_be_found_with(detector, annotations, folder):
    found = check(detector, annotations.keep_images([1]), folder)
    assert (found.checks, found.ap50, found.curve) == ((), None, ())
    assert found.images["1.png"].cosine is None
    pair = check(detector, annotations.keep_images([1, 2]), folder)
    assert len(pair.checks) == 2
    assert all(image.dropped is None for image in pair.images.values())


def test_of_many_images_some_are_weighed(detector, annotations, folder, monkeypatch):
    monkeypatch.setattr(checks, "WEIGHED", 3)
    found = check(detector, annotations, folder, settings=PART)
    assert (found.weighed, len(found.checks)) == (3, 4)
    assert sum(image.dropped is not None for image in found.images.values()) == 3
    assert sum(image.alone is not None for image in found.images.values()) == 3


def test_masks_are_tried_where_there_are_some(detector, annotations, folder):
    def masked(mark: InstanceRecord) -> InstanceRecord:
        x, y, width, height = mark.bbox
        return replace(mark, segmentation=[[x, y, x + width, y, x + width / 2, y + height]])

    some = replace(annotations, instances=tuple(map(masked, annotations.instances)))
    found = check(detector, some, folder, settings=PART)
    prompts = {n: {1, 2, 3, 4} - {n} for n in (1, 2, 3, 4)}
    truth = GroundTruth(some)
    overlaps = {}
    for target, own in prompts.items():
        bank = detector.encode_annotations(some.keep_images(own), folder, "mask")
        overlaps[target] = truth.overlaps(target, detector.detect([folder / f"{target}.png"], bank)[0])
    assert found.other_roi.after == pytest.approx(evaluate_overlaps(truth, overlaps).bbox.AP50, abs=0.1)
    assert check(detector, annotations.keep_images([1, 2]), folder).other_roi is None


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
    assert best_on(mark, seen) == pytest.approx({"hole": 0.5, "dent": 0.3})
    assert best_on(mark, detections()) == {}


@pytest.mark.parametrize(
    ("score", "least", "found"),
    [(0.05, 0.05, True), (0.049, 0.05, False), (0.0, 0.0, False), (0.2, 0.3, False)],
)
def test_a_mark_is_found_from_the_score_that_is_drawn(score, least, found):
    assert MarkCheck(1, (0, 0, 9, 9), score, "", 0.0, least).found is found


def test_a_small_part_of_a_mark():
    mark = InstanceRecord(7, 1, 1, (10.0, 10.0, 20.0, 20.0), 400.0, None)

    def inner(*rows: tuple[float, tuple[float, float, float, float]]) -> float:
        seen = detections(*((score, "hole", box) for score, box in rows))
        return checks._inner(mark, type("Outcome", (), {"detections": seen}))

    assert inner((0.4, (12.0, 12.0, 20.0, 20.0))) == pytest.approx(0.4)
    assert inner((0.4, (10.0, 10.0, 30.0, 21.0))) == 0  # more than half of it
    assert inner((0.4, (25.0, 25.0, 36.0, 36.0)), (0.3, (5.0, 5.0, 40.0, 40.0))) == 0  # not inside
