"""The size of the input follows the marks."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unispector.config import ModelConfig
from unispector.errors import PromptBankError
from unispector.inference.geometry import Geometry
from unispector.structures import Targets

FRAME = Geometry.of(ModelConfig(image_size=448, magnify=2.0))


@pytest.mark.parametrize(
    ("pixels", "size"), [(6, 896), (15.9, 896), (16.1, 672), (55.9, 672), (56.1, 448), (448, 448)]
)
def test_small_marks_are_looked_at_closer(pixels: float, size: int) -> None:
    assert FRAME.input_size([pixels / 448]) == size


def test_the_typical_mark_of_a_class_decides() -> None:
    assert FRAME.input_size([200 / 448, 10 / 448, 10 / 448]) == 896
    assert FRAME.input_size([60 / 448, 60 / 448, 1]) == 448
    assert FRAME.input_size([]) == 448


@given(st.lists(st.floats(0.001, 1), max_size=6), st.floats(1, 2), st.integers(64, 800))
def test_no_input_grows_by_more_than_is_allowed(sides: list[float], magnify: float, size: int) -> None:
    frame = Geometry.of(ModelConfig(image_size=size, magnify=magnify))
    found = frame.input_size(sides)
    assert size <= found + 16
    assert found <= magnify * size + 16
    frame.check([found])
    if magnify == 1:
        assert found == size


def test_a_size_that_no_mark_gives_is_refused() -> None:
    with pytest.raises(PromptBankError, match=r"input of 44800 pixels; this model looks at 448, 672, 896"):
        FRAME.check([448, 44800])
    with pytest.raises(PromptBankError, match=r"input of 672 pixels; this model looks at 448;"):
        replace(FRAME, magnify=1.0).check([672])


def test_sides_are_shares_of_the_image_not_of_the_padded_frame() -> None:
    frame = FRAME.sized(80)  # padded to 96
    boxes = torch.tensor([[40, 40, 20, 5], [40, 40, 80, 80]]) / 96
    targets = Targets(torch.zeros(2, dtype=torch.int64), boxes, torch.zeros(2, 96, 96, dtype=torch.bool))
    assert frame.sides(targets) == pytest.approx([10 / 80, 1.0])
