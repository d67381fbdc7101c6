"""The checks of the splits: silent on sound files, and every leak is told with its rule and its image."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from labelled import FOUR_CLASSES, two_sets
from unispector.data.checks.expectations import check_splits
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord
from unispector.data.protocol.split_tree import BenchmarkSet, SplitTree, write_splits
from unispector.data.protocol.splits import SplitRules
from unispector.errors import DataError

SEEDS = (42,)
# The rules that are broken here.
KNOWN = "training image is an image of its set"
KEEPS = "training image keeps its instances, class and box"
SHOWS_NO_UNSEEN = "training image shows no unseen class"
UNSEEN_TRAINS = "test image of unseen classes does not train"
SEEN_TRAINS = "test image of seen classes or of a cross-domain set does not train"
NOT_BOTH = "no image is both prompt and target"
ALL_TEST = "all images of an unseen class are prompts or targets"
SEEN_OR_UNSEEN = "no class is both seen and unseen"
RULES = SplitRules(unseen_fraction=0.25, prompts_per_class=2, tail_images=3, seen_test_fraction=0.2)


@pytest.fixture(scope="module", autouse=True)
def _expectations_are_imported() -> None:
    """It takes seconds once; no single test should pay for it."""
    importlib.import_module("great_expectations")


def broken(sets: list[BenchmarkSet], tree: SplitTree, **options: bool) -> dict[str, tuple[str, ...]]:
    """Broken rule -> the first rows that break it."""
    report = check_splits(sets, tree, SEEDS, SEEDS, **options)
    return {result.rule: result.examples for result in report.results if result.failed}


def extend(path: Path, images=(), instances=(), categories=()) -> None:
    """Add records to an annotation file."""
    old = Annotations.read(path)
    new = (*old.images, *images), (*old.instances, *instances), (*old.categories, *categories)
    Annotations(*new).write(path)


@pytest.fixture
def sets() -> list[BenchmarkSet]:
    """Two single-label sets with one two-label image (classes 1 and 2) at the end of each."""
    return two_sets([*FOUR_CLASSES, ["c1", "c2"]])


@pytest.fixture
def tree(sets: list[BenchmarkSet], tmp_path: Path) -> SplitTree:
    write_splits(sets, RULES, SEEDS, SEEDS, tmp_path / "splits")
    return SplitTree(tmp_path / "splits")


def test_sound_splits_pass(sets, tree):
    report = check_splits(sets, tree, SEEDS, SEEDS)
    assert report.passed, report.summary()
    assert all(result.checked for result in report.results)
    assert report.left_out == ()


def test_images_without_a_defect_may_train_if_they_are_the_set_s(sets, tmp_path):
    free = (ImageRecord(0, "good/1.png", 9, 9), ImageRecord(0, "good/2.png", 9, 9))
    sets = [replace(sets[0], defect_free=free), sets[1]]
    write_splits(sets, RULES, SEEDS, SEEDS, tmp_path)
    for naive in (False, True):
        assert broken(sets, SplitTree(tmp_path), naive=naive) == {}
    found = broken([replace(sets[0], defect_free=free[:1]), sets[1]], SplitTree(tmp_path))
    assert list(found) == [KNOWN]
    assert "raw/in/good/2.png" in found[KNOWN][0]


def test_a_set_of_which_every_class_trains_passes(sets, tmp_path):
    whole = replace(sets[0], name="All", folder="raw/all", unseen=())
    write_splits([*sets, whole], RULES, SEEDS, SEEDS, tmp_path)
    assert broken([*sets, whole], SplitTree(tmp_path)) == {}
    with pytest.raises(DataError, match="All_unseen_seed42_prompt_seed42"):
        broken([*sets, replace(whole, unseen=None)], SplitTree(tmp_path))
    write_splits([whole], RULES, SEEDS, SEEDS, tmp_path)
    report = check_splits([whole], SplitTree(tmp_path), SEEDS, SEEDS)
    assert report.passed, report.summary()
    assert [rule.rule for rule in report.left_out] == [SEEN_OR_UNSEEN]


def test_an_image_with_a_defect_that_trains_without_it_is_told(sets, tree):
    training = Annotations.read(tree.training(42))
    first = training.images[0]
    kept = tuple(item for item in training.instances if item.image_id != first.id)
    replace(training, instances=kept).write(tree.training(42))
    found = broken(sets, tree)
    assert list(found) == [KEEPS]
    assert first.file_name in found[KEEPS][0]


def test_an_unseen_class_in_training_is_told(sets, tree):
    """The image is looked up in its set's file, so leaving out the unseen label does not hide it."""
    training = Annotations.read(tree.training(42))
    unseen = Annotations.read(tree.in_domain("In", "unseen", 42, 42).target)
    leaked = replace(unseen.images[0], id=999, file_name=f"raw/in/{unseen.images[0].file_name}")
    extend(tree.training(42), [leaked], [replace(training.instances[0], id=999, image_id=999)])
    found = broken(sets, tree)
    assert set(found) == {SHOWS_NO_UNSEEN, KEEPS, UNSEEN_TRAINS}
    assert leaked.file_name in found[SHOWS_NO_UNSEEN][0]


