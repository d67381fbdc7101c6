"""The parts of an image file, counted before a reader goes through them one by one.

A megabyte holds a quarter of a million empty comments of a JPEG, and a reader spends microseconds on each.
"""

import re
from itertools import islice

SEGMENTS = 1000
"""Most parts of a file besides its pixels; cameras write tens, a colour profile may take 255."""
SCANS = 100
"""Most passes of a JPEG; each costs as much as decoding a plain one, and files of normal use have ten."""
FILL = 4096
"""Most padding bytes in front of the parts of a JPEG."""

_PNG = b"\x89PNG\r\n\x1a\n"
_SCAN = 0xDA
# In compressed pixels 0xFF is followed by 0 or by the number of a restart.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_STARTS_OF_SCANS = re.compile(rb"\xff\xda")


def too_many_parts(data: bytes) -> str:
    """Say which parts of a JPEG or PNG are too many to be read; empty where none are."""
    if data.startswith(b"\xff\xd8"):
        return _of_jpeg(data)
    return _of_png(data) if data.startswith(_PNG) else ""


def _of_jpeg(data: bytes) -> str:
    place, segments, fill = 2, 0, 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xFF:
            place, fill = place + 1, fill + 1
            if fill > FILL:
                return f"more than {FILL} bytes of padding"
            continue
        if data[place + 1] == _SCAN:
            break
        segments += 1
        if segments > SEGMENTS:
            return f"more than {SEGMENTS} segments"
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    if _exceeds(_STARTS_OF_SCANS, data, place, SCANS):
        return f"more than {SCANS} scans"
    return f"more than {SEGMENTS} segments" if _exceeds(_MARKER, data, place, SEGMENTS) else ""


def _exceeds(pattern: re.Pattern[bytes], data: bytes, start: int, most: int) -> bool:
    return sum(1 for _ in islice(pattern.finditer(data, start), most + 1)) > most


def _of_png(data: bytes) -> str:
    place, most = len(_PNG), SEGMENTS + len(data) // 1024  # encoders write pixels in pieces of 8 KiB
    for _ in range(most):
        if place >= len(data):
            return ""
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return f"more than {most} chunks"
