from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.target_changes import (
    GEOMETRIC,
    LEVELS,
    UNITS,
    TargetChange,
    change_annotations,
    change_image,
)
from unispector.errors import DataError
from unispector.ops.rle import decode_rle, encode_rle

KINDS = get_args(TargetChange)
MOVES = sorted(GEOMETRIC)
SIZES = [(120, 200), (151, 111), (130, 130)]


def scene(h=120, w=200, seed=0):
    """Smooth colours and a little grain, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (6, 8, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    return (smooth + rng.normal(0, 4, (h, w, 3))).clip(0, 255).astype(np.uint8)


def ramp(h, w):
    """Lighter from pixel to pixel along both sides, so that a pixel differs the more the farther it moves."""
    rows, columns = np.mgrid[:h, :w]
    return np.repeat((100 * rows / h + 150 * columns / w)[:, :, None], 3, axis=2).astype(np.uint8)


def changed(image, kind, severity, seed=0):
    return change_image(image, kind, severity, np.random.default_rng(seed))


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_every_kind_has_five_levels_and_a_unit():
    assert LEVELS.keys() == UNITS.keys() == set(KINDS)
    for levels in LEVELS.values():
        assert len(levels) == 5
        assert list(levels) in (sorted(set(levels)), sorted(set(levels), reverse=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hw", [*SIZES, (1, 1), (3, 50)])
def test_size_and_type_stay_and_nothing_is_written_into_the_picture(kind, hw):
    image = scene(*hw)
    image.setflags(write=False)
    assert (changed(image, kind, 0) == image).all()
    for severity in range(1, 6):
        result = changed(image, kind, severity)
        assert (result.shape, result.dtype) == (image.shape, np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hw", [(200, 400), (302, 222), (260, 260)])
def test_each_severity_changes_more(kind, hw):
    image = ramp(*hw) if kind in GEOMETRIC else scene(*hw)
    likeness = [psnr(image, changed(image, kind, severity)) for severity in range(1, 6)]
    assert likeness == sorted(likeness, reverse=True)
    assert len(set(likeness)) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_equal_chance_gives_equal_pictures(kind):
    image = scene()
    assert (changed(image, kind, 3, seed=7) == changed(image, kind, 3, seed=7)).all()
    differs = (changed(image, kind, 3, seed=7) != changed(image, kind, 3, seed=8)).any()
    assert differs == (kind == "noise")


@pytest.mark.parametrize("kind", KINDS)
def test_grey_stays_grey(kind):
    image = np.repeat(scene()[:, :, :1], 3, axis=2)
    result = changed(image, kind, 4).astype(int)
    assert np.ptp(result, axis=2).max() <= 1


def test_blur_goes_with_the_shorter_side():
    # An edge's slope is that of the Gaussian's integral: 255 / (sigma * sqrt(2 pi)).
    for width, sigma in ((300, 3.0), (100, 1.0)):
        image = np.zeros((400, width, 3), dtype=np.uint8)
        image[:, width // 2 :] = 255
        slope = np.diff(changed(image, "blur", 4)[200, :, 0].astype(float)).max()
        assert LEVELS["blur"][3] == 1.0
        # Between two pixels the slope is averaged over one.
        assert slope == pytest.approx(255 / (sigma * np.sqrt(2 * np.pi)), rel=0.06)


@pytest.mark.parametrize("severity", range(1, 6))
def test_noise_has_its_deviation(severity):
    image = np.full((200, 200, 3), 128, dtype=np.uint8)
    noise = changed(image, "noise", severity).astype(float) - image
    assert noise[:, :, 0].std() == pytest.approx(LEVELS["noise"][severity - 1], rel=0.03)
    assert noise.mean() == pytest.approx(0, abs=0.02 * LEVELS["noise"][severity - 1])


@pytest.mark.parametrize("severity", range(1, 6))
def test_light_is_scaled(severity):
    image = np.full((20, 30, 3), 100, dtype=np.uint8)
    image[:10] = 200
    factor = LEVELS["brightness"][severity - 1]
    assert (np.unique(changed(image, "brightness", severity)) == np.unique(image) * factor // 1).all()
    darkest, brightest = np.unique(changed(image, "contrast", severity)).astype(float)
    assert darkest == pytest.approx(150 - 50 * LEVELS["contrast"][severity - 1], abs=1)
    assert brightest == pytest.approx(150 + 50 * LEVELS["contrast"][severity - 1], abs=1)


def test_jpeg_keeps_colours_in_order():
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:] = (200, 80, 20)
    assert np.abs(changed(image, "jpeg", 1).astype(int) - image).max() <= 3


def moved_by(kind, severity, h, w):
    """Where a pixel's centre goes, written out: turn and shrink about the middle of the image."""
    level = LEVELS[kind][severity - 1]
    angle, factor = (np.deg2rad(level), 1) if kind == "rotation" else (0, level)
    turn = factor * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = np.array([w / 2, h / 2])
    return lambda xy: (np.asarray(xy) - middle) @ turn.T + middle


