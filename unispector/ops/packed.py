"""Folders of images, some of them packed: the archive `name.zip` stands for the folder `name` beside it.

DVC handles few large files far better than many small ones, so big releases are kept in archives. File
names are the same either way, and whatever reads a file of the data's root reads it through here.
"""

import io
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO

from cachetools import LRUCache, cached

from unispector.errors import DataError

MEMBER_LIMIT = 1 << 30  # bytes; no image comes near, an archive bomb does
HELD_MEMBERS = 640_000  # of archives that stay open: about 0.6 KB each
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)
_HIDDEN_FOLDER = re.compile(r"(?:^|/)\.[^/]*/")


def read_bytes(path: str | Path) -> bytes:
    """Read a file, be it on disk or in the archive that stands for one of its folders.

    A file on disk comes before one of the same name in an archive.

    Raises:
        FileNotFoundError: it is neither on disk nor in an archive.
        DataError: the archive is broken, or the file in it is damaged, encrypted or over 1 GiB.
    """
    path = Path(path)
    _check_kind(path)
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        archive = _archive_of(path)
        if archive is None:
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    return _open(archive).read(path)


def open_file(path: str | Path) -> IO[bytes]:
    """Like `read_bytes`, but as a seekable stream; of a file on disk only what is asked for is read."""
    path = Path(path)
    _check_kind(path)
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return io.BytesIO(read_bytes(path))


def _check_kind(path: Path) -> None:
    """Refuse what would be waited for without end."""
    try:
        mode = path.stat().st_mode
    except OSError:  # told by whoever opens it
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{path}: a pipe or a device, no file; remove it or give a file")


def exists(path: str | Path) -> bool:
    """Return whether the file is on disk or in an archive."""
    path = Path(path)
    if path.is_file():
        return True
    archive = _archive_of(path)
    return archive is not None and _open(archive).holds(path)


def list_files(root: str | Path) -> Iterator[str]:
    """Names of all files below a folder, those in archives as if they were unpacked.

    Hidden folders of `root` (such as `.git`) are passed over, hidden files are not. Yields posix paths
    relative to `root`, folder by folder; an archive itself is not named.

    Raises:
        DataError: no such folder, a folder cannot be read, an archive is broken, a name in it leaves the
            folder, a file is both in an archive and on disk, or something is neither file nor folder. A link
            to a file is a file, for stores such as DVC's are made of them; a link to a folder, which may
            lead anywhere or in circles, is refused.
    """
    root = Path(root)
    if not root.is_dir():
        if root.is_file():
            raise DataError(f"{root}: a file; give the folder that holds it and the images")
        raise DataError(f"{root}: no such folder; give the folder of a raw release")
    yield from _walk(root, "")


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if _is_folder(entry) else files).append(entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its rights") from error
    for name in sorted(files):
        if not name.endswith(".zip") or name.startswith("."):
            yield f"{prefix}{name}"
            continue
        if name[:-4] in folders:
            raise DataError(f"{folder / name}: lies beside the folder it stands for; remove one of the two")
        yield from (f"{prefix}{member}" for member in _open(folder / name).members)
    for name in sorted(folders):
        if not name.startswith("."):
            yield from _walk(folder / name, f"{prefix}{name}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return True
    hidden, plain = entry.name.startswith("."), entry.is_file(follow_symlinks=False)
    if not hidden and not plain and not Path(entry.path).is_file():
        raise DataError(
            f"{entry.path}: neither a file nor a folder but a link to nowhere or to a folder, or a device; "
            "put the files themselves there or remove it"
        )
    return False


def _archive_of(path: Path) -> Path | None:
    """The archive that stands for one of a path's folders, the innermost first."""
    for folder in path.parents:
        if folder.is_dir():
            return None
        archive = folder.with_name(f"{folder.name}.zip") if folder.name else folder
        if archive.is_file():
            return archive
    return None


def _open(archive: Path) -> "_Archive":
    stat = archive.stat()
    # A forked process must not share the open file's position, nor a replaced file its old index.
    return _opened(archive.absolute(), stat.st_mtime_ns, stat.st_size, os.getpid())


class _Archive:
    """An open archive and its index.

    Attributes:
        members: names of its files as they would lie beside the archive, sorted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = zipfile.ZipFile(path)
        except (OSError, *_BROKEN) as error:
            raise DataError(f"{path}: not a readable zip archive ({error}); fetch it again") from error
        infos = {_checked(info.filename, path): info for info in self._file.infolist() if not info.is_dir()}
        top = f"{path.stem}/"
        # Archives are made either of the folder or of what is in it; macOS adds a folder of its own.
        own = (name for name in infos if not name.startswith("__MACOSX/"))
        lead = "" if all(name.startswith(top) for name in own) else top
        self._by_name = {lead + name: info for name, info in infos.items()}
        self.members = sorted(name for name in self._by_name if not _HIDDEN_FOLDER.search(name))

    def holds(self, path: Path) -> bool:
        return self._name(path) in self._by_name

    def read(self, path: Path) -> bytes:
        info = self._by_name.get(self._name(path))
        if info is None:
            raise FileNotFoundError(f"{path}: not in {self._path}")
        if info.file_size > MEMBER_LIMIT:
            raise DataError(f"{path}: over 1 GiB when unpacked; take it out of {self._path.name}")
        try:
            return self._file.read(info)
        except (OSError, *_BROKEN) as error:
            raise DataError(f"{path}: damaged in {self._path.name} ({error}); fetch it again") from error

    def _name(self, path: Path) -> str:
        return path.absolute().relative_to(self._path.parent).as_posix()


def _weight(archive: _Archive) -> int:
    return min(
        max(len(archive.members), HELD_MEMBERS // 64), HELD_MEMBERS
    )  # one is kept at least, 64 at most


@cached(LRUCache(HELD_MEMBERS, getsizeof=_weight), lock=Lock())
def _opened(archive: Path, _mtime_ns: int, _size: int, _process: int) -> _Archive:
    return _Archive(archive)


def _checked(name: str, archive: Path) -> str:
    """A member's name, tidied (`./a` is `a`)."""
    parts = PurePosixPath(name).parts
    if "\\" in name or ".." in parts or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise DataError(f"{archive}: the name {name!r} in it leaves its folder; do not use this archive")
    return "/".join(parts)
