"""Samples and failures on real files: the right images, marks where they belong, true notes."""

import re

import cv2
import numpy as np
import pytest
from PIL import Image

from made_up_evaluation import code_of, filled, make_detections
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import TestPair
from unispector.errors import DataError
from unispector.evaluation.failures import FalseAlarm, Miss, worst_false_alarms, worst_misses
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import match
from unispector.reporting.evaluation_images import (
    Shown,
    choose_samples,
    failure_strips,
    good_alarm_strips,
    sample_strips,
    write_strips,
)

SIDE, SCALE = 64, 8  # pixels of a file's side; a panel shows them 8 times as large
GAP, HEADER, FOOTER = 16, 58, 40  # of a strip
PANEL = SIDE * SCALE
PROMPT, TRUTH, PREDICTION = range(3)
NAMES = ("crack / deep", "hole", "../stain: 裂")
CRACK, HOLE, STAIN = range(3)
PROMPTED = (NAMES[HOLE], NAMES[STAIN], NAMES[CRACK])  # the detector may know them in another order
SCORE = 0.15
LEFT, MIDDLE, RIGHT = (8, 8, 24, 24), (24, 24, 48, 48), (40, 36, 56, 60)

WHAT = {  # image id -> its instances and its detections
    1: ([(CRACK, LEFT)], [(CRACK, LEFT, 0.95), (CRACK, RIGHT, 0.83), (HOLE, MIDDLE, 0.10)]),
    2: ([(HOLE, MIDDLE)], [(CRACK, MIDDLE, 0.70), (STAIN, LEFT, 0.05)]),
    3: ([(HOLE, LEFT)], [(HOLE, (8, 8, 24, 22), 0.05), (STAIN, RIGHT, 0.3)]),
    4: ([(STAIN, MIDDLE)], [(STAIN, MIDDLE, 0.6), (STAIN, (24, 24, 48, 44), 0.6)]),
    5: ([(HOLE, LEFT), (HOLE, RIGHT)], [(HOLE, (20, 20, 36, 36), 0.4), (HOLE, LEFT, 0.9)]),
    6: ([(STAIN, RIGHT)], []),
}


def annotations(what, folder):
    images = tuple(ImageRecord(id_, f"{folder}/{id_}.png", SIDE, SIDE) for id_ in what)
    instances = []
    for image_id, marked in what.items():
        for label, box in marked:
            x0, y0, x1, y1 = box
            shape = (float(x0), float(y0), float(x1 - x0), float(y1 - y0))
            instances.append(
                InstanceRecord(
                    len(instances) + 1,
                    image_id,
                    label + 1,
                    shape,
                    shape[2] * shape[3],
                    code_of(filled(box, SIDE, SIDE)),
                )
            )
    categories = tuple(CategoryRecord(number, name, "part") for number, name in enumerate(NAMES, start=1))
    return Annotations(images, tuple(instances), categories)


def detections(rows):
    ranked = sorted(rows, key=lambda row: -row[2])
    found = [(NAMES[label], box, score, filled(box, SIDE, SIDE)) for label, box, score in ranked]
    return make_detections(found, PROMPTED, (SIDE, SIDE))


@pytest.fixture
def shown(tmp_path):
    prompts = annotations({101: [(CRACK, LEFT)], 102: [(HOLE, LEFT), (STAIN, RIGHT)]}, "prompts")
    targets = annotations({id_: truth for id_, (truth, _) in WHAT.items()}, "targets")
    for file in [image.file_name for image in (*prompts.images, *targets.images)] + ["good/a.png"]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((SIDE, SIDE), 100, dtype=np.uint8)).save(tmp_path / file)
    found = {id_: detections(rows) for id_, (_, rows) in WHAT.items()}
    return Shown(prompts, targets, found, tmp_path)


@pytest.fixture
def test_pair(tmp_path):
    return TestPair("My set, №1", "cross", None, 42, tmp_path / "p.json", tmp_path / "t.json")


