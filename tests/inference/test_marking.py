"""Marks on an image, in the frame of the network."""

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.errors import DataError
from unispector.inference.geometry import Geometry
from unispector.inference.marking import Prompt, mark
from unispector.ops.spectrum import crop_spectra

GEOMETRY = Geometry(image_size=80, bins=16, spectrum_empty="interp", spectrum_min_side=8)


def picture(height: int = 40, width: int = 160) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_box_lands_where_it_is_in_the_padded_frame() -> None:
    sample = mark(Prompt(picture(), boxes_xywh=[(40, 10, 80, 20)]), 3, GEOMETRY)  # x halves, y doubles
    expected = torch.zeros(96, 96, dtype=torch.bool)
    expected[20:60, 20:60] = True
    assert torch.equal(sample.roi_masks[0], expected)
    assert sample.image.shape == (3, 80, 80)
    assert sample.image.dtype == torch.uint8
    torch.testing.assert_close(sample.targets.boxes[0], torch.tensor([40, 40, 40, 40]) / 96)
    assert sample.targets.labels.tolist() == [3]
    assert sample.original_hw == (40, 160)


def test_the_spectrum_is_the_one_of_the_resized_crop() -> None:
    sample = mark(Prompt(picture(), boxes_xywh=[(40, 10, 80, 20), (0, 0, 8, 4)]), 0, GEOMETRY)
    boxes = torch.tensor([[20.0, 20, 60, 60], [0, 0, 4, 8]])
    torch.testing.assert_close(sample.spectra, crop_spectra(sample.image, boxes, 16, "interp", 8))
    torch.testing.assert_close(sample.spectra.norm(dim=1), torch.ones(2))


def test_a_mask_keeps_its_shape_and_brings_its_box() -> None:
    mask = np.zeros((40, 160), dtype=np.uint8)
    mask[10:20, 40:120] = 255
    mask[20:30, 40:60] = 255
    sample = mark(Prompt(picture(), masks=mask), 0, GEOMETRY)
    expected = torch.zeros(96, 96, dtype=torch.bool)
    expected[20:40, 20:60] = True
    expected[40:60, 20:30] = True
    assert torch.equal(sample.roi_masks[0], expected)
    torch.testing.assert_close(sample.targets.boxes[0], torch.tensor([40, 40, 40, 40]) / 96)


def test_a_mask_that_vanishes_in_resizing_becomes_its_box() -> None:
    big = np.zeros((800, 800, 3), dtype=np.uint8)
    masks = np.zeros((1, 800, 800), dtype=bool)
    masks[0, 404, 407] = True
    sample = mark(Prompt(big, masks=masks), 0, GEOMETRY)
    assert sample.roi_masks[0].nonzero().tolist() == [[40, 40]]


def test_a_box_over_the_edge_is_cut_there_and_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    inside = mark(Prompt(picture(), boxes_xywh=[(120, 30, 42, 10)]), 0, GEOMETRY)
    assert not caplog.messages
    over = mark(Prompt(picture(), boxes_xywh=[(120, 30, 60, 13)]), 0, GEOMETRY)
    assert torch.equal(inside.roi_masks, over.roi_masks)
    torch.testing.assert_close(inside.spectra, over.spectra)
    (message,) = caplog.messages
    assert "box 120,30,60,13 ends at 180,43, outside the image of 160x40 pixels, and is cut there" in message


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((170, 10, 20, 20), "box 170,10,20,20 has less than a pixel inside the image of 160x40 pixels"),
        ((10, -30, 20, 30.5), "less than a pixel inside"),
        ((120, 30, 400, 100), "box 120,30,400,100 has less than a tenth of its area inside"),
        ((10, 10, 0, 5), "box 10,10,0,5 must be left,top,width,height in pixels with a size above 0"),
        ((10, 10, 5, -1), "size above 0"),
        ((float("nan"), 10, 5, 5), "box nan,10,5,5 must be"),
        ((10, 10, float("inf"), 5), "size above 0"),
        ((10, 10, 5), "box 10,10,5 must be"),
    ],
)
def test_an_impossible_box_is_named_with_its_picture(tmp_path, box, problem):
    path = tmp_path / "part.png"
    Image.fromarray(picture()).save(path)
    with pytest.raises(DataError, match=problem) as caught:
        mark(Prompt(path, boxes_xywh=[box]), 0, GEOMETRY)
    assert str(path) in str(caught.value)


def test_impossible_masks_are_refused() -> None:
    with pytest.raises(DataError, match="its mask is 40x160 pixels, the image 160x40"):
        mark(Prompt(picture(), masks=np.ones((160, 40), dtype=bool)), 0, GEOMETRY)
    with pytest.raises(DataError, match="all black"):
        mark(Prompt(picture(), masks=np.zeros((40, 160), dtype=bool)), 0, GEOMETRY)


def test_a_prompt_needs_exactly_one_kind_of_mark() -> None:
    with pytest.raises(DataError, match="boxes or with masks"):
        mark(Prompt(picture()), 0, GEOMETRY)
    with pytest.raises(DataError, match="boxes or with masks"):
        mark(Prompt(picture(), boxes_xywh=[(1, 1, 5, 5)], masks=np.ones((40, 160), dtype=bool)), 0, GEOMETRY)


def test_a_box_that_is_not_in_a_list_is_refused() -> None:
    with pytest.raises(DataError, match="box 10 must be left,top,width,height"):
        mark(Prompt(picture(), boxes_xywh=(10, 10, 5, 5)), 0, GEOMETRY)  # type: ignore[arg-type]
