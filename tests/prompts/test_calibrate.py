"""Calibration of a bank: what a score means, and from which score on findings count."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.inference.calibration import Calibration
from unispector.inference.detector import Prompt, UniSpector
from unispector.prompts.calibrate import (
    COUNTED,
    Budget,
    Findings,
    Marked,
    calibrate,
    calibration_of,
    collect,
    fit,
    odds,
)
from unispector.scores import DEFAULT_SCORE

BUDGET = Budget(0.2, 0.9)


def findings_of(scores, right, good, marks=(0.5,)) -> Findings:
    """On each good image one finding, where its score is above 0."""
    alarms = tuple(np.array([score] if score else []) for score in good)
    return Findings(np.array(scores), np.array(right, dtype=bool), np.array(marks), alarms)


@given(st.floats(0.3, 3), st.floats(-2, 2), st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_fit_finds_the_chance_that_findings_were_drawn_with(slope, offset, seed):
    draw = np.random.default_rng(seed)
    scores = draw.uniform(0.02, 0.98, 6000)
    chance = 1 / (1 + np.exp(-(slope * np.log(scores / (1 - scores)) + offset)))
    found = Calibration(*fit(scores, draw.random(6000) < chance)).apply(torch.tensor(scores)).numpy()
    assert np.abs(found - chance).max() < 0.08


def test_few_findings_do_not_make_the_scores_certain():
    """All right ones above all wrong ones: without Platt's targets the slope would have no end."""
    slope, offset = fit(np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]), np.array([False] * 3 + [True] * 3))
    assert 0 < slope < 5
    assert torch.sigmoid(torch.tensor(slope * np.log(9.0) + offset)) < 0.95


def test_scores_that_tell_the_wrong_way_round_keep_their_order():
    slope, _ = fit(np.array([0.1, 0.2, 0.8, 0.9] * 5), np.array([True, True, False, False] * 5))
    assert slope == pytest.approx(0.05)


def test_the_threshold_is_chosen_on_calibrated_scores_and_says_what_it_finds():
    good = np.linspace(0.01, 0.4, 40)
    found = findings_of([0.1] * 6 + [0.8] * 6, [0] * 6 + [1] * 6, good, marks=[0.0, 0.2, 0.5, 0.9])
    calibration = calibration_of(found, BUDGET)
    assert (calibration.right, calibration.wrong) == (6, 46)
    budget = calibration.budget
    assert budget is not None
    moved = calibration.apply(torch.tensor(good).float()).numpy()
    assert (moved >= calibration.threshold).sum() == budget.alarms > 0
    assert budget.high <= 0.2
    assert (calibration.marks, calibration.found) == (4, 2)


def test_a_mark_or_image_without_a_finding_has_none_however_low_the_threshold():
    """The offset lifts a score of 0 to one that would count."""
    found = findings_of([0.1] * 5 + [0.2] * 50, [0] * 5 + [1] * 50, np.zeros(30), marks=[0.0, 0.2])
    calibration = calibration_of(found, BUDGET)
    assert calibration.threshold < 1e-30
    assert calibration.found == 1
    assert calibration.budget is not None
    assert calibration.budget.alarms == 0


def test_of_too_few_findings_the_scores_stay_as_they_are():
    few_right = findings_of([0.1] * 9 + [0.8] * 4, [0] * 9 + [1] * 4, np.linspace(0, 0.3, 40))
    few_wrong = findings_of([0.1] * 4 + [0.8] * 9, [0] * 4 + [1] * 9, np.zeros(40))
    nothing = findings_of([], [], np.zeros(40))
    for found in (few_right, few_wrong, nothing):
        calibration = calibration_of(found, BUDGET)
        assert calibration.as_found
        assert calibration.budget is not None
    assert calibration_of(few_right, BUDGET).threshold > DEFAULT_SCORE


@pytest.mark.parametrize(
    ("budget", "good", "said"),
    [
        (
            Budget(1 / 200),
            50,
            r"50 good images .* 1 in 200 .* \(95% sure\): 598 are needed, 50 can prove 1 in 17",
        ),
        (Budget(0.5), 19, r"19 good images .*: 20 are needed$"),
        (Budget(0.1), 0, r"0 good images .*: 29 are needed$"),
    ],
)
def test_a_claim_that_cannot_be_proved_is_refused_with_the_number_that_can(budget, good, said):
    with pytest.raises(DataError, match=said):
        budget.check(good)


@given(st.floats(0.001, 0.99))
def test_odds_never_promise_more(rate):
    assert 1 / int(odds(rate).removeprefix("1 in ")) >= rate - 1e-9


