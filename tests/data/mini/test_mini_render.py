"""insa-mini's images: deterministic, and the mask tells exactly where the defect is."""

import cv2
import numpy as np
import pytest

from unispector.data.mini import DEFECT_FREE, FAMILIES, RenderedImage, render
from unispector.data.mini.defects import CATALOGUE
from unispector.errors import DataError

IMAGES = 5


def pictures(family: str) -> list[RenderedImage]:
    return [render(family, index, seed=3, size=160) for index in range(IMAGES)]


def difference(picture: RenderedImage) -> np.ndarray:
    return np.abs(picture.image.astype(int) - picture.clean.astype(int))


def test_at_least_twelve_distinct_families() -> None:
    assert len(FAMILIES) == len(set(FAMILIES)) >= 12
    assert DEFECT_FREE not in FAMILIES
    painters = [family.painter for family in CATALOGUE.values()]
    assert len(set(painters)) == len(painters)


@pytest.mark.parametrize("family", FAMILIES)
def test_defect_shows_inside_its_mask_and_nowhere_far_from_it(family: str) -> None:
    for picture in pictures(family):
        assert picture.image.dtype == picture.mask.dtype == picture.clean.dtype == np.uint8
        assert picture.image.shape == picture.mask.shape == picture.clean.shape
        inside = (picture.mask > 127).astype(np.uint8)
        pieces, labels = cv2.connectedComponents(inside, connectivity=8)
        assert 2 <= pieces <= 5
        changes = [difference(picture)[labels == piece].mean() for piece in range(1, pieces)]
        assert min(changes) > 1.5, "a defect nobody can see"
        # Shadows and blur reach a few pixels; the rest of the part must not know about the defect.
        far = cv2.dilate(picture.mask, np.ones((31, 31), np.uint8)) == 0
        assert not difference(picture)[far].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_most_of_the_change_lies_in_the_mask(family: str) -> None:
    change = [difference(picture) for picture in pictures(family)]
    inside = [picture.mask > 127 for picture in pictures(family)]
    within = sum(float(c[m].sum()) for c, m in zip(change, inside, strict=True))
    # Lines are so thin that half their blurred light falls beside them.
    assert within / sum(float(c.sum()) for c in change) > 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_components_survive_the_one_percent_filter(family: str) -> None:
    for picture in pictures(family):
        height, width = picture.mask.shape
        _, _, stats, _ = cv2.connectedComponentsWithStats(
            (picture.mask > 127).astype(np.uint8), connectivity=8
        )
        for box_width, box_height in stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]:
            assert box_width >= 0.01 * width
            assert box_height >= 0.01 * height


def test_mask_border_is_antialiased_and_hardly_moves_with_the_threshold() -> None:
    masks = [picture.mask for family in FAMILIES for picture in pictures(family)[:2]]
    assert any(((mask > 0) & (mask < 255)).any() for mask in masks)
    for mask in masks:
        solid = (mask > 127).astype(np.uint8)
        assert not (mask[cv2.dilate(solid, np.ones((9, 9), np.uint8)) == 0] > 32).any()


def test_instances_vary_within_a_family() -> None:
    for family in FAMILIES:
        shares = [float((picture.mask > 127).mean()) for picture in pictures(family)]
        assert len(set(shares)) == IMAGES
        assert max(shares) > 1.3 * min(shares)


def test_same_arguments_give_the_same_image_and_others_do_not() -> None:
    first = render("Scratch", 4, seed=1, size=96)
    again = render("Scratch", 4, seed=1, size=96)
    for field in ("image", "mask", "clean"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    others = (
        render("Scratch", 5, seed=1, size=96),
        render("Scratch", 4, seed=2, size=96),
        render("Crack", 4, seed=1, size=96),
    )
    for other in others:
        assert not np.array_equal(first.clean, other.clean)


def test_sizes_follow_the_nominal_size() -> None:
    shapes = np.array([render(DEFECT_FREE, index, seed=0, size=100).image.shape for index in range(30)])
    assert shapes[:, 0].min() >= 88
    assert shapes[:, 0].max() <= 112
    assert shapes[:, 1].min() >= 60
    assert shapes[:, 1].max() <= 160
    assert len(set(shapes[:, 1].tolist())) > 15


def test_defect_free_image_is_its_own_clean_picture() -> None:
    picture = render(DEFECT_FREE, 0, seed=0, size=96)
    np.testing.assert_array_equal(picture.image, picture.clean)
    assert not picture.mask.any()
    assert picture.image.std() > 1


def test_brighter_exposure_steps_give_brighter_images() -> None:
    series = [render(DEFECT_FREE, index, seed=5, size=64) for index in range(150)]
    assert {picture.exposure for picture in series} == {1, 2, 3, 4, 5, 6}
    dark, bright = (
        np.mean([picture.image.mean() for picture in series if picture.exposure in steps])
        for steps in ((1, 2), (5, 6))
    )
    assert bright > 1.2 * dark


@pytest.mark.parametrize("size", [64, 130])
def test_every_family_fits_small_images(size: int) -> None:
    for family in FAMILIES:
        assert (render(family, 0, seed=-1, size=size).mask > 127).any()


def test_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"no family 'Rust'.*Scratch"):
        render("Rust", 0, seed=0, size=96)


def test_image_and_clean_share_light_and_noise() -> None:
    untouched = difference(render("Blowhole", 0, seed=3, size=160)) == 0
    assert 0.8 < untouched.mean() < 1
