"""Files on disk for the image names of InsA's official annotation files.

Those names lie below one folder of all sets and were written down from another copy of the releases:
suffixes differ (`.jpg` for what is a PNG), as do upper case and dashes. So only paths without suffix, in
lower case and with `_` for `-` are compared, and a release may lie a few folders deeper or less deep.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from unispector.data.coco import Annotations, ImageRecord
from unispector.errors import DataError
from unispector.ops import packed
from unispector.ops.files import read_image_size
from unispector.ops.parallel import map_in_order, worker_count

FOLDERS = {
    "GC10": "GC10",
    "MagneticTile": "MagneticTile",
    "Real-IAD": "RealIAD",
    "MVTec-AD": "MVTec",
    "3CAD": "3CAD",
    "VISION": "VISION",
    "VisA": "VisA",
}
"""First folder of an official image name -> name of its set."""

MASK_SUFFIX = ".png"  # a mask beside an image of another format, as in Magnetic Tile and Real-IAD
SUFFIXES = frozenset({".jpg", ".jpeg", ".bmp", ".tif", ".tiff", MASK_SUFFIX})
Key = tuple[str, ...]


def _plain(part: str) -> str:
    return part.lower().replace("-", "_")


_SET_OF = {_plain(folder): name for folder, name in FOLDERS.items()}


def set_of(path: Path, image: ImageRecord) -> str:
    """Name of the set an official image belongs to.

    Raises:
        DataError: its first folder is none of the sets'; the message names `path`.
    """
    name = _SET_OF.get(_plain(image.file_name.partition("/")[0]))
    if name is None:
        raise DataError(
            f"{path}: image {image.file_name}: its first folder is none of {', '.join(FOLDERS)}; "
            "use the official files as they were published"
        )
    return name


class OfficialImages:
    """Finds the images of annotation files; every size is read from disk once.

    `folders`: set name -> its raw folder; images of other sets are left out. `workers` processes read sizes,
    0 = one per core.

    Raises:
        DataError: a raw folder is missing or an archive in it is unusable.
    """

    def __init__(self, folders: Mapping[str, Path], workers: int) -> None:
        self._folders = folders
        self._workers = workers
        self._files = {name: _FileIndex(folder) for name, folder in folders.items()}
        self._sizes: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in folders}

    def by_set(self, path: Path, annotations: Annotations) -> dict[str, Annotations]:
        """An annotation file set by set, with file names relative to the set's raw folder.

        Returns sets of which the file has images, with all its categories.

        Raises:
            DataError: an image is missing, may be one of several files, is the same as another, or has
                another size than stated.
        """
        ids: defaultdict[str, set[int]] = defaultdict(set)
        for image in annotations.images:
            ids[set_of(path, image)].add(image.id)
        return {
            name: self._located(path, name, annotations.keep_images(ids[name]))
            for name in self._folders
            if name in ids
        }

    def _located(self, path: Path, name: str, part: Annotations) -> Annotations:
        files = self._find(path, name, part)
        self._check_sizes(path, name, part, files)
        return replace(part, images=tuple(replace(image, file_name=files[image.id]) for image in part.images))

    def _find(self, path: Path, name: str, part: Annotations) -> dict[int, str]:
        """Image id -> file."""
        folder = self._folders[name]
        files: dict[int, str] = {}
        taken: dict[str, str] = {}
        missing = []
        for image in part.images:
            candidates = self._files[name].candidates(image.file_name.partition("/")[2])
            if not candidates:
                missing.append(image.file_name)
                continue
            file = candidates[0]
            if len(candidates) > 1:
                raise DataError(
                    f"{path}: image {image.file_name} may be {file} or {candidates[1]} in {folder}; "
                    "rename or remove one of the two"
                )
            if file in taken:
                raise DataError(
                    f"{path}: images {taken[file]} and {image.file_name} are both {file} in {folder}; "
                    "give the release its missing file"
                )
            taken[file] = image.file_name
            files[image.id] = file
        if missing:
            raise DataError(
                f"{path}: {len(missing)} of {len(part.images)} images are not in {folder}, the first is "
                f"{missing[0]}; complete the release or correct data.sets.{name}.path"
            )
        return files

    def _check_sizes(self, path: Path, name: str, part: Annotations, files: Mapping[int, str]) -> None:
        folder, sizes = self._folders[name], self._sizes[name]
        new = [file for file in files.values() if file not in sizes]
        measured = map_in_order(partial(_size, folder), new, worker_count(self._workers, len(new)))
        sizes.update(zip(new, measured, strict=True))
        for image in part.images:
            width, height = sizes[files[image.id]]
            if (width, height) != (image.width, image.height):
                raise DataError(
                    f"{path}: image {image.file_name} is stated as {image.width}x{image.height}, but "
                    f"{folder / files[image.id]} has {width}x{height}; use the release it was made on"
                )


class _FileIndex:
    """Image files of a folder by the last part of their key."""

    def __init__(self, root: Path) -> None:
        self._by_stem: defaultdict[Key, list[tuple[Key, str]]] = defaultdict(list)
        for name in packed.list_files(root):
            if PurePosixPath(name).suffix.lower() in SUFFIXES:
                key = _key(name)
                self._by_stem[key[-1:]].append((key, name))

    def candidates(self, name: str) -> list[str]:
        """Files that an official name may mean; one, if all is well.

        Files at the same path come before those of which only the end of the path agrees, images before
        masks beside them, and a file of the very name before files that only resemble it.
        """
        wanted = _key(name)
        fitting = [(key, file) for key, file in self._by_stem.get(wanted[-1:], ()) if _same_end(key, wanted)]
        fitting = [item for item in fitting if item[0] == wanted] or fitting
        images = {key for key, file in fitting if not _may_be_mask(file)}
        files = [file for key, file in fitting if key not in images or not _may_be_mask(file)]
        return [name] if name in files else files


def _key(name: str) -> Key:
    path = PurePosixPath(name)
    stem = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return tuple(_plain(part) for part in stem.parts)


def _same_end(first: Key, second: Key) -> bool:
    length = min(len(first), len(second))
    return first[-length:] == second[-length:]


def _may_be_mask(name: str) -> bool:
    return name.lower().endswith(MASK_SUFFIX)


def _size(folder: Path, file: str) -> tuple[int, int]:
    return read_image_size(folder / file)
