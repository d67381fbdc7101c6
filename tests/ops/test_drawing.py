"""What is drawn is where it belongs, in its colour, at a size people can read."""

import cv2
import numpy as np
import pytest
import torch

from unispector.detections import Detections
from unispector.errors import DataError
from unispector.ops.drawing import (
    PALETTE,
    Panel,
    Region,
    class_colour,
    draw_regions,
    in_columns,
    side_by_side,
    write_image,
)
from unispector.ops.rle import encode_rle


def grey(height, width):
    return np.full((height, width, 3), 100, dtype=np.uint8)


def detections(height=128, width=256):
    masks = np.zeros((2, height, width), dtype=bool)
    masks[0, 40:60, 100:140] = True
    masks[1, 80:100, 20:60] = True
    return Detections(
        boxes_xyxy=torch.tensor([[100.0, 40, 140, 60], [20, 80, 60, 100]]),
        scores=torch.tensor([0.9, 0.6]),
        labels=torch.tensor([1, 0]),
        masks_rle=tuple(encode_rle(masks)),
        class_names=("crack", "hole"),
        image_hw=(height, width),
    )


def share_of_colour(pixels, colour):
    """How far pixels lie on the way from the grey ground to a colour."""
    way = np.array(colour) - 100.0
    return (pixels.astype(float) - 100).mean(axis=(0, 1)) @ way / np.sum(way**2)


def test_masks_are_tinted_with_their_class_and_nothing_else_is():
    drawn = detections().plot(grey(128, 256))
    assert drawn.shape == (512, 1024, 3)
    assert share_of_colour(drawn[180:220, 420:540], PALETTE[1]) == pytest.approx(0.38, abs=0.02)
    assert share_of_colour(drawn[340:380, 100:220], PALETTE[0]) == pytest.approx(0.38, abs=0.02)
    assert (drawn[440:, 600:] == 100).all()


def test_box_line_lies_on_the_scaled_box():
    drawn = draw_regions(grey(256, 256), [Region((50, 60, 150, 200), None, "", (255, 0, 0))])
    red = (drawn[:, :, 0] > 200) & (drawn[:, :, 1] < 60)
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max()) == pytest.approx((120, 400), abs=4)
    assert (columns.min(), columns.max()) == pytest.approx((100, 300), abs=4)
    assert not red[130:390, 110:290].any()


@pytest.mark.parametrize("line", [2, 6])
def test_a_line_of_any_width_leaves_the_region_free(line):
    drawn = draw_regions(grey(512, 512), [Region((100, 100, 300, 200), None, "", (255, 0, 0), line)])
    assert (drawn[102:198, 102:298] == 100).all()
    assert (drawn[150, 80:100, 0] > 200).sum() == pytest.approx(line, abs=1)


@pytest.mark.parametrize("line", [2, 6])
def test_a_line_around_the_whole_picture_is_seen_on_all_sides(line):
    drawn = draw_regions(grey(512, 512), [Region((0, 0, 512, 512), None, "", (255, 0, 0), line)])
    red = (drawn[..., 0] > 200) & (drawn[..., 1] < 60)
    for side in (red[:8, 256], red[-8:, 256], red[256, :8], red[256, -8:]):
        assert side.sum() >= line


@pytest.mark.parametrize(
    ("size", "shown"),
    [((256, 256), (512, 512)), ((64, 64), (512, 512)), ((600, 900), (600, 900)), ((100, 1000), (128, 1280))],
)
def test_small_images_grow_and_large_ones_shrink(size, shown):
    assert draw_regions(grey(*size), []).shape[:2] == shown
    assert draw_regions(grey(4000, 3000), []).shape[:2] == (1280, 960)


def test_the_picture_given_is_not_changed():
    image = grey(600, 600)
    detections(600, 600).plot(image)
    assert (image == 100).all()


def test_best_detection_is_drawn_last():
    assert [region.caption for region in detections().regions()] == ["crack 0.60", "hole 0.90"]


def test_labels_do_not_cover_each_other():
    boxes = [(100.0, 100.0, 160.0, 150.0), (104.0, 102.0, 164.0, 152.0)]
    regions = [Region(box, None, "scratch 0.50", PALETTE[n]) for n, box in enumerate(boxes)]
    both = draw_regions(grey(512, 512), regions)
    alone = [draw_regions(grey(512, 512), [region]) for region in regions]

    def plate(image, colour):
        return (image == np.array(colour)).all(axis=2).sum()

    for image, colour in zip(alone, PALETTE, strict=False):
        assert plate(both, colour) > 0.8 * plate(image, colour)


def test_any_caption_stays_inside_the_picture():
    long = "a very long class name that is wider than the image itself " * 3
    for box, caption in (((0, 0, 5, 5), long), ((500, 500, 512, 512), "裂纹 0.50")):
        assert draw_regions(grey(512, 512), [Region(box, None, caption, (200, 9, 9))]).shape == (512, 512, 3)


def test_detections_of_another_image_are_refused():
    with pytest.raises(DataError, match="image"):
        detections().plot(grey(64, 64))


def test_panels_of_any_size_share_a_height():
    shapes = {"Prompt": (512, 512), "Ground truth": (512, 1024), "P": (640, 640)}
    panels = [Panel(grey(*shape), title, "crack") for title, shape in shapes.items()]
    sheet = side_by_side(panels, "caption " * 200)
    assert sheet.shape[1] == 512 + 1024 + 512 + 4 * 16
    for left in (16, 16 + 512 + 16, 16 + 512 + 16 + 1024 + 16):
        assert (sheet[60:560, left : left + 500] == 100).all()
    assert (sheet[:, :16] == sheet[0, 0]).all()


def test_images_stand_in_columns_whatever_their_shapes():
    red, blue = (200, 0, 0), (0, 0, 200)
    sheet = in_columns(
        [("Prompt", red), ("Found", blue)],
        [((np.full((40, 400, 3), red, np.uint8), np.full((900, 30, 3), blue, np.uint8)), "wide, narrow")] * 3,
    )
    across = [np.flatnonzero((sheet == colour).all(axis=2).any(axis=0)) for colour in (red, blue)]
    assert across[0].max() < across[1].min()
    rows = (sheet[60:] == red).all(axis=2).sum(axis=1)
    assert rows.max() == 360  # the whole width of its column
    assert np.count_nonzero(np.diff((rows > 300).astype(int)) == 1) == 3  # once a row


def test_colours_are_distinct_and_repeat():
    assert len(set(PALETTE)) == len(PALETTE)
    assert class_colour(len(PALETTE) + 1) == class_colour(1)


def test_written_pictures_keep_their_colours(tmp_path):
    image = np.zeros((20, 30, 3), dtype=np.uint8)
    image[:, :, 0] = 200
    for name in ("a.png", "b.jpg"):
        write_image(tmp_path / "deep" / name, image)
        back = cv2.imread(str(tmp_path / "deep" / name))[:, :, ::-1]
        assert np.abs(back.astype(int) - image).max() <= 6
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["a.png", "b.jpg"]
    with pytest.raises(DataError, match="gif"):
        write_image(tmp_path / "c.gif", image)


def test_a_caption_that_is_no_utf_8_is_drawn_with_a_question_mark():
    odd, plain = (
        draw_regions(grey(256, 256), [Region((50, 60, 150, 200), None, caption, (255, 0, 0))])
        for caption in ("Geh\udce4use", "Geh?use")
    )
    assert (odd == plain).all()
