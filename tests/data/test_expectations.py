"""The checks: silent on good data, and every single fault is told with its rule and its image."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.expectations import CheckReport, DataDocs, check_set, check_splits
from unispector.data.split_tree import BenchmarkSet, SplitTree, write_splits
from unispector.data.splits import SplitRules
from unispector.errors import DataError
from unispector.ops.rle import encode_rle

SEEDS = (42,)
RULES = SplitRules(unseen_fraction=0.25, prompts_per_class=2, tail_images=3, seen_test_fraction=0.2)
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


def test_a_sound_set_passes(annotations: Annotations, survey: pd.DataFrame, tmp_path: Path) -> None:
    report = check(annotations, survey)
    assert report.passed, report.summary()
    assert report.summary() == f"Set: all {len(report.results)} checks passed"
    assert report.left_out == ()
    assert {result.checked for result in report.results} == {2, 4}  # images or categories, instances
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is True


def test_rules_that_do_not_apply_are_named_with_the_reason(
    annotations: Annotations, survey: pd.DataFrame
) -> None:
    speck = replace(annotations.instances[3], bbox=(10.0, 5.0, 0.4, 0.3), area=0.12, segmentation=None)
    small = replace(annotations, instances=(*annotations.instances[:3], speck))
    assert not check(small, survey).passed
    report = check_set("Set", small, survey, min_side=0.0)
    assert report.passed, report.summary()
    assert [(rule.rule, rule.reason) for rule in report.left_out] == [
        ("box is no smaller than the size rule allows", "min_side is 0: instances of any size are kept"),
        ("category is on the release's list", "the release has no list of categories"),
    ]
    assert "left out: box is no smaller than" in report.summary()


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
    (
        {"bbox": (-1.0, 5.0, 20.0, 10.0), "segmentation": None},
        ("box starts right of its image's left edge",),
        "left -1",
    ),
    (
        {"bbox": (10.0, -0.5, 20.0, 10.0), "segmentation": None},
        ("box starts below its image's top edge",),
        "top -0.5",
    ),
    (
        {"bbox": (31.0, 5.0, 20.0, 10.0), "segmentation": None},
        ("box ends left of its image's right edge",),
        "image_width 50, right 51",
    ),
    (
        {"bbox": (10.0, 31.0, 20.0, 10.0), "segmentation": None},
        ("box ends above its image's bottom edge",),
        "image_height 40, bottom 41",
    ),
    (
        {"bbox": (10.0, 5.0, 0.4, 10.0), "segmentation": None},
        ("box width is at least 0.01 of its image's",),
        "width_share 0.008",
    ),
    (
        {"bbox": (10.0, 5.0, 20.0, 0.3), "segmentation": None},
        ("box height is at least 0.01 of its image's",),
        "height_share 0.0075",
    ),
    ({"segmentation": {"size": [40, 50], "counts": "1"}}, (NO_MASK,), "does not fill its size 50x40"),
    ({"segmentation": encode_rle(np.zeros((1, 40, 50), bool))[0]}, (NO_MASK,), "mask marks no pixel"),
    ({"segmentation": encode_rle(np.ones((1, 50, 40), bool))[0]}, (NO_MASK,), "mask is 40x50 but the image"),
    ({"segmentation": [[1.0, 1.0, 1e9, 1.0, 1.0, 1e9]]}, (NO_MASK,), "polygon leaves its 50x40 image"),
    (
        {"segmentation": rectangle(8.4, 5.0, 21.6, 10.0)},
        ("box's left edge is the mask's",),
        "left 10, mask_left 8",
    ),
]


def test_every_fault_of_an_instance_is_told_and_no_other(
    annotations: Annotations, survey: pd.DataFrame
) -> None:
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


def test_wrong_annotation_ids_are_told(annotations: Annotations, survey: pd.DataFrame) -> None:
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
    (
        {"problem": "cut off", "width": 0, "height": 0, "dhash": ""},
        "image and masks decode",
        "problem cut off",
    ),
    ({"width": 49}, "image has its stated width", "width 50, file_width 49"),
    ({"height": 0}, "image has its stated height", "height 40, file_height 0"),
    ({"mask_difference": 3}, "masks equal the release's, pixel by pixel", "mask_difference 3"),
    ({"dhash": "0f" * 31}, "image has a hash of 64 hex digits", f"dhash {'0f' * 31}"),
]


def test_every_fault_in_the_survey_is_told_and_no_other(
    annotations: Annotations, survey: pd.DataFrame
) -> None:
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


def test_an_empty_survey_is_told_of_every_image(annotations: Annotations, survey: pd.DataFrame) -> None:
    found = broken(check(annotations, survey.iloc[:0]))
    assert found == {NEVER_SURVEYED: ("a.png: surveys 0", "b.png: surveys 0")}


def test_faults_between_images_are_told(annotations: Annotations, survey: pd.DataFrame) -> None:
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


def test_a_category_off_the_list_is_told(annotations: Annotations, survey: pd.DataFrame) -> None:
    strange = replace(annotations, categories=(annotations.categories[0], CategoryRecord(2, "tile_x", "")))
    assert broken(check(strange, survey)) == {
        "category is on the release's list": ("category tile_x: listed 0",)
    }


def text_of(page: Path) -> str:
    text = re.sub(r"<(script|style)[\s\S]*?</\1>", "", page.read_text(encoding="utf-8"))
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_data_docs_have_a_page_per_check_and_say_the_rules(
    annotations: Annotations, survey: pd.DataFrame, tmp_path: Path
) -> None:
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


@pytest.fixture
def sets() -> list[BenchmarkSet]:
    """Two single-label sets with one two-label image (classes 1 and 2) at the end of each."""
    labels = [(1 + position // 12,) for position in range(48)] + [(1, 2)]
    return benchmark(labels)


def benchmark(labels: list[tuple[int, ...]]) -> list[BenchmarkSet]:
    """A set that trains and one that does not; `labels` are the classes of each image."""
    pairs = [(image_id, label) for image_id, image in enumerate(labels, start=1) for label in image]
    box = (1.0, 1.0, 2.0, 2.0)
    annotations = Annotations(
        tuple(ImageRecord(n, f"{n}.png", 9, 9) for n in range(1, len(labels) + 1)),
        tuple(InstanceRecord(n, *pair, box, 4.0, None) for n, pair in enumerate(pairs, start=1)),
        tuple(CategoryRecord(n, f"c{n}", "p") for n in range(1, 5)),
    )
    return [
        BenchmarkSet("In", "raw/in", "in", annotations),
        BenchmarkSet("Out", "raw/out", "cross", annotations),
    ]


@pytest.fixture
def tree(sets: list[BenchmarkSet], tmp_path: Path) -> SplitTree:
    write_splits(sets, RULES, SEEDS, SEEDS, tmp_path / "splits")
    return SplitTree(tmp_path / "splits")


def test_sound_splits_pass(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    report = check_splits(sets, tree, SEEDS, SEEDS)
    assert report.passed, report.summary()
    assert all(result.checked for result in report.results)
    assert report.left_out == ()


def test_an_unseen_class_in_training_is_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    """The image is looked up in its set's file, so leaving out the unseen label does not hide it."""
    training = Annotations.read(tree.training(42))
    unseen = Annotations.read(tree.in_domain("In", "unseen", 42, 42).target)
    leaked = replace(unseen.images[0], id=999, file_name=f"raw/in/{unseen.images[0].file_name}")
    instance = replace(training.instances[0], id=999, image_id=999)
    replace(training, images=(*training.images, leaked), instances=(*training.instances, instance)).write(
        tree.training(42)
    )

    found = broken(check_splits(sets, tree, SEEDS, SEEDS))

    assert set(found) == {
        "training image shows no unseen class",
        "test image of unseen classes does not train",
    }
    assert leaked.file_name in found["training image shows no unseen class"][0]


