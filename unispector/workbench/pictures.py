"""Small images and tiles of large ones, as JPEG, made when they are asked for."""

import hashlib
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from unispector.errors import DataError
from unispector.ops.files import FORMATS, atomic_write_bytes, load_upright, rgb_of
from unispector.ops.images import as_pixels

Pixels = npt.NDArray[np.uint8]

TILE = 512
"""Side of a tile in pixels."""
OVERLAP = 1
"""Pixels that a tile shares with each neighbour, so that no seam shows between enlarged ones."""
THUMBNAIL = 360
"""Longest side of a small image in pixels."""
HELD_BYTES = 700_000_000
"""Of decoded images that are kept for more tiles; the newest one always is."""


@dataclass
class _Pyramid:
    """An image and its halves, the full size first."""

    levels: list[Pixels]

    @property
    def size(self) -> int:
        return sum(level.nbytes for level in self.levels)


class Pictures:
    """Thumbnails, kept in a folder, and tiles, of decoded images kept in memory."""

    def __init__(self, cache: Path, bit_depth: int = 16) -> None:
        """Nothing is decoded yet.

        Args:
            cache: folder of the thumbnails.
            bit_depth: bits that 16-bit images really use.
        """
        self._bit_depth = bit_depth
        self._cache = cache
        self._held: OrderedDict[tuple[Path, str], _Pyramid] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding: dict[tuple[Path, str], threading.Lock] = {}

    def thumbnail(self, path: Path, stamp: str) -> bytes:
        """A small image.

        Args:
            path: the image's file.
            stamp: changes with the file.

        Raises:
            DataError: the image is unreadable.
        """
        digest = hashlib.sha256(f"{path}\0{stamp}\0{self._bit_depth}".encode()).hexdigest()[:32]
        kept = self._cache / f"{digest}.jpg"
        with suppress(OSError):
            return kept.read_bytes()
        data = jpeg(_small(path, self._bit_depth), 85)
        with suppress(OSError):  # on a full disk it is made again next time
            atomic_write_bytes(kept, data)
        return data

    def tile(self, path: Path, stamp: str, level: int, column: int, row: int) -> bytes:
        """One tile of an image.

        Args:
            path: the image's file.
            stamp: changes with the file.
            level: 0 = where the image fits into one pixel, as Deep Zoom counts them.
            column, row: of the tile.

        Raises:
            DataError: the image is unreadable, or has no such tile.
        """
        levels = self._pyramid(path, stamp).levels
        height, width = levels[0].shape[:2]
        halved = deepest(width, height) - level
        if not 0 <= halved < len(levels) or min(column, row) < 0:
            raise DataError(f"{path.name}: no such tile")
        rows, columns = (
            slice(max(at * TILE - OVERLAP, 0), (at + 1) * TILE + OVERLAP) for at in (row, column)
        )
        inside = row * TILE < levels[halved].shape[0] and column * TILE < levels[halved].shape[1]
        pixels = levels[halved][rows, columns] if inside else levels[halved][:0]
        if not pixels.size:
            raise DataError(f"{path.name}: no such tile")
        return jpeg(pixels, 92)

    def _pyramid(self, path: Path, stamp: str) -> _Pyramid:
        key = (path, stamp)
        with self._lock:
            own = self._decoding.setdefault(key, threading.Lock())
        with own:  # one request decodes, the others wait for it
            with self._lock:
                if key in self._held:
                    self._held.move_to_end(key)
                    return self._held[key]
            pyramid = _pyramid(as_pixels(path, self._bit_depth))
            with self._lock:
                self._held[key] = pyramid
                self._decoding.pop(key, None)
                while len(self._held) > 1 and sum(held.size for held in self._held.values()) > HELD_BYTES:
                    self._held.popitem(last=False)
        return pyramid


def deepest(width: int, height: int) -> int:
    """The level of full size, as Deep Zoom counts them."""
    return (max(width, height) - 1).bit_length()


def _pyramid(pixels: Pixels) -> _Pyramid:
    levels = [pixels]
    for _ in range(deepest(pixels.shape[1], pixels.shape[0])):
        height, width = levels[-1].shape[:2]
        half = ((width + 1) // 2, (height + 1) // 2)
        levels.append(np.asarray(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA), dtype=np.uint8))
    return _Pyramid(levels)


def _small(path: Path, bit_depth: int) -> Pixels:
    """An image that fits into the size of a thumbnail."""
    with suppress(Exception), Image.open(path, formats=FORMATS) as image:
        if image.format == "JPEG":  # decodes an eighth of the pixels of a large one
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
            return _shrunk(rgb_of(load_upright(image), path))
    return _shrunk(as_pixels(path, bit_depth))  # says what is wrong with an image that is


def _shrunk(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    scale = min(THUMBNAIL / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def jpeg(pixels: Pixels, quality: int) -> bytes:
    """An RGB image [h, w, 3] as JPEG of a quality of 0 to 100."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise DataError("the image cannot be shown")
    return bytes(data)
