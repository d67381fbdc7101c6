"""Images of any kind become RGB of 8 bits, or are refused in one line."""

import io
import logging
import struct
import subprocess
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from live_service import tiled_tiff
from unispector.errors import DataError
from unispector.ops import images as module
from unispector.ops.files import decode_mask, read_image, read_image_size, read_mask
from unispector.ops.images import as_pixels, is_single, listed

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _told_anew() -> None:
    module._tell.cache_clear()


def refusal(image: object, **how: int) -> str:
    with pytest.raises(DataError) as caught:
        as_pixels(image, **how)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_arrays_of_every_shape() -> None:
    grey = RGB[..., 0]
    assert (as_pixels(RGB) == RGB).all()
    assert (as_pixels(np.dstack([RGB, grey])) == RGB).all()
    for image in (grey, grey[..., None]):
        assert (as_pixels(image) == grey[..., None].repeat(3, 2)).all()
    assert as_pixels(RGB[::2, ::-1]).flags.c_contiguous
    assert (as_pixels(grey.astype(">u2") * 256 + 255) == as_pixels(grey)).all()


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((4, 5)), r"float64 \(4, 5\); it must be uint8 or uint16; of floats 0 to 1: (image * 255)"),
        (np.zeros((4, 5, 3), bool), "bool (4, 5, 3); it must be uint8 or uint16"),
        (np.zeros((4, 5, 3), np.int64), "must be uint8 or uint16"),
        (np.zeros((3, 40, 50), np.uint8), "uint8 (3, 40, 50); it must be [h, w], [h, w, 1], RGB [h, w, 3]"),
        (np.zeros((2, 4, 5, 3), np.uint8), "give several images as a list"),
        (np.zeros((0, 5, 3), np.uint8), "(0, 5, 3); it must be"),
        (np.zeros(7, np.uint8), "(7,); it must be"),
        (torch.zeros(3, 4, 5), "a torch tensor is no image; give a NumPy array"),
        (None, "a NoneType is no image"),
        (b"a.png", "a bytes is no image"),
        (7, "a int is no image"),
    ],
)
def test_what_is_no_image_is_told(image: object, told: str) -> None:
    assert told.replace("\\", "") in refusal(image)


@pytest.mark.parametrize("depth", [7, 17, 0, -1])
def test_a_depth_out_of_range_is_told(depth: int) -> None:
    assert "give 8 to 16" in refusal(RGB, bit_depth=depth)


SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
DTYPES = st.one_of(
    arrays.unsigned_integer_dtypes(),
    arrays.integer_dtypes(),
    arrays.floating_dtypes(),
    arrays.boolean_dtypes(),
)


@given(arrays.arrays(DTYPES, SHAPES), st.integers(8, 16))
def test_any_array_becomes_rgb_or_a_data_error(array: np.ndarray, depth: int) -> None:
    fits = array.dtype.kind == "u" and array.dtype.itemsize <= 2 and array.size
    grey = array.ndim == 2 or array.shape[2:] == (1,)
    if fits and (grey or (array.ndim == 3 and array.shape[2] in (3, 4))):
        pixels = as_pixels(array, depth)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*array.shape[:2], 3)
        values = array.astype(np.float64).reshape(*array.shape[:2], -1)[..., :3]
        if array.dtype.itemsize == 2:
            values = np.floor(np.minimum(values, 2**depth - 1) / 2 ** (depth - 8))
        assert (pixels == values).all()
    else:
        refusal(array, bit_depth=depth)


MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "HSV",
    "LA",
    "PA",
    "RGBX",
    "La",
    "RGBa",
    "LAB",
    "I",
    "F",
)


@given(st.sampled_from((*MODES, "I;16", "I;16B", "I;16L")), st.integers(1, 5), st.integers(1, 5), st.data())
def test_any_mode_becomes_rgb_or_a_data_error(
    mode: str, width: int, height: int, data: st.DataObject
) -> None:
    blank = Image.new(mode, (width, height))
    raw = data.draw(st.binary(min_size=len(blank.tobytes()), max_size=len(blank.tobytes())))
    image = Image.frombytes(mode, (width, height), raw)
    before = image.tobytes()
    try:
        pixels = as_pixels(image)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both ends are right
        assert mode in ("F", "LAB", "I", "La", "RGBa")
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape == (height, width, 3)
        if mode in ("L", "RGB", "RGBA", "CMYK", "LA", "1", "P"):
            assert (pixels == np.asarray(image.convert("RGB"))).all()
    assert image.tobytes() == before


