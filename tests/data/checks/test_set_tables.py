"""The tables of a set against masks decoded pixel by pixel."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.data.checks.set_tables import category_table, image_table, instance_table, survey_table
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord, Segmentation
from unispector.ops.rle import encode_rle, segmentation_to_mask

SURVEY = ("file_name", "width", "height", "problem", "mask_difference", "dhash")


def set_of(segmentations: list[Segmentation | None], width: int, height: int) -> Annotations:
    """One image; every instance states a box of 3 x 2 pixels and an area of 7."""
    box = (1.0, 2.0, 3.0, 2.0)
    return Annotations(
        (ImageRecord(1, "a.png", width, height),),
        tuple(InstanceRecord(n, 1, 1, box, 7.0, code) for n, code in enumerate(segmentations, start=1)),
        (CategoryRecord(1, "c", ""),),
    )


def test_mask_measures_are_those_of_the_decoded_pixels():
    """300 masks: more than pycocotools measures in one call."""
    rng = np.random.default_rng(1)
    masks = np.zeros((300, 23, 31), dtype=bool)
    for mask in masks:
        for _ in range(rng.integers(1, 4)):
            x, y = rng.integers(0, 25), rng.integers(0, 18)
            mask[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = True
    table = instance_table(set_of(list(encode_rle(masks)), 31, 23))
    assert (table["problem"] == "").all()
    for mask, row in zip(masks, table.itertuples(), strict=True):
        ys, xs = np.nonzero(mask)
        assert row.mask_area == len(xs)
        assert (row.mask_left, row.mask_top) == (xs.min(), ys.min())
        assert (row.mask_right, row.mask_bottom) == (xs.max() + 1, ys.max() + 1)
    first = table.iloc[0]
    assert (first["left"], first["top"], first["right"], first["bottom"], first["area"]) == (1, 2, 4, 4, 7)
    assert (first["width_share"], first["height_share"]) == (3 / 31, 2 / 23)
    assert first["where"] == "a.png (annotation 1)"


def test_the_share_that_masks_cover_is_that_of_all_their_pixels():
    """300 masks that overlap, and beside them what nobody painted or can decode."""
    rng = np.random.default_rng(2)
    masks = rng.random((300, 23, 31)) < 0.01
    others = [[[0.0, 0.0, 31.0, 0.0, 31.0, 23.0, 0.0, 23.0]], None, {"size": [23, 31], "counts": [1, 2]}]
    survey = pd.DataFrame([dict(zip(SURVEY, ("a.png", 31, 23, "", 0, "0" * 64), strict=True))])
    covered = image_table(set_of([*encode_rle(masks), *others], 31, 23), survey)
    assert covered["mask_share"].tolist() == [masks.any(axis=0).mean()]
    assert 0.5 < masks.any(axis=0).mean() < 1
    assert image_table(set_of(others, 31, 23), survey)["mask_share"].tolist() == [0]


def test_uncompressed_codes_and_polygons_are_measured_too():
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:9, 4:17] = True
    runs = np.flatnonzero(np.diff(np.concatenate(([False], mask.T.ravel(), [False])).astype(int)))
    counts = np.diff(np.concatenate(([0], runs, [mask.size]))).tolist()
    rectangles = [[4, 3, 17, 3, 17, 9, 4, 9], [20.0, 3.0, 24.0, 3.0, 24.0, 9.0, 20.0, 9.0]]
    table = instance_table(set_of([{"size": [20, 30], "counts": counts}, rectangles], 30, 20))
    assert table["problem"].tolist() == ["", ""]
    assert table["mask_area"].tolist() == [6 * 13, 6 * 17]
    assert table["mask_right"].tolist() == [17, 24]


@settings(max_examples=60)
@given(
    x=st.floats(0, 25),
    y=st.floats(0, 15),
    width=st.floats(1, 30),
    height=st.floats(1, 20),
    off=st.floats(3, 9),
)
def test_a_box_drawn_as_a_polygon_has_its_own_measures(x, y, width, height, off):
    """Rasterising moves an edge by less than a pixel; a box elsewhere is not taken for the same."""
    width, height = min(width, 30 - x), min(height, 20 - y)
    corners = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    annotations = set_of([corners], 30, 20)
    box = replace(annotations.instances[0], bbox=(x, y, width, height), area=width * height)
    row = instance_table(replace(annotations, instances=(box,))).iloc[0]
    if not segmentation_to_mask(corners, 20, 30).any():
        assert row["problem"] == "mask marks no pixel"
    assert row["mask_area"] == row["area"]
    assert all(row[f"mask_{edge}"] == row[edge] for edge in ("left", "top", "right", "bottom"))

    wrong = replace(box, bbox=(x + off, y, width, height), area=(width + 3) * (height + 3))
    row = instance_table(replace(annotations, instances=(wrong,))).iloc[0]
    if row["problem"] == "":
        assert row["mask_left"] != row["left"]
        assert row["mask_area"] != row["area"]


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ({"size": [20, 30], "counts": ""}, "no compressed COCO RLE"),
        ({"size": [20, 30], "counts": "P"}, "no compressed COCO RLE"),
        ({"size": [20, 30], "counts": "é1"}, "no compressed COCO RLE"),
        ({"size": [20, 30], "counts": "PPPPPPPPPP1"}, "no compressed COCO RLE"),
        ({"size": [20, 30], "counts": "11"}, "does not fill"),
        ({"size": [30, 20], "counts": [600]}, "mask is 20x30 but the image is 30x20"),
        ({"size": [20, 30], "counts": [600]}, "marks no pixel"),
        ([[0, 0, 0.1, 0, 0.1, 0.1]], "marks no pixel"),
        ([[0, 0, 1e300, 0, 1, 1]], "polygon leaves its 30x20 image"),
        ([[0, 0, 1, 1]], "polygon without at least three"),
    ],
)
def test_a_bad_mask_is_a_problem_of_its_row_alone(segmentation, told):
    sound = encode_rle(np.eye(20, 30, dtype=bool)[None])[0]
    table = instance_table(set_of([sound, segmentation, sound, None], 30, 20))
    assert told in table["problem"][1]
    assert table["problem"][[0, 2, 3]].tolist() == ["", "", ""]
    assert table["mask_area"].tolist() == [20, 7, 20, 7]  # a fault is reported once: the rest is the box's


def test_the_survey_is_joined_by_file_name():
    annotations = replace(
        set_of([None], 30, 20), images=tuple(ImageRecord(n, f"{n}.png", 30, 20) for n in (1, 2, 3, 4))
    )
    rows = [
        ("3.png", 5, 6, "", 7, "ab" * 32),
        ("9.png", 1, 1, "", 1, "cd" * 32),
        ("1.png", 30, 20, "", 0, "ef" * 32),
        ("2.png", 0, 0, "cut off", 0, ""),
        ("3.png", 8, 8, "", 8, "00" * 32),
    ]
    survey = pd.DataFrame(rows, columns=SURVEY)
    table = image_table(annotations, survey)
    assert table["surveys"].tolist() == [1, 1, 2, 0]
    assert table["problem"].tolist() == ["", "cut off", "", ""]
    assert table["file_width"].tolist() == [30, 30, 5, 30]
    assert table["file_height"].tolist() == [20, 20, 6, 20]
    assert table["mask_difference"].tolist() == [0, 0, 7, 0]
    assert table["dhash"].tolist() == ["ef" * 32, "0" * 64, "ab" * 32, "0" * 64]
    assert table["instances"].tolist() == [1, 0, 0, 0]
    assert survey_table(annotations, survey)["listed"].tolist() == [1, 0, 1, 1, 1]


def test_categories_are_compared_without_regard_to_case():
    names = ("3CAD_Scratch", "x_new")
    annotations = replace(
        set_of([None], 9, 9), categories=tuple(CategoryRecord(n, name, "") for n, name in enumerate(names, 1))
    )
    table = category_table(annotations, frozenset({"3cad_scratch", "X_OLD"}))
    assert table["listed"].tolist() == [1, 0]
