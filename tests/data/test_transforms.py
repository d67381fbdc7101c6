import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.data.transforms import (
    Augmentation,
    ResizedImage,
    change_brightness,
    change_contrast,
    flip_horizontally,
    flip_vertically,
    pad_masks,
    random_window,
    resize_box,
    resize_image,
    resize_mask,
    turn,
    zoom_in,
)

SIZES = [(240, 606), (64, 64), (20, 31), (128, 64), (513, 500), (1, 1)]


def picture(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)


@pytest.mark.parametrize("hw", SIZES)
def test_resize_image_is_pillow_bilinear(hw):
    image = picture(*hw)
    expected = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    resized = resize_image(image, 64)
    assert resized.shape == (64, 64, 3)
    assert resized.dtype == np.uint8
    assert np.abs(resized.astype(int) - expected).max() <= 1


THREAD = """
import resource
import numpy as np
from PIL import Image
from unispector.data.transforms import resize_image

image = np.random.default_rng(0).integers(0, 256, (2_000_000, 1, 3), dtype=np.uint8)
image[:1_000_000] //= 2
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resized = resize_image(image, 448)
mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
expected = np.asarray(Image.fromarray(image).resize((1, 448), Image.Resampling.BILINEAR))
print(mebibytes, np.abs(resized.astype(int) - expected).max())
"""


def test_a_thread_of_an_image_takes_little_memory():
    done = subprocess.run([sys.executable, "-c", THREAD], capture_output=True, text=True, check=True)
    mebibytes, difference = map(float, done.stdout.split())
    assert mebibytes < 500  # 2,560 where the width comes first
    assert difference <= 1


def test_resize_image_takes_views_and_read_only_arrays():
    image = picture(30, 50)
    image.setflags(write=False)
    assert (resize_image(image[:, ::-1, ::-1], 16) == resize_image(image[:, ::-1, ::-1].copy(), 16)).all()


def test_resize_image_never_hands_out_its_input():
    image = picture(16, 16)
    resized = resize_image(image, 16)
    resized[:] = 0
    assert image.any()


@pytest.mark.parametrize("hw", SIZES)
def test_resize_mask_is_pillow_nearest(hw):
    mask = np.random.default_rng(1).random(hw) < 0.4
    expected = Image.fromarray(mask).resize((64, 64), Image.Resampling.NEAREST)
    assert (resize_mask(mask, 64) == np.asarray(expected)).all()


def test_resize_box_scales_each_axis_and_clips():
    assert resize_box((10, 20, 30, 40), (100, 200), 50) == (2.5, 10, 10, 30)
    assert resize_box((-1, 90, 202, 11), (100, 200), 50) == (0, 45, 50, 50)


def test_pad_masks_pads_right_and_below():
    masks = torch.ones(2, 5, 5, dtype=torch.bool)
    padded = pad_masks(masks, 8)
    assert padded.shape == (2, 8, 8)
    assert padded.dtype == torch.bool
    assert padded[:, :5, :5].all()
    assert padded.sum() == masks.sum()
    assert pad_masks(masks[:0], 8).shape == (0, 8, 8)


def tight_boxes(masks):
    rows, columns = [[np.flatnonzero(mask.any(axis=axis)) for mask in masks] for axis in (1, 0)]
    return np.array(
        [(c[0], r[0], c[-1] + 1, r[-1] + 1) for r, c in zip(rows, columns, strict=True)], dtype=np.float32
    )


@pytest.fixture
def scene():
    masks = np.zeros((2, 16, 16), dtype=np.bool_)
    masks[0, 2:5, 3:11] = True
    masks[0, 5, 10] = True
    masks[1, 8:15, 0:4] = True
    image = picture(16, 16)
    image[masks[0]] = (255, 0, 0)
    return ResizedImage(image, masks, tight_boxes(masks), np.arange(len(masks)))


def same(a, b):
    arrays = zip(vars(a).values(), vars(b).values(), strict=True)
    return all(np.array_equal(one, other) for one, other in arrays)


@pytest.mark.parametrize(
    "change", [flip_horizontally, flip_vertically, *(lambda s, k=k: turn(s, k) for k in range(4))]
)
def test_image_masks_and_boxes_move_together(scene, change):
    moved = change(scene)
    assert (moved.boxes_xyxy == tight_boxes(moved.masks)).all()
    assert (moved.image[moved.masks[0]] == (255, 0, 0)).all()
    assert (moved.image == (255, 0, 0)).all(axis=2).sum() == scene.masks[0].sum()