# With a model


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Annotations, Path, list[Path]]:
    """Six marked images of two classes, one image with both, and good ones."""
    root, draw = tmp_path_factory.mktemp("line"), np.random.default_rng(5)
    images, marks = [], []
    for number in range(1, 7):
        pixels = draw.integers(90, 110, (64, 80, 3), dtype=np.uint8)
        for category in {1 + number % 2, 1 + number // 4}:
            x, y = (int(value) for value in draw.integers(4, 40, 2))
            pixels[y : y + 14, x : x + 18] = (250, 20, 20) if category == 1 else (20, 20, 250)
            box = (float(x), float(y), 18.0, 14.0)
            marks.append(InstanceRecord(len(marks) + 1, number, category, box, 252.0, None))
        Image.fromarray(pixels).save(root / f"{number}.png")
        images.append(ImageRecord(number, f"{number}.png", 80, 64))
    good = []
    for number in range(24):
        good.append(root / f"good{number}.png")
        Image.fromarray(draw.integers(90, 110, (64, 80, 3), dtype=np.uint8)).save(good[-1])
    categories = (CategoryRecord(1, "red", ""), CategoryRecord(2, "blue", ""))
    return Annotations(tuple(images), tuple(marks), categories), root, good


@pytest.fixture(scope="module")
def deep_line(line, tmp_path_factory: pytest.TempPathFactory) -> tuple[Annotations, Path, list[Path]]:
    """The same images in the middle of larger ones, as 12-bit values in files of 16 bits."""
    annotations, root, good = line
    folder = tmp_path_factory.mktemp("deep")
    for file in root.glob("*.png"):
        deep = np.full((160, 200, 3), 1600, dtype=np.uint16)
        deep[40:104, 60:140] = np.asarray(Image.open(file)).astype(np.uint16) << 4
        cv2.imwrite(str(folder / file.name), deep[:, :, ::-1])
    marks = tuple(
        replace(mark, bbox=(mark.bbox[0] + 60, mark.bbox[1] + 40, *mark.bbox[2:]))
        for mark in annotations.instances
    )
    images = tuple(replace(image, width=200, height=160) for image in annotations.images)
    return (
        replace(annotations, images=images, instances=marks),
        folder,
        [folder / file.name for file in good[:3]],
    )


@pytest.mark.parametrize(("name", "tile", "bits"), [("line", "auto", 16), ("deep_line", 96, 12)])
def test_each_marked_image_is_looked_at_with_prompts_from_the_others(tiny_model, request, name, tile, bits):
    """As the bank looks at its classes, whatever would be chosen for these marks."""
    annotations, root, good = request.getfixturevalue(name)
    detector = UniSpector.load(tiny_model)
    encode = partial(detector.encode_annotations, root=root, tile=tile, bit_depth=bits)
    bank = encode(annotations).select(["blue", "red"])
    assert set(bank.tiles) == ({0} if tile == "auto" else {96})
    against = Prompt(good[0], boxes_xywh=[(5, 5, 20, 20)], label="red")
    bank = detector.with_negatives(bank, [against])
    found = collect(detector, bank, Marked(annotations, root, "box"), good)
    expected = {name: list[float]() for name in bank.class_names}
    for image in annotations.images:
        rest = annotations.keep_images({other.id for other in annotations.images if other.id != image.id})
        alone = detector.with_negatives(encode(rest), [against])
        detections = detector.detect([root / image.file_name], alone)[0]
        for score, label in zip(detections.scores.tolist(), detections.labels.tolist(), strict=True):
            if score >= COUNTED:
                expected[alone.class_names[label]].append(score)
    for detections in detector.detect(good, bank):
        for score, label in zip(detections.scores.tolist(), detections.labels.tolist(), strict=True):
            if score >= COUNTED:
                expected[bank.class_names[label]].append(score)
    for name, own in found.items():
        scores = np.concatenate((own.scores, *own.good))
        np.testing.assert_allclose(sorted(scores), sorted(expected[name]), atol=2e-4)
        assert len(own.good) == len(good)
        assert len(own.marks) == sum(
            annotations.class_names[annotations.class_index[mark.category_id]] == name
            for mark in annotations.instances
        )


def test_a_calibrated_bank_gives_other_scores_and_the_same_findings(tiny_model, line):
    annotations, root, good = line
    detector = UniSpector.load(tiny_model)
    bank = detector.encode_annotations(annotations, root)
    told = calibrate(detector, bank, Marked(annotations, root, "box"), good, BUDGET)
    assert [each.budget.good_images for each in told.calibrations if each.budget] == [24, 24]
    moved = replace(bank, calibrations=(Calibration(0.5, 1.0), Calibration()))
    before, after = (detector.detect([good[0]], each)[0] for each in (bank, moved))
    assert len(before) == len(after)
    assert (after.scores.diff() <= 0).all()
    for row in range(len(before)):
        label = int(before.labels[row])
        (place,) = [
            i
            for i in range(len(after))
            if after.masks_rle[i] == before.masks_rle[row] and int(after.labels[i]) == label
        ]
        expected = moved.calibrations[label].apply(before.scores[row : row + 1])
        torch.testing.assert_close(after.scores[place : place + 1], expected, atol=1e-6, rtol=1e-5)
    # Calibrating again starts from the model's own scores.
    assert (
        calibrate(detector, moved, Marked(annotations, root, "box"), good, BUDGET).calibrations
        == told.calibrations
    )


def test_marks_that_cannot_calibrate_are_refused(tiny_model, line):
    annotations, root, good = line
    detector = UniSpector.load(tiny_model)
    bank = detector.encode_annotations(annotations, root)
    away = replace(annotations.instances[0], bbox=(50.0, 40.0, 18.0, 14.0))
    moved = replace(annotations, instances=(away, *annotations.instances[1:]))
    with pytest.raises(DataError, match=r"class 'red' of the bank was made of other marks; give the anno"):
        calibrate(detector, bank, Marked(moved, root, "box"), good, BUDGET)
    lonely = annotations.keep_images({4, 5})
    with pytest.raises(DataError, match=r"class 'red' has 1 marked image"):
        calibrate(detector, bank.select(["red"]), Marked(lonely, root, "box"), good, BUDGET)
    with pytest.raises(DataError, match="are needed"):
        calibrate(detector, bank, Marked(annotations, root, "box"), good[:5], BUDGET)
