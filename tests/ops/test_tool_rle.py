"""Codes of annotation tools: decoded by a reader written from their description, bit by bit."""

from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unispector.ops.tool_rle import decode_brush, decode_mask_runs, encode_brush, encode_mask_runs

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 300)).flatmap(lambda hw: arrays.arrays(np.bool_, hw))


def read_bits(code: list[int]) -> list[int]:
    """The values of a brush, one after the other."""
    bits = "".join(f"{byte:08b}" for byte in code)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word, sizes = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeats = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length if repeats else [take(word) for _ in range(length)]
    return values


@given(MASKS)
def test_a_brush_is_opaque_where_the_mask_is(mask: npt.NDArray[np.bool_]) -> None:
    code = encode_brush(mask)
    assert read_bits(code) == np.repeat(mask.ravel() * 255, 4).tolist()
    assert (decode_brush(code, *mask.shape) == mask).all()


def test_long_runs_are_split() -> None:
    mask = np.zeros((300, 300), np.bool_)
    mask[100:250] = True
    assert (decode_brush(encode_brush(mask), 300, 300) == mask).all()
    assert read_bits(encode_brush(mask))[3::4] == (mask.ravel() * 255).tolist()


@given(MASKS, st.tuples(*[st.integers(2, 16)] * 4), st.randoms(use_true_random=False))
def test_single_values_and_other_sizes(mask, sizes, choices) -> None:
    """As the tool's page writes: a colour, whose alpha alone is the mask."""
    rows = [(200, 30, 7, 255 if marked else 0) for marked in mask.ravel().tolist()]
    values = [value for row in rows for value in row]
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    while values:
        size = choices.randrange(4)
        length = min(len(values), choices.randint(1, 2 ** sizes[size]))
        own, values = values[:length], values[length:]
        bits += f"0{size:02b}{length - 1:0{sizes[size]}b}" + "".join(f"{value:08b}" for value in own)
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert (decode_brush(code, *mask.shape) == mask).all()


@given(st.binary(max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_any_bytes_are_a_mask_or_refused(code: bytes, height: int, width: int) -> None:
    with suppress(ValueError):
        assert decode_brush(list(code), height, width).shape == (height, width)


@pytest.mark.parametrize("code", [[0, 1, 256], [0, -1], ["a"], [1.5], [None]])
def test_what_is_no_byte_is_refused(code: list[int]) -> None:
    with pytest.raises(ValueError, match="no list of bytes"):
        decode_brush(code, 1, 1)


@given(MASKS)
def test_cvats_runs_go_along_the_rows(mask: npt.NDArray[np.bool_]) -> None:
    runs = encode_mask_runs(mask)
    written = [value % 2 == 1 for value, run in enumerate(runs) for _ in range(run)]
    assert written == mask.ravel().tolist()
    assert all(run > 0 for run in runs[1:])
    assert (decode_mask_runs(runs, *mask.shape) == mask).all()


@pytest.mark.parametrize("runs", [[5], [3, 2], [-1, 5], [], [2**70]])
def test_runs_that_do_not_fill_are_refused(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="does not fill its 2x2 pixels"):
        decode_mask_runs(runs, 2, 2)
