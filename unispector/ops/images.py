"""Images as users hand them over, files, arrays and PIL images: all become RGB of 8 bits, upright."""

import logging
import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from unispector.errors import DataError
from unispector.ops import packed
from unispector.ops.files import broken_image_named, check_sides, grey16_of, opened_image, rgb_of

logger = logging.getLogger(__name__)

ImageInput = str | Path | npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | Image.Image
"""A file; an array [h, w], [h, w, 1], [h, w, 3] (RGB) or [h, w, 4] (RGBA); or a PIL image of any mode."""

Images = ImageInput | Iterable[ImageInput]
"""One image or several."""

Pixels = npt.NDArray[np.uint8]

DEPTHS = (8, 10, 12, 14)
"""Bits that cameras store in files of 16."""

_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""Of each EXIF orientation: quarter turns against the clock, and whether to mirror after them."""


def is_single(images: Images) -> TypeGuard[ImageInput]:
    """Return whether this is one image, not several; a text is a path, and an array is one image."""
    return isinstance(images, str | bytes) or hasattr(images, "__array__") or not isinstance(images, Iterable)


def listed(images: Images) -> Iterable[ImageInput]:
    """One image as a list; several as they are."""
    return [images] if is_single(images) else cast("Iterable[ImageInput]", images)


def as_pixels(image: ImageInput, bit_depth: int = 16) -> Pixels:
    """The image as RGB, upright.

    Grey is replicated, alpha dropped, of an animation the first frame taken. Of 16-bit values the upper 8 of
    the lowest `bit_depth` bits count; 8-bit values stay as they are. What looks like fewer bits than stated
    is told once an image.

    Args:
        bit_depth: 8 to 16, the bits that 16-bit images really use, such as 12 of many cameras.

    Returns:
        uint8 [h, w, 3], 0 to 255.

    Raises:
        DataError: the file is unreadable, the array is of another type or shape, or the pixels are of a
            kind without a rule, such as floats; or there is no such bit depth.
    """
    if not 8 <= bit_depth <= 16:
        raise DataError(f"a bit depth of {bit_depth}; give 8 to 16, the bits that a 16-bit image really uses")
    if isinstance(image, str | Path):
        return _of_file(image, bit_depth)
    if isinstance(image, Image.Image):
        check_sides(*image.size, "the PIL image")
        return _of_pil(image, bit_depth)
    return _of_array(image, bit_depth)


def count_pixels(image: ImageInput) -> int:
    """The number of an image's pixels, of a file by its header; 0 of what cannot be read."""
    if isinstance(image, str | Path):
        try:
            with opened_image(image) as opened:
                return opened.width * opened.height
        except DataError:  # told by whoever reads it
            return 0
    if isinstance(image, Image.Image):
        return image.width * image.height
    return math.prod(np.shape(image)[:2])


def _of_file(path: str | Path, bit_depth: int) -> Pixels:
    with opened_image(path) as image:
        _tell_frames(image, path)
        deep, turned = _is_deep_colour(image), _orientation(image)
        image.load()  # of deep colour, too: OpenCV takes a truncated file for a whole one
        if not deep:
            return _of_loaded(ImageOps.exif_transpose(image), str(path), bit_depth)
    data = np.frombuffer(packed.read_bytes(path), np.uint8)
    how = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(data, how)
    if pixels is None or pixels.dtype != np.uint16:
        raise DataError(f"{path}: 16-bit pixels of a kind that cannot be read; convert the image to 8 bits")
    quarters, mirrored = _TURNS.get(turned, (0, False))
    pixels = np.rot90(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), quarters)
    return _eight_bits(pixels[:, ::-1] if mirrored else pixels, str(path), bit_depth)


