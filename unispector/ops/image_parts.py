"""The parts of an image file, counted before a reader goes through them one by one.

A megabyte holds a quarter of a million empty comments of a JPEG, and Pillow spends microseconds on each.
"""

import io
import os
import re
from itertools import islice
from typing import IO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

SEGMENTS = 1000
"""Most parts of a file besides its pixels; cameras write tens, a colour profile may take 255."""
SCANS = 100
"""Most passes of a JPEG; each costs as much as decoding a plain one, and files of normal use have ten."""
FILL = 4096
"""Most padding bytes in front of the parts of a JPEG."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_SCAN = 0xDA
# In compressed pixels 0xFF is followed by 0 or by the number of a restart.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_STARTS_OF_SCANS = re.compile(rb"\xff\xda")


def tile_pixels(image: Image.Image) -> int:
    """Pixels of a tile of a TIFF, which is decoded whole, however small the image; 0 of others."""
    if not isinstance(image, TiffImageFile):
        return 0
    width, height = (int(np.max(image.tag_v2.get(tag, 0))) for tag in (TILEWIDTH, TILELENGTH))
    return width * height


def too_many_parts(stream: IO[bytes]) -> str:
    """Say which parts of a JPEG's header or of a PNG are too many to be read; empty where none are.

    `stream` stands at its beginning before and after.
    """
    start = stream.read(len(_PNG))
    try:
        if start.startswith(_JPEG):
            return _jpeg_header(stream)[1]
        return _of_png(stream) if start == _PNG else ""
    finally:
        stream.seek(0)


def too_many_scans(data: bytes) -> str:
    """Say which parts of a JPEG are too many among its pixels, too; empty where none are."""
    if not data.startswith(_JPEG):
        return ""
    place, _ = _jpeg_header(io.BytesIO(data))
    if _exceeds(_STARTS_OF_SCANS, data, place, SCANS):
        return f"more than {SCANS} scans"
    return f"more than {SEGMENTS} segments" if _exceeds(_MARKER, data, place, SEGMENTS) else ""


def _jpeg_header(stream: IO[bytes]) -> tuple[int, str]:
    """Where the first scan begins, and what there is too much of before."""
    place, segments, fill = len(_JPEG), 0, 0
    while True:
        stream.seek(place)
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] == _SCAN:
            return place, ""
        if head[1] == 0xFF:
            place, fill = place + 1, fill + 1
        else:
            place, segments = place + 2 + int.from_bytes(head[2:], "big"), segments + 1
        if fill > FILL:
            return place, f"more than {FILL} bytes of padding"
        if segments > SEGMENTS:
            return place, f"more than {SEGMENTS} segments"


def _exceeds(pattern: re.Pattern[bytes], data: bytes, start: int, most: int) -> bool:
    return sum(1 for _ in islice(pattern.finditer(data, start), most + 1)) > most


def _of_png(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    place, most = len(_PNG), SEGMENTS + size // 1024  # encoders write pixels in pieces of 8 KiB
    for _ in range(most):
        if place >= size:
            return ""
        stream.seek(place)
        place += 12 + int.from_bytes(stream.read(4), "big")
    return f"more than {most} chunks"
