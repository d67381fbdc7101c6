"""The images of a folder and its subfolders, which may change while they are shown."""

import os
from dataclasses import dataclass
from pathlib import Path

from unispector.errors import DataError
from unispector.ops.files import IMAGE_SUFFIXES


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
        version: grows by one whenever `refresh` sees another content.
    """

    def __init__(self, root: Path) -> None:
        """Look into the folder.

        Raises:
            DataError: it is no folder, or cannot be read.
        """
        self.root = root.resolve()
        if not self.root.is_dir():
            raise DataError(f"{root}: no such folder; check the path")
        self.files: dict[str, ImageFile] = {}
        self.version = 0
        self.refresh()

    def refresh(self) -> bool:
        """Look again; return whether anything changed.

        Raises:
            DataError: the folder is gone or cannot be read.
        """
        try:
            found = sorted(self._walk(self.root, ""), key=lambda file: (file.name.casefold(), file.name))
        except OSError as error:
            raise DataError(f"{self.root}: cannot be read ({error.strerror}); restore the folder") from error
        files = {file.name: file for file in found}
        if files == self.files and self.version:
            return False
        self.files = files
        self.version += 1
        return True

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
                if entry.is_dir(follow_symlinks=False):
                    found += self._walk_below(Path(entry.path), f"{prefix}{entry.name}/")
                elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                    state = entry.stat()
                    found.append(ImageFile(prefix + entry.name, f"{state.st_mtime_ns:x}-{state.st_size:x}"))
        return found

    def _walk_below(self, folder: Path, prefix: str) -> list[ImageFile]:
        try:
            return self._walk(folder, prefix)
        except OSError:  # one subfolder that may not be read does not take the others with it
            return []