def test_a_seen_test_image_in_training_is_told(sets, tree):
    training = Annotations.read(tree.training(42))
    target = Annotations.read(tree.in_domain("In", "seen", 42, 42).target)
    first = target.images[0]
    names = {category.id: category.name for category in target.categories}
    ids = {category.name: category.id for category in training.categories}
    instances = [
        replace(item, id=999 + n, image_id=999, category_id=ids[f"In/{names[item.category_id]}"])
        for n, item in enumerate(target.instances_of(first.id))
    ]
    extend(tree.training(42), [replace(first, id=999, file_name=f"raw/in/{first.file_name}")], instances)
    for naive in (False, True):
        found = broken(sets, tree, naive=naive)
        assert list(found) == [SEEN_TRAINS]
        assert first.file_name in found[SEEN_TRAINS][0]


@pytest.mark.parametrize("naive", [False, True])
def test_a_cross_domain_set_that_trains_under_another_name_is_told(tmp_path, naive):
    inside, outside = two_sets(FOUR_CLASSES)
    sets = [inside, replace(outside, folder=inside.folder)]
    write_splits(sets, RULES, SEEDS, SEEDS, tmp_path)
    assert list(broken(sets, SplitTree(tmp_path), naive=naive)) == [SEEN_TRAINS]


def test_a_class_both_seen_and_unseen_is_told(sets, tree):
    unseen = Annotations.read(tree.in_domain("In", "unseen", 42, 42).prompt).class_names[0]
    extend(tree.training(42), categories=[CategoryRecord(99, f"In/{unseen}", "p")])
    told = f"{tree.training(42).name}: class In/{unseen}: trained 1"
    for naive in (False, True):
        assert broken(sets, tree, naive=naive) == {SEEN_OR_UNSEEN: (told,)}


def test_an_unseen_class_that_cannot_be_tested_may_not_train(tmp_path):
    """Only the split report tells that it is unseen."""
    sets, tree = two_sets(FOUR_CLASSES), SplitTree(tmp_path)
    write_splits(sets, RULES, SEEDS, SEEDS, tmp_path)
    report = json.loads(tree.report.read_text())
    trained = Annotations.read(tree.training(42)).class_names[0].removeprefix("In/")
    report["sets"][0]["unseen"].append(trained)
    report["sets"][0]["untested_unseen"][trained] = "one image"
    tree.report.write_text(json.dumps(report))
    assert set(broken(sets, tree)) == {SHOWS_NO_UNSEEN, SEEN_OR_UNSEEN}


def test_naive_training_is_checked_by_its_own_rules(tmp_path):
    """Images 49 to 54 show an unseen class besides: they train, and they are tested."""
    trial = write_splits(two_sets(FOUR_CLASSES), RULES, SEEDS, SEEDS, tmp_path / "trial")
    unseen = trial.sets[0].unseen[0]
    seen = next(name for name in ("c1", "c2", "c3", "c4") if name != unseen)
    sets = two_sets([*FOUR_CLASSES, *[[seen, unseen]] * 6])
    write_splits(sets, replace(RULES, training_rule="naive"), SEEDS, SEEDS, tmp_path / "splits")
    tree = SplitTree(tmp_path / "splits")
    report = check_splits(sets, tree, SEEDS, SEEDS, naive=True)
    assert report.passed, report.summary()
    assert [rule.rule for rule in report.left_out] == [SHOWS_NO_UNSEEN, UNSEEN_TRAINS]
    assert all(rule.reason.startswith("the training rule is naive") for rule in report.left_out)
    assert set(broken(sets, tree)) == {SHOWS_NO_UNSEEN, KEEPS, UNSEEN_TRAINS}

    training = Annotations.read(tree.training(42))
    mixed = next(image for image in training.images if image.file_name == "raw/in/50.png")
    extend(tree.training(42), instances=[replace(training.instances_of(mixed.id)[0], id=999)])
    told = f"{tree.training(42).name}: raw/in/50.png: wrong_instances 1"
    assert broken(sets, tree, naive=True) == {KEEPS: (told,)}


@pytest.mark.parametrize("domain", ["in", "cross"])
def test_a_prompt_among_the_targets_is_told(sets, tree, domain):
    pair = tree.in_domain("In", "unseen", 42, 42) if domain == "in" else tree.cross_domain("Out", 42)
    prompt = Annotations.read(pair.prompt)
    moved = prompt.images[0]
    extend(pair.target, [moved], prompt.instances_of(moved.id))
    found = broken(sets, tree)
    assert list(found) == [NOT_BOTH]
    assert len(found[NOT_BOTH]) == 2
    assert moved.file_name in found[NOT_BOTH][0]


