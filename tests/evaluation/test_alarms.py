"""False alarms and recall against counting by hand and by trying every threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_up_evaluation import make_matches
from unispector.evaluation.alarms import alarm_figures


def matches_of(truth_scores):
    """Matches of which only the instances' scores matter here."""
    return make_matches(truth=[(score, 0, 0) for score in truth_scores])


def scores(*values):
    return np.array(values, dtype=np.float32)


NONE_FOUND = matches_of([-np.inf])


def test_by_hand():
    good = [scores(0.75, 0.25), scores(), scores(0.5, 0.5, 0.125), scores()]
    boxes, masks = matches_of([0.9, 0.5, 0.375, -np.inf]), matches_of([0.9, 0.25, -np.inf, -np.inf])
    figures = alarm_figures(good, boxes, masks, score=0.5, rate=0.25)
    assert (figures.good_images, figures.score, figures.rate) == (4, 0.5, 0.25)
    assert figures.false_alarms == 0.75  # 0.75, 0.5 and 0.5 in four images
    # One alarm in four images is allowed: both of 0.5 have to go.
    assert 0.5 < figures.threshold < 0.5000001
    assert (figures.recall_boxes, figures.recall_masks) == (25, 25)
    loose = alarm_figures(good, boxes, masks, score=0.125, rate=0.75)
    assert loose.false_alarms == 1.25
    assert 0.25 < loose.threshold < 0.2500001
    assert (loose.recall_boxes, loose.recall_masks) == (75, 25)


level = st.sampled_from([n / 16 for n in range(17)] + [0.1, 0.3, 0.7]) | st.floats(0, 1, width=32)
image = st.lists(level, max_size=5).map(lambda values: scores(*values))


@given(
    good=st.lists(image, min_size=1, max_size=7),
    rate=st.sampled_from([0, 0.1, 0.2, 0.29, 0.5, 1, 2]) | st.floats(0, 5),
    truth=st.lists(level.map(np.float32) | st.just(-np.inf), min_size=1, max_size=6),
    score=level,
)
@settings(max_examples=200, deadline=None)
def test_the_threshold_is_the_lowest_that_keeps_the_rate(good, rate, truth, score):
    figures = alarm_figures(good, matches_of(truth), NONE_FOUND, score, rate)

    def alarms(threshold):
        return sum(float(one) >= float(threshold) for each in good for one in each) / len(good)

    assert alarms(figures.threshold) <= rate
    assert np.float32(figures.threshold) == figures.threshold  # as the scores it is compared to
    below = np.nextafter(np.float32(figures.threshold), np.float32(-1))
    assert figures.threshold == 0 or alarms(below) > rate
    assert figures.false_alarms == alarms(np.float32(score))
    found = sum(one >= figures.threshold for one in truth)
    assert figures.recall_boxes == pytest.approx(100 * found / len(truth))
    assert figures.recall_masks == 0


@pytest.mark.parametrize("good", [[scores()], [scores(), scores()]])
def test_without_an_alarm_every_score_will_do(good):
    figures = alarm_figures(good, matches_of([0.0, 0.5]), matches_of([-np.inf, 0.0]), score=0.5, rate=0)
    assert (figures.false_alarms, figures.threshold) == (0, 0)
    assert (figures.recall_boxes, figures.recall_masks) == (100, 50)  # missed is missed at any threshold


def test_as_many_alarms_as_are_allowed_need_no_threshold():
    figures = alarm_figures([scores(0.5), scores(0.75)], NONE_FOUND, NONE_FOUND, score=0.5, rate=1)
    assert (figures.false_alarms, figures.threshold) == (1, 0)


def test_an_alarm_of_score_one_that_is_too_many_leaves_nothing():
    figures = alarm_figures([scores(1, 0.5)], matches_of([1.0]), matches_of([1.0]), score=1, rate=0.5)
    assert figures.threshold > 1
    assert (figures.recall_boxes, figures.recall_masks) == (0, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_score_is_compared_as_the_detections_are(dtype):
    # 0.3 is a little more in single precision than in double; a user's score of 0.3 is the same one.
    figures = alarm_figures([np.array([0.3], dtype=dtype)], NONE_FOUND, NONE_FOUND, score=0.3, rate=0)
    assert figures.false_alarms == 1
    assert figures.threshold > np.float32(0.3)


def test_no_defect_free_image_is_an_error():
    with pytest.raises(ValueError, match="defect-free"):
        alarm_figures([], NONE_FOUND, NONE_FOUND, score=0.5, rate=0.1)