def failures(shown):
    truth = GroundTruth(shown.targets)
    overlaps = {id_: truth.overlaps(id_, found) for id_, found in shown.detections.items()}
    matches = match(truth, overlaps, "bbox")
    return worst_false_alarms(matches, 9, SCORE), worst_misses(matches, 9, SCORE)


def panels_of(path):
    """The three panels of a strip as int [512, 512, 3] RGB each."""
    sheet = cv2.imread(str(path))
    assert sheet.shape == (HEADER + PANEL + FOOTER, 3 * PANEL + 4 * GAP, 3)
    lefts = [GAP + number * (PANEL + GAP) for number in range(3)]
    return [sheet[HEADER : HEADER + PANEL, left : left + PANEL, ::-1].astype(int) for left in lefts]


def red(panel):
    """Pixels of the warning colour, with some room for JPEG."""
    return (panel[..., 0] > 190) & (panel[..., 1] < 80) & (panel[..., 2] < 80)


def red_sides(panel, box):
    """Share of red on the four middle lines across the frame of a box, in a band of 8 pixels outside."""
    x0, y0, x1, y1 = (value * SCALE for value in box)
    spots = red(panel)
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    return [
        int(side.sum())
        for side in (
            spots[y, x0 - 8 : x0],
            spots[y, x1 : x1 + 8],
            spots[y0 - 8 : y0, x],
            spots[y1 : y1 + 8, x],
        )
    ]


def check_marked(panel, box):
    """A thick red frame around the box and no red line anywhere else."""
    assert min(red_sides(panel, box)) >= 4
    x0, y0, x1, y1 = (value * SCALE for value in box)
    rest = red(panel)
    rest[max(y0 - 50, 0) : y1 + 50, max(x0 - 10, 0) : x1 + 120] = False  # frame, mask and caption's plate
    assert not rest.any()


def check_weak_hole_is_left_out(prediction):
    """The hole in the middle of the first image has a score that is too low to be drawn."""
    inside = prediction[26 * SCALE : 33 * SCALE, 26 * SCALE : 38 * SCALE]
    assert np.abs(inside - 100).max() < 12


def test_samples_are_images_of_each_class_in_turn(shown):
    chosen = choose_samples(shown.targets, 42, 4)
    assert [name for _, name in chosen] == [*NAMES, NAMES[HOLE]]  # one image only shows a crack
    assert len({image.id for image, _ in chosen}) == 4
    for image, name in chosen:
        assert NAMES.index(name) in {label for label, _ in WHAT[image.id][0]}
    assert chosen == choose_samples(shown.targets, 42, 4)
    lots = {tuple(image.id for image, _ in choose_samples(shown.targets, seed, 3)) for seed in range(20)}
    assert len(lots) > 3
    assert len(choose_samples(shown.targets, 42, 99)) == len(WHAT)


def test_samples_show_prompt_truth_and_prediction_and_nothing_in_red(shown, test_pair, tmp_path):
    by_id = {image.id: image for image in shown.targets.images}
    few = Shown(shown.prompts, shown.targets, {1: shown.detections[1], 6: shown.detections[6]}, shown.images)
    chosen = [(by_id[1], NAMES[CRACK]), (by_id[6], NAMES[STAIN])]
    records = write_strips(sample_strips(few, chosen, SCORE), test_pair, tmp_path / "out")
    assert [(r.kind, r.classes, r.image, r.note) for r in records] == [
        ("sample", (NAMES[CRACK],), "targets/1.png", ""),
        ("sample", (NAMES[STAIN],), "targets/6.png", ""),
    ]
    assert {(r.data_set, r.subset) for r in records} == {("My set, №1", "unseen")}
    prompt, truth, prediction = panels_of(tmp_path / "out" / records[0].file)
    for panel in (prompt, truth, prediction):
        assert not red(panel).any()
    check_weak_hole_is_left_out(prediction)
    inside = [slice(box[0] * SCALE + 20, box[2] * SCALE - 20) for box in (LEFT, RIGHT)]
    down = slice(RIGHT[1] * SCALE + 40, RIGHT[3] * SCALE - 40)
    assert np.abs(truth[down, inside[1]] - 100).max() < 8  # no instance there,
    assert np.abs(prediction[down, inside[1]] - 100).max() > 20  # yet a detection
    assert np.abs(truth[down.start - 200 : down.start - 190, inside[0]] - 100).max() > 20


