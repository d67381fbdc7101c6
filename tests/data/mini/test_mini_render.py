"""insa-mini's images: deterministic, and the mask tells exactly where the defect is."""

import pickle
from functools import cache
from itertools import combinations

import cv2
import numpy as np
import pytest

from unispector.data.mini import DEFECT_FREE, FAMILIES, RenderedImage, render
from unispector.data.mini.defects import CATALOGUE
from unispector.data.mini.render import render_several
from unispector.errors import DataError

IMAGES = 5
# Exact mask's pixels, mean grey value, mean change inside the mask: of image 0 with seed 3 at size 96. Not
# a hash, as the last bit of a float, and with it a grey value, may differ from processor to processor.
FIRST_FAMILIES = {
    "Scratch": (93, 47.92, 14.18),
    "Crack": (308, 45.71, 32.45),
    "Blowhole": (58, 172.92, 109.12),
    "Stain": (76, 49.08, 11.76),
    "Dent": (599, 99.48, 35.44),
    "Fray": (722, 51.25, 7.78),
    "Contamination": (111, 84.89, 36.79),
    "Missing": (551, 149.36, 35.46),
    "Wrinkle": (324, 130.27, 22.98),
    "Burn": (87, 111.87, 47.53),
    "Smear": (632, 92.50, 25.41),
    "Pitting": (265, 41.86, 11.68),
    "Bubble": (350, 71.41, 9.10),
    "Thread": (132, 97.60, 57.97),
    "Chatter": (972, 73.57, 22.86),
    "Glue": (113, 90.20, 23.98),
}
TRIOS = [FAMILIES[start::10] for start in range(10)]


@cache
def pictures(family: str) -> list[RenderedImage]:
    return [render(family, index, seed=3, size=160) for index in range(IMAGES)]


def difference(picture: RenderedImage) -> np.ndarray:
    return np.abs(picture.image.astype(int) - picture.clean.astype(int))


def test_thirty_distinct_families() -> None:
    assert len(FAMILIES) == len(set(FAMILIES)) == 30
    assert DEFECT_FREE not in FAMILIES
    painters = [family.painter for family in CATALOGUE.values()]
    assert len(set(painters)) == len(painters)


def test_families_added_later_come_last_and_leave_the_first_as_they_were() -> None:
    assert FAMILIES[: len(FIRST_FAMILIES)] == tuple(FIRST_FAMILIES)
    for family, (pixels, grey, change) in FIRST_FAMILIES.items():
        picture = render(family, 0, seed=3, size=96)
        inside = picture.mask > 127
        assert inside.sum() == pytest.approx(pixels, abs=2)
        assert picture.image.mean() == pytest.approx(grey, abs=0.03)
        assert difference(picture)[inside].mean() == pytest.approx(change, abs=0.3)


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
    with pytest.raises(DataError, match=r"no family 'Rot'.*Scratch"):
        render("Rot", 0, seed=0, size=96)


def test_bands_and_seams_may_cross_the_whole_part() -> None:
    for family in ("Uneven", "WeldLine", "Crease"):
        longest = 0.0
        for index in range(25):
            mask = render(family, index, seed=3, size=64).mask
            _, _, stats, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
            boxes = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
            longest = max(longest, float((boxes / mask.shape[::-1]).max()))
        assert longest == 1.0, family


def test_flash_reaches_over_the_edge_onto_the_background() -> None:
    # Without the fin this background is as black as elsewhere.
    reached = 0
    for index in range(25):
        picture = render("Flash", index, seed=3, size=96)
        void = picture.clean < 25
        reached += bool(picture.clean.mean() > 50 and (void & (picture.mask > 127)).sum() > 20)
    assert reached >= 3


@pytest.mark.parametrize("families", TRIOS, ids="+".join)
def test_families_on_one_image_have_their_own_masks_apart_from_each_other(families: tuple[str, ...]) -> None:
    picture = render_several(families, 0, seed=3, size=128)
    assert tuple(picture.masks) == families
    exact = [mask > 127 for mask in picture.masks.values()]
    for inside in exact:
        pieces, labels = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
        assert 2 <= pieces <= 3
        assert min(difference(picture)[labels == piece].mean() for piece in range(1, pieces)) > 1.5
    for one, other in combinations(exact, 2):
        # Nearest pixels of two families: at least two others lie between them in every direction.
        rows, columns = (
            np.subtract.outer(*pair) for pair in zip(np.nonzero(one), np.nonzero(other), strict=True)
        )
        assert np.maximum(np.abs(rows), np.abs(columns)).min() > 2
    np.testing.assert_array_equal(picture.mask > 127, np.any(exact, axis=0))


def test_even_many_large_families_find_room() -> None:
    large = ("Uneven", "WeldLine", "Missing", "SilkSpot", "Crease")
    for index in range(4):
        masks = render_several(large, index, seed=3, size=96).masks
        assert all((mask > 127).any() for mask in masks.values())


def test_image_of_several_families_depends_on_its_arguments_alone() -> None:
    first = render_several(("Crack", "Rust"), 2, seed=1, size=96)
    again = render_several(["Crack", "Rust"], 2, seed=1, size=96)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks["Rust"], again.masks["Rust"])
    others = (
        render_several(("Crack", "Rust"), 3, seed=1, size=96),
        render_several(("Crack", "Rust"), 2, seed=2, size=96),
        render_several(("Crack", "Burn"), 2, seed=1, size=96),
    )
    for other in others:
        assert not np.array_equal(first.clean, other.clean)


def test_one_family_among_several_is_the_ordinary_image() -> None:
    several, single = render_several(("Melt",), 1, seed=4, size=96), render("Melt", 1, seed=4, size=96)
    np.testing.assert_array_equal(several.image, single.image)
    np.testing.assert_array_equal(several.masks["Melt"], single.mask)
    assert dict(render(DEFECT_FREE, 0, seed=4, size=64).masks) == {}


def test_rendered_image_travels_between_processes() -> None:
    picture = render_several(("Chip", "Stain"), 0, seed=4, size=64)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(picture)).mask, picture.mask)


@pytest.mark.parametrize("families", [(), ("Crack", "Crack"), ("Crack", "Rot"), ("Crack", DEFECT_FREE)])
def test_families_that_cannot_share_an_image_are_refused(families: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"mini: families must be known and differ.*Scratch"):
        render_several(families, 0, seed=0, size=96)


def test_image_and_clean_share_light_and_noise() -> None:
    untouched = difference(render("Blowhole", 0, seed=3, size=160)) == 0
    assert 0.8 < untouched.mean() < 1
