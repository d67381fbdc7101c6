"""Sent images are read as files are, and refused before they cost anything."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from live_service import tiled_tiff
from unispector.errors import DataError
from unispector.ops.files import read_image, read_mask
from unispector.ops.image_parts import SCANS
from unispector.serving.decoding.uploads import TooLargeError, decode_image, decode_mask, upload_cost

PIXELS = 10_000
RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return stored(Image.fromarray(RGB), "JPEG", exif=exif)


SIXTEEN = Image.fromarray(RNG.integers(0, 65536, (40, 60), dtype=np.uint16))
KINDS = {
    "png": stored(Image.fromarray(RGB), "PNG"),
    "grey.png": stored(Image.fromarray(RGB[:, :, 0]), "PNG"),
    "alpha.png": stored(Image.fromarray(np.dstack((RGB, RGB[:, :, 0]))), "PNG"),
    "palette.png": stored(Image.fromarray(RGB).quantize(16), "PNG"),
    "bilevel.png": stored(Image.fromarray(RGB[:, :, 0] > 128), "PNG"),
    "sixteen.png": stored(SIXTEEN, "PNG"),
    "sixteen.tif": stored(SIXTEEN, "TIFF"),
    "cmyk.jpg": stored(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "progressive.jpg": stored(Image.fromarray(RGB), "JPEG", progressive=True),
    "bmp": stored(Image.fromarray(RGB), "BMP"),
    "lzw.tif": stored(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
    "webp": stored(Image.fromarray(RGB), "WEBP"),
    **{f"turned{n}.jpg": turned(n) for n in (3, 6, 8)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_masks_are_read_as_files_are(kind, tmp_path):
    file = tmp_path / kind
    file.write_bytes(KINDS[kind])
    assert np.array_equal(decode_image(KINDS[kind], kind, PIXELS), read_image(file))
    assert np.array_equal(decode_mask(KINDS[kind], kind, PIXELS), read_mask(file) > 0)
    assert upload_cost(KINDS[kind], kind, PIXELS).pixels == 40 * 60


def test_floating_point_pixels_are_refused():
    data = stored(Image.fromarray(RNG.random((5, 5), dtype=np.float32)), "TIFF")
    with pytest.raises(DataError, match=r"^a: floating-point pixels"):
        decode_image(data, "a", PIXELS)


def test_a_fraction_in_a_floating_point_mask_is_marked():
    data = stored(Image.fromarray(np.array([[0, 0.5], [1, 300]], dtype=np.float32)), "TIFF")
    assert decode_mask(data, "a", PIXELS).tolist() == [[False, True], [True, True]]


def png_header(width: int, height: int) -> bytes:
    """A PNG that is nothing but a header."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    length = struct.pack(">I", len(chunk) - 4)
    return b"\x89PNG\r\n\x1a\n" + length + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\1\0IDAT"


@pytest.mark.parametrize(("width", "height"), [(101, 100), (2**16, 2**15), (2**30, 2**30)])
def test_too_many_pixels_are_refused_by_the_header_alone(width, height):
    # Nothing follows the header: whoever decoded would complain of that.
    for decode in (upload_cost, decode_image, decode_mask):
        with pytest.raises(TooLargeError, match=r"^p\.png: more than 0\.01 million pixels"):
            decode(png_header(width, height), "p.png", PIXELS)


def test_a_tile_counts_as_it_is_decoded():
    tile = RNG.integers(0, 256, (96, 96), dtype=np.uint8)
    found = decode_image(tiled_tiff(96, zlib.compress(tile.tobytes())), "a", PIXELS)
    assert np.array_equal(found[:, :, 0], tile[:16, :16])
    bomb = tiled_tiff(112, zlib.compress(bytes(112 * 112)))
    for decode in (upload_cost, decode_image, decode_mask):
        with pytest.raises(TooLargeError, match=r"^p\.tif: more than 0\.01 million pixels"):
            decode(bomb, "p.tif", PIXELS)


def test_as_many_pixels_as_allowed_are_taken():
    data = stored(Image.new("RGB", (100, 100)), "PNG")
    assert decode_image(data, "a", PIXELS).shape == (100, 100, 3)


@pytest.mark.parametrize(("width", "height"), [(1, 5001), (5001, 1), (2**18 + 1, 64)])
def test_an_image_like_a_thread_is_refused_by_its_header(width, height):
    with pytest.raises(DataError, match=rf"^p\.png: {width} x {height} pixels"):
        upload_cost(png_header(width, height), "p.png", 10**9)


_PEAK = """
import sys
from pathlib import Path
from unispector.serving.decoding import uploads
def most():
    return int(next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x).split()[1])
data = Path(sys.argv[1]).read_bytes()
before = most()
for decode in (uploads.decode_image, uploads.decode_mask):
    decode(data, "a", 10**9)
print((most() - before) * 1024, uploads.upload_cost(data, "a", 10**9).peak_bytes)
"""


@pytest.mark.parametrize("kind", ["png", "alpha.png", "progressive.jpg", "turned6.jpg", "lzw.tif", "webp"])
def test_no_image_takes_more_memory_than_it_is_charged(kind, tmp_path):
    noise = Image.fromarray(
        np.kron(RNG.integers(0, 256, (80, 100, 3)), np.ones((30, 30, 1))).astype(np.uint8)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {
        "alpha.png": ("PNG", {}),
        "progressive.jpg": ("JPEG", {"progressive": True, "subsampling": 0}),
        "turned6.jpg": ("JPEG", {"exif": exif}),
        "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    }
    name, how = options.get(kind, (kind.upper(), {}))
    file = tmp_path / kind
    file.write_bytes(stored(noise.convert("RGBA") if kind == "alpha.png" else noise, name, **how))
    run = subprocess.run([sys.executable, "-c", _PEAK, file], capture_output=True, text=True, check=True)
    taken, charged = map(int, run.stdout.split())
    assert charged / 2 < taken <= charged


def test_other_formats_are_refused():
    gif = stored(Image.fromarray(RGB[:, :, 0]), "GIF")
    for data in (b"", b"%PDF-1.4", b"<svg/>", gif, stored(Image.fromarray(RGB), "PPM")):
        with pytest.raises(DataError, match=r"^a: not a readable PNG, JPEG, BMP, TIFF or WebP image$"):
            decode_image(data, "a", PIXELS)


def test_a_jpeg_of_endless_scans_is_refused():
    data = stored(Image.fromarray(RGB), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    with pytest.raises(DataError, match="scans"):
        decode_image(data[:-2] + scan * SCANS + b"\xff\xd9", "a", PIXELS)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("turned")])
def test_damage_is_refused_or_read_and_never_anything_else(kind):
    data = KINDS[kind]
    generator = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for place in generator.integers(0, min(len(data), 400), 4):
            broken[place] = generator.integers(256)
        broken = broken[: generator.integers(1, len(data) + 1)] if generator.random() < 0.3 else broken
        for decode in (decode_image, decode_mask):
            message = ""
            try:
                decode(bytes(broken), "a", PIXELS)
            except DataError as error:
                message = str(error)
            assert message == "" or (message.startswith("a: ") and "\n" not in message)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_cut_off_picture_is_refused():
    for kind in ("png", "progressive.jpg", "lzw.tif", "webp", "bmp"):
        with pytest.raises(DataError, match=r"^a: not a readable"):
            decode_image(KINDS[kind][: len(KINDS[kind]) // 2], "a", PIXELS)
