"""The failures that are shown are the worst, of many classes and images, and the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_up_evaluation import make_matches
from unispector.evaluation.failures import (
    FalseAlarm,
    Miss,
    in_turn,
    worst_false_alarms,
    worst_good_images,
    worst_misses,
)

NAMES = ("crack", "hole", "stain")
IDS = [10, 20, 30, 40, 50]
INF = float("inf")


def matches(found=(), truth=()):
    """From rows (score, class, image, instance, ignored) and (class, image, score it was found with)."""
    return make_matches(found, [(score, label, image) for label, image, score in truth], IDS, NAMES)


SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
CLASSES, IMAGES = st.integers(0, len(NAMES) - 1), st.integers(0, len(IDS) - 1)
FOUND = st.lists(st.tuples(SCORES, CLASSES, IMAGES, st.integers(-1, 1), st.booleans()), max_size=25)
TRUTH = st.lists(st.tuples(CLASSES, IMAGES, st.one_of(st.just(-INF), SCORES)), max_size=25)


def check_turns(chosen, candidates, count):
    """By hand: `chosen` [(class, image, badness)] goes through the classes, each time to the worst left.

    Ties may fall either way, so badness is compared, not the failure itself.
    """
    waiting = sorted({label for label, *_ in candidates})
    taken, turn = set(), []
    for label, image, badness in chosen:
        left = [row for row in candidates if row[0] == label and row[1] not in taken]
        assert (label, image, badness) in left
        assert badness == max(row[2] for row in left)
        if label in turn:
            # A new round starts only when every other class had its turn or has no image left.
            others = [other for other in waiting if other not in turn]
            assert not [row for row in candidates if row[0] in others and row[1] not in taken]
            turn = []
        turn.append(label)
        taken.add(image)
    assert len(taken) == len(chosen) <= count
    if len(chosen) < count:
        assert {row[1] for row in candidates} == taken


@given(FOUND, st.integers(0, 6), SCORES)
def test_false_alarms_are_the_surest_by_hand(found, count, score):
    alarms = worst_false_alarms(matches(found), count, score)
    chosen = [(NAMES.index(a.class_name), IDS.index(a.image_id), a.score) for a in alarms]
    wrong = [
        (label, image, s)
        for s, label, image, instance, crowd in found
        if instance < 0 and not crowd and s >= score
    ]
    check_turns(chosen, wrong, count)
    if chosen:
        assert chosen[0][2] == max(row[2] for row in wrong)


@given(TRUTH, st.integers(0, 6), SCORES)
def test_misses_are_the_least_found_by_hand(truth, count, score):
    misses = worst_misses(matches(truth=truth), count, score)
    chosen = [(NAMES.index(m.class_name), IDS.index(m.image_id), -m.best_score) for m in misses]
    check_turns(chosen, [(label, image, -s) for label, image, s in truth if s < score], count)
    for miss, (label, image, badness) in zip(misses, chosen, strict=True):
        assert truth[miss.instance_id - 1] == (label, image, -badness)


def test_each_class_shows_its_worst_before_any_shows_its_second():
    found = [
        (0.9, 0, 0, -1, 0),
        (0.8, 0, 1, -1, 0),
        (0.7, 0, 2, -1, 0),
        (0.6, 1, 0, -1, 0),  # its image is taken by the crack's
        (0.5, 1, 3, -1, 0),
        (0.4, 2, 4, -1, 0),
    ]
    assert worst_false_alarms(matches(found), 4, 0.1) == (
        FalseAlarm(10, "crack", 0.9),
        FalseAlarm(40, "hole", 0.5),
        FalseAlarm(50, "stain", 0.4),
        FalseAlarm(20, "crack", 0.8),
    )


def test_what_found_something_fell_on_a_crowd_or_is_too_weak_is_no_false_alarm():
    found = [(0.9, 0, 0, 0, 0), (0.8, 0, 1, -1, 1), (0.3, 0, 2, -1, 0), (0.2, 0, 3, -1, 0)]
    assert worst_false_alarms(matches(found), 9, 0.3) == (FalseAlarm(30, "crack", 0.3),)


def test_never_found_comes_before_found_weakly_and_well_found_is_no_miss():
    truth = [(0, 0, 0.9), (0, 1, 0.1), (0, 2, -INF), (0, 3, 0.05), (0, 4, 0.5)]
    assert worst_misses(matches(truth=truth), 9, 0.5) == (
        Miss(30, "crack", 3, -INF),
        Miss(40, "crack", 4, 0.05),
        Miss(20, "crack", 2, 0.1),
    )


def test_misses_that_are_alike_are_drawn_by_a_lot_that_stays():
    truth = [(0, image, -INF) for image in range(5)]
    first = worst_misses(matches(truth=truth), 5, 0.5)
    assert first == worst_misses(matches(truth=truth), 5, 0.5)
    assert sorted(miss.image_id for miss in first) == IDS
    assert [miss.image_id for miss in first] != IDS


def test_scores_are_compared_as_detections_are_drawn():
    # 0.7 is a little less in single precision, in which detections have their scores.
    score = float(np.float32(0.7))
    assert score < 0.7
    assert worst_false_alarms(matches([(score, 0, 0, -1, 0)]), 1, 0.7)
    assert not worst_misses(matches(truth=[(0, 0, score)]), 1, 0.7)
    assert worst_good_images([np.array([score], dtype=np.float32)], 1, 0.7) == (0,)


@given(st.lists(st.lists(SCORES, max_size=4), max_size=8), st.integers(0, 5), SCORES)
def test_good_images_come_by_their_surest_detection(scores, count, score):
    chosen = worst_good_images([np.array(each, dtype=np.float32) for each in scores], count, score)
    loud = [place for place, each in enumerate(scores) if each and max(each) >= score]
    assert list(chosen) == sorted(loud, key=lambda place: -max(scores[place]))[:count]


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_test_without_failures_shows_none(score):
    nothing = matches()
    assert worst_false_alarms(nothing, 3, score) == ()
    assert worst_misses(nothing, 3, score) == ()
    assert worst_good_images([], 3, score) == ()


def test_turns_go_on_with_the_classes_that_have_images_left():
    turns = in_turn({"a": [1, 2, 3], "b": [1], "c": [2, 4]})
    assert list(turns) == [("a", 1), ("c", 2), ("a", 3), ("c", 4)]
