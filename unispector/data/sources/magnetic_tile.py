"""The Magnetic Tile release: `MT_<Defect>/Imgs/<stem>.jpg` with its mask `<stem>.png` beside it.

Each folder but `MT_Free` is one defect. Masks have soft grey edges, so a pixel counts as defect above
127; 8-connected components are the instances (paper appendix 1.1).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unispector.data.sources.rows import Dropped, SourceImage, SourceSet
from unispector.errors import DataError
from unispector.ops.files import read_image, read_mask

PRODUCT = "magnetic_tile"
DEFECT_FREE = "MT_Free"
THRESHOLD = 127
LAYOUT = "expected MT_<Defect>/Imgs/*.jpg, each with a mask of the same name ending in .png"


def read_magnetic_tile(root: Path) -> SourceSet:
    """Read a folder in Magnetic Tile's layout.

    Args:
        root: the folder that holds the `MT_*` folders.

    Returns:
        Rows in order of folder and file; defect-free images, masks without an image and files that are
        neither are listed as dropped.

    Raises:
        DataError: there is no such folder, it has no defect folder, a defect folder has no images, an
            image lacks its mask or has two; while rows are drawn also: a file cannot be decoded, image
            and mask differ in size.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; {LAYOUT}")
    folders = sorted(folder for folder in root.glob("MT_*") if folder.is_dir())
    defects = [_list_folder(root, folder) for folder in folders if folder.name != DEFECT_FREE]
    if not defects:
        raise DataError(f"{root}: no folder of defect images; {LAYOUT}")
    dropped = [item for folder in defects for item in folder.dropped]
    free = _visible_files(root / DEFECT_FREE / "Imgs")
    dropped += [
        Dropped("image without defects", file.relative_to(root).as_posix())
        for file in free
        if _is_image(file)
    ]
    return SourceSet(
        product=PRODUCT,
        dropped=tuple(dropped),
        images=(row for folder in defects for row in _rows(root, folder)),
    )


@dataclass(frozen=True)
class _Folder:
    """One defect folder: its images (each has a mask) and what is left aside."""

    defect: str
    images: tuple[Path, ...]
    dropped: tuple[Dropped, ...]


def _list_folder(root: Path, folder: Path) -> _Folder:
    files = _visible_files(folder / "Imgs")
    images = [file for file in files if _is_image(file)]
    masks = {file.stem for file in files if file.suffix == ".png"}
    stems = {image.stem for image in images}
    if not images:
        raise DataError(f"{folder / 'Imgs'}: no .jpg images; {LAYOUT}")
    if len(stems) < len(images):
        twice = next(first for first, second in pairwise(images) if first.stem == second.stem)
        raise DataError(f"{twice}: two images share this name and so one mask; rename one of them")
    for image in images:
        if image.stem not in masks:
            raise DataError(f"{image}: no mask {image.stem}.png beside it; restore the mask")
    dropped = [
        Dropped(
            "mask without an image" if file.suffix == ".png" else "neither image nor mask",
            file.relative_to(root).as_posix(),
        )
        for file in files
        if not _is_image(file) and not (file.suffix == ".png" and file.stem in stems)
    ]
    return _Folder(folder.name.removeprefix("MT_").lower(), tuple(images), tuple(dropped))


def _visible_files(folder: Path) -> list[Path]:
    """Files of a folder by name; hidden ones (such as macOS' `._*`) are nobody's data."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in {".jpg", ".jpeg"}


def _rows(root: Path, folder: _Folder) -> Iterator[SourceImage]:
    for image in folder.images:
        height, width = read_image(image).shape[:2]
        grey = read_mask(image.with_suffix(".png"))
        if grey.shape != (height, width):
            raise DataError(
                f"{image.with_suffix('.png')}: mask is {grey.shape[1]}x{grey.shape[0]} but its image is "
                f"{width}x{height}; restore the mask that belongs to it"
            )
        masks = _components(grey > THRESHOLD)
        yield SourceImage(
            file_name=image.relative_to(root).as_posix(),
            width=width,
            height=height,
            defects=(folder.defect,) * len(masks),
            masks=masks,
        )


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """8-connected components [K, h, w] of a mask [h, w]."""
    import cv2

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    components: npt.NDArray[np.bool_] = labels[None] == np.arange(1, count)[:, None, None]
    return components