def _of_pil(image: Image.Image, bit_depth: int) -> Pixels:
    name = str(getattr(image, "filename", "")) or "the PIL image"
    if bit_depth < 16 and _is_deep_colour(image):
        raise DataError(f"{name}: Pillow keeps 8 of its 16 bits; give the file's path for a bit depth")
    with broken_image_named(name):
        return _of_loaded(ImageOps.exif_transpose(image), name, bit_depth)


def _of_loaded(image: Image.Image, name: str, bit_depth: int) -> Pixels:
    if image.mode.startswith("I"):
        return _eight_bits(grey16_of(image, name), name, bit_depth)
    return rgb_of(image, name)


def _of_array(image: Any, bit_depth: int) -> Pixels:
    if type(image).__module__.partition(".")[0] == "torch":
        raise DataError(
            "a torch tensor is no image; give a NumPy array of uint8, such as "
            "`tensor.permute(1, 2, 0).numpy()` of a tensor [3, h, w]"
        )
    if not isinstance(image, np.ndarray):
        raise DataError(f"a {type(image).__name__} is no image; give a path, a NumPy array or a PIL image")
    told = f"an image array of {image.dtype} {image.shape}"
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        scale = "; of floats 0 to 1: (image * 255).astype('uint8')" if image.dtype.kind == "f" else ""
        raise DataError(f"{told}; it must be uint8 or uint16{scale}")
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if not image.size or not (grey or (image.ndim == 3 and image.shape[2] in (3, 4))):
        several = "; give several images as a list" if image.ndim == 4 else ""
        raise DataError(f"{told}; it must be [h, w], [h, w, 1], RGB [h, w, 3] or RGBA [h, w, 4]{several}")
    check_sides(image.shape[1], image.shape[0], "an image array")
    return _eight_bits(np.asarray(image).reshape(*image.shape[:2], -1)[..., :3], "an image array", bit_depth)


def _eight_bits(pixels: npt.NDArray[Any], name: str, bit_depth: int) -> Pixels:
    """Pixels [h, w], [h, w, 1] or [h, w, 3] of 8 or 16 bits as RGB of 8."""
    if pixels.dtype != np.uint8:
        highest, most = int(pixels.max()), 2**bit_depth - 1
        _tell_depth(name, highest, bit_depth)
        inside = np.minimum(pixels, most) if highest > most else pixels
        pixels = (inside >> (bit_depth - 8)).astype(np.uint8)
    grey = pixels.reshape(*pixels.shape[:2], -1)
    return np.ascontiguousarray(np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey)


def _is_deep_colour(image: Image.Image) -> bool:
    """Return whether an opened image has several channels of 16 bits, of which Pillow keeps the upper 8."""
    modes = [part for tile in getattr(image, "tile", ()) for part in np.atleast_1d(np.array(tile[3], object))]
    return not image.mode.startswith("I") and any(";16" in mode for mode in modes if isinstance(mode, str))


def _orientation(image: Image.Image) -> int:
    """The orientation that OpenCV leaves to us: a TIFF it turns itself."""
    return 1 if image.format == "TIFF" else int(image.getexif().get(ExifTags.Base.Orientation, 1) or 1)


def _tell_frames(image: Image.Image, name: str | Path) -> None:
    # A photo of a phone (MPO) has previews in further frames.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        _tell(f"{name}: {getattr(image, 'n_frames', 2)} frames; the first one is looked at")


def _tell_depth(name: str, highest: int, bit_depth: int) -> None:
    if highest > 2**bit_depth - 1:
        _tell(f"{name}: values reach {highest}, more than {bit_depth} bits hold; they are cut off")
    likely = next((bits for bits in DEPTHS if highest < 2**bits), 16)
    if highest > 0 and likely < bit_depth == 16:
        _tell(
            f"{name}: values reach {highest} of 65535: looks like {likely}-bit data, which comes out dark; "
            f"give the bit depth {likely} (--bit-depth {likely})"
        )


@lru_cache(maxsize=4096)
def _tell(message: str) -> None:
    """Say something once, however often the image is read."""
    logger.warning("%s", message)