def test_false_alarms_are_marked_and_explained(shown, test_pair, tmp_path):
    alarms, _ = failures(shown)
    records = write_strips(failure_strips(shown, alarms, SCORE), test_pair, tmp_path)
    by_image = {record.image: record for record in records}
    expected = {
        "targets/1.png": (NAMES[CRACK], f"score 0.83, no {NAMES[CRACK]} there", RIGHT),
        "targets/2.png": (NAMES[CRACK], "score 0.70, lies on hole", MIDDLE),
        "targets/3.png": (NAMES[STAIN], f"score 0.30, no {NAMES[STAIN]} there", RIGHT),
        "targets/4.png": (NAMES[STAIN], f"score 0.60, a second detection of one {NAMES[STAIN]}", None),
        "targets/5.png": (NAMES[HOLE], "score 0.40, overlaps hole by less than half", (20, 20, 36, 36)),
    }
    assert by_image.keys() == expected.keys()
    for image, (name, note, box) in expected.items():
        record = by_image[image]
        assert (record.kind, record.classes, record.note) == ("false alarm", (name,), note)
        prompt, truth, prediction = panels_of(tmp_path / record.file)
        assert not red(prompt).any()
        if box:
            check_marked(prediction, box)
            assert min(red_sides(truth, box)) >= 1
    assert records[0].image == "targets/1.png"
    *_, prediction = panels_of(tmp_path / records[0].file)
    centre = prediction[47 * SCALE : 49 * SCALE, 47 * SCALE : 49 * SCALE].mean(axis=(0, 1))
    assert centre == pytest.approx(0.62 * 100 + 0.38 * np.array([255, 0, 0]), abs=6)  # its mask in red
    check_weak_hole_is_left_out(prediction)


def test_of_two_detections_of_one_score_the_wrong_one_is_marked(shown, test_pair, tmp_path):
    alarms, _ = failures(shown)
    (record,) = write_strips(
        failure_strips(shown, [alarm for alarm in alarms if alarm.image_id == 4], SCORE), test_pair, tmp_path
    )
    *_, prediction = panels_of(tmp_path / record.file)
    assert min(red_sides(prediction, (24, 24, 48, 44))) >= 4
    assert red_sides(prediction, MIDDLE)[3] == 0  # the right one ends lower


def test_misses_are_marked_and_explained(shown, test_pair, tmp_path):
    _, misses = failures(shown)
    records = write_strips(failure_strips(shown, misses, SCORE), test_pair, tmp_path)
    by_image = {record.image: record for record in records}
    expected = {
        "targets/2.png": (
            NAMES[HOLE],
            f"no detection of hole matches it, taken for {NAMES[CRACK]} with score 0.70",
            MIDDLE,
        ),
        "targets/3.png": (NAMES[HOLE], "found with score 0.05 only", LEFT),
        "targets/5.png": (NAMES[HOLE], "no detection of hole matches it", RIGHT),
        "targets/6.png": (NAMES[STAIN], f"no detection of {NAMES[STAIN]} matches it", RIGHT),
    }
    assert by_image.keys() == expected.keys()
    for image, (name, note, box) in expected.items():
        record = by_image[image]
        assert (record.kind, record.classes, record.note) == ("miss", (name,), note)
        prompt, truth, prediction = panels_of(tmp_path / record.file)
        assert not red(prompt).any()
        check_marked(truth, box)
        assert min(red_sides(prediction, box)) >= 1
        assert max(red_sides(prediction, box)) < 4
    assert records[-1].image == "targets/3.png"  # found at least weakly


