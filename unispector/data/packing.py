"""A release's files into the project: as they come, or folder by folder in archives where they are many.

DVC takes time for every file it tracks, whatever its size, so a release of over `LOOSE_FILES` files is
kept as uncompressed zip archives, which `unispector.ops.packed` reads as the folders they stand for.
Equal files give equal archives, to the byte.
"""

import lzma
import os
import secrets
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from unispector.errors import DataError
from unispector.ops import packed

LOOSE_FILES = 5_000
ARCHIVE_FILES = 20_000
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_BROKEN_TAR = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold; real dates would change its hash


def plan_archives(files: Sequence[str]) -> dict[str, list[str]]:
    """Choose the folders of a release that become archives.

    A folder does that has at most `ARCHIVE_FILES` files below it, or all of them directly in it; a larger one
    is left to its folders. A folder that holds zip archives is never packed itself. `files` are posix paths
    relative to the release. Returns folder -> its files; files that stay loose are under "". Up to
    `LOOSE_FILES` all are.
    """
    if len(files) <= LOOSE_FILES:
        return {"": list(files)}
    below = Counter(folder for file in files for folder in _folders(file))
    directly = Counter(_folders(file)[-1] for file in files if "/" in file)
    holds_archives = {folder for file in files if file.endswith(".zip") for folder in _folders(file)}
    plan: dict[str, list[str]] = {"": []}
    for file in files:
        fitting = (
            folder
            for folder in _folders(file)
            if (below[folder] <= ARCHIVE_FILES or directly[folder] == below[folder])
            and folder not in holds_archives
        )
        plan.setdefault(next(fitting, ""), []).append(file)
    return plan


def has_tars(release: Path) -> bool:
    """Return whether a release has tar archives, which must be unpacked before it can be read."""
    return any(name.lower().endswith(TAR_SUFFIXES) for name in _visible_files(release))


def bring_in(release: Path, folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy a release's visible files to `folder`, which appears complete or not at all.

    Tar archives of the release are unpacked on the way, for nothing can be read from their middle; zip
    archives stay as they are. `folder` must not exist; `progress` is called with (files done, files in all).

    Raises:
        DataError: a file cannot be read, an archive is broken or leaves its folder, or no space is left.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(folder) as copy, _scratch(folder) as unpacked:
        try:
            _copy(_without_tars(release, unpacked), copy, progress)
            copy.rename(folder)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be written ({error.strerror or error}); check space and rights"
            ) from error


def holds_release(folder: Path, release: Path) -> bool:
    """Return whether `folder` is what `bring_in` makes of a release: the same names and bytes.

    Raises:
        DataError: an archive of either cannot be read.
    """
    with _scratch(folder) as unpacked:
        source = _without_tars(release, unpacked)
        names = sorted(filter(_is_visible, packed.list_files(source)))
        if names != sorted(filter(_is_visible, packed.list_files(folder))):
            return False
        return all(packed.read_bytes(source / name) == packed.read_bytes(folder / name) for name in names)


def _folders(file: str) -> list[str]:
    """The folders of a file's path, the outermost first."""
    return [folder.as_posix() for folder in PurePosixPath(file).parents][-2::-1]


def _is_visible(name: str) -> bool:
    return not any(part.startswith(".") for part in name.split("/"))


def _visible_files(root: Path) -> list[str]:
    """Sorted, relative to `root`.

    Raises:
        DataError: a folder is absent or cannot be read, or something is neither a folder nor a file.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder of a raw release")
    names = []
    for place, folders, files in os.walk(root, onerror=_refuse_folder):
        folders[:] = filter(_is_visible, folders)
        for path in (Path(place, name) for name in (*folders, *filter(_is_visible, files))):
            if path.is_file():
                names.append(path.relative_to(root).as_posix())
            elif path.is_symlink() or not path.is_dir():
                raise DataError(
                    f"{path}: neither a file nor a folder but a link to nowhere or to a folder, or a device; "
                    "put the files themselves there or remove it"
                )
    return sorted(names)


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its rights")


def _copy(source: Path, target: Path, progress: Callable[[int, int], None] | None) -> None:
    files, done = _visible_files(source), 0
    target.mkdir()
    for folder, members in plan_archives(files).items():
        for _ in _pack(source, members, target, folder) if folder else _copy_loose(source, members, target):
            done += 1
            if progress is not None:
                progress(done, len(files))


def _copy_loose(source: Path, files: Sequence[str], target: Path) -> Iterator[None]:
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target / file)  # without the rights: a release is often read-only
        yield


def _pack(source: Path, files: Sequence[str], target: Path, folder: str) -> Iterator[None]:
    archive = target / f"{folder}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    outside = PurePosixPath(folder).parent
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in files:
            info = zipfile.ZipInfo(PurePosixPath(file).relative_to(outside).as_posix(), _EPOCH)
            info.file_size = (source / file).stat().st_size  # decides on zip64 before the first byte
            with (source / file).open("rb") as read, zipped.open(info, "w") as written:
                shutil.copyfileobj(read, written, 1 << 20)
            yield


def _without_tars(release: Path, unpacked: Path) -> Path:
    """The release itself, or a copy below `unpacked` where it has tar archives."""
    files = _visible_files(release)
    tars = [file for file in files if file.lower().endswith(TAR_SUFFIXES)]
    if not tars:
        return release
    for _ in _copy_loose(release, [file for file in files if file not in tars], unpacked):
        pass
    for name in tars:
        _unpack(release / name, (unpacked / name).parent)
    return unpacked


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")  # refuses names and links that leave the folder
            _check_end(tar)
    except (OSError, *_BROKEN_TAR) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the archive
            raise
        reason = str(error).partition("\n")[0].rstrip(":")  # then follows what each kind of archive lacks
        raise DataError(f"{archive}: cannot be unpacked ({reason}); fetch it again") from error


def _check_end(tar: tarfile.TarFile) -> None:
    """Zeros end an archive; `tarfile` takes a damaged or missing header for the end too."""
    stream = tar.fileobj
    if stream is None:
        raise tarfile.ReadError("closed")
    stream.seek(tar.offset)
    ended = False
    while chunk := stream.read(1 << 20):  # to the last byte, where compressed archives have a checksum
        if chunk.strip(b"\0"):
            raise tarfile.ReadError("damaged in its middle")
        ended = True
    if not ended:
        raise tarfile.ReadError("cut off")


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A name beside `folder`; what is there at the end is removed."""
    path = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
