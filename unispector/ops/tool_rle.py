"""Run-length codes of masks as annotation tools write them: Label Studio's brush and CVAT's mask."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unispector.ops.rle import BoolArray

CHANNELS = 4  # a brush is an RGBA image, and its alpha is the mask
WORD_BITS = 8
LENGTH_BITS = (3, 4, 8, 16)  # sizes of a run's length, of which two bits choose one


def encode_brush(mask: BoolArray) -> list[int]:
    """Encode a mask [h, w] as Label Studio's brush: bytes 0 to 255."""
    starts, flat = _run_starts(mask)
    lengths = np.diff(np.append(starts, flat.size)) * CHANNELS
    sizes = "".join(f"{size - 1:04b}" for size in LENGTH_BITS)
    bits = [f"{flat.size * CHANNELS:032b}{WORD_BITS - 1:05b}{sizes}"]
    for length, marked in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        value = "1" * WORD_BITS if marked else "0" * WORD_BITS
        for left in range(length, 0, -(2 ** LENGTH_BITS[-1])):
            now = min(left, 2 ** LENGTH_BITS[-1])
            size = next(i for i, own in enumerate(LENGTH_BITS) if now <= 2**own)
            bits.append(f"1{size:02b}{now - 1:0{LENGTH_BITS[size]}b}{value}")
    code = np.frombuffer("".join(bits).encode("ascii"), np.uint8) - ord("0")
    return [int(byte) for byte in np.packbits(code)]


def decode_brush(code: Sequence[int], height: int, width: int) -> BoolArray:
    """Decode Label Studio's brush to a mask [h, w]: what is not transparent is marked.

    A code begins with the number of values (32 bits), the bits of a value less 1 (5), and four sizes of
    lengths less 1 (4 each). Then come runs: a bit that tells repeats from single values, 2 bits that choose
    the size of the length, the length less 1, and the value or values.

    Raises:
        ValueError: it is no such code, or of another size than `height` x `width`; says what is wrong.
    """
    if not all(isinstance(byte, int) and 0 <= byte < 256 for byte in code):
        raise ValueError("its brush is no list of bytes")
    bits = np.unpackbits(np.asarray(code, np.uint8))
    text = (bits + ord("0")).tobytes().decode("ascii")
    count, sizes = _brush_header(text)
    if count != height * width * CHANNELS:
        raise ValueError(f"its brush has {count} values, not those of {width}x{height} pixels")
    values = np.zeros(count, np.uint8)
    at, place = 32 + 5 + 4 * len(sizes), 0
    while place < count:
        if at + 3 > len(text):
            raise ValueError("its brush is cut off")
        repeats, size = text[at] == "1", sizes[int(text[at + 1 : at + 3], 2)]
        at += 3
        length = int(text[at : at + size] or "0", 2) + 1
        at += size
        end = at + WORD_BITS * (1 if repeats else length)
        if end > len(text) or place + length > count:
            raise ValueError("its brush is cut off or too long")
        values[place : place + length] = np.packbits(bits[at:end])
        at, place = end, place + length
    return np.asarray(values.reshape(height, width, CHANNELS)[..., -1] > 0)


def _brush_header(text: str) -> tuple[int, list[int]]:
    """Number of values and the four sizes of lengths."""
    if len(text) < 53:
        raise ValueError("its brush is cut off")
    if int(text[32:37], 2) + 1 != WORD_BITS:
        raise ValueError(f"its brush has values of {int(text[32:37], 2) + 1} bits, not of {WORD_BITS}")
    return int(text[:32], 2), [int(text[at : at + 4], 2) + 1 for at in range(37, 53, 4)]


def encode_mask_runs(mask: BoolArray) -> list[int]:
    """Encode a mask [h, w] as CVAT's runs along the rows, the first of background."""
    starts, flat = _run_starts(mask)
    lengths: list[int] = np.diff(np.append(starts, flat.size)).tolist()
    return [0, *lengths] if flat[0] else lengths


def decode_mask_runs(runs: Sequence[int], height: int, width: int) -> BoolArray:
    """Decode CVAT's runs to a mask [h, w].

    Raises:
        ValueError: they do not fill it.
    """
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"its rle does not fill its {width}x{height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)


def _run_starts(mask: BoolArray) -> tuple[npt.NDArray[np.int64], BoolArray]:
    """First positions of the runs along the rows of a mask, and its values in that order."""
    flat = np.ascontiguousarray(mask, np.bool_).ravel()
    return np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1), flat