def test_flips_undo_themselves_and_four_turns_too(scene):
    for flip in (flip_horizontally, flip_vertically):
        assert not same(flip(scene), scene)
        assert same(flip(flip(scene)), scene)
    assert same(turn(turn(scene, 1), 3), scene)
    assert same(turn(scene, 2), flip_horizontally(flip_vertically(scene)))
    assert not same(turn(scene, 1), scene)


def test_flips_without_instances():
    none = np.zeros(0, dtype=np.intp)
    empty = ResizedImage(
        picture(8, 8), np.zeros((0, 8, 8), dtype=np.bool_), np.zeros((0, 4), dtype=np.float32), none
    )
    for changed in (flip_horizontally(empty), flip_vertically(empty), turn(empty, 1)):
        assert changed.boxes_xyxy.shape == (0, 4)
        assert changed.masks.shape == (0, 8, 8)


def test_a_zoom_moves_masks_and_boxes_with_the_image(scene):
    zoomed = zoom_in(scene, (2, 1, 10, 9))  # twice as large
    assert zoomed.image.shape == (16, 16, 3)
    assert zoomed.kept.tolist() == [0]  # of instance 1 there is 1 row in 7 left
    # Columns 3..9 of 3..10 are left, without the odd pixel's row at column 10.
    assert zoomed.boxes_xyxy.tolist() == [[2, 2, 16, 8]]
    expected = scene.masks[0, 1:9, 2:10].repeat(2, axis=0).repeat(2, axis=1)
    assert (zoomed.masks[0] == expected).all()


def test_a_zoom_onto_the_whole_picture_changes_nothing(scene):
    assert same(zoom_in(scene, (0, 0, 16, 16)), scene)


def test_windows_hold_the_middle_of_an_instance_and_lie_inside(scene):
    rng = np.random.default_rng(0)
    middles = (scene.boxes_xyxy[:, :2] + scene.boxes_xyxy[:, 2:]) / 2
    sides = []
    for _ in range(200):
        x0, y0, x1, y1 = random_window(scene, 4.0, rng)
        assert 0 <= x0 < x1 <= 16
        assert 0 <= y0 < y1 <= 16
        inside = (middles >= (x0 - 0.5, y0 - 0.5)) & (middles <= (x1 + 0.5, y1 + 0.5))
        assert inside.all(axis=1).any()
        assert len(zoom_in(scene, (x0, y0, x1, y1)).kept) > 0
        sides += [x1 - x0, y1 - y0]
    assert min(sides) == 4
    assert max(sides) == 16


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.0, 1.3])
def test_brightness_multiplies_clips_and_truncates(factor):
    image = picture(9, 7)
    expected = np.minimum(image.astype(np.float64) * factor, 255).astype(np.uint8)
    assert (change_brightness(image, factor) == expected).all()


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.0, 1.1])
def test_contrast_keeps_the_mean_grey(factor):
    image = picture(9, 7)
    mean = image.astype(np.float64).mean()
    expected = (mean + factor * (image - mean)).clip(0, 255).astype(np.uint8)
    assert np.abs(change_contrast(image, factor).astype(int) - expected).max() <= (0 if factor < 1 else 1)


def augmentation(**changes):
    return replace(Augmentation(0.0, 0.0, False, (1.0, 1.0), (1.0, 1.0)), **changes)


def test_augmentation_without_changes_is_the_identity(scene):
    assert same(augmentation()(scene, np.random.default_rng(0)), scene)


def test_augmentation_with_certain_flips(scene):
    for name, flip in (("horizontal_flip", flip_horizontally), ("vertical_flip", flip_vertically)):
        assert same(augmentation(**{name: 1.0})(scene, np.random.default_rng(0)), flip(scene))


def test_augmentation_changes_brightness_before_contrast(scene):
    changed = augmentation(brightness=(1.3, 1.3), contrast=(0.8, 0.8))(scene, np.random.default_rng(0))
    assert (changed.image == change_contrast(change_brightness(scene.image, 1.3), 0.8)).all()
    assert (changed.image != change_brightness(change_contrast(scene.image, 0.8), 1.3)).any()


def test_augmentation_depends_on_the_generator_only(scene):
    change = augmentation(
        horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=True, brightness=(0.5, 1.3), contrast=(0.8, 1.1)
    )
    assert same(change(scene, np.random.default_rng(3)), change(scene, np.random.default_rng(3)))
    turned = {change(scene, np.random.default_rng(seed)).masks.tobytes() for seed in range(60)}
    assert len(turned) == 8
