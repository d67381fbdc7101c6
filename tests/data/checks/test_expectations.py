"""The checks of a set: silent on good data, and every single fault is told with its rule and its image."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unispector.data.checks.expectations import CheckReport, DataDocs, check_set
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.ops.rle import encode_rle

CATEGORIES = frozenset({"Tile_Cut", "Tile_Dent", "Tile_Hole"})


@pytest.fixture(scope="module", autouse=True)
def _expectations_are_imported() -> None:
    """It takes seconds once; no single test should pay for it."""
    importlib.import_module("great_expectations")


@pytest.fixture
def annotations() -> Annotations:
    """Images a and b with two instances each, of 20 x 10 pixels less a notch of 8, and 10 x 10."""
    masks = np.zeros((2, 40, 50), dtype=bool)
    masks[0, 5:15, 10:30] = True
    masks[0, 8, 12:20] = False
    masks[1, 30:40, 40:50] = True
    dent, cut = encode_rle(masks)
    boxes = ((10.0, 5.0, 20.0, 10.0), (40.0, 30.0, 10.0, 10.0))
    return Annotations(
        (ImageRecord(1, "a.png", 50, 40), ImageRecord(2, "b.png", 50, 40)),
        (
            InstanceRecord(1, 1, 2, boxes[0], 192.0, dent),
            InstanceRecord(2, 1, 1, boxes[1], 100.0, cut),
            InstanceRecord(3, 2, 2, boxes[0], 192.0, dent),
            InstanceRecord(4, 2, 1, boxes[1], 100.0, cut),
        ),
        (CategoryRecord(1, "tile_cut", "tile"), CategoryRecord(2, "tile_dent", "tile")),
    )


@pytest.fixture
def survey() -> pd.DataFrame:
    """What the survey of those images would hold, other columns left out."""
    return pd.DataFrame(
        {
            "file_name": ["a.png", "b.png"],
            "width": [50, 50],
            "height": [40, 40],
            "problem": ["", ""],
            "mask_difference": [0, 0],
            "dhash": ["0f" * 32, "f0" * 32],
        }
    )


def check(annotations: Annotations, survey: pd.DataFrame) -> CheckReport:
    return check_set("Set", annotations, survey, min_side=0.01, categories=CATEGORIES)


def broken(report: CheckReport) -> dict[str, tuple[str, ...]]:
    return {result.rule: result.examples for result in report.results if result.failed}


def rectangle(x: float, y: float, width: float, height: float) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def test_a_sound_set_passes(annotations, survey, tmp_path):
    report = check(annotations, survey)
    assert report.passed, report.summary()
    assert report.summary() == f"Set: all {len(report.results)} checks passed"
    assert report.left_out == ()
    assert {result.checked for result in report.results} == {2, 4}  # images or categories, instances
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is True


def test_rules_that_do_not_apply_are_named_with_the_reason(annotations, survey):
    speck = replace(annotations.instances[3], bbox=(10.0, 5.0, 0.4, 0.3), area=0.12, segmentation=None)
    small = replace(annotations, instances=(*annotations.instances[:3], speck))
    assert not check(small, survey).passed
    report = check_set("Set", small, survey, min_side=0.0)
    assert report.passed, report.summary()
    assert [(rule.rule, rule.reason) for rule in report.left_out] == [
        ("box is no smaller than the size rule allows", "min_side is 0: instances of any size are kept"),
        ("category is on the release's list", "the release has no list of categories"),
    ]
    told = r"\w+: all \d+ checks passed \(2 more are for data of another kind: box is .*; category is .*\)"
    assert re.fullmatch(told, report.summary())


def box(*xywh: float) -> dict[str, object]:
    """The change to an instance that is known by its box alone."""
    return {"bbox": xywh, "segmentation": None}


BOX = (10.5, 5.25, 20.75, 9.5)
SOUND: list[dict[str, object]] = [
    {},
    {"bbox": BOX, "segmentation": None, "area": 20.75 * 9.5},
    {"bbox": BOX, "segmentation": rectangle(*BOX), "area": 20.75 * 9.5},
]
NO_MASK = "mask decodes and marks a pixel"
# What is wrong with the dent of an image -> the rules it breaks and what is told of the first.
FAULTS: list[tuple[dict[str, object], tuple[str, ...], str]] = [
    ({"area": 191.0}, ("area is the mask's",), "area 191, mask_area 192"),
    ({"area": 0.0}, ("area is positive", "area is the mask's"), "area 0"),
    ({"bbox": (9.0, 5.0, 21.0, 10.0)}, ("box's left edge is the mask's",), "left 9, mask_left 10"),
    ({"bbox": (10.0, 4.0, 20.0, 11.0)}, ("box's top edge is the mask's",), "top 4, mask_top 5"),
    ({"bbox": (10.0, 5.0, 21.0, 10.0)}, ("box's right edge is the mask's",), "right 31, mask_right 30"),
    ({"bbox": (10.0, 5.0, 20.0, 10.5)}, ("box's bottom edge is the mask's",), "bottom 15.5, mask_bottom 15"),
    (box(-1, 5, 20, 10), ("box starts right of its image's left edge",), "left -1"),
    (box(10, -0.5, 20, 10), ("box starts below its image's top edge",), "top -0.5"),
    (box(31, 5, 20, 10), ("box ends left of its image's right edge",), "image_width 50, right 51"),
    (box(10, 31, 20, 10), ("box ends above its image's bottom edge",), "image_height 40, bottom 41"),
    (box(10, 5, 0.4, 10), ("box width is at least 0.01 of its image's",), "width_share 0.008"),
    (box(10, 5, 20, 0.3), ("box height is at least 0.01 of its image's",), "height_share 0.0075"),
    ({"segmentation": {"size": [40, 50], "counts": "1"}}, (NO_MASK,), "does not fill its size 50x40"),
    ({"segmentation": encode_rle(np.zeros((1, 40, 50), bool))[0]}, (NO_MASK,), "mask marks no pixel"),
    ({"segmentation": encode_rle(np.ones((1, 50, 40), bool))[0]}, (NO_MASK,), "mask is 40x50 but the image"),
    ({"segmentation": [[1.0, 1.0, 1e9, 1.0, 1.0, 1e9]]}, (NO_MASK,), "polygon leaves its 50x40 image"),
    (
        {"segmentation": rectangle(8.4, 5, 21.6, 10)},
        ("box's left edge is the mask's",),
        "left 10, mask_left 8",
    ),
]


def test_every_fault_of_an_instance_is_told_and_no_other(annotations, survey):
    """One image per fault: each rule names the images with its fault, with the value, and no sound one."""
    dent = annotations.instances[0]
    changes = [*SOUND, *(change for change, _, _ in FAULTS)]
    numbers = range(1, len(changes) + 1)
    planted = Annotations(
        tuple(ImageRecord(number, f"{number}.png", 50, 40) for number in numbers),
        tuple(
            replace(dent, id=number, image_id=number, **change)  # type: ignore[arg-type]
            for number, change in zip(numbers, changes, strict=True)
        ),
        annotations.categories,
    )
    expected: dict[str, list[str]] = {}
    for number, (_, rules, _) in enumerate(FAULTS, start=len(SOUND) + 1):
        for rule in rules:
            expected.setdefault(rule, []).append(f"{number}.png")

    rows = pd.concat([survey.iloc[:1].assign(file_name=image.file_name) for image in planted.images])
    found = broken(check(planted, rows))

    assert {rule: [told.split()[0] for told in examples] for rule, examples in found.items()} == expected
    for number, (_, rules, value) in enumerate(FAULTS, start=len(SOUND) + 1):
        assert any(
            f"{number}.png (annotation {number})" in told and value in told for told in found[rules[0]]
        )


def test_wrong_annotation_ids_are_told(annotations, survey):
    ids = (0, 2, 2, 5)
    renumbered = tuple(replace(item, id=id_) for item, id_ in zip(annotations.instances, ids, strict=True))
    report = check(replace(annotations, instances=renumbered), survey)
    assert broken(report) == {
        "annotation ids run from 1 to 4": ("a.png (annotation 0): id 0", "b.png (annotation 5): id 5"),
        "annotation ids are unique": ("a.png (annotation 2): id 2", "b.png (annotation 2): id 2"),
    }
    assert report.summary() == (
        "Set: rule broken: annotation ids run from 1 to 4: a.png (annotation 0): id 0 and 1 more; "
        "1 other rule(s) broken"
    )


NEVER_SURVEYED = "image was surveyed once"
# What the survey says of an image -> the rule that breaks and what is told.
FINDINGS: list[tuple[dict[str, object], str, str]] = [
    ({"problem": "torn", "width": 0, "height": 0, "dhash": ""}, "image and masks decode", "problem torn"),
    ({"width": 49}, "image has its stated width", "width 50, file_width 49"),
    ({"height": 0}, "image has its stated height", "height 40, file_height 0"),
    ({"mask_difference": 3}, "masks equal the release's, pixel by pixel", "mask_difference 3"),
    ({"dhash": "0f" * 31}, "image has a hash of 64 hex digits", f"dhash {'0f' * 31}"),
]


def test_every_fault_in_the_survey_is_told_and_no_other(annotations, survey):
    """Image n has the n-th fault; then one is not surveyed, one is twice, one is none of the set."""
    numbers = range(1, len(FINDINGS) + 4)
    planted = Annotations(
        tuple(ImageRecord(number, f"{number}.png", 50, 40) for number in numbers),
        tuple(replace(annotations.instances[0], id=number, image_id=number) for number in numbers),
        annotations.categories,
    )
    sound = survey.iloc[:1].to_dict("records")[0]
    rows = [sound | {"file_name": f"{n}.png"} | fault for n, (fault, _, _) in enumerate(FINDINGS, start=1)]
    unsurveyed, twice, last = (f"{number}.png" for number in numbers[-3:])
    rows += [sound | {"file_name": name} for name in (twice, twice, last, "strange.png")]

    report = check(planted, pd.DataFrame(rows))

    expected = {rule: (f"{n}.png: {told}",) for n, (_, rule, told) in enumerate(FINDINGS, start=1)}
    expected[NEVER_SURVEYED] = (f"{unsurveyed}: surveys 0", f"{twice}: surveys 2")
    expected["surveyed image is an image of the set"] = ("strange.png: listed 0",)
    assert broken(report) == expected
    assert not report.passed


COVERED = "masks cover at most 95% of their image (are they inverted?)"


def test_masks_that_cover_an_image_are_asked_about_and_pass(annotations, survey, tmp_path):
    """Image a is halved by a defect that is left out of the mask, b has 95 % and a pixel."""
    masks = np.zeros((3, 40, 50), dtype=bool)
    masks[0, :, :24], masks[1, :, 25:] = True, True
    masks[2, 2:] = True
    masks[2, 0, 0] = True
    records = [
        InstanceRecord(n, image, 1, (x, 0.0, w, 40.0), float(mask.sum()), code)
        for n, (image, x, w, mask, code) in enumerate(
            zip((1, 1, 2), (0.0, 25.0, 0.0), (24.0, 25.0, 50.0), masks, encode_rle(masks), strict=True),
            start=1,
        )
    ]
    docs = DataDocs()
    planted = replace(annotations, instances=tuple(records))
    report = check_set("Set", planted, survey, min_side=0.01, categories=CATEGORIES, docs=docs)
    assert report.passed
    assert broken(report) == {COVERED: ("a.png: mask_share 0.98", "b.png: mask_share 0.9505")}
    assert report.summary() == (
        f"Set: {len(report.results) - 1} checks passed; to be looked at: {COVERED}: "
        "a.png: mask_share 0.98 and 1 more"
    )
    docs.write(tmp_path / "site", [report])
    index = (tmp_path / "site/index.html").read_text()
    assert ">passed<" in index
    assert "a.png: mask_share 0.98" in index

    masks[2, 0, 0] = masks[0, :5] = False
    exact = [
        replace(each, segmentation=code, area=float(mask.sum()))
        for each, code, mask in zip(records, encode_rle(masks), masks, strict=True)
    ]
    exact[0] = replace(exact[0], bbox=(0.0, 5.0, 24.0, 35.0))
    exact[2] = replace(exact[2], bbox=(0.0, 2.0, 50.0, 38.0))
    assert broken(check(replace(annotations, instances=tuple(exact)), survey)) == {}


def test_a_question_does_not_hide_a_broken_rule(annotations, survey):
    whole = encode_rle(np.ones((1, 40, 50), dtype=bool))[0]
    box = (0.0, 0.0, 50.0, 40.0)
    instances = (*annotations.instances[1:], InstanceRecord(1, 1, 1, box, 7.0, whole))
    report = check(replace(annotations, instances=instances), survey)
    assert not report.passed
    assert report.summary() == (
        "Set: rule broken: area is the mask's: a.png (annotation 1): area 7, mask_area 2000; "
        f"to be looked at: {COVERED}: a.png: mask_share 1"
    )


def test_an_empty_survey_is_told_of_every_image(annotations, survey):
    found = broken(check(annotations, survey.iloc[:0]))
    assert found == {NEVER_SURVEYED: ("a.png: surveys 0", "b.png: surveys 0")}


def test_faults_between_images_are_told(annotations, survey):
    first, second = annotations.images
    bare = replace(annotations, images=(first, replace(second, id=3)), instances=annotations.instances[:2])
    assert broken(check(bare, survey)) == {
        "image ids run from 1 to 2": ("b.png: id 3",),
        "image has an instance": ("b.png: instances 0",),
    }
    twice = replace(annotations, images=(first, first), instances=annotations.instances[:2])
    assert broken(check(twice, survey.iloc[:1])) == {
        "image ids are unique": ("a.png: id 1", "a.png: id 1"),
        "no image is listed twice": ("a.png: file a.png", "a.png: file a.png"),
    }


def test_a_category_off_the_list_is_told(annotations, survey):
    strange = replace(annotations, categories=(annotations.categories[0], CategoryRecord(2, "tile_x", "")))
    assert broken(check(strange, survey)) == {
        "category is on the release's list": ("category tile_x: listed 0",)
    }


def text_of(page: Path) -> str:
    text = re.sub(r"<(script|style)[\s\S]*?</\1>", "", page.read_text(encoding="utf-8"))
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_data_docs_have_a_page_per_check_and_say_the_rules(annotations, survey, tmp_path):
    docs = DataDocs()
    arguments = {"min_side": 0.01, "categories": CATEGORIES, "docs": docs}
    reports = [
        check_set("Sound 1.0", annotations, survey, **arguments),
        check_set("Broken", annotations, survey.assign(width=[50, 49]), **arguments),
        CheckReport.unreadable("Lost", DataError("Lost.json: <gone>")),
    ]
    site = tmp_path / "site"
    site.mkdir()
    (site / "old.html").touch()

    docs.write(site, reports)

    assert not (site / "old.html").exists()
    index = (site / "index.html").read_text()
    assert "https:" not in index
    assert "Lost.json: &lt;gone&gt;" in index
    pages = [site / link.replace("%20", " ") for link in re.findall(r'href="([^"]+)"', index)]
    assert len(pages) == 2
    for page, report in zip(pages, reports, strict=False):
        text = text_of(page)
        assert report.name in text
        assert all(result.rule in text for result in report.results)
        assert ("b.png" in text) is not report.passed
