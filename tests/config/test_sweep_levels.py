"""Levels of the robustness sweeps that would be lost or judged twice are refused."""

import pytest
from pydantic import ValidationError

from unispector.config import SweepConfig


@pytest.mark.parametrize(
    "levels",
    [
        {"blur": (0.0, 0.25)},
        {"blur": (0.5, 0.5)},
        {"box_iou": (0.15,)},
        {"box_iou": (0.3, 0.3)},
        {"box_iou": (1.0,)},
        {"counts": (1, 1)},
        {"counts": ()},
        {"severities": (6,)},
        {"severities": (2, 2)},
    ],
)
def test_unusable_levels_are_refused(levels):
    with pytest.raises(ValidationError):
        SweepConfig(**levels)


def test_tenths_are_tenths_however_they_are_computed():
    assert SweepConfig(box_iou=tuple(n * 0.1 for n in range(1, 10))).box_iou[2] == pytest.approx(0.3)
