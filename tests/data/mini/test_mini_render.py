"""insa-mini's images: deterministic, and the mask tells exactly where the defect is."""

import pickle
from functools import cache
from itertools import combinations

import cv2
import numpy as np
import pytest

from unispector.data.mini.defects import CATALOGUE, FAMILIES, paint_defects
from unispector.data.mini.kind import Kind
from unispector.data.mini.render import DEFECT_FREE, RenderedImage, render
from unispector.data.mini.scene import build_scene

IMAGES = 5
# Exact mask's pixels, mean grey value, mean change inside the mask: of image 0 with seed 3 at size 96. Not
# a hash, as the last bit of a float, and with it a grey value, may differ from processor to processor.
FIRST_FAMILIES = {
    "Scratch": (18, 85.59, 8.72),
    "Crack": (133, 83.37, 49.48),
    "Blowhole": (68, 133.40, 30.87),
    "Stain": (15, 126.00, 15.13),
    "Dent": (33, 154.49, 8.00),
    "Fray": (82, 82.31, 7.20),
    "Contamination": (19, 103.47, 54.53),
    "Missing": (230, 144.46, 56.07),
    "Wrinkle": (96, 136.83, 18.54),
    "Burn": (214, 123.17, 53.67),
    "Smear": (64, 152.56, 20.80),
    "Pitting": (329, 81.80, 16.91),
    "Bubble": (82, 99.37, 11.79),
    "Thread": (79, 110.27, 14.63),
    "Chatter": (324, 90.12, 11.52),
    "Glue": (51, 116.09, 22.37),
}
TRIOS = [FAMILIES[start::10] for start in range(10)]


@cache
def pictures(family: str) -> list[RenderedImage]:
    return [render((family,), index, seed=3, size=160) for index in range(IMAGES)]


def pieces_of(mask: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of the exact mask's components, the label of each pixel, and width and height of each."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8), connectivity=8)
    return count - 1, labels, stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]


def difference(picture: RenderedImage) -> np.ndarray:
    return np.abs(picture.image.astype(int) - picture.clean.astype(int))


def test_thirty_five_distinct_families() -> None:
    assert len(FAMILIES) == len(set(FAMILIES)) == 35
    assert DEFECT_FREE not in FAMILIES
    painters = [family.painter for family in CATALOGUE.values()]
    assert len(set(painters)) == len(painters)


def test_families_added_later_come_last_and_leave_the_first_as_they_were() -> None:
    assert FAMILIES[: len(FIRST_FAMILIES)] == tuple(FIRST_FAMILIES)
    for family, (pixels, grey, change) in FIRST_FAMILIES.items():
        picture = render((family,), 0, seed=3, size=96)
        inside = picture.mask > 127
        assert inside.sum() == pytest.approx(pixels, abs=2)
        assert picture.image.mean() == pytest.approx(grey, abs=0.03)
        assert difference(picture)[inside].mean() == pytest.approx(change, abs=0.3)


@pytest.mark.parametrize("family", FAMILIES)
def test_defect_shows_inside_its_mask_and_nowhere_far_from_it(family: str) -> None:
    for picture in pictures(family):
        assert picture.image.dtype == picture.mask.dtype == picture.clean.dtype == np.uint8
        assert picture.image.shape == picture.mask.shape == picture.clean.shape
        pieces, labels, _ = pieces_of(picture.mask)
        assert 1 <= pieces <= 4
        changes = [difference(picture)[labels == piece].mean() for piece in range(1, pieces + 1)]
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
        assert (pieces_of(picture.mask)[2] >= 0.01 * np.array(picture.mask.shape[::-1])).all()


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