def test_a_seen_test_image_in_training_is_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    training = Annotations.read(tree.training(42))
    target = Annotations.read(tree.in_domain("In", "seen", 42, 42).target)
    leaked = replace(target.images[0], id=999, file_name=f"raw/in/{target.images[0].file_name}")
    kept = target.instances_of(target.images[0].id)
    extra = tuple(replace(training.instances[0], id=999 + n, image_id=999) for n in range(len(kept)))
    replace(training, images=(*training.images, leaked), instances=(*training.instances, *extra)).write(
        tree.training(42)
    )
    for naive in (False, True):
        found = broken(check_splits(sets, tree, SEEDS, SEEDS, naive=naive))
        assert list(found) == ["test image of seen classes does not train"]
        assert target.images[0].file_name in found["test image of seen classes does not train"][0]


def test_a_class_both_seen_and_unseen_is_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    training = Annotations.read(tree.training(42))
    unseen = Annotations.read(tree.in_domain("In", "unseen", 42, 42).prompt).class_names[0]
    extra = CategoryRecord(99, f"In/{unseen}", "p")
    replace(training, categories=(*training.categories, extra)).write(tree.training(42))
    for naive in (False, True):
        found = broken(check_splits(sets, tree, SEEDS, SEEDS, naive=naive))
        assert found == {
            "no class is both seen and unseen": (f"{tree.training(42).name}: class In/{unseen}: trained 1",)
        }


