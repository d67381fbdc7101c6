import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.ops.spectrum import crop_spectra, radial_spectrum


def literal(grey, bins):
    """Algorithm 1 as it is printed: full FFT, one pass over all coefficients per bin."""
    h, w = grey.shape
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(grey.astype(np.float64))))
    distance = [[math.hypot(x - w // 2, y - h // 2) for x in range(w)] for y in range(h)]
    largest = max(max(row) for row in distance)
    spectrum = np.zeros(bins)
    for j in range(bins):
        inside = [
            magnitude[y, x]
            for y in range(h)
            for x in range(w)
            if min(math.floor(distance[y][x] / max(largest, 1.0) * bins), bins - 1) == j
        ]
        spectrum[j] = np.mean(inside) if inside else 0.0
    return spectrum / max(np.linalg.norm(spectrum), 1e-12)


def noise(h, w, seed=0):
    return np.random.default_rng(seed).random((h, w)).astype(np.float32)


@pytest.mark.parametrize("bins", [2, 7, 32])
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (1, 9), (8, 1), (2, 2), (3, 2), (5, 5), (16, 16), (13, 22), (31, 17)]
)
def test_equals_algorithm_1_literally(shape, bins):
    grey = noise(*shape)
    spectrum = radial_spectrum(grey, bins, "zero")
    assert spectrum.dtype == torch.float32
    assert spectrum.numpy() == pytest.approx(literal(grey, bins), abs=3e-7)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(2, 300), st.sampled_from(["zero", "interp"]))
@settings(deadline=None, max_examples=60)
def test_is_finite_not_negative_and_of_unit_norm(h, w, bins, empty):
    spectrum = radial_spectrum(noise(h, w) + 0.01, bins, empty)
    assert spectrum.shape == (bins,)
    assert (spectrum >= 0).all()
    assert spectrum.norm().item() == pytest.approx(1, abs=1e-5)


def test_interpolation_only_fills_empty_rings():
    grey = noise(16, 16)
    zero, interp = (radial_spectrum(grey, 256, empty).numpy() for empty in ("zero", "interp"))
    filled = np.flatnonzero(zero)
    assert len(filled) == 256 - 214
    scale = zero[filled] / interp[filled]
    assert scale == pytest.approx(np.full(len(filled), scale[0]), rel=1e-4)
    expected = np.interp(np.arange(1, 256), filled[1:], interp[filled[1:]])
    assert interp[1:] == pytest.approx(expected, abs=1e-6)
    assert (interp > 0).all()


@pytest.mark.parametrize("empty", ["zero", "interp"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (16, 16), (33, 20), (300, 300)])
def test_white_is_the_first_unit_vector(shape, empty):
    spectrum = radial_spectrum(np.ones(shape, dtype=np.float32), 256, empty)
    assert spectrum[0].item() == pytest.approx(1, abs=1e-6)
    assert spectrum[1:].abs().max() < 1e-5


def test_black_is_zero():
    assert (radial_spectrum(np.zeros((9, 12), dtype=np.float32), 16) == 0).all()


@pytest.mark.parametrize("cycles", [4, 9, 16, 31])
def test_grating_peaks_in_its_ring(cycles):
    side, bins = 128, 64
    wave = 0.5 + 0.4 * np.cos(2 * np.pi * cycles * np.arange(side) / side)
    grey = np.broadcast_to(wave, (side, side)).astype(np.float32)
    for turned in (grey, grey.T):
        spectrum = radial_spectrum(np.ascontiguousarray(turned), bins)
        assert int(spectrum[1:].argmax()) + 1 == math.floor(bins * cycles / (side / math.sqrt(2)))


def test_brightness_cancels():
    grey = noise(30, 41)
    assert radial_spectrum(grey * 0.5, 64).numpy() == pytest.approx(
        radial_spectrum(grey, 64).numpy(), abs=1e-6
    )


@pytest.mark.parametrize("side", [15, 16, 64])
def test_quarter_turns_and_flips_change_nothing_on_a_square(side):
    grey = noise(side, side)
    expected = radial_spectrum(grey, 64).numpy()
    for changed in (np.rot90(grey), np.rot90(grey, 2), grey[::-1], grey[:, ::-1]):
        assert radial_spectrum(changed.copy(), 64).numpy() == pytest.approx(expected, abs=1e-6)


