"""Images and masks that someone sent: checked by their header before a pixel is decoded."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from unispector.errors import DataError
from unispector.ops.files import brightness, load_upright, rgb_of
from unispector.ops.rle import BoolArray

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
SCANS = 100
"""Most passes of a JPEG; each costs as much as decoding a plain one, and files of normal use have ten."""


class TooLargeError(DataError):
    """An image of more pixels, or a request of more bytes, than are taken."""


def upload_size(data: bytes, name: str, max_pixels: int) -> tuple[int, int]:
    """Width and height in pixels as stored, from the header alone.

    Raises:
        DataError: no image of the known formats.
        TooLargeError: more than `max_pixels`.
    """
    with _opened(data, name, max_pixels) as image:
        return image.size


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
        DataError: another format, broken or cut off.
        TooLargeError: more than `max_pixels`.
    """
    with _opened(data, name, max_pixels) as image:
        pixels = load_upright(image)
        # A floating-point value between 0 and 1 counts as marked.
        return np.asarray((np.asarray(pixels) if pixels.mode == "F" else brightness(pixels)) > 0)


def _tile_pixels(image: Image.Image) -> int:
    """Pixels of a tile of a TIFF, which is decoded whole, however small the image; 0 of others."""
    if not isinstance(image, TiffImageFile):
        return 0
    width, height = (int(np.max(image.tag_v2.get(tag, 0))) for tag in (TILEWIDTH, TILELENGTH))
    return width * height


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image with only its header read; whatever goes wrong inside the block is the image's fault."""
    too_large = f"{name}: more than {max_pixels / 1e6:g} million pixels; send a smaller image"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if max(image.width * image.height, _tile_pixels(image)) > max_pixels:
                raise TooLargeError(too_large)
            if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > SCANS:
                raise DataError(f"{name}: a JPEG of more than {SCANS} scans; save it again")
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(too_large) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a readable PNG, JPEG, BMP, TIFF or WebP image") from error
    except Exception as error:  # a hostile file makes Pillow stumble in ways it does not name
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: not a readable image ({reason}); replace the file") from error
