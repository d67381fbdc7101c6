"""The images that `detect` looks at: files, folders, patterns, frames of videos and cameras."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from unispector.errors import DataError
from unispector.ops.files import IMAGE_SUFFIXES, list_images
from unispector.ops.images import as_pixels

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4"})
MISSING_FRAMES = 2  # that a video's header may promise too much

_CAMERA = re.compile(r"camera:(\d+)")


@dataclass(frozen=True)
class Target:
    """An image to look at, read, or the reason why it cannot be read."""

    name: str  # as the record calls it: the file's path, or `folder/clip-000120` of a video's frame
    pixels: npt.NDArray[np.uint8] | DataError  # uint8 RGB [h, w, 3]

    @property
    def stem(self) -> str:
        """What the drawn image is called."""
        path = Path(self.name)
        return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


@dataclass(frozen=True)
class Targets:
    """Images, videos and cameras in order, none of them opened yet."""

    sources: tuple[Path, ...]  # a camera is `camera:0`
    frame_step: int = 1  # of videos and cameras every so many frames is looked at
    frames: int | None = None  # most frames of a video or camera that are looked at; None = all, without end

    @classmethod
    def find(cls, named: Sequence[str | Path], frame_step: int = 1, frames: int | None = None) -> "Targets":
        """List what is named.

        Args:
            named: image files; folders, whose images (not those of subfolders) are taken; patterns such as
                `line3/*.png` or `line3/**/*.png`; videos; cameras as `camera:0`.

        Raises:
            DataError: one does not exist, or a folder or pattern has no image.
        """
        return cls(tuple(file for each in named for file in _listed(str(each))), frame_step, frames)

    @property
    def total(self) -> int | None:
        """Number of images; None where it is not known before they are read."""
        return None if any(_reader(each) is not None for each in self.sources) else len(self.sources)

    def read(self, bit_depth: int = 16) -> Iterator[Target]:
        """Read one after the other; what cannot be read is told in its place.

        Args:
            bit_depth: as of `as_pixels`.
        """
        for source in self.sources:
            if (video := _reader(source)) is not None:
                yield from self._frames(video, source)
                continue
            try:
                yield Target(str(source), as_pixels(source, bit_depth))
            except DataError as error:
                yield Target(str(source), error)

    def _frames(self, video: str | int, source: Path) -> Iterator[Target]:
        stem = str(source.with_suffix("")) if isinstance(video, str) else source.name.replace(":", "-")
        number = -1
        with _opened(video) as capture:
            if not capture.isOpened():
                yield Target(str(source), _unopened(video, source))
                return
            expected, taken = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
            while self.frames is None or taken < self.frames:
                if not capture.grab():
                    break
                number += 1
                if number % self.frame_step:
                    continue
                read, frame = capture.retrieve()
                if not read:
                    break
                taken += 1
                rgb = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)
                yield Target(f"{stem}-{number:06d}", rgb)
            else:
                return
        if isinstance(video, int):
            yield Target(str(source), DataError(f"{source}: the camera stopped after {number + 1} frames"))
        elif number < 0 or number + 1 < expected - MISSING_FRAMES:
            told = (
                f"{source}: damaged, ends after {number + 1} of {max(expected, 1)} frames; replace the file"
            )
            yield Target(str(source), DataError(told))


def passed_over(named: Sequence[str | Path]) -> Iterator[str]:
    """Of each folder named, a line that says how many images its subfolders hold, which are not taken."""
    for folder in map(Path, named):
        if folder.is_dir():
            below = glob.glob("*/**/*", root_dir=folder, recursive=True)  # noqa: PTH207 - passes hidden ones
            if count := sum(Path(file).suffix.lower() in IMAGE_SUFFIXES for file in below):
                images = "1 image" if count == 1 else f"{count} images"
                yield f'{folder}: {images} in subfolders not looked at; name "{folder}/**/*" to take all'


def _listed(named: str) -> list[Path]:
    path = Path(named)
    if _reader(path) is not None and (path.is_file() or not path.suffix):
        return [path]
    if path.exists() or not glob.has_magic(named):
        return list_images([path])
    kinds = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    found = glob.glob(named, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    matches = map(Path, sorted(found))
    files = [match for match in matches if match.suffix.lower() in kinds and match.is_file()]
    if not files:
        raise DataError(f"{named}: no image or video matches ({', '.join(sorted(kinds))})")
    return files


def _reader(source: Path) -> str | int | None:
    """What OpenCV opens: the path of a video, the number of a camera; None of an image."""
    camera = _CAMERA.fullmatch(str(source))
    if camera and not source.exists():
        return int(camera[1])
    return str(source) if source.suffix.lower() in VIDEO_SUFFIXES else None


@contextmanager
def _opened(video: str | int) -> Iterator[cv2.VideoCapture]:
    """Open a video or camera; OpenCV's and FFmpeg's own messages are silenced."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(video)
    try:
        yield capture
    finally:
        capture.release()
        log.setLogLevel(level)


def _unopened(video: str | int, source: Path) -> DataError:
    if isinstance(video, int):
        return DataError(f"{source}: no such camera, or another program uses it; check the number")
    return DataError(f"{source}: not a readable video; convert it to MP4 (H.264) or AVI, or replace the file")
