"""Where the tiles of an image lie, and which side they have."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.config import ModelConfig
from unispector.inference.geometry import Geometry
from unispector.inference.tiles import (
    AIM,
    LEAST_SEEN,
    MARKS_PER_TILE,
    OVERLAP,
    MarkSizes,
    Tile,
    View,
    fits,
    views_of,
    windows,
    windows_around,
)

FRAME = Geometry.of(ModelConfig(image_size=448, magnify=2.0))
LARGE = (9000, 12000)


def marks(*sides: float, image_hw: tuple[int, int] = LARGE) -> MarkSizes:
    shares = [side / (image_hw[0] * image_hw[1]) ** 0.5 for side in sides]
    return MarkSizes(shares, [image_hw] * len(sides), [0] * len(sides))


def view(sizes: MarkSizes, tile: Tile = "auto") -> View:
    return views_of(sizes, 1, FRAME, tile)[0]


@given(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), st.integers(64, 1500))
def test_tiles_cover_the_image_with_an_overlap(hw: tuple[int, int], side: int) -> None:
    tiles = windows(hw, side)
    assert len(set(tiles)) == len(tiles)
    for length, ends in ((hw[1], (0, 2)), (hw[0], (1, 3))):
        spans = sorted({(tile[ends[0]], tile[ends[1]]) for tile in tiles})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(end - start == min(side, length) for start, end in spans)
        for (_, end), (start, _) in pairwise(spans):
            assert end - start >= OVERLAP * side - 1
    assert len(tiles) == len({tile.left for tile in tiles}) * len({tile.top for tile in tiles})


corner = st.tuples(st.floats(0, 1900), st.floats(0, 900), st.floats(1, 300), st.floats(1, 300))


@settings(deadline=None)
@given(st.lists(corner, max_size=12), st.integers(64, 800))
def test_every_mark_lies_whole_in_the_one_tile_it_is_for(boxes: list[tuple[float, ...]], side: int) -> None:
    hw = (1000, 2000)
    boxes = [(x, y, min(w, hw[1] - x), min(h, hw[0] - y)) for x, y, w, h in boxes]
    seen = []
    for tile, rows in windows_around(boxes, hw, side):
        assert 0 <= tile.left < tile.right <= hw[1]
        assert 0 <= tile.top < tile.bottom <= hw[0]
        largest = max(max(boxes[row][2:]) for row in rows)
        assert tile.right - tile.left >= min(side, hw[1])
        assert max(tile.right - tile.left, tile.bottom - tile.top) <= max(side, largest + 2)
        for row in rows:
            x, y, w, h = boxes[row]
            assert tile.left <= x + 1e-6
            assert x + w <= tile.right + 1e-6
            assert tile.top <= y + 1e-6
            assert y + h <= tile.bottom + 1e-6
        seen += rows
    assert sorted(seen) == list(range(len(boxes)))


def test_marks_near_each_other_share_a_tile() -> None:
    near = [(100, 100, 20, 20), (160, 130, 20, 20), (1900, 900, 20, 20)]
    assert [rows for _, rows in windows_around(near, (1000, 2000), 448)] == [[0, 1], [2]]


def test_small_marks_on_large_images_are_looked_at_in_tiles() -> None:
    assert view(marks(25)).tile > 0
    assert view(marks(25), 0) == View(0, 896)
    assert views_of(marks(25), 1, replace(FRAME, magnify=1.0), "auto") == (View(0, 448),)
    assert view(marks(2000)) == View(0, 448)
    # On a small image nothing is gained: its pixels are enlarged already.
    assert view(marks(5, image_hw=(500, 500))).tile == 0


@settings(deadline=None)
@given(st.lists(st.floats(2, 3000), min_size=1, max_size=5))
def test_a_tile_is_chosen_only_where_marks_are_seen_too_small_and_shows_them_larger(
    sides: list[float],
) -> None:
    chosen, typical = view(marks(*sides)), float(np.median(sides))
    seen = 2 * 448 * typical / (LARGE[0] * LARGE[1]) ** 0.5
    assert bool(chosen.tile) == (seen < LEAST_SEEN)
    if chosen.tile:
        assert chosen.tile >= max(448, MARKS_PER_TILE * typical)
        assert chosen.tile % 32 == 0
        assert typical / chosen.tile * 448 <= 1.25 * AIM
        if chosen.tile > 448:
            assert typical / chosen.tile * 448 >= AIM / 1.25


def test_classes_with_similar_marks_share_tiles() -> None:
    assert len({view(marks(side)).tile for side in np.linspace(40, 160, 100)}) <= 6


def test_a_side_that_is_asked_for_holds_five_typical_marks() -> None:
    assert view(marks(25), 448).tile == 448
    assert view(marks(200, 200, 20), 448).tile == 1024
    assert view(marks(25, image_hw=(400, 400)), 448).tile == 448
    assert views_of(marks(25), 2, FRAME, 448)[1] == View(0, 448)  # a class without a mark


@pytest.mark.parametrize(("hw", "small"), [((448, 448), True), ((560, 10), True), ((561, 10), False)])
def test_an_image_little_larger_than_a_tile_is_not_cut(hw: tuple[int, int], small: bool) -> None:
    assert fits(hw, 448) == small
