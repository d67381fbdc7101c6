"""Components against scipy's labelling with a full 3 x 3 neighbourhood."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unispector.ops.components import components

sides = st.integers(1, 14)
masks = st.tuples(sides, sides).flatmap(lambda shape: arrays(np.bool_, shape))


def expected(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int, list[list[bool]]]]:
    """(left, top, crop), components in the order of their first pixel."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    found = []
    for label in range(1, count + 1):
        rows, columns = ndimage.find_objects(labels)[label - 1]
        first = int(np.flatnonzero(labels == label)[0])
        crop = (labels[rows, columns] == label).tolist()
        found.append((first, (columns.start, rows.start, crop)))
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


def check(mask: npt.NDArray[np.bool_]) -> None:
    found = list(components(mask))
    assert all(crop.dtype == np.bool_ for crop, _, _ in found)
    assert [(left, top, crop.tolist()) for crop, left, top in found] == expected(mask)


@given(masks)
def test_components_are_scipys(mask: npt.NDArray[np.bool_]) -> None:
    check(mask)


@pytest.mark.parametrize("share", [0.02, 0.4, 0.6, 0.95])
def test_components_of_noise(share: float) -> None:
    check(np.random.default_rng(5).random((90, 120)) < share)


def test_components_inside_each_other_and_at_corners() -> None:
    ring = np.ones((9, 11), dtype=bool)
    ring[1:-1, 1:-1] = False
    ring[4, 5] = True
    check(ring)
    check(np.eye(8, dtype=bool) | np.eye(8, dtype=bool)[::-1])


def test_input_may_be_a_view_and_is_left_as_it_is() -> None:
    mask = np.random.default_rng(1).random((40, 60)) < 0.5
    before = mask.copy()
    check(mask.T[::2, ::3])
    assert (mask == before).all()
