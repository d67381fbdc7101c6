"""What a class's scores mean."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unispector.inference.calibration import AlarmBudget, Calibration

SCORES = st.floats(0, 1, width=32)


@given(st.floats(0.05, 5), st.floats(-3, 3), st.lists(SCORES, min_size=1, max_size=20))
def test_scores_are_moved_by_slope_and_offset_of_their_logits(slope, offset, scores):
    found = Calibration(slope, offset).apply(torch.tensor(scores))
    assert found.dtype == torch.float32
    for given_, calibrated in zip(scores, found.tolist(), strict=True):
        kept = min(max(given_, 1e-6), 1 - 1e-6)
        odds = (kept / (1 - kept)) ** slope * math.exp(offset)
        assert calibrated == pytest.approx(odds / (1 + odds), abs=1e-6)
    order = torch.tensor(scores).argsort(stable=True)
    assert (found[order].diff() >= 0).all()


def test_untouched_scores_stay_bit_by_bit():
    assert Calibration().as_found
    assert not Calibration(slope=1.1).as_found
    assert not Calibration(offset=0.1).as_found


@pytest.mark.parametrize(
    "changes", [{"slope": 0.0}, {"slope": math.nan}, {"offset": math.inf}, {"threshold": -0.1}]
)
def test_calibrations_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match="slope, offset and threshold"):
        Calibration(**changes)


def test_a_calibration_survives_plain_data():
    for budget in (None, AlarmBudget(0.1, 0.95, 40, 1, 0.002, 0.09)):
        calibration = Calibration(1.2, -0.3, 5, 9, 0.4, budget, 10, 7)
        assert Calibration.from_dict(calibration.as_dict()) == calibration


@given(st.floats(0.05, 5), st.floats(-4, 4), st.floats(0.001, 0.999))
def test_a_threshold_lies_among_the_model_s_scores_where_it_lies_among_the_calibrated(slope, offset, score):
    own = Calibration(slope, offset)
    told = float(own.apply(torch.tensor([score], dtype=torch.float64)))
    if 1e-5 < told < 1 - 1e-5:
        lowest = Calibration(slope, offset, threshold=told).lowest
        assert lowest == pytest.approx(score, rel=1e-6)


def test_a_threshold_beyond_all_scores_is_none_of_the_model_s():
    assert Calibration(threshold=1 + 1e-6).lowest == pytest.approx(1, abs=1e-5)
    assert Calibration(0.05, 40, threshold=0).lowest == 0
