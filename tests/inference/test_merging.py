"""Detections of tiles, put together: what the seams cut is one again, what is apart stays apart."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unispector.detections import Detections
from unispector.inference.merging import Seams
from unispector.inference.tiles import Window, windows
from unispector.ops.rle import decode_rle, encode_rle

Mask = npt.NDArray[np.bool_]
HW, SIDE = (700, 900), 256


def found_in(masks: Sequence[tuple[int, float, Mask]], hw: tuple[int, int]) -> Detections:
    """What a flawless detector finds: (label, score, mask), those without a pixel left out."""
    seen = [(label, score, mask) for label, score, mask in masks if mask.any()]
    seen.sort(key=lambda one: -one[1])
    boxes = []
    for _, _, mask in seen:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return Detections(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([score for _, score, _ in seen]),
        labels=torch.tensor([label for label, _, _ in seen], dtype=torch.int64),
        masks_rle=tuple(encode_rle(np.stack([mask for *_, mask in seen])) if seen else ()),
        class_names=("scratch", "hole"),
        image_hw=hw,
    )


def shown(mask: Mask, tile: Window) -> Mask:
    return mask[tile.top : tile.bottom, tile.left : tile.right]


def merged(
    defects: Sequence[tuple[int, Mask]], *, whole: Sequence[tuple[int, float, Mask]] = (), score: float = 0.5
) -> Detections:
    """Each tile of an image finds what it shows of the defects, with a score of its own."""
    seams = Seams(HW, SIDE, 100)
    for number, tile in enumerate(windows(HW, SIDE)):
        of_tile = [(label, score + number / 1000, shown(mask, tile)) for label, mask in defects]
        seams.add(tile, found_in(of_tile, (tile.bottom - tile.top, tile.right - tile.left)))
    return seams.merged(found_in(whole, HW), 0.4)


def line(start: tuple[int, int], end: tuple[int, int], width: int = 3) -> Mask:
    canvas = np.zeros(HW, dtype=np.uint8)
    cv2.line(canvas, start, end, 1, width)
    return canvas.astype(np.bool_)


def rectangle(left: int, top: int, width: int, height: int) -> Mask:
    mask = np.zeros(HW, dtype=np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def assert_is(detections: Detections, row: int, mask: Mask) -> None:
    assert np.array_equal(decode_rle(detections.masks_rle[row]), mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert detections.boxes_xyxy[row].tolist() == corners


@pytest.mark.parametrize(
    ("start", "end"),
    [((20, 30), (880, 30)), ((450, 5), (450, 690)), ((10, 10), (890, 690)), ((30, 690), (700, 20))],
)
def test_a_scratch_across_many_tiles_is_one_detection(start: tuple[int, int], end: tuple[int, int]) -> None:
    scratch = line(start, end)
    tiles = [number for number, tile in enumerate(windows(HW, SIDE)) if shown(scratch, tile).any()]
    assert len(tiles) >= 4
    found = merged([(0, scratch)])
    assert len(found) == 1
    assert_is(found, 0, scratch)
    assert found.scores[0] == pytest.approx(0.5 + max(tiles) / 1000)  # the best of its pieces


points = st.tuples(st.integers(0, HW[1] - 1), st.integers(0, HW[0] - 1))
boxes = st.tuples(st.integers(0, 880), st.integers(0, 680), st.integers(4, 500), st.integers(4, 400))


@settings(max_examples=60, deadline=None)
@given(points, points, st.integers(2, 9))
def test_any_line_cut_by_tiles_is_whole_again(
    start: tuple[int, int], end: tuple[int, int], width: int
) -> None:
    scratch = line(start, end, width)
    found = merged([(0, scratch)])
    assert len(found) == 1
    assert_is(found, 0, scratch)


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=6))
def test_rectangles_apart_from_one_another_are_whole_again_and_apart(
    drawn: list[tuple[int, int, int, int]],
) -> None:
    masks: list[Mask] = []
    taken = np.zeros(HW, dtype=np.uint8)
    for box in drawn:
        mask = rectangle(*box)
        if not (cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) & taken).any():
            masks.append(mask)
            taken |= mask
    assume(masks)
    found = merged([(0, mask) for mask in masks])
    assert len(found) == len(masks)
    codes = {code["counts"] for code in found.masks_rle}
    assert codes == {code["counts"] for code in encode_rle(np.stack(masks))}


def test_two_defects_near_a_seam_stay_two() -> None:
    first, second = windows(HW, SIDE)[:2]
    assert second.left < first.right
    apart = [rectangle(second.left - 20, 40, 30, 30), rectangle(second.left + 16, 40, 30, 30)]
    found = merged([(0, mask) for mask in apart])
    assert len(found) == 2
    ends = [rectangle(second.left - 30, 40, 20, 8), rectangle(first.right + 10, 40, 20, 8)]
    assert len(merged([(0, mask) for mask in ends])) == 2


def test_classes_are_not_joined() -> None:
    scratch = line((20, 30), (880, 300))
    found = merged([(0, scratch), (1, scratch)])
    assert sorted(found.labels.tolist()) == [0, 1]
    for row in range(2):
        assert_is(found, row, scratch)


def test_a_defect_cut_at_a_seam_gives_way_to_the_tile_that_shows_all_of_it() -> None:
    first, second, *_ = windows(HW, SIDE)
    hole = rectangle(second.left - 6, 40, 30, 30)  # all of it lies in the first tile
    seams = Seams(HW, SIDE, 100)
    seams.add(first, found_in([(0, 0.4, shown(hole, first))], (SIDE, SIDE)))
    # The second tile sees but a splinter of what it shows.
    splinter = np.zeros(HW, dtype=np.bool_)
    splinter[45:60, second.left : second.left + 5] = True
    seams.add(second, found_in([(0, 0.3, shown(splinter, second))], (SIDE, SIDE)))
    found = seams.merged(found_in([], HW), 0.4)
    assert len(found) == 1
    assert_is(found, 0, hole)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(-2, 2), st.integers(-2, 2))
def test_pieces_that_are_off_by_two_pixels_still_join(seed: int, right: int, down: int) -> None:
    rng = np.random.default_rng(seed)
    start, end = (20, int(rng.integers(20, 680))), (880, int(rng.integers(20, 680)))
    scratch = line(start, end, 4)
    moved = np.roll(scratch, (down, right), (0, 1))
    seams = Seams(HW, SIDE, 100)
    for number, tile in enumerate(windows(HW, SIDE)):
        seams.add(tile, found_in([(0, 0.5, shown((scratch, moved)[number % 2], tile))], (SIDE, SIDE)))
    found = seams.merged(found_in([], HW), 0.4)
    assert len(found) == 1
    mask = decode_rle(found.masks_rle[0])
    assert (mask & scratch).sum() >= 0.6 * scratch.sum()
    assert not (mask & ~(scratch | moved)).any()


def test_the_whole_view_shows_what_is_larger_than_a_tile_and_only_that() -> None:
    stain, spot = rectangle(100, 100, 400, 300), rectangle(800, 600, 40, 40)
    found = merged([], whole=[(0, 0.6, stain), (0, 0.9, spot)])
    assert len(found) == 1
    assert_is(found, 0, stain)
    # A piece of the stain that tiles take for a defect adds nothing; another hole on it does.
    piece, hole = rectangle(150, 150, 60, 60), rectangle(400, 300, 30, 30)
    found = merged([(0, piece), (1, hole)], whole=[(0, 0.6, stain)])
    assert sorted(found.labels.tolist()) == [0, 1]
    assert len(merged([(0, piece)], whole=[(0, 0.2, stain)])) == 2  # the better one is not dropped


def test_memory_is_bounded_and_the_best_stay() -> None:
    seams = Seams(HW, SIDE, 5)
    rng = np.random.default_rng(0)
    tiles = windows(HW, SIDE)
    scores = rng.random(400)
    for number, score in enumerate(scores):
        tile = tiles[number % len(tiles)]
        left, top = rng.integers(0, 240, 2)
        mask = np.zeros((SIDE, SIDE), dtype=np.bool_)
        mask[top : top + 6, left : left + 6] = True
        seams.add(tile, found_in([(0, float(score), mask)], (SIDE, SIDE)))
        assert len(seams._pieces) <= 100
    found = seams.merged(found_in([], HW), 0.4)
    assert len(found) == 5
    assert found.scores[0] == pytest.approx(scores.max())
    assert (found.scores.diff() <= 0).all()


def test_nothing_found_is_nothing() -> None:
    found = merged([])
    assert len(found) == 0
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.image_hw == HW
