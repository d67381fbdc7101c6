"""The images of a folder and its subfolders, which may change while they are shown."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unispector.errors import DataError
from unispector.ops.files import IMAGE_SUFFIXES, read_image_size

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile:
    """One image of the folder."""

    name: str  # path below the folder, with `/` between its parts
    stamp: str  # changes when the file changes


class ImageFolder:
    """The images below a folder, by name; hidden files and folders are passed over.

    Attributes:
        root: the folder, absolute.
        files: name -> image, sorted by name; upper and lower case are alike.
        trouble: lines that say what is passed over: names that are not UTF-8, subfolders that cannot be read.
        version: grows by one whenever `refresh` sees another content.
    """

    def __init__(self, root: Path) -> None:
        """Look into the folder.

        Raises:
            DataError: it is no folder, or cannot be read.
        """
        self.root = root.resolve()
        if not is_utf8(str(self.root)):
            raise DataError(f"{str(self.root)!a}: the folder's name is not UTF-8; rename it")
        if not self.root.is_dir():
            raise DataError(f"{root}: no such folder; check the path")
        self.files: dict[str, ImageFile] = {}
        self.trouble: tuple[str, ...] = ()
        self._sizes: dict[ImageFile, tuple[int, int]] = {}
        self._unnamed: list[str] = []
        self._closed: list[str] = []
        self.version = 0
        self.refresh()

    def refresh(self) -> bool:
        """Look again; return whether anything changed.

        Raises:
            DataError: the folder is gone or cannot be read.
        """
        self._unnamed, self._closed = [], []
        try:
            found = sorted(self._walk(self.root, ""), key=lambda file: (file.name.casefold(), file.name))
        except OSError as error:
            raise DataError(f"{self.root}: cannot be read ({error.strerror}); restore the folder") from error
        self.trouble = (
            *_told(self._unnamed, "the name is not UTF-8, so that it cannot be shown; rename it"),
            *_told(
                self._closed, "the folder cannot be read, so that its images are not shown; mend its rights"
            ),
        )
        files = {file.name: file for file in found}
        if files == self.files and self.version:
            return False
        self.files = files
        self.version += 1
        return True

    def tell(self, known: Sequence[str] = ()) -> None:
        """Warn of what is passed over, but for the lines that are known."""
        for line in self.trouble:
            if line not in known:
                logger.warning("%s", line)

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of an image, upright.

        Raises:
            DataError: it is gone or unreadable.
        """
        path = self.path(name)
        file = self.files[name]
        if file not in self._sizes:
            width, height = read_image_size(path)
            self._sizes[file] = height, width
        return self._sizes[file]

    def holds(self, name: str, hw: tuple[int, int]) -> bool:
        """Return whether an image is there and has this height and width."""
        try:
            return self.size(name) == hw
        except DataError:
            return False

    def path(self, name: str) -> Path:
        """Where an image of the folder lies.

        Raises:
            DataError: the folder has no such image.
        """
        if name not in self.files:
            raise DataError(f"{name}: not in the folder any more; restore the file or go on without it")
        return self.root / name

    def _walk(self, folder: Path, prefix: str) -> list[ImageFile]:
        found: list[ImageFile] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                if not is_folder and Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                if not is_utf8(entry.name):
                    self._unnamed.append(prefix + entry.name)
                elif is_folder:
                    found += self._walk_below(Path(entry.path), f"{prefix}{entry.name}/")
                elif entry.is_file():
                    state = entry.stat()
                    found.append(ImageFile(prefix + entry.name, f"{state.st_mtime_ns:x}-{state.st_size:x}"))
        return found

    def _walk_below(self, folder: Path, prefix: str) -> list[ImageFile]:
        try:
            return self._walk(folder, prefix)
        except OSError:  # one subfolder that may not be read does not take the others with it
            self._closed.append(prefix.rstrip("/"))
            return []


def is_utf8(name: str) -> bool:
    """Return whether a name can be sent and written; old archives and shares have others."""
    try:
        return bool(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _told(names: list[str], what: str) -> list[str]:
    """A line that names the first of some names, if there is any."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"{min(names)!a}{more}: {what}"] if names else []