def test_a_pil_image_is_turned_and_stays_as_it_is() -> None:
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(data, "PNG", exif=exif)
    image = Image.open(data)
    assert (as_pixels(image) == np.rot90(RGB, 3)).all()
    assert image.size == (9, 6)
    assert (as_pixels(image) == np.rot90(RGB, 3)).all()


def test_a_broken_pil_image_is_told(tmp_path) -> None:
    Image.fromarray(RGB.repeat(40, 0).repeat(40, 1)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    assert "a.png: not a readable image" in refusal(Image.open(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_deep_colour_is_read_whole_and_upright(tmp_path, suffix: str, orientation: int, deep: bool) -> None:
    values = RNG.integers(0, 4096, (6, 9, 3)).astype(np.uint16)
    file = tmp_path / f"a.{suffix}"
    if deep:
        cv2.imwrite(str(file), values[..., ::-1])
        set_orientation(file, orientation)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray((values >> 4).astype(np.uint8)).save(file, exif=exif)
    turned = {1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1]}
    turned |= {k + 4: v.transpose(1, 0, 2) for k, v in turned.items()}
    # 5: transposed; 6: turned right; 7: transversed; 8: turned left
    expected = {**turned, 6: turned[5][:, ::-1], 7: turned[5][::-1, ::-1], 8: turned[5][::-1]}[orientation]
    assert (as_pixels(file, 12) == expected >> 4).all()
    if deep:
        assert (as_pixels(file) == expected >> 8).all()
        assert (as_pixels(file) == read_image(file)).all()
        assert "give the file's path" in refusal(Image.open(file), bit_depth=12)


def set_orientation(file, orientation: int) -> None:
    """Write an EXIF orientation into a PNG or TIFF of OpenCV."""
    data = file.read_bytes()
    if file.suffix == ".png":
        body = (
            b"eXIf" + b"II*\x00\x08\x00\x00\x00\x01\x00" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
        )
        body += b"\x00\x00\x00\x00"
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        file.write_bytes(data[:33] + chunk + data[33:])
        return
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    entries = [data[start + 2 + 12 * n :][:12] for n in range(count)]
    entries = [entry for entry in entries if entry[:2] != b"\x12\x01"]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    table = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + b"\0\0\0\0"
    place = len(data) + len(data) % 2
    file.write_bytes(data[:4] + struct.pack("<I", place) + data[8:].ljust(place - 8, b"\0") + table)


def test_deep_grey_with_alpha(tmp_path) -> None:
    values = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
    opaque = np.dstack([values] * 3 + [np.full((6, 9), 65535, np.uint16)])
    cv2.imwrite(str(tmp_path / "a.png"), opaque)
    assert (as_pixels(tmp_path / "a.png", 16) == (values >> 8)[..., None]).all()


@pytest.mark.parametrize("highest", [255, 1023, 4095, 16383])
@pytest.mark.parametrize("kind", ["grey.png", "grey.tiff", "colour.png", "array"])
def test_few_bits_in_a_file_of_16_are_told_once(tmp_path, caplog, highest: int, kind: str) -> None:
    values = np.zeros((4, 5), np.uint16)
    values[0, 0] = highest
    image = values if kind == "array" else tmp_path / kind
    if kind != "array":
        cv2.imwrite(str(image), np.dstack([values] * 3) if "colour" in kind else values)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            dark = as_pixels(image)
    bits = highest.bit_length()
    assert dark.max() == highest >> 8
    (message,) = caplog.messages
    assert f"values reach {highest} of 65535: looks like {bits}-bit data" in message
    assert f"--bit-depth {bits}" in message
    assert kind in message or "an image array" in message
    caplog.clear()
    assert as_pixels(image, bits).max() == 255
    assert not caplog.messages


def test_more_bits_than_stated_are_cut_and_told(caplog) -> None:
    values = np.array([[0, 4095, 4096, 65535]], np.uint16)
    assert as_pixels(values, 12)[0, :, 0].tolist() == [0, 255, 255, 255]
    assert "values reach 65535, more than 12 bits hold; they are cut off" in caplog.text


def test_full_and_black_images_of_16_bits_say_nothing(caplog) -> None:
    as_pixels(np.zeros((4, 5), np.uint16))
    as_pixels(np.full((4, 5), 20000, np.uint16))
    as_pixels(RGB)
    assert not caplog.messages


def test_32_bits_are_refused(tmp_path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "a.tiff")
    assert "a.tiff: 32-bit values from 0 to 70000; convert" in refusal(tmp_path / "a.tiff")
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "b.tiff")
    assert as_pixels(tmp_path / "b.tiff")[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_frame_counts(tmp_path, caplog, suffix: str) -> None:
    frames = [Image.new("RGB", (9, 6), colour) for colour in ("red", "lime", "blue")]
    how = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **how)
    for _ in range(2):
        assert (as_pixels(tmp_path / f"a.{suffix}") == (255, 0, 0)).all()
    (message,) = caplog.messages
    assert f"a.{suffix}: 3 frames; the first one is looked at" in message


@pytest.mark.parametrize("hw", [(1, 1), (10, 30000), (30000, 10)])
def test_odd_sizes_stay(tmp_path, hw: tuple[int, int]) -> None:
    Image.new("L", (hw[1], hw[0]), 7).save(tmp_path / "a.png")
    assert as_pixels(tmp_path / "a.png").shape == (*hw, 3)


def test_one_image_or_several() -> None:
    for one in ("a.png", b"a", RGB, torch.zeros(2), Image.fromarray(RGB), None):
        assert is_single(one)  # type: ignore[arg-type]
        assert list(listed(one)) == [one] or one is RGB or isinstance(one, torch.Tensor)  # type: ignore
    for several in (["a.png"], ("a", "b"), iter("ab"), {"a": 1}):
        assert not is_single(several)
        assert listed(several) is several


def test_a_format_that_would_start_a_program_is_no_image(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "own.eps")
    (tmp_path / "a.png").write_bytes((tmp_path / "own.eps").read_bytes())
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("Ghostscript was started"))
    for read in (as_pixels, read_image, read_mask, read_image_size):
        with pytest.raises(DataError, match=r"a\.png: not a readable image \(of no known format\)"):
            read(tmp_path / "a.png")