def test_an_unseen_class_that_cannot_be_tested_may_not_train(tmp_path: Path) -> None:
    """Only the split report tells that it is unseen."""
    labels = [(1 + position // 12,) for position in range(48)]
    sets = benchmark(labels)
    write_splits(sets, RULES, SEEDS, SEEDS, tmp_path)
    tree = SplitTree(tmp_path)
    report = json.loads(tree.report.read_text())
    trained = Annotations.read(tree.training(42)).class_names[0].removeprefix("In/")
    report["sets"][0]["unseen"].append(trained)
    tree.report.write_text(json.dumps(report))
    found = broken(check_splits(sets, tree, SEEDS, SEEDS))
    assert set(found) == {"training image shows no unseen class", "no class is both seen and unseen"}


def test_naive_training_is_checked_by_its_own_rules(tmp_path: Path) -> None:
    """Images 49 to 54 show an unseen class besides: they train, and they are tested."""
    labels = [(1 + position // 12,) for position in range(48)]
    unseen = write_and_read_unseen(benchmark(labels), tmp_path / "trial")
    seen = next(label for label in (1, 2, 3, 4) if label != unseen)
    sets = benchmark(labels + [(seen, unseen)] * 6)
    write_splits(sets, replace(RULES, training_rule="naive"), SEEDS, SEEDS, tmp_path / "splits")
    tree = SplitTree(tmp_path / "splits")

    report = check_splits(sets, tree, SEEDS, SEEDS, naive=True)

    assert report.passed, report.summary()
    assert [rule.rule for rule in report.left_out] == [
        "training image shows no unseen class",
        "test image of unseen classes does not train",
    ]
    assert all(rule.reason.startswith("the training rule is naive") for rule in report.left_out)
    found = broken(check_splits(sets, tree, SEEDS, SEEDS))
    assert set(found) == {
        "training image shows no unseen class",
        "training image keeps all its instances",
        "test image of unseen classes does not train",
    }

    training = Annotations.read(tree.training(42))
    mixed = next(image for image in training.images if image.file_name == "raw/in/50.png")
    twice = (*training.instances, replace(training.instances_of(mixed.id)[0], id=999))
    replace(training, instances=twice).write(tree.training(42))
    found = broken(check_splits(sets, tree, SEEDS, SEEDS, naive=True))
    assert found == {
        "training image keeps all its instances": (
            f"{tree.training(42).name}: raw/in/50.png: instances 2, set_instances 1",
        )
    }


def write_and_read_unseen(sets: list[BenchmarkSet], root: Path) -> int:
    report = write_splits(sets, RULES, SEEDS, SEEDS, root)
    return int(report.sets[0].unseen[0].removeprefix("c"))


@pytest.mark.parametrize("domain", ["in", "cross"])
def test_a_prompt_among_the_targets_is_told(sets: list[BenchmarkSet], tree: SplitTree, domain: str) -> None:
    pair = tree.in_domain("In", "unseen", 42, 42) if domain == "in" else tree.cross_domain("Out", 42)
    prompt, target = Annotations.read(pair.prompt), Annotations.read(pair.target)
    moved = prompt.images[0]
    Annotations(
        (*target.images, moved), (*target.instances, *prompt.instances_of(moved.id)), target.categories
    ).write(pair.target)
    found = broken(check_splits(sets, tree, SEEDS, SEEDS))
    assert list(found) == ["no image is both prompt and target"]
    assert len(found["no image is both prompt and target"]) == 2
    assert moved.file_name in found["no image is both prompt and target"][0]


def test_targets_that_are_the_prompts_pass_where_that_is_said(
    sets: list[BenchmarkSet], tree: SplitTree
) -> None:
    pair = tree.cross_domain("Out", 42)
    Annotations.read(pair.prompt).write(pair.target)
    assert list(broken(check_splits(sets, tree, SEEDS, SEEDS))) == ["no image is both prompt and target"]
    report = check_splits(sets, tree, SEEDS, SEEDS, scored_on_prompts=True)
    assert report.passed
    assert [(rule.rule, rule.reason) for rule in report.left_out] == [
        ("no image is both prompt and target", "the files are scored on the prompt images themselves")
    ]
    assert report.summary().endswith("; left out: no image is both prompt and target")


def test_a_two_label_prompt_is_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    pair = tree.cross_domain("Out", 42)
    prompt, target = Annotations.read(pair.prompt), Annotations.read(pair.target)
    moved = next(image for image in target.images if image.file_name == "49.png")
    target.keep_images({image.id for image in target.images} - {moved.id}).write(pair.target)
    Annotations(
        (*prompt.images, moved), (*prompt.instances, *target.instances_of(moved.id)), prompt.categories
    ).write(pair.prompt)
    assert list(broken(check_splits(sets, tree, SEEDS, SEEDS))) == ["prompt image shows one class only"]


def test_lost_instances_and_strange_images_are_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    pair = tree.cross_domain("Out", 42)
    target = Annotations.read(pair.target)
    last = next(image for image in target.images if image.file_name == "49.png")
    kept = tuple(item for item in target.instances if (item.image_id, item.category_id) != (last.id, 2))
    replace(target, instances=kept).write(pair.target)
    rule = "test image keeps all instances of the prompted classes"
    assert list(broken(check_splits(sets, tree, SEEDS, SEEDS))) == [rule]

    strange = replace(target.images[0], file_name="elsewhere.png")
    replace(target, images=(strange, *target.images[1:])).write(pair.target)
    found = broken(check_splits(sets, tree, SEEDS, SEEDS))
    assert {"test image is an image of its set", "test image shows a prompted class"} <= set(found)
    assert "elsewhere.png" in found["test image is an image of its set"][0]


def test_faults_of_training_images_are_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    training = Annotations.read(tree.training(42))
    first, second = training.images[:2]
    strange = replace(first, file_name="raw/in/elsewhere.png")
    replace(training, images=(strange, *training.images[1:])).write(tree.training(42))
    found = broken(check_splits(sets, tree, SEEDS, SEEDS))
    assert "elsewhere.png: known 0" in found["training image is an image of its set"][0]

    doubled = replace(training, instances=(*training.instances, replace(training.instances[0], id=999)))
    doubled.write(tree.training(42))
    found = broken(check_splits(sets, tree, SEEDS, SEEDS))
    assert list(found) == ["training image keeps all its instances"]

    twice = replace(
        training, images=(first, replace(second, file_name=first.file_name), *training.images[2:])
    )
    twice.write(tree.training(42))
    with pytest.raises(DataError, match="occurs twice"):  # the reader refuses it before the rule does
        check_splits(sets, tree, SEEDS, SEEDS)


def test_a_class_without_prompt_or_target_is_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    pair = tree.cross_domain("Out", 42)
    prompt, target = Annotations.read(pair.prompt), Annotations.read(pair.target)
    for part, path, role in ((prompt, pair.prompt, "prompt"), (target, pair.target, "target")):
        one = part.keep_images({image.id for image in part.images if 4 not in part.labels_of(image.id)})
        one.write(path)
        found = broken(check_splits(sets, tree, SEEDS, SEEDS))
        assert found == {f"class has a {role} image": (f"Out_prompt_seed42.json: class c4: {role}_images 0",)}
        part.write(path)


def test_a_missing_file_is_named(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    tree.cross_domain("Out", 42).target.unlink()
    with pytest.raises(DataError, match=r"Out_prompt_seed42.json: cannot be read"):
        check_splits(sets, tree, SEEDS, SEEDS)
    tree.report.write_text("[]")
    with pytest.raises(DataError, match=r"report.json: not the report of a split"):
        check_splits(sets, tree, SEEDS, SEEDS)
