import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from unispector.errors import DataError
from unispector.ops.rle import (
    count_runs,
    decode_crop,
    decode_rle,
    encode_crop,
    encode_rle,
    joined_rle,
    segmentation_to_mask,
    segmentation_to_rle,
)

MASKS = hnp.arrays(
    np.bool_,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=40).map(lambda s: (s[0] % 4, *s[1:])),
)


@given(MASKS)
@settings(deadline=None)
def test_rle_round_trip_with_pycocotools_as_referee(masks):
    codes = encode_rle(masks)
    assert len(codes) == len(masks)
    for mask, code in zip(masks, codes, strict=True):
        assert isinstance(code["counts"], str)
        assert (decode_rle(code) == mask).all()
        assert (coco_mask.decode(code) == mask).all()
        reference = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert code["counts"].encode() == reference["counts"]
        assert (decode_rle(reference) == mask).all()


def test_rle_of_long_runs():
    mask = np.zeros((1, 3000, 2000), dtype=np.bool_)
    mask[0, 10:2990, 1500] = True
    mask[0, 5, 1990:] = True
    assert (decode_rle(encode_rle(mask)[0]) == mask[0]).all()


def test_uncompressed_rle_runs_down_the_columns():
    mask = decode_rle({"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


@given(st.text(max_size=12) | st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmno"))
@settings(deadline=None)
def test_any_text_as_counts_is_decoded_or_refused(counts):
    try:
        mask = decode_rle({"size": [5, 4], "counts": counts})
    except DataError:
        return
    assert (mask == coco_mask.decode({"size": [5, 4], "counts": counts})).all()


@pytest.mark.parametrize(
    "code",
    [
        {"size": [2, 3], "counts": [1, 2]},
        {"size": [2, 3], "counts": [1, 2, 4]},
        {"size": [2, 3], "counts": [-1, 7]},
        {"size": [2, 3], "counts": [1.5, 4.5]},
        {"size": [2, 3], "counts": [[6]]},
        {"size": [2, 3], "counts": None},
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "oooooooo0"},
        {"size": [0, 3], "counts": [0]},
        {"size": [2], "counts": [6]},
        {"size": [math.inf, 3], "counts": [6]},
        {"size": [2, 3], "counts": [2**63 - 1, 2**63 - 1, 8]},  # overflows to 6
        {"size": None, "counts": [6]},
        {"counts": [6]},
        {"size": [2, 3]},
    ],
)
def test_malformed_rle_is_refused(code):
    with pytest.raises(DataError):
        decode_rle(code)


def test_segmentation_of_another_size_is_refused():
    code = encode_rle(np.ones((1, 4, 6), dtype=np.bool_))[0]
    assert segmentation_to_mask(code, 4, 6).all()
    with pytest.raises(DataError, match="6x4 but the image is 4x6"):
        segmentation_to_mask(code, 6, 4)


def test_polygons_are_united():
    mask = segmentation_to_mask([[2, 3, 12, 3, 12, 9, 2, 9], [10, 5, 18, 5, 18, 15, 10, 15]], 20, 24)
    expected = np.zeros((20, 24), dtype=np.bool_)
    expected[3:9, 2:12] = True
    expected[5:15, 10:18] = True
    assert (mask == expected).all()


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 80)), min_size=3, max_size=3))
@settings(deadline=None)
def test_triangles_agree_with_pillow_but_for_their_edge(corners):
    mask = segmentation_to_mask([[value for corner in corners for value in corner]], 80, 100)
    drawn = Image.new("1", (800, 640))
    ImageDraw.Draw(drawn).polygon([(8 * x, 8 * y) for x, y in corners], fill=1)
    coverage = np.asarray(drawn, dtype=np.float64).reshape(80, 8, 100, 8).mean(axis=(1, 3))
    perimeter = sum(math.dist(corners[i], corners[i - 1]) for i in range(3))
    assert np.abs(mask - coverage).sum() <= perimeter + 4


@pytest.mark.parametrize(
    "polygons",
    [
        [],
        [[]],
        [[1, 1, 3, 3]],
        [[1, 1, 3, 1, 3]],
        [[1, 1, 3, 1, math.nan, 3]],
        [[1, 1, 3, 1, 1e9, 3]],
        [["a"] * 6],
    ],
)
def test_malformed_polygons_are_refused(polygons):
    with pytest.raises(DataError):
        segmentation_to_mask(polygons, 5, 4)


@st.composite
def crops(draw):
    """A crop with a pixel in it, and how much background lies left, above, right and below."""
    crop = draw(hnp.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 8))))
    crop[draw(st.integers(0, crop.shape[0] - 1)), draw(st.integers(0, crop.shape[1] - 1))] = True
    return crop, draw(st.tuples(*[st.integers(0, 5)] * 4))