@pytest.mark.parametrize(
    ("families", "others"), [(("Scratch",), ("Crack",)), (("Crack", "Rust"), ("Crack", "Burn"))]
)
def test_same_arguments_give_the_same_image_and_others_do_not(families, others):
    first, again = render(families, 4, seed=1, size=96), render(list(families), 4, seed=1, size=96)
    for field in ("image", "mask", "clean"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    for family in families:
        np.testing.assert_array_equal(first.masks[family], again.masks[family])
    for change in ((families, 5, 1), (families, 4, 2), (others, 4, 1)):
        other = render(change[0], change[1], seed=change[2], size=96)
        assert not np.array_equal(first.clean, other.clean)


def test_sizes_follow_the_nominal_size() -> None:
    shapes = np.array([render((), index, seed=0, size=100).image.shape for index in range(30)])
    assert shapes[:, 0].min() >= 88
    assert shapes[:, 0].max() <= 112
    assert shapes[:, 1].min() >= 60
    assert shapes[:, 1].max() <= 160
    assert len(set(shapes[:, 1].tolist())) > 15


def test_defect_free_image_is_its_own_clean_picture() -> None:
    picture = render((), 0, seed=0, size=96)
    np.testing.assert_array_equal(picture.image, picture.clean)
    assert not picture.mask.any()
    assert dict(picture.masks) == {}
    assert picture.image.std() > 1


def test_brighter_exposure_steps_give_brighter_images() -> None:
    series = [render((), index, seed=5, size=64) for index in range(150)]
    assert {picture.exposure for picture in series} == {1, 2, 3, 4, 5, 6}
    dark, bright = (
        np.mean([picture.image.mean() for picture in series if picture.exposure in steps])
        for steps in ((1, 2), (5, 6))
    )
    assert bright > 1.2 * dark


@pytest.mark.parametrize("size", [64, 130])
def test_every_family_fits_small_images(size: int) -> None:
    for family in FAMILIES:
        assert (render((family,), 0, seed=-1, size=size).mask > 127).any()


def test_bands_and_seams_may_cross_the_whole_part() -> None:
    for family in ("Uneven", "WeldLine", "Crease"):
        longest = 0.0
        for index in range(25):
            mask = render((family,), index, seed=3, size=64).mask
            longest = max(longest, float((pieces_of(mask)[2] / mask.shape[::-1]).max()))
        assert longest == 1.0, family


@pytest.mark.parametrize("family", ["Uneven", "Reground"])
def test_bands_are_cut_off_by_the_part_alone(family: str) -> None:
    widths = []
    for index in range(12):
        picture = render((family,), index, seed=3, size=96, surface="plastic")
        height, width = picture.mask.shape
        pieces, labels, _ = pieces_of(picture.mask)
        for piece in range(1, pieces + 1):
            rows, columns = np.nonzero(labels == piece)
            spans = np.ptp(columns) + 1, np.ptp(rows) + 1
            shares = np.array(spans) / (width, height)
            # A part that does not fill the frame leaves up to an eighth of it at either side.
            assert shares.max() > 0.74
            widths.append(len(rows) / max(spans) / min(height, width))
    assert max(widths) > 0.25
    assert max(widths) > 2.5 * min(widths)


def test_abrasion_keeps_the_grey_and_changes_the_texture() -> None:
    for picture in (render(("Abrasion",), index, seed=3, size=160) for index in range(8)):
        inside = cv2.erode((picture.mask > 127).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        before, after = picture.clean[inside].astype(float), picture.image[inside].astype(float)
        assert abs(after.mean() - before.mean()) < 0.5 * np.abs(after - before).mean()
        assert np.corrcoef(before, after)[0, 1] < 0.9


def test_a_cluster_of_pits_is_one_instance() -> None:
    spots = []
    for picture in (render(("Pitting",), index, seed=3, size=160) for index in range(12)):
        pieces, _, _ = pieces_of(picture.mask)
        change = picture.clean.astype(int) - picture.image
        pits = (change > 0.4 * change.max()).astype(np.uint8)
        spots.append((cv2.connectedComponents(pits)[0] - 1) / pieces)
    assert np.median(spots) > 8
    assert max(spots) > 4 * min(spots)


def test_hairlines_are_thin_long_and_often_faint() -> None:
    pictures = [render(("Hairline",), index, seed=3, size=160) for index in range(20)]
    lengths, contrasts = [], []
    for picture in pictures:
        solid = (picture.mask > 127).astype(np.uint8)
        assert cv2.distanceTransform(solid, cv2.DIST_L2, 5).max() < 3.5
        lengths.append(np.hypot(*pieces_of(picture.mask)[2].T).max() / min(solid.shape))
        contrasts.append(difference(picture)[solid > 0].mean() / picture.clean[solid > 0].mean())
    assert np.median(lengths) > 0.35
    assert min(contrasts) < 0.15 < 0.25 < max(contrasts)


def test_ragged_edges_lie_on_the_border_of_the_part() -> None:
    for index in range(12):
        rng = np.random.default_rng(index)
        scene = build_scene(Kind(np.random.default_rng(index // 4), rng), None, (96, 120), 96 / 256)
        solid = paint_defects(scene, rng, ("RaggedEdge",))[1]["RaggedEdge"] > 0.5
        # Beyond the frame there is no part.
        inner = cv2.distanceTransform(np.pad(scene.part > 0.5, 1).astype(np.uint8), cv2.DIST_L2, 5)[
            1:-1, 1:-1
        ]
        pieces, labels = cv2.connectedComponents(solid.astype(np.uint8), connectivity=8)
        assert all(inner[labels == piece].min() <= 1 for piece in range(1, pieces))


def test_sizes_spread_evenly_over_a_wide_log_scale() -> None:
    for family in ("Scratch", "Stain", "Scale"):
        sides = []
        for index in range(30):
            mask = render((family,), index, seed=7, size=96).mask
            sides += (np.hypot(*pieces_of(mask)[2].T) / min(mask.shape)).tolist()
        low, middle, high = np.percentile(sides, [5, 50, 95])
        assert high > 4 * low
        assert 0.3 < np.log(middle / low) / np.log(high / low) < 0.7


def test_images_of_one_seed_show_one_kind_of_part() -> None:
    def texture(seed: int, index: int) -> np.ndarray:
        """Power of the picture's middle by frequency and direction."""
        clean = render((), index, seed=seed, size=96).clean
        top, left = (side // 2 - 26 for side in clean.shape)
        patch = clean[top : top + 52, left : left + 52].astype(float)
        power = np.abs(np.fft.fftshift(np.fft.fft2((patch - patch.mean()) / patch.std() * np.hanning(52))))
        y, x = np.mgrid[-26:26, -26:26]
        ring = np.digitize(np.hypot(y, x), [3, 6, 10, 15, 20])
        sector = np.floor(np.arctan2(y, x) % np.pi / np.pi * 8).astype(int) % 8
        return np.array(
            [np.log(power[(ring == r) & (sector == s)].mean()) for r in range(1, 5) for s in range(8)]
        )

    kinds = np.repeat(np.arange(12), 3)
    textures = np.array([texture(seed, index) for seed in range(12) for index in range(3)])
    gaps = np.linalg.norm(textures[:, None] - textures[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    # By chance it would be 2 of 35.
    assert (kinds[gaps.argmin(axis=1)] == kinds).mean() > 0.6


def test_surface_is_the_one_asked_for() -> None:
    def sharpest_peak(surface: str, index: int) -> float:
        """Strongest value of the spectrum over the median; weaves have a sharp peak, powder has none."""
        clean = render((), index, seed=2, size=128, surface=surface).clean.astype(float)
        patch = clean[32:96, 32:96] - cv2.GaussianBlur(clean, (0, 0), 4)[32:96, 32:96]
        power = np.abs(np.fft.fft2(patch * np.outer(np.hanning(64), np.hanning(64))))
        return float(power.max() / np.median(power))

    woven, pressed = (
        np.median([sharpest_peak(surface, index) for index in range(8)])
        for surface in ("fabric", "sintered magnet")
    )
    assert woven > 2 * pressed


def test_flash_reaches_over_the_edge_onto_the_background() -> None:
    # Without the fin this background is as black as elsewhere.
    reached = 0
    for index in range(25):
        picture = render(("Flash",), index, seed=3, size=96)
        void = picture.clean < 25
        reached += bool(picture.clean.mean() > 50 and (void & (picture.mask > 127)).sum() > 20)
    assert reached >= 3


@pytest.mark.parametrize("families", TRIOS, ids="+".join)
def test_families_on_one_image_have_their_own_masks_apart_from_each_other(families: tuple[str, ...]) -> None:
    picture = render(families, 0, seed=3, size=128)
    assert tuple(picture.masks) == families
    exact = [mask > 127 for mask in picture.masks.values()]
    for mask in picture.masks.values():
        pieces, labels, _ = pieces_of(mask)
        assert 1 <= pieces <= 2
        assert min(difference(picture)[labels == piece].mean() for piece in range(1, pieces + 1)) > 1.5
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
        masks = render(large, index, seed=3, size=96).masks
        assert all((mask > 127).any() for mask in masks.values())


def test_rendered_image_travels_between_processes() -> None:
    picture = render(("Chip", "Stain"), 0, seed=4, size=64)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(picture)).mask, picture.mask)


def test_image_and_clean_share_light_and_noise() -> None:
    untouched = difference(render(("Blowhole",), 0, seed=3, size=160)) == 0
    assert 0.8 < untouched.mean() < 1
