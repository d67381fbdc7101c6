"""Connected parts of a class's mask."""

import numpy as np

from unispector.ops.rle import decode_rle
from unispector.systems.parts import MOST, parts_of


def test_only_the_best_parts_that_are_no_specks_are_kept():
    spots = np.full((128, 128), -1.0, dtype=np.float32)
    spots[::4, ::4] = np.arange(1, 1025).reshape(32, 32)
    assert (
        parts_of(0, spots > 0, spots, lambda values: float(values.mean()) / 1024) == []
    )  # a pixel is less than 0.0001
    spots[:, 1::4] = spots[:, ::4]
    pairs = parts_of(3, spots > 0, spots, lambda values: float(values.mean()) / 1024)
    assert [pair.score for pair in pairs] == [(1024 - rank) / 1024 for rank in range(MOST)]
    assert {pair.label for pair in pairs} == {3}
    assert pairs[0].box == (124, 124, 126, 125)
    assert decode_rle(pairs[0].code).nonzero()[0].tolist() == [124, 124]


def test_a_part_is_judged_by_the_map_inside_of_it_alone():
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:15, 10:30] = mask[20:30, 40:50] = True
    mask[10, 12] = False
    values = np.where(mask, 0.25, 100.0).astype(np.float32)
    values[20:30, 40:45] = 0.75
    better, worse = parts_of(0, mask, values, lambda own: float(own.mean()))
    assert (better.score, worse.score) == (0.5, 0.25)
    assert (decode_rle(better.code) | decode_rle(worse.code) == mask).all()