@given(crops())
def test_a_crop_is_encoded_as_the_whole_mask(case):
    crop, (left, top, right, bottom) = case
    whole = np.pad(crop, ((top, bottom), (left, right)))
    assert encode_crop(crop, left, top, *whole.shape) == encode_rle(whole[None])[0]


@pytest.mark.parametrize("columns", [(0, 5), (0, 2), (3, 5), (1, 4)])
def test_columns_that_are_full_make_one_run(columns):
    whole = np.zeros((7, 5), dtype=np.bool_)
    whole[:, slice(*columns)] = True
    code = encode_crop(whole[:, slice(*columns)], columns[0], 0, 7, 5)
    assert code == encode_rle(whole[None])[0]
    assert (decode_rle(code) == whole).all()
    whole[3, columns[0]] = False
    code = encode_crop(whole[:, slice(*columns)], columns[0], 0, 7, 5)
    assert code == encode_rle(whole[None])[0]


def test_a_crop_of_a_huge_image_costs_little():
    start = time.perf_counter()
    code = encode_crop(np.ones((2, 2), dtype=np.bool_), 40_000, 30_000, 60_000, 60_000)
    assert time.perf_counter() - start < 0.5
    assert coco_mask.area(code) == 4
    assert coco_mask.toBbox(code).tolist() == [40_000, 30_000, 2, 2]


def test_a_code_of_another_size_is_refused_before_it_is_unfolded():
    bomb = {"size": [3_000_000, 3_000_000], "counts": [9_000_000_000_000]}
    with pytest.raises(DataError, match="3000000x3000000 but the image is 4x5"):
        segmentation_to_mask(bomb, 5, 4)


def some_counts(seed):
    return encode_rle(np.random.default_rng(seed).random((1, 9, 7)) < 0.4)[0]["counts"]


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12),
        st.builds(lambda seed, cut: some_counts(seed)[cut:], st.integers(0, 99), st.integers(0, 2)),
    )
)
@example("o1")  # 63
@example("oQPPPPPPP0")  # 63 in more digits than any image needs
@example("X1Kl0")  # 40, -5, 28
@example("\u00e9")
def test_a_code_is_taken_if_and_only_if_it_decodes(counts: str) -> None:
    try:
        decode_rle({"size": [9, 7], "counts": counts})
        decodes = True
    except DataError:
        decodes = False
    try:
        code = segmentation_to_rle({"size": [9, 7], "counts": counts}, 9, 7)
    except DataError:
        assert not decodes
    else:
        assert decodes
        assert coco_mask.area(code) == decode_rle(code).sum()


def test_lists_of_runs_and_polygons_become_codes() -> None:
    code = segmentation_to_rle({"size": [2, 3], "counts": [1, 4, 1]}, 2, 3)
    assert decode_rle(code).tolist() == [[False, True, True], [True, True, False]]
    square = [[1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]]
    assert (decode_rle(segmentation_to_rle(square, 6, 8)) == segmentation_to_mask(square, 6, 8)).all()
    with pytest.raises(DataError, match="mask is 3x2 but the image is 2x3"):
        segmentation_to_rle({"size": [2, 3], "counts": [6]}, 3, 2)


@pytest.mark.parametrize("counts", [[1, [2, 3]], [[1], [2, 3]], "0\ud800", "\u00e9", None])
def test_counts_that_are_no_runs_are_refused(counts):
    with pytest.raises(DataError, match="mask code's counts are no"):
        decode_rle({"size": [2, 3], "counts": counts})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 9), st.integers(0, 7)), max_size=4))
def test_masks_of_parts_are_joined_where_they_lie(parts: list[tuple[int, int, int]]) -> None:
    height, width = 13, 17
    expected, codes = np.zeros((height, width), dtype=np.bool_), []
    for seed, left, top in parts:
        rng = np.random.default_rng(seed)
        mask = rng.random((int(rng.integers(1, 7)), int(rng.integers(1, 9)))) < rng.random() * 1.2
        expected[top : top + mask.shape[0], left : left + mask.shape[1]] |= mask
        codes.append((encode_rle(mask[None])[0], left, top))
    assert joined_rle(codes, height, width) == encode_rle(expected[None])[0]


@pytest.mark.parametrize(
    "use", [decode_rle, decode_crop, lambda code: segmentation_to_rle(code, 10**5, 10**5)]
)
def test_a_code_that_asks_for_more_than_any_image_is_refused(use):
    code = {"size": [10**5, 10**5], "counts": [10, 20, 10**10 - 30]}
    with pytest.raises(DataError, match="mask code of 100000x100000 pixels, more than any image has"):
        use(code)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_runs_are_counted_as_they_are_coded(mask):
    flat = mask.T.reshape(-1)
    runs = 1 + np.count_nonzero(flat[1:] != flat[:-1]) + flat[0]
    assert runs <= count_runs(mask) <= runs + 1