def plane_waves(side, angle, frequency, seed=0):
    """A texture of 200 random waves about `frequency` (cycles a pixel), turned by `angle`."""
    rng = np.random.default_rng(seed)
    direction = rng.uniform(0, 2 * np.pi, 200) + angle
    k = 2 * np.pi * frequency * rng.uniform(0.8, 1.2, 200)
    y, x = np.mgrid[:side, :side][..., None] - (side - 1) / 2
    waves = np.cos(k * (x * np.cos(direction) + y * np.sin(direction)) + rng.uniform(0, 2 * np.pi, 200))
    return (0.5 + waves.sum(axis=2) / 80).astype(np.float32)


def test_turning_a_texture_by_45_degrees_changes_little_another_scale_much():
    def shape_of(grey):
        spectrum = radial_spectrum(grey, 32)[1:]
        return spectrum / spectrum.norm()

    straight = shape_of(plane_waves(96, 0, 0.15))
    assert straight @ shape_of(plane_waves(96, np.pi / 4, 0.15)) > 0.98
    assert straight @ shape_of(plane_waves(96, 0, 0.3)) < 0.7


@pytest.fixture
def image():
    return torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_crop_is_grey_and_covers_the_touched_pixels(image):
    spectra = crop_spectra(image, torch.tensor([[3.2, 10.0, 30.5, 40.1]]), 32, "zero", 1)
    red, green, blue = image.double().numpy() / 255
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    assert spectra.shape == (1, 32)
    assert spectra[0].numpy() == pytest.approx(literal(grey[10:41, 3:31], 32), abs=1e-6)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([30, 30, 31, 31], (22, 39), (22, 39)),
        ([30, 10, 32, 40], (10, 40), (23, 39)),
        ([0, 0, 2, 2], (0, 16), (0, 16)),
        ([62, 61.5, 64, 64], (47, 64), (48, 64)),
        ([-5, -5, 80, 80], (0, 64), (0, 64)),
    ],
)
def test_small_crops_grow_to_min_side_inside_the_image(image, box, rows, columns):
    spectra = crop_spectra(image, torch.tensor([box], dtype=torch.float32), 24, "zero", 16)
    grey = (
        torch.einsum("chw,c->hw", image.double(), torch.tensor([0.299, 0.587, 0.114]).double()).numpy() / 255
    )
    expected = literal(grey[rows[0] : rows[1], columns[0] : columns[1]], 24)
    assert spectra[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_min_side_beyond_the_image_takes_all_of_it(image):
    small, whole = crop_spectra(image, torch.tensor([[5.0, 5, 8, 8], [0, 0, 64, 64]]), 16, "interp", 100)
    assert (small == whole).all()


@given(st.floats(0, 60), st.floats(0, 60), st.floats(0.5, 30), st.floats(0.5, 30))
@settings(deadline=None, max_examples=40)
def test_flipped_image_has_the_same_spectra(x, y, w, h):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    x0, y0, x1, y1 = (round(4 * value) / 4 for value in (x, y, min(x + w, 64), min(y + h, 64)))
    spectrum = crop_spectra(image, torch.tensor([[x0, y0, x1, y1]]), 32)
    mirrored = crop_spectra(image.flip(2), torch.tensor([[64 - x1, y0, 64 - x0, y1]]), 32)
    assert mirrored.numpy() == pytest.approx(spectrum.numpy(), abs=1e-5)


def test_no_boxes_give_no_rows(image):
    assert crop_spectra(image, torch.zeros(0, 4), 32).shape == (0, 32)


def test_what_is_kept_of_crop_sizes_is_bounded_in_bytes():
    from unispector.ops import spectrum

    held = spectrum._rings.cache  # type: ignore[attr-defined]
    for side in range(1000, 1080):
        spectrum._rings(side, side, 64)
    assert 0 < sum(rings.bins.nbytes for rings in held.values()) <= spectrum.HELD_BYTES
    held.clear()