def truth(hw, masks=(), boxes=()):
    h, w = hw
    known = [((0.0, 0.0, 1.0, 1.0), float(mask.sum()), encode_rle(mask[None])[0]) for mask in masks]
    known += [(box, box[2] * box[3], None) for box in boxes]
    instances = tuple(InstanceRecord(number, 7, 1, *of) for number, of in enumerate(known, start=1))
    return Annotations((ImageRecord(7, "a.png", w, h),), instances, (CategoryRecord(1, "dent", "part"),))


def blob(h, w, x, y, radius):
    rows, columns = np.mgrid[:h, :w] + 0.5
    return ((columns - x) / radius) ** 2 + ((rows - y) / (1.6 * radius)) ** 2 < 1


def tight(mask):
    rows, columns = np.nonzero(mask)
    return (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("hw", SIZES)
def test_picture_and_mask_move_together(kind, severity, hw):
    h, w = hw
    mask = blob(h, w, 0.3 * w, 0.65 * h, 0.15 * min(hw))
    image = np.full((h, w, 3), 60, dtype=np.uint8)
    image[mask] = 220
    (moved,) = change_annotations(truth(hw, [mask]), kind, severity).instances
    after = decode_rle(moved.segmentation)
    seen = changed(image, kind, severity)[:, :, 0] > 140
    assert (after & seen).sum() / (after | seen).sum() > 0.9
    assert moved.bbox == tight(after)
    assert moved.area == after.sum()
    # Both are where the geometry says.
    start, end = (np.mean(np.nonzero(found), axis=1)[::-1] + 0.5 for found in (mask, after))
    assert end == pytest.approx(moved_by(kind, severity, h, w)(start), abs=0.5)
    factor = LEVELS["scale"][severity - 1] ** 2 if kind == "scale" else 1
    assert after.sum() == pytest.approx(mask.sum() * factor, rel=0.06)


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("hw", SIZES)
def test_mask_moves_by_the_nearest_pixel(kind, hw):
    h, w = hw
    mask = np.random.default_rng(0).random((h // 8 + 1, w // 8 + 1)) < 0.3
    mask = mask.repeat(8, 0).repeat(8, 1)[:h, :w]
    for severity in (1, 3, 5):
        (moved,) = change_annotations(truth(hw, [mask]), kind, severity).instances
        goes = moved_by(kind, severity, h, w)
        origin = goes((0.5, 0.5))
        matrix = np.stack([goes((1.5, 0.5)) - origin, goes((0.5, 1.5)) - origin], axis=1)[::-1, ::-1]
        back = np.linalg.inv(matrix)
        offset = -back @ (origin[::-1] - 0.5)
        # A pixel that comes from the border between two may take either.
        near = [
            affine_transform(mask, back, offset + 2e-3 * np.array(step), order=0, mode="grid-constant")
            for step in ((-1, -1), (-1, 1), (1, -1), (1, 1))
        ]
        after = decode_rle(moved.segmentation)
        assert (after <= np.any(near, axis=0)).all()
        assert (after >= np.all(near, axis=0)).all()
        assert (np.any(near, axis=0) != np.all(near, axis=0)).mean() < 0.2


def test_polygons_move_as_their_pixels_do():
    square = [[30.0, 20, 70, 20, 70, 50, 30, 50]]
    mask = np.zeros((100, 160), dtype=bool)
    mask[20:50, 30:70] = True
    coded = truth((100, 160), [mask])
    drawn = replace(coded, instances=(replace(coded.instances[0], segmentation=square),))
    assert change_annotations(drawn, "rotation", 4) == change_annotations(coded, "rotation", 4)


@given(data=st.data(), kind=st.sampled_from(MOVES), severity=st.integers(1, 5))
def test_a_box_becomes_the_tight_box_of_its_corners(data, kind, severity):
    h, w = data.draw(st.integers(20, 300)), data.draw(st.integers(20, 300))
    x, y = data.draw(st.floats(0, w - 2)), data.draw(st.floats(0, h - 2))
    box = (x, y, data.draw(st.floats(1, w - x)), data.draw(st.floats(1, h - y)))
    corners = [(x + i * box[2], y + j * box[3]) for i in (0, 1) for j in (0, 1)]
    moved_corners = moved_by(kind, severity, h, w)(corners)
    low, high = moved_corners.min(0).clip(0, (w, h)), moved_corners.max(0).clip(0, (w, h))
    moved = change_annotations(truth((h, w), boxes=[box]), kind, severity).instances
    if ((high - low) < 1e-6).any():
        return
    (instance,) = moved
    assert instance.bbox == pytest.approx((*low, *(high - low)), abs=1e-6)
    assert instance.segmentation is None
    assert instance.area == pytest.approx((high - low).prod(), abs=1e-3)


def test_what_leaves_the_picture_is_left_out_and_its_image_stays():
    corner, middle = np.zeros((2, 100, 160), dtype=bool)
    corner[:4, :4] = True
    middle[50:54, 80:84] = True
    before = truth((100, 160), [corner, middle], boxes=[(0.0, 0.0, 4.0, 4.0), (80.0, 50.0, 4.0, 4.0)])
    after = change_annotations(before, "rotation", 5)
    assert [instance.id for instance in after.instances] == [2, 4]
    assert (after.images, after.categories) == (before.images, before.categories)
    empty = change_annotations(replace(before, instances=before.instances[:1]), "rotation", 5)
    assert (empty.images, empty.instances) == (before.images, ())


def test_what_is_partly_outside_keeps_the_rest():
    mask = np.zeros((100, 160), dtype=bool)
    mask[:10] = True
    (moved,) = change_annotations(truth((100, 160), [mask]), "rotation", 5).instances
    assert 0 < moved.area < 1600
    assert moved.bbox == tight(decode_rle(moved.segmentation))


@pytest.mark.parametrize("column", range(40, 60))
@pytest.mark.parametrize("hw", [(90, 100), (91, 101)])
def test_a_thin_scratch_never_vanishes(column, hw):
    mask = np.zeros(hw, dtype=bool)
    mask[30:60, column] = True
    for severity in range(1, 6):
        (moved,) = change_annotations(truth(hw, [mask]), "scale", severity).instances
        assert moved.area >= 15 * LEVELS["scale"][severity - 1]
        assert moved.bbox[2] <= 2
        centre = moved_by("scale", severity, *hw)((column + 0.5, 45))
        assert moved.bbox[0] + moved.bbox[2] / 2 == pytest.approx(centre[0], abs=1)


def test_a_polygon_without_pixels_moves_as_its_box():
    coded = truth((100, 160), boxes=[(20.0, 30.0, 40.0, 0.2)])
    thin = replace(coded.instances[0], segmentation=[[20.0, 30, 60, 30, 60, 30.2]])
    drawn = replace(coded, instances=(thin,))
    (moved,) = change_annotations(drawn, "rotation", 3).instances
    (expected,) = change_annotations(coded, "rotation", 3).instances
    assert moved.bbox == expected.bbox


def test_crowds_and_classes_stay_what_they_are():
    before = truth((100, 160), [blob(100, 160, 50, 50, 12)])
    crowd = replace(before, instances=(replace(before.instances[0], iscrowd=1),))
    (moved,) = change_annotations(crowd, "scale", 2).instances
    assert (moved.id, moved.image_id, moved.category_id, moved.iscrowd) == (1, 7, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_truth_stays_without_a_move(kind):
    before = truth((100, 160), [blob(100, 160, 50, 50, 12)], boxes=[(3.0, 4.0, 5.0, 6.0)])
    assert change_annotations(before, kind, 0) == before
    assert (change_annotations(before, kind, 1) == before) == (kind not in GEOMETRIC)


def test_moved_truth_is_a_valid_file(tmp_path):
    before = truth((100, 160), [blob(100, 160, 150, 95, 12)], boxes=[(3.0, 40.0, 5.5, 6.25)])
    for kind in MOVES:
        after = change_annotations(before, kind, 4)
        after.write(tmp_path / "moved.json")
        assert Annotations.read(tmp_path / "moved.json") == after


def test_a_malformed_mask_names_image_and_annotation():
    before = truth((100, 160), [blob(100, 160, 50, 50, 12)])
    broken = replace(before.instances[0], segmentation={"size": [100, 160], "counts": [5]})
    with pytest.raises(DataError, match=r"^a\.png: annotation 1: "):
        change_annotations(replace(before, instances=(broken,)), "rotation", 1)


@pytest.mark.parametrize("kind", MOVES)
def test_the_filled_border_shows_no_second_defect(kind):
    # Dark defects near or at the edge of a bright part; nothing dark may appear where the truth has none.
    h, w = 120, 200
    mask = blob(h, w, 2, 60, 4) | blob(h, w, 12, 40, 6) | blob(h, w, 190, 110, 5) | blob(h, w, 100, 8, 4)
    image = np.full((h, w, 3), 200, dtype=np.uint8)
    image[mask] = 20
    for severity in range(1, 6):
        (moved,) = change_annotations(truth((h, w), [mask]), kind, severity).instances
        around = cv2.dilate(decode_rle(moved.segmentation).astype(np.uint8), np.ones((5, 5))) > 0
        result = changed(image, kind, severity)
        assert result[~around].min() > 150
        assert result.min() < 80


@pytest.mark.parametrize("kind", MOVES)
def test_an_even_picture_stays_even(kind):
    image = np.full((90, 131, 3), (10, 120, 230), dtype=np.uint8)
    for severity in range(1, 6):
        assert np.abs(changed(image, kind, severity).astype(int) - image).max() <= 1


def test_shrinking_averages():
    # Columns in turn black and white: picked, not averaged, they would alias to broad stripes.
    image = np.zeros((101, 101, 3), dtype=np.uint8)
    image[:, ::2] = 255
    inner = changed(image, "scale", 5)[40:60, 40:60]
    assert np.abs(inner.astype(int) - 128).max() < 60
