"""Files: atomic writes, images and masks read with checks, content hashes."""

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from unispector.errors import DataError
from unispector.ops import packed
from unispector.ops.image_parts import tile_pixels, too_many_parts
from unispector.ops.mask_values import class_values, mask_values
from unispector.ops.memory import check_memory

MOST_SIDE = 2**18
"""Pixels of an image's longer side."""
MOST_ASPECT = 5000
"""Of an image's sides: the network sees a square, so that of a longer thread next to nothing is left."""
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
"""What is read, by content; not EPS, for which Pillow starts Ghostscript, nor what has no sure beginning."""
# An image over half the size that Pillow refuses is nothing to warn of.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_PNG_ORIENTATION = re.compile(rb"eXIf|type exif|adobe\.xmp")


DAY = 86_400.0
"""Seconds after which what a writer has left is taken for a killed one's."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of `path` that takes its place when the block ends well.

    The sibling keeps the suffix (writers that look at it work) and is removed when the block fails; missing
    parent folders are made. A power cut leaves the old file or the new one too. What a killed process left
    in the folder goes a day later, with the first write of another one. Yields the path to write to; a file
    must be there when the block ends.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}~{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        if str(error.filename or temporary) == str(temporary):  # a full disk has no name of its own
            error.filename = str(path)
        raise
    else:
        with suppress(OSError):  # some file systems cannot sync a folder
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, age: float = DAY, stem: str = "") -> None:
    """Remove what killed writers have left in a folder: what `atomic_path` and `replaced_folder` write to.

    Args:
        age: seconds since the last change; 0 only where a lock keeps all other writers out.
        stem: regular expression of the targets' stems, whose leftovers of earlier versions, which have a
            less distinct name, go too; empty = only what has the name of today.
    """
    pattern = rf"\.(?:{stem or '.+'})\.[0-9a-f]{{8}}~{'?' if stem else ''}(?:\.[^.]*)?"
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not re.fullmatch(pattern, entry.name, re.DOTALL):
                continue
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < age:
                continue
            target = folder / entry.name[1:-14]
            if entry.name.endswith("~.old") and not target.exists():
                continue  # the only copy: killed between the two steps of a replacement
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)


@lru_cache(maxsize=1024)
def _sweep(folder: Path) -> None:
    """Remove old leftovers, once in a process."""
    remove_leftovers(folder)


def _sync(path: Path) -> None:
    """Wait until a file or the entries of a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 so that a reader sees the old file or the new one, never a part."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | Path, value: object) -> None:
    """Write plain lists and dicts as JSON for people to read, atomically."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """A temporary sibling of `folder` that takes its place when the block ends well.

    Its name is its own: two runs into one folder never share a half-written one. What was in `folder` goes
    only once the new one is in place. Yields an empty folder to write to; it is removed when the block fails.
    """
    folder = Path(folder)
    _sweep(folder.parent)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}~")
    old = temporary.with_name(f"{temporary.name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.replace(old)
        try:
            temporary.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def list_images(targets: Sequence[Path]) -> list[Path]:
    """Files as given and the images of folders, sorted by name within each folder.

    Raises:
        DataError: a target does not exist, or a folder has no image.
    """
    files: list[Path] = []
    for target in targets:
        if target.is_dir():
            named = (path for path in target.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
            inside = sorted(path for path in named if not path.is_fifo())  # to open a pipe waits without end
            if not inside:
                below = "; name its subfolders" if any(path.is_dir() for path in target.iterdir()) else ""
                kinds = ", ".join(sorted(IMAGE_SUFFIXES))
                raise DataError(f"{target}: no image in this folder ({kinds}){below}")
            files.extend(inside)
        elif target.is_file():
            files.append(target)
        else:
            raise DataError(f"{target}: no such image or folder; check the path")
    return files


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read an image file as RGB, upright (EXIF orientation applied).

    Grey images are replicated to three channels, alpha is dropped, 16-bit values keep their upper byte.
    Returns uint8 [h, w, 3], 0 to 255.

    Raises:
        DataError: the file is absent, unreadable, truncated, or no 8- or 16-bit image.
    """
    return rgb_of(_open_upright(path), path)


