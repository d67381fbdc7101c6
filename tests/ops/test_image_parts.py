"""Floods of parts are counted and refused; what cameras and programs write is not."""

import io
import os
import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unispector.errors import DataError
from unispector.ops.files import read_image, read_image_size, read_mask
from unispector.ops.image_parts import FILL, SCANS, SEGMENTS, too_many_parts, too_many_scans
from unispector.ops.images import as_pixels

RNG = np.random.default_rng(5)
NOISE = Image.fromarray(RNG.integers(0, 256, (700, 900, 3), dtype=np.uint8))


def stored(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    NOISE.save(stream, kind, **options)
    return stream.getvalue()


def complaint(data: bytes) -> str:
    """Of both looks, which leave the stream where it was."""
    stream = io.BytesIO(data)
    told = too_many_parts(stream) or too_many_scans(data)
    assert stream.tell() == 0
    return told


JPEG = stored("JPEG", progressive=True, quality=95, comment=b"\xff\xfe" * 30_000)
PNG = stored("PNG")
COMMENT = b"\xff\xfe\0\x02"
SCAN = JPEG[JPEG.rindex(b"\xff\xda") : -2]
PRIVATE = struct.pack(">I", 0) + b"prVt" + bytes(4)
EMPTY = struct.pack(">I", 0) + b"IDAT" + bytes(4)


@pytest.mark.parametrize(
    "data",
    [
        JPEG,
        PNG,
        JPEG[:2] + COMMENT * 200 + JPEG[2:],
        PNG[:33] + PRIVATE * 200 + PNG[33:],
        stored("JPEG", quality=100, restart_marker_blocks=1),
        stored("PNG", compress_level=0),
        stored("BMP"),
        stored("JPEG", icc_profile=RNG.bytes(10**6)),
    ],
)
def test_files_of_normal_use_pass(data):
    assert complaint(data) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (JPEG[:2] + COMMENT * 15_000_000 + JPEG[2:], f"more than {SEGMENTS} segments"),
        (JPEG[:-2] + COMMENT * 1_000_000 + JPEG[-2:], f"more than {SEGMENTS} segments"),
        (JPEG[:2] + b"\xff" * 60_000_000 + JPEG[2:], f"more than {FILL} bytes of padding"),
        (JPEG[:-2] + SCAN * SCANS + JPEG[-2:], f"more than {SCANS} scans"),
        (PNG[:33] + PRIVATE * 1_000_000 + PNG[33:], "chunks"),
        (PNG[:33] + EMPTY * 5_000_000 + PNG[33:], "chunks"),
    ],
    ids=["comments", "comments after pixels", "padding", "scans", "private chunks", "empty pixels"],
)
def test_floods_are_refused_at_once(data, reason):
    began = time.process_time()
    assert reason in complaint(data)
    assert time.process_time() - began < 0.5  # Pillow takes tens of seconds


@given(st.sampled_from([b"", JPEG[:700], PNG[:60]]), st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_comes_is_counted(start, middle, end):
    assert isinstance(complaint(start + middle + end), str)


@given(st.binary(max_size=200))
def test_a_jpeg_of_many_parts_is_refused_whatever_they_hold(data):
    part = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    assert complaint(b"\xff\xd8" + part * (SEGMENTS + 1) + b"\xff\xda")
    assert not complaint(b"\xff\xd8" + part * SEGMENTS + b"\xff\xda")


@pytest.mark.parametrize("read", [read_image, read_mask, read_image_size, as_pixels])
def test_nobody_waits_for_a_pipe(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: a pipe or a device"):
        read(tmp_path / "pipe.png")


@pytest.mark.parametrize("read", [read_image, read_mask, read_image_size, as_pixels])
def test_every_door_for_files_refuses_them(read, tmp_path):
    for name, data in (
        ("comments.jpg", JPEG[:2] + COMMENT * 300_000 + JPEG[2:]),
        ("chunks.png", PNG[:33] + PRIVATE * 300_000 + PNG[33:]),
        ("end.png", PNG[:-12] + PRIVATE * 300_000 + PNG[-12:]),
    ):
        file = tmp_path / name
        file.write_bytes(data)
        began = time.process_time()
        with pytest.raises(DataError, match=rf"{name}: more than \d+ (segments|chunks); save"):
            read(file)
        assert time.process_time() - began < 0.5
