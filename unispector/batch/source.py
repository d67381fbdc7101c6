"""Sources of many images: a folder, or a bucket of an object store."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Self

from unispector.errors import DataError


@dataclass(frozen=True)
class ImageFile:
    """An image as the listing of its source shows it."""

    path: str  # relative to the source, with slashes
    size: int  # bytes
    modified: int  # microseconds since 1970, UTC


@dataclass(frozen=True)
class ImageSource:
    """A folder or a bucket; it travels to worker processes, the keys of a bucket do not."""

    place: str  # an absolute folder, or `s3://bucket/prefix` without a slash at its end

    @classmethod
    def at(cls, place: str) -> Self:
        """The source a user names.

        Args:
            place: a folder, or `s3://bucket/prefix`; endpoint and keys of a bucket come from the environment.

        Raises:
            DataError: no such folder, or the address holds a key.
        """
        if "://" in place:
            if "@" in place.partition("://")[2].partition("/")[0]:
                raise DataError(
                    "the bucket's address holds a key; give s3://bucket/prefix and the key in "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
            return cls(place.rstrip("/"))
        if not Path(place).is_dir():
            raise DataError(f"{place}: no such folder of images; give a folder or s3://bucket/prefix")
        return cls(str(Path(place).resolve()))

    def pictures(self, suffixes: Collection[str]) -> list[ImageFile]:
        """All images at any depth, sorted by path.

        Hidden files and folders (`.name`) are passed over; links are followed, but not in circles.

        Args:
            suffixes: of image files, in lower case.

        Raises:
            DataError: the source cannot be listed, a name is not UTF-8, or there is no image.
        """

        def wanted(path: str) -> bool:
            hidden = any(part.startswith(".") for part in path.split("/"))
            return not hidden and PurePosixPath(path).suffix.lower() in suffixes

        listed = _listed_bucket(self.place, wanted) if self._is_bucket else _listed_folder(self.place, wanted)
        found = sorted(listed, key=lambda file: file.path)
        if not found:
            raise DataError(f"{self.place}: no image in it ({', '.join(sorted(suffixes))})")
        return found

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """One of the images as a file of this machine, for as long as the block runs.

        Raises:
            OSError: it cannot be fetched from the bucket.
        """
        if not self._is_bucket:
            yield Path(self.place, path)
            return
        bucket, base = _bucket(self.place)
        with tempfile.TemporaryDirectory(prefix="unispector-") as folder:
            copy = Path(folder, f"picture{PurePosixPath(path).suffix}")
            with bucket.open_input_stream(f"{base}/{path}") as stream, copy.open("wb") as file:
                shutil.copyfileobj(stream, file)
            yield copy

    @property
    def _is_bucket(self) -> bool:
        return "://" in self.place


def _listed_folder(top: str, wanted: Callable[[str], bool]) -> Iterator[ImageFile]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); check its rights") from error

    for here, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        # In place, because that is how `os.walk` learns what to pass over.
        folders[:] = [name for name in folders if not name.startswith(".") and not _leads_back(here, name)]
        for name in files:
            path = Path(here, name).relative_to(top).as_posix()
            if wanted(path):
                yield _described(Path(here, name), path)


def _leads_back(here: str, name: str) -> bool:
    """Return whether a folder is a link to one that it lies in."""
    folder = Path(here, name)
    return folder.is_symlink() and Path(here).resolve().is_relative_to(folder.resolve())


def _described(file: Path, path: str) -> ImageFile:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path!a}: a name that is not UTF-8; rename the image") from error
    try:
        state = file.stat()
    except OSError:  # a link to nowhere; who reads it says so
        state = file.lstat()
    return ImageFile(path, state.st_size, state.st_mtime_ns // 1000)


def _listed_bucket(place: str, wanted: Callable[[str], bool]) -> list[ImageFile]:
    from pyarrow import ArrowException
    from pyarrow.fs import FileSelector, FileType

    try:
        bucket, base = _bucket(place)
        entries = bucket.get_file_info(FileSelector(base, recursive=True))
    except (OSError, ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{place}: cannot be listed ({reason}); check the address, AWS_ENDPOINT_URL and the keys"
        ) from error
    files = ((entry.path[len(base) + 1 :], entry) for entry in entries if entry.type == FileType.File)
    return [
        ImageFile(path, entry.size, (entry.mtime_ns or 0) // 1000) for path, entry in files if wanted(path)
    ]


@lru_cache(maxsize=1)
def _bucket(place: str) -> tuple[Any, str]:
    """The file system of a bucket, and `bucket/prefix`; a process connects once."""
    from pyarrow.fs import FileSystem

    scheme, _, base = place.partition("://")
    # The bucket alone: a prefix may hold characters that an address may not.
    return FileSystem.from_uri(f"{scheme}://{base.partition('/')[0]}")[0], base