def rgb_of(image: Image.Image, name: str | Path) -> npt.NDArray[np.uint8]:
    """The pixels of a loaded image as `read_image` gives them; `name` is what a DataError calls it."""
    if image.mode.startswith("I"):
        return np.repeat((grey16_of(image, name) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{name}: floating-point pixels; convert the image to 8 bits")
    try:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # which would copy it
    except ValueError as error:
        raise DataError(f"{name}: pixels of mode {image.mode}; convert the image to RGB") from error


def grey16_of(image: Image.Image, name: str | Path) -> npt.NDArray[np.uint16]:
    """The values of a loaded image of mode `I` or `I;16`, uint16 [h, w].

    Raises:
        DataError: a value needs more than 16 bits.
    """
    values = np.asarray(image)
    if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        raise DataError(
            f"{name}: 32-bit values from {values.min()} to {values.max()}; convert the image to 8 or 16 bits"
        )
    return values.astype(np.uint16)


def read_mask(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read a mask file; what is black in it is 0, in whatever mode it is stored.

    Of a colour or palette mask a pixel's brightest channel counts; of a 16-bit mask values above 255 read
    255. Where the opacity varies it is the mask. What near black a lossy compression has left is 0. Returns
    uint8 [h, w], 0 to 255.

    Raises:
        DataError: the file is absent, unreadable or truncated, or transparency and colours contradict.
    """
    return mask_values(_open_upright(path), path)


def decode_mask(data: bytes, name: str | Path) -> npt.NDArray[np.uint8]:
    """Like `read_mask`, of a mask that another file holds.

    `name` says in the message where it comes from.

    Raises:
        DataError: it is unreadable or truncated, or transparency and colours contradict.
    """
    with broken_image_named(name), _header_of(io.BytesIO(data), name) as image:
        _check_cost(image, name)
        image.load()
        return mask_values(image, name)


def read_class_mask(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read a mask file whose stored values are classes: of a palette mask the indices, not the colours.

    Other modes are read as `read_mask` reads them, noise and all. Returns uint8 [h, w], 0 to 255.

    Raises:
        DataError: the file is absent, unreadable or truncated, or transparency and colours contradict.
    """
    return class_values(_open_upright(path), path)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file, upright, from its header alone.

    Raises:
        DataError: the file is absent, unreadable or no image; a file cut off after its header passes.
    """
    with _header_read(path) as (image, stream):
        width, height = image.size
        return (height, width) if _is_turned(image, stream) else (width, height)


def is_turned(path: str | Path) -> bool:
    """Return whether an image file's EXIF orientation swaps width and height of what it stores.

    Raises:
        DataError: the file is absent, unreadable or no image.
    """
    with _header_read(path) as (image, stream):
        return _is_turned(image, stream)


def _is_turned(image: Image.Image, stream: IO[bytes]) -> bool:
    """Return whether the upright image has the sides of an opened one swapped."""
    if image.format == "TIFF":  # Pillow has swapped them already
        return False
    if image.format == "PNG":  # Pillow would decode all of it to look for an orientation
        stream.seek(0)
        if not _PNG_ORIENTATION.search(stream.read()):
            return False
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def _open_upright(path: str | Path) -> Image.Image:
    with opened_image(path) as image:
        return load_upright(image)


@contextmanager
def opened_image(path: str | Path) -> Iterator[Image.Image]:
    """An image file with only its header read; what goes wrong in the block is the file's fault.

    Raises:
        DataError: the file is absent, Pillow cannot read it, or its size is beyond what is taken.
    """
    with _header_read(path) as (image, _):
        _check_cost(image, path)
        yield image


def _check_cost(image: Image.Image, name: str | Path) -> None:
    check_sides(*image.size, name)
    check_memory(max(image.width * image.height, tile_pixels(image)), image.format, name)


@contextmanager
def _header_read(path: str | Path) -> Iterator[tuple[Image.Image, IO[bytes]]]:
    """An image file of not too many parts, and its stream."""
    with (
        broken_image_named(path),
        packed.open_file(path) as stream,
        _header_of(stream, path) as image,
    ):
        yield image, stream


def _header_of(stream: IO[bytes], name: str | Path) -> Image.Image:
    if parts := too_many_parts(stream):
        raise DataError(f"{name}: {parts}; save the image again")
    return Image.open(stream, formats=FORMATS)


def check_sides(width: int, height: int, name: str | Path) -> None:
    """Refuse an image that is so long or so thin that nothing could be found on it.

    Raises:
        DataError: a side has more than `MOST_SIDE` pixels, or more than `MOST_ASPECT` times the other's.
    """
    longer, shorter = max(width, height), min(width, height)
    if longer > MOST_SIDE:
        raise DataError(f"{name}: {width} x {height} pixels; cut it, a side may have {MOST_SIDE}")
    if longer > MOST_ASPECT * shorter:
        raise DataError(f"{name}: {width} x {height} pixels; no side may be {MOST_ASPECT} times the other")


def load_upright(image: Image.Image) -> Image.Image:
    """Decode an opened image and turn it as its EXIF orientation says; the same object."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


@contextmanager
def broken_image_named(path: str | Path) -> Iterator[None]:
    """Whatever goes wrong in the block as a DataError that names the image."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image; check the path or restore the file") from error
    except Exception as error:  # a damaged file makes Pillow stumble in ways it does not name
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known format" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable image ({reason}); replace or remove the file") from error


def sha256_of_tree(paths: Iterable[str | Path]) -> str:
    """Content hash of files and folders, independent of their order and of where they lie.

    Files are hashed under their own name; of a folder every file below, under its path relative to the
    folder. Returns 64 hex digits over all names and bytes.

    Raises:
        DataError: a path does not exist.
    """
    entries = sorted(
        (name, hashlib.sha256(file.read_bytes()).hexdigest())
        for path in paths
        for name, file in _files_of(Path(path))
    )
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in entries).encode()).hexdigest()


def _files_of(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path
    elif path.is_dir():
        yield from ((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    else:
        raise DataError(f"{path}: no such file or folder to hash; create it first")
