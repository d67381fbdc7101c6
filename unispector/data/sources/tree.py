"""The files of a raw release by name: what a source looks at, without opening an image."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from unispector.errors import DataError
from unispector.names import is_text, shortened
from unispector.ops import packed
from unispector.ops.json_text import parse_json


class ReleaseTree:
    """Names of all files of a release, and a mark on those that have been accounted for.

    Archives in the release count as the folders they stand for.

    Attributes:
        root: that folder.
        files: posix paths relative to it, sorted; hidden files are not among them.
        hidden: names of hidden files, such as macOS' `._*`.

    Raises:
        DataError: no such folder, an archive in it cannot be used, or a file name is not one line of UTF-8.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        files: list[str] = []
        self.hidden: list[str] = []
        for name in packed.list_files(self.root):
            if not is_text(name):
                raise DataError(
                    f"{self.root}: the file name {name!a} is not one line of UTF-8; rename or remove the file"
                )
            (self.hidden if name.rpartition("/")[2].startswith(".") else files).append(name)
        self.files = sorted(files)
        self._accounted = bytearray(len(self.files))

    def __contains__(self, name: str) -> bool:
        return self._position(name) is not None

    def matching(self, pattern: str) -> Iterator[re.Match[str]]:
        """Full matches of a regular expression among the file names, in order."""
        compiled = re.compile(pattern)
        for name in self.files:
            match = compiled.fullmatch(name)
            if match:
                yield match

    def account_for(self, name: str) -> None:
        """Say that a file is not overlooked; names that are no file of the release are ignored."""
        position = self._position(name)
        if position is not None:
            self._accounted[position] = 1

    def unaccounted(self) -> Iterator[str]:
        """Files nothing was said about."""
        return (name for name, done in zip(self.files, self._accounted, strict=True) if not done)

    def read_text(self, name: str) -> str:
        """An annotation file's text (UTF-8, with or without a byte order mark); accounts for it.

        Raises:
            DataError: it is absent, damaged or not UTF-8.
        """
        try:
            text = packed.read_bytes(self.root / name).decode("utf-8-sig")
        except OSError as error:
            reason = error.strerror or "no such file"
            raise self.error(name, f"cannot be read ({reason}); restore it") from error
        except UnicodeDecodeError as error:
            raise self.error(name, "is not UTF-8 text; save it as UTF-8") from error
        self.account_for(name)
        return text

    def read_json(self, name: str) -> Any:
        """An annotation file's JSON; accounts for it.

        Raises:
            DataError: it is absent, damaged or no JSON.
        """
        try:
            return parse_json(self.read_text(name))
        except ValueError as error:
            raise self.error(name, f"not valid JSON ({error}); restore the file") from error

    def below(self, folder: str, path: str, file: str) -> str:
        """A path that an annotation file names, as a name of this tree (which may lack it).

        The path, whose backslashes count as slashes, is relative to `folder`, which is so to the root ("" =
        the root); the message names `file`.

        Raises:
            DataError: the path is absolute, leads out of the release, or is no readable text.
        """
        place = self.inside(folder, path)
        if place is None:
            raise self.error(file, f"the path {path!r} in it leaves the release or is no text; correct it")
        return place

    def inside(self, folder: str, path: str) -> str | None:
        """As `below`, but None where that raises."""
        parts: list[str] = [part for part in folder.split("/") if part]
        written = PurePosixPath(path.replace("\\", "/"))
        for part in written.parts:
            if part == "..":
                if not parts:
                    return None
                parts.pop()
            else:
                parts.append(part)
        foreign = written.is_absolute() or not is_text(path) or re.match(r"[A-Za-z]:", path)
        return None if foreign else "/".join(parts)

    def error(self, name: str, problem: str) -> DataError:
        """An error that names a file of the release."""
        return DataError(f"{self.root / name}: {shortened(problem)}")

    def _position(self, name: str) -> int | None:
        position = bisect_left(self.files, name)
        found = position < len(self.files) and self.files[position] == name
        return position if found else None
