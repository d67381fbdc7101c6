"""Images and masks that someone sent: checked by their header before a pixel is decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from unispector.errors import DataError
from unispector.ops.files import check_sides, load_upright, rgb_of
from unispector.ops.image_parts import tile_pixels, too_many_parts, too_many_scans
from unispector.ops.mask_values import mask_values
from unispector.ops.memory import peak_bytes
from unispector.ops.rle import BoolArray

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")


class TooLargeError(DataError):
    """An image of more pixels, or a request of more bytes, than are taken."""


@dataclass(frozen=True)
class Cost:
    """What decoding an image takes."""

    pixels: int
    peak_bytes: int  # while it is decoded


def upload_cost(data: bytes, name: str, max_pixels: int) -> Cost:
    """What decoding an image would take, from the header alone.

    Raises:
        DataError: no image of the known formats.
        TooLargeError: more than `max_pixels`.
    """
    with _opened(data, name, max_pixels) as image:
        pixels = max(image.width * image.height, tile_pixels(image))
        return Cost(pixels, peak_bytes(pixels, image.format))


def decode_image(data: bytes, name: str, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Decode an image as `unispector.ops.files.read_image` reads such a file.

    Args:
        max_pixels: more are refused before anything is decoded.

    Returns:
        uint8 RGB [h, w, 3], upright.

    Raises:
        DataError: another format, broken, cut off, or floating-point pixels.
        TooLargeError: more than `max_pixels`.
    """
    with _opened(data, name, max_pixels) as image:
        return rgb_of(load_upright(image), name)


def decode_mask(data: bytes, name: str, max_pixels: int) -> BoolArray:
    """Decode a mask as `unispector.ops.files.read_mask` reads such a file: what is not black is marked.

    Args:
        max_pixels: more are refused before anything is decoded.

    Returns:
        bool [h, w], upright.

    Raises:
        DataError: another format, broken or cut off, or transparency and colours contradict.
        TooLargeError: more than `max_pixels`.
    """
    with _opened(data, name, max_pixels) as image:
        return np.asarray(mask_values(load_upright(image), name) > 0)


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image with only its header read; whatever goes wrong inside the block is the image's fault."""
    too_large = f"{name}: more than {max_pixels / 1e6:g} million pixels; send a smaller image"
    stream = io.BytesIO(data)
    if parts := too_many_parts(stream) or too_many_scans(data):
        raise DataError(f"{name}: {parts}; save the image again")
    try:
        with Image.open(stream, formats=FORMATS) as image:
            if max(image.width * image.height, tile_pixels(image)) > max_pixels:
                raise TooLargeError(too_large)
            check_sides(*image.size, name)
            yield image
    except DataError:
        raise
    except MemoryError as error:
        raise TooLargeError(f"{name}: needs more memory than an image may take; save it again") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(too_large) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a readable PNG, JPEG, BMP, TIFF or WebP image") from error
    except Exception as error:  # a hostile file makes Pillow stumble in ways it does not name
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: not a readable image ({reason}); replace the file") from error