def test_false_alarms_on_defect_free_images_are_marked(shown, test_pair, tmp_path):
    found = {"good/a.png": detections([(HOLE, MIDDLE, 0.4), (STAIN, RIGHT, 0.75), (CRACK, LEFT, 0.01)])}
    bare = Shown(shown.prompts, shown.targets, {}, shown.images)
    (record,) = write_strips(good_alarm_strips(bare, found, SCORE), test_pair, tmp_path)
    assert (record.kind, record.classes, record.image) == ("false alarm", (NAMES[STAIN],), "good/a.png")
    assert record.note == "score 0.75 on a defect-free image"
    prompt, clean, prediction = panels_of(tmp_path / record.file)
    assert np.abs(clean - 100).max() < 8
    check_marked(prediction, RIGHT)
    assert np.abs(prompt[-20:, -20:] - 100).max() < 8


def test_files_have_safe_names_of_their_own(shown, test_pair, tmp_path):
    alarms, misses = failures(shown)
    chosen = choose_samples(shown.targets, 1, 2)
    found = {"good/a.png": shown.detections[1]}
    records = [
        *write_strips(sample_strips(shown, chosen, SCORE), test_pair, tmp_path),
        *write_strips(failure_strips(shown, (*misses, *alarms), SCORE), test_pair, tmp_path),
        *write_strips(good_alarm_strips(shown, found, SCORE), test_pair, tmp_path),
    ]
    files = [record.file for record in records]
    assert len(set(files)) == len(files) == len(list((tmp_path / "pictures").iterdir()))
    assert all(re.fullmatch(r"pictures/[\w.-]+\.jpg", file) for file in files)
    for first in ("01", "false-alarm-01", "miss-01", "defect-free-01"):
        assert f"pictures/My-set---1-unseen-{first}.jpg" in files
    kinds = {re.search(r"-unseen-(.*?)-?\d\d\.jpg", r.file)[1]: r.kind for r in records}
    assert kinds == {"": "sample", "false-alarm": "false alarm", "miss": "miss", "defect-free": "false alarm"}
    assert sorted(r.kind for r in records) == sorted(
        ["sample"] * 2 + ["false alarm"] * (len(alarms) + 1) + ["miss"] * len(misses)
    )


def test_a_detection_made_anew_may_have_a_slightly_other_score(shown, test_pair, tmp_path):
    (record,) = write_strips(
        failure_strips(shown, [FalseAlarm(1, NAMES[CRACK], 0.84)], 0.835), test_pair, tmp_path
    )
    assert record.note.startswith("score 0.83")
    check_marked(panels_of(tmp_path / record.file)[PREDICTION], RIGHT)


@pytest.mark.parametrize("alarm", [FalseAlarm(1, NAMES[CRACK], 0.5), FalseAlarm(6, NAMES[STAIN], 0.5)])
def test_a_false_alarm_that_is_not_there_is_refused(shown, test_pair, tmp_path, alarm):
    with pytest.raises(DataError, match=rf"targets/{alarm.image_id}.png.*0\.50") as caught:
        write_strips(failure_strips(shown, [alarm], SCORE), test_pair, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_mark_at_the_edge_stays_in_the_picture(shown, test_pair, tmp_path):
    whole = (0, 0, SIDE, SIDE)
    found = {"good/a.png": detections([(HOLE, whole, 0.9)])}
    (record,) = write_strips(good_alarm_strips(shown, found, SCORE), test_pair, tmp_path)
    *_, prediction = panels_of(tmp_path / record.file)
    for side in (red(prediction)[:8, 300], red(prediction)[-8:, 300], red(prediction)[300, -8:]):
        assert side.sum() >= 4


def test_no_failures_no_pictures(shown, test_pair, tmp_path):
    assert write_strips(failure_strips(shown, (), SCORE), test_pair, tmp_path) == []
    assert write_strips(sample_strips(shown, [], SCORE), test_pair, tmp_path) == []
    assert write_strips(good_alarm_strips(shown, {}, SCORE), test_pair, tmp_path) == []
    assert not (tmp_path / "pictures").exists()


def test_misses_can_be_drawn_without_any_detection(shown, test_pair, tmp_path):
    (record,) = write_strips(
        failure_strips(shown, [Miss(6, NAMES[STAIN], 7, float("-inf"))], SCORE), test_pair, tmp_path
    )
    check_marked(panels_of(tmp_path / record.file)[TRUTH], RIGHT)
