"""The checks: silent on good data, and every single fault is told with its rule and its image."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.convert import convert_set
from unispector.data.expectations import CheckReport, check_set, check_splits
from unispector.data.sources.rows import SourceImage, SourceSet
from unispector.data.split_tree import BenchmarkSet, SplitTree, write_splits
from unispector.data.splits import SplitRules
from unispector.errors import DataError
from unispector.ops.rle import encode_rle

SEEDS = (42,)
RULES = SplitRules(unseen_fraction=0.25, prompts_per_class=2, tail_images=3, seen_test_fraction=0.2)


@pytest.fixture(scope="module", autouse=True)
def _expectations_are_imported() -> None:
    """It takes seconds once; no single test should pay for it."""
    importlib.import_module("great_expectations")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 50), 90, np.uint8))
    return tmp_path


@pytest.fixture
def annotations() -> Annotations:
    masks = np.zeros((2, 40, 50), dtype=bool)
    masks[0, 5:15, 10:30] = True
    masks[0, 8, 12:20] = False
    masks[1, 30:40, 40:50] = True
    rows = (SourceImage(f"{name}.png", 50, 40, ("dent", "cut"), masks) for name in ("a", "b"))
    return convert_set("Set", SourceSet("tile", (), rows), 0.01)[0]


def broken(report: CheckReport) -> dict[str, tuple[str, ...]]:
    return {result.rule: result.examples for result in report.results if result.failed}


def with_instance(annotations: Annotations, **changes: object) -> Annotations:
    """The third instance (of image b) changed."""
    third = replace(annotations.instances[2], **changes)  # type: ignore[arg-type]
    return replace(annotations, instances=(*annotations.instances[:2], third, *annotations.instances[3:]))


def test_a_sound_set_passes(annotations: Annotations, root: Path, tmp_path: Path) -> None:
    report = check_set("Set", annotations, root, 0.01)
    assert report.passed, report.summary()
    assert report.summary() == f"Set: all {len(report.results)} checks passed"
    assert {result.checked for result in report.results} == {2, 4}
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is True


def test_boxes_without_masks_pass(annotations: Annotations, root: Path) -> None:
    assert check_set("Set", with_instance(annotations, segmentation=None), root, 0.01).passed


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"id": 2}, ["annotation ids are unique"]),
        ({"id": 0}, ["annotation ids run from 1 to 4"]),
        ({"area": 191.0}, ["area is the mask's"]),
        ({"area": 0.0}, ["area is positive", "area is the mask's"]),
        ({"bbox": (9.0, 5.0, 21.0, 10.0)}, ["box's left edge is the mask's"]),
        ({"bbox": (10.0, 4.0, 20.0, 11.0)}, ["box's top edge is the mask's"]),
        ({"bbox": (10.0, 5.0, 21.0, 10.0)}, ["box's right edge is the mask's"]),
        ({"bbox": (10.0, 5.0, 20.0, 10.5)}, ["box's bottom edge is the mask's"]),
        (
            {"bbox": (-1.0, 5.0, 20.0, 10.0), "segmentation": None},
            ["box starts right of its image's left edge"],
        ),
        ({"bbox": (10.0, -0.5, 20.0, 10.0), "segmentation": None}, ["box starts below its image's top edge"]),
        (
            {"bbox": (31.0, 5.0, 20.0, 10.0), "segmentation": None},
            ["box ends left of its image's right edge"],
        ),
        (
            {"bbox": (10.0, 31.0, 20.0, 10.0), "segmentation": None},
            ["box ends above its image's bottom edge"],
        ),
        (
            {"bbox": (10.0, 5.0, 0.4, 10.0), "segmentation": None},
            ["box width is at least 0.01 of its image's"],
        ),
        (
            {"bbox": (10.0, 5.0, 20.0, 0.3), "segmentation": None},
            ["box height is at least 0.01 of its image's"],
        ),
        ({"segmentation": {"size": [40, 50], "counts": "1"}}, ["mask decodes and marks a pixel"]),
        (
            {"segmentation": encode_rle(np.zeros((1, 40, 50), dtype=bool))[0]},
            ["mask decodes and marks a pixel"],
        ),
    ],
)
def test_a_fault_of_an_instance_is_told(
    annotations: Annotations, root: Path, changes: dict[str, object], rules: list[str]
) -> None:
    report = check_set("Set", with_instance(annotations, **changes), root, 0.01)
    assert sorted(broken(report)) == sorted(rules)
    assert any("b.png" in example for examples in broken(report).values() for example in examples)
    assert report.summary().startswith(f"Set: rule broken: {rules[0]}: ")
    assert "\n" not in report.summary()


def shrink(path: Path) -> None:
    cv2.imwrite(str(path), np.full((39, 49), 90, np.uint8))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("damage", "rules"),
    [
        (Path.unlink, ["image opens"]),
        (truncate, ["image opens"]),
        (shrink, ["image has its stated height", "image has its stated width"]),
    ],
)
def test_a_fault_of_a_file_is_told(
    annotations: Annotations, root: Path, damage: Callable[[Path], None], rules: list[str]
) -> None:
    damage(root / "b.png")
    report = check_set("Set", annotations, root, 0.01)
    assert sorted(broken(report)) == rules
    assert all(example.startswith("b.png: ") for examples in broken(report).values() for example in examples)


def test_faults_between_images_are_told(annotations: Annotations, root: Path) -> None:
    first, second = annotations.images
    twice = replace(annotations, images=(first, replace(second, file_name="a.png")))
    assert broken(check_set("Set", twice, root, 0.01)) == {"no image is listed twice": ("a.png", "a.png")}
    bare = replace(annotations, instances=annotations.instances[:2])
    assert broken(check_set("Set", bare, root, 0.01)) == {"image has an instance": ("b.png: instances 0",)}


@pytest.fixture
def sets() -> list[BenchmarkSet]:
    """Two single-label sets with one two-label image (classes 1 and 2) at the end of each."""
    labels = [(1 + position // 12,) for position in range(48)] + [(1, 2)]
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

    assert set(found) == {"training image shows no unseen class", "test image does not train"}
    assert leaked.file_name in found["training image shows no unseen class"][0]


def test_a_class_both_seen_and_unseen_is_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    training = Annotations.read(tree.training(42))
    unseen = Annotations.read(tree.in_domain("In", "unseen", 42, 42).prompt).class_names[0]
    extra = CategoryRecord(99, f"In/{unseen}", "p")
    replace(training, categories=(*training.categories, extra)).write(tree.training(42))
    assert list(broken(check_splits(sets, tree, SEEDS, SEEDS))) == ["no class is both seen and unseen"]


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
    assert "test image is an image of its set" in broken(check_splits(sets, tree, SEEDS, SEEDS))


def test_a_class_without_prompt_is_told(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    pair = tree.cross_domain("Out", 42)
    prompt = Annotations.read(pair.prompt)
    one = prompt.keep_images({image.id for image in prompt.images if 4 not in prompt.labels_of(image.id)})
    one.write(pair.prompt)
    found = broken(check_splits(sets, tree, SEEDS, SEEDS))
    assert found == {"class has a prompt image": ("Out_prompt_seed42.json: class c4: prompt_images 0",)}


def test_a_missing_file_is_named(sets: list[BenchmarkSet], tree: SplitTree) -> None:
    tree.cross_domain("Out", 42).target.unlink()
    with pytest.raises(DataError, match=r"Out_prompt_seed42.json: cannot be read"):
        check_splits(sets, tree, SEEDS, SEEDS)