def test_a_tile_larger_than_its_image_is_paid_for(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(tiled_tiff(2**16, zlib.compress(bytes(2**10))))
    monkeypatch.setattr("unispector.ops.memory.free_bytes", lambda: 2**36)
    with pytest.raises(
        DataError, match=r"a\.tif: 4295 million pixels take 73728 MiB to decode, 65536 are free"
    ):
        read_image(tmp_path / "a.tif")


def test_a_file_that_pillow_stumbles_over_is_named(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(RGB)])
    whole, width = (tmp_path / "a.tif").read_bytes(), struct.pack("<HHII", 256, 4, 1, RGB.shape[1])
    assert whole.count(width) == 2  # pages
    first, _, last = whole.rpartition(width)
    (tmp_path / "a.tif").write_bytes(first + struct.pack("<HHII", 999, 4, 1, 9) + last)
    with pytest.raises(DataError, match=r"a\.tif: not a readable image \("):  # a TypeError of Pillow's
        as_pixels(tmp_path / "a.tif")


def test_a_mask_in_another_file_is_checked_as_an_image_is():
    data = zlib.compress(bytes(10))
    header = struct.pack(">IIBBBBB", 6000, 1, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(own)) + kind + own + struct.pack(">I", zlib.crc32(kind + own))
        for kind, own in parts
    )
    with pytest.raises(DataError, match=r"its mask: 6000 x 1 pixels; no side may be 5000 times the other"):
        decode_mask(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "its mask")