def test_targets_that_are_the_prompts_pass_where_that_is_said(sets, tree):
    pair = tree.cross_domain("Out", 42)
    Annotations.read(pair.prompt).write(pair.target)
    assert list(broken(sets, tree)) == [NOT_BOTH, ALL_TEST]
    report = check_splits(sets, tree, SEEDS, SEEDS, official=True, scored_on_prompts=True)
    assert report.passed
    assert [(rule.rule, rule.reason) for rule in report.left_out] == [
        (ALL_TEST, "the official files choose their targets"),
        (NOT_BOTH, "the files are scored on the prompt images themselves"),
    ]
    assert report.summary().endswith(f"are prompts or targets; {NOT_BOTH})")


def test_a_two_label_prompt_is_told(sets, tree):
    pair = tree.cross_domain("Out", 42)
    target = Annotations.read(pair.target)
    moved = next(image for image in target.images if image.file_name == "49.png")
    target.keep_images({image.id for image in target.images} - {moved.id}).write(pair.target)
    extend(pair.prompt, [moved], target.instances_of(moved.id))
    assert list(broken(sets, tree)) == ["prompt image shows one class only"]


def test_lost_instances_and_strange_images_are_told(sets, tree):
    pair = tree.cross_domain("Out", 42)
    target = Annotations.read(pair.target)
    last = next(image for image in target.images if image.file_name == "49.png")
    kept = tuple(item for item in target.instances if (item.image_id, item.category_id) != (last.id, 2))
    replace(target, instances=kept).write(pair.target)
    rule = "test image keeps its instances of the prompted classes, class and box"
    assert list(broken(sets, tree)) == [rule]

    strange = replace(target.images[0], file_name="elsewhere.png")
    replace(target, images=(strange, *target.images[1:])).write(pair.target)
    found = broken(sets, tree)
    assert {"test image is an image of its set", "test image shows a prompted class"} <= set(found)
    assert "elsewhere.png" in found["test image is an image of its set"][0]


def test_faults_of_training_images_are_told(sets, tree):
    training = Annotations.read(tree.training(42))
    first, second, *others = training.images
    strange = replace(first, file_name="raw/in/elsewhere.png")
    replace(training, images=(strange, second, *others)).write(tree.training(42))
    assert "elsewhere.png: known 0" in broken(sets, tree)[KNOWN][0]

    training.write(tree.training(42))
    extend(tree.training(42), instances=[replace(training.instances[0], id=999)])
    assert list(broken(sets, tree)) == [KEEPS]

    twice = replace(second, file_name=first.file_name)
    replace(training, images=(first, twice, *others)).write(tree.training(42))
    with pytest.raises(DataError, match="occurs twice"):  # the reader refuses it before the rule does
        broken(sets, tree)


def test_swapped_classes_and_moved_boxes_are_told(sets, tree):
    """As many instances as there should be, but not those."""
    for path in (tree.training(42), tree.cross_domain("Out", 42).target):
        part = Annotations.read(path)
        first, *others = part.instances
        ids = {category.id for category in part.categories}
        swapped = replace(first, category_id=min(ids - part.labels_of(first.image_id)))
        for wrong in (swapped, replace(first, bbox=(2.0, 1.0, 2.0, 2.0))):
            replace(part, instances=(wrong, *others)).write(path)
            (rule, (example,)), *more = broken(sets, tree).items()
            assert "class and box" in rule
            assert example.endswith("wrong_instances 2")
            assert not more
        part.write(path)


def test_targets_and_classes_that_were_left_out_are_told(sets, tree):
    pair = tree.in_domain("In", "unseen", 42, 42)
    target = Annotations.read(pair.target)
    target.keep_images({image.id for image in target.images[1:]}).write(pair.target)
    found = broken(sets, tree)
    assert list(found) == [ALL_TEST]
    assert found[ALL_TEST][0].endswith("unused_images 1")
    target.write(pair.target)

    for pair in (tree.in_domain("In", "seen", 42, 42), tree.cross_domain("Out", 42)):
        whole = [(path, Annotations.read(path)) for path in (pair.prompt, pair.target)]
        class_name = whole[0][1].class_names[0]
        for path, annotations in whole:
            other = annotations.keep_categories(set(annotations.class_index) - {min(annotations.class_index)})
            other.keep_images({item.image_id for item in other.instances}).write(path)
        found = broken(sets, tree)
        assert {"class has a prompt image", "class has a target image"} <= set(found)
        assert class_name in found["class has a prompt image"][0]
        for path, annotations in whole:
            annotations.write(path)


@pytest.mark.parametrize("role", ["prompt", "target"])
def test_a_class_without_prompt_or_target_is_told(sets, tree, role):
    path = getattr(tree.cross_domain("Out", 42), role)
    part = Annotations.read(path)
    part.keep_images({image.id for image in part.images if 4 not in part.labels_of(image.id)}).write(path)
    found = broken(sets, tree)
    found.pop(ALL_TEST)
    assert found == {f"class has a {role} image": (f"Out_prompt_seed42.json: class c4: {role}_images 0",)}


def test_a_missing_file_is_named(sets, tree):
    tree.cross_domain("Out", 42).target.unlink()
    with pytest.raises(DataError, match=r"Out_prompt_seed42.json: cannot be read"):
        broken(sets, tree)
    tree.report.write_text("[]")
    with pytest.raises(DataError, match=r"report.json: not the report of a split"):
        broken(sets, tree)
