"""What a mask image marks: not the noise of compression; soft edges, classes and what transparency shows."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from unispector.errors import DataError
from unispector.ops.files import decode_mask, read_class_mask, read_mask
from unispector.ops.mask_values import mask_values
from unispector.serving.decoding import uploads

SIZE = (200, 120)
Array = npt.NDArray[np.uint8]


def drawn(kind: str) -> Image.Image:
    mask = Image.new("L", SIZE)
    draw = ImageDraw.Draw(mask)
    if kind == "ellipse":
        draw.ellipse([60, 30, 99, 49], fill=255)
    elif kind == "large":
        draw.ellipse([10, 10, 190, 110], fill=255)
    elif kind == "line":
        draw.line([20, 20, 180, 100], fill=255, width=3)
    else:
        for corner in ((13, 17), (50, 90), (121, 33)):
            draw.rectangle([*corner, corner[0] + 6, corner[1] + 4], fill=255)
    return mask


def compressed(mask: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    mask.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


MASK = np.asarray(drawn("ellipse")) > 0


def marked(image: Image.Image) -> npt.NDArray[np.bool_]:
    return mask_values(image, "mask") > 0


@pytest.mark.parametrize("kind", ["ellipse", "large", "line", "blocks"])
@pytest.mark.parametrize("quality", [30, 40, 60, 75, 90, 95])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_the_noise_of_compression_is_cut_off(kind, quality, mode):
    mask = drawn(kind)
    noisy = compressed(mask.convert("RGB" if mode.startswith("RGB") else "L"), quality)
    assert np.count_nonzero(np.asarray(noisy.convert("L"))) > 1.02 * np.count_nonzero(np.asarray(mask))
    if mode == "I;16":
        noisy = Image.fromarray(np.asarray(noisy).astype(np.uint16) * 200)
    found = marked(noisy.convert(mode))
    assert np.array_equal(found, np.asarray(mask) > 0)


def test_the_noise_of_compression_is_cut_off_at_every_door(tmp_path):
    noisy = compressed(drawn("ellipse").convert("RGB"), 40).convert("RGB")
    noisy.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for found in (
        read_mask(tmp_path / "a.png"),
        decode_mask(data, "a"),
        uploads.decode_mask(data, "a", 10**6),
    ):
        assert np.array_equal(found > 0, MASK)


@pytest.mark.parametrize("blur", [1, 3, 8])
def test_soft_edges_belong_to_the_mask(blur):
    soft = drawn("ellipse").filter(ImageFilter.GaussianBlur(blur))
    assert np.array_equal(mask_values(soft, "mask"), np.asarray(soft))


def test_thin_lines_with_soft_edges_stay_whole():
    fine = Image.new("L", (800, 480))
    ImageDraw.Draw(fine).line([80, 80, 720, 400], fill=255, width=4)
    line = fine.resize(SIZE, Image.Resampling.BOX)
    assert np.array_equal(mask_values(line, "mask"), np.asarray(line))


@example([1, 2, 3, 0, 0, 150, 160, 182], 8, False)  # classes of COCO, as far apart as black and white
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=60),
    st.integers(4, 9),
    st.booleans(),
)
def test_classes_stay_as_they_are(values, side, deep):
    rows = np.resize(np.array(values, np.uint8), (6, 10))
    classes = np.kron(rows, np.ones((side, side), np.uint8))
    image = Image.fromarray(classes.astype(np.uint16)) if deep else Image.fromarray(classes)
    assert np.array_equal(mask_values(image, "mask"), classes)


def test_classes_with_a_border_of_255_stay_as_they_are(tmp_path):
    classes = np.kron(np.arange(20, dtype=np.uint8).reshape(4, 5), np.ones((9, 9), np.uint8))
    classes[::9] = 255
    Image.fromarray(classes).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), classes)
    assert np.array_equal(read_class_mask(tmp_path / "a.png"), classes)


def test_noise_in_a_class_mask_is_not_touched(tmp_path):
    noisy = np.asarray(compressed(drawn("ellipse"), 75))
    Image.fromarray(noisy).save(tmp_path / "a.png")
    assert np.array_equal(read_class_mask(tmp_path / "a.png"), noisy)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [(1.0, 0.0), (0.5, 0.0), (0.003, 0.0), (0.51, 0.49), (0.9, 0.2), (255.0, 0.0), (300.5, 0.0)],
)
def test_floats(inside, outside):
    values = np.where(MASK, inside, outside).astype(np.float32)
    assert np.array_equal(marked(Image.fromarray(values)), MASK)


def test_floats_of_several_levels_are_cut_at_the_middle():
    values = np.where(MASK, 0.9, 0.1).astype(np.float32)
    values[0, 0], values[1, 1] = np.nan, 0.3
    assert np.array_equal(marked(Image.fromarray(values)), MASK)
    assert not marked(Image.fromarray((values * 0.4).astype(np.float32))).any()


PHOTO = np.random.default_rng(4).integers(1, 256, (*SIZE[::-1], 3), dtype=np.uint8)


def layered(colours: Array | int, alpha: Array) -> Image.Image:
    pixels = np.empty((*SIZE[::-1], 4), np.uint8)
    pixels[..., :3] = colours
    pixels[..., 3] = alpha
    return Image.fromarray(pixels)


@pytest.mark.parametrize("levels", [(255, 0), (255, 1), (255, 128), (200, 30)])
@pytest.mark.parametrize("colours", [PHOTO, 0, 255, 90], ids=["photo", "black", "white", "grey"])
def test_an_opacity_that_varies_is_the_mask(levels, colours):
    alpha = np.where(MASK, *levels).astype(np.uint8)
    assert np.array_equal(marked(layered(colours, alpha)), MASK)


def test_a_cut_out_keeps_its_black_pixels():
    dark = PHOTO.copy()
    dark[35:38, 70:75] = 0
    alpha = np.where(MASK, 255, 0).astype(np.uint8)
    assert np.array_equal(marked(layered(dark, alpha)), MASK)


def test_what_is_drawn_see_through_on_black_is_the_mask():
    red = np.zeros((*SIZE[::-1], 3), np.uint8)
    red[MASK, 0] = 255
    assert np.array_equal(marked(layered(red, np.where(MASK, 128, 255).astype(np.uint8))), MASK)


def test_an_opacity_that_does_not_vary_is_none():
    white = np.repeat((MASK * 255).astype(np.uint8)[..., None], 3, axis=2)
    for level in (255, 128):
        assert np.array_equal(marked(layered(white, np.full(MASK.shape, level, np.uint8))), MASK)
    assert not marked(layered(white, np.zeros(MASK.shape, np.uint8))).any()


def test_colours_and_opacity_that_contradict_each_other_are_refused(tmp_path):
    white = np.repeat((MASK * 255).astype(np.uint8)[..., None], 3, axis=2)
    frame = np.full(MASK.shape, 255, np.uint8)
    frame[:, :20] = 0  # a margin, as turning the picture leaves it
    layered(white, frame).save(tmp_path / "a.png")
    for read in (read_mask, read_class_mask):
        with pytest.raises(
            DataError, match=r"a\.png: its transparency and its colours mark different .*; save"
        ):
            read(tmp_path / "a.png")
