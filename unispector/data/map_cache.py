"""Cache on disk of a frozen backbone's maps of augmented images, so that each is computed once.

Files `view<v>.maps`, one per view: a checksum per image, 0 = not there yet, then the records, all of one
size. A record is written before its checksum, and one that does not match it counts as not there: so a
training may be killed, or share the files with others that write the same, at any time. Files are written
with `pwrite`: writing to mapped memory was measured several times slower.
"""

import errno
import logging
import os
import shutil
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Maps = tuple[Tensor, ...]
"""float16 [channels, height, width] each, of one image."""

RESERVE = 2 << 30  # bytes of the disk that are left to checkpoints and everything else
_PAGE, _CHECKSUM = 4096, 4


class MapCache:
    """Maps by image and view.

    Args:
        folder: of the files; made if it is missing. Its name must stand for all that the maps depend on.
        images: number of images.
        views: number of views of each.
        shapes: (channels, height, width) of each map of an image.
    """

    def __init__(self, folder: Path, images: int, views: int, shapes: Sequence[tuple[int, int, int]]) -> None:
        self._folder, self._images, self._views = folder, images, views
        self._shapes = tuple(shapes)
        self._record = 2 * sum(prod(shape) for shape in shapes)
        self._head = -(-images * _CHECKSUM // _PAGE) * _PAGE
        self._stopped = False
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def size(self) -> int:
        """Bytes that all views of all images take."""
        return self._views * (self._head + self._images * self._record)

    def share(self) -> float:
        """Share in [0, 1] of all views of all images that are kept."""
        return self._kept() / (self._images * self._views)

    def read(self, index: int, view: int) -> Maps | None:
        """The maps of a view of an image; None if they are not kept, or damaged."""
        record = bytearray(self._record)
        try:
            file = os.open(self._file(view), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            checksum = os.pread(file, _CHECKSUM, index * _CHECKSUM)
            length = os.preadv(file, [record], self._place(index)) if any(checksum) else 0
        finally:
            os.close(file)
        if length < self._record or checksum != _checksum(record):
            return None
        parts = torch.frombuffer(record, dtype=torch.float16).split([prod(shape) for shape in self._shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, self._shapes, strict=True))

    def write(self, index: int, view: int, maps: Maps) -> None:
        """Keep the maps of a view of an image.

        Where the disk is full, or no more than `RESERVE` would be left, one line says so, and from then on
        nothing more is kept.
        """
        if self._stopped:
            return
        record = torch.cat([part.flatten() for part in maps]).numpy().tobytes()
        try:
            if shutil.disk_usage(self._folder).free < self._record + RESERVE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            file = os.open(self._file(view), os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _write_all(file, record, self._place(index))
                _write_all(file, _checksum(record), index * _CHECKSUM)
            finally:
                os.close(file)
        except OSError as error:
            self._stopped = True
            missing = (self._images * self._views - self._kept()) * self._record
            logger.warning(
                "%s: no more of the backbone's maps can be kept (%s): %.1f GiB more are needed and %.1f GiB "
                "free, of which %d stay free; those that are not kept are computed in every step; make room, "
                "or lower train.views",
                self._folder,
                error.strerror,
                missing / 2**30,
                shutil.disk_usage(self._folder).free / 2**30,
                RESERVE >> 30,
            )

    def _file(self, view: int) -> Path:
        return self._folder / f"view{view}.maps"

    def _place(self, index: int) -> int:
        return self._head + index * self._record

    def _kept(self) -> int:
        kept = 0
        for view in range(self._views):
            try:
                with self._file(view).open("rb") as file:
                    head = file.read(self._images * _CHECKSUM)
            except FileNotFoundError:
                continue
            kept += int(np.count_nonzero(np.frombuffer(head[: len(head) // 4 * 4], dtype=np.uint32)))
        return kept


def _checksum(record: bytes | bytearray) -> bytes:
    return (zlib.crc32(record) or 1).to_bytes(_CHECKSUM, "little")


def _write_all(file: int, data: bytes, place: int) -> None:
    """All of `data`: a full disk, or a signal, may cut a write short."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, place)
        rest, place = rest[written:], place + written
