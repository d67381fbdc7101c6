"""The tree of split files on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from labelled import labelled
from unispector.data.coco import Annotations, ImageRecord
from unispector.data.protocol.split_tree import BenchmarkSet, SplitReport, SplitTree, write_splits
from unispector.data.protocol.splits import SplitRules
from unispector.errors import DataError

RULES = SplitRules(unseen_fraction=0.25, prompts_per_class=5, tail_images=10, seen_test_fraction=0.15)


def member(name: str, domain: str = "in", classes: str = "abcd", images: int = 16) -> BenchmarkSet:
    """A set of single-label images, `images` of each class."""
    images_of = [[f"p_{class_name}"] for class_name in classes for _ in range(images)]
    return BenchmarkSet(name, f"raw/{name}", "in" if domain == "in" else "cross", labelled(images_of))


def write(root: Path, *sets: BenchmarkSet, rules: SplitRules = RULES, seeds=(42,), draws=(1,)) -> SplitReport:
    return write_splits(sets, rules, seeds, draws, root / "splits")


def test_every_file_lies_where_the_benchmark_has_it(tmp_path: Path) -> None:
    root = tmp_path / "splits"
    write(tmp_path, member("Tile"), member("Other", "cross"), seeds=(42, 777), draws=(1, 2))

    expected = {"report.json"}
    for seed in (42, 777):
        expected.add(f"in-domain/seen/InsA_train_seen_seed{seed}.json")
        for prompt_seed in (1, 2):
            for part in ("seen", "unseen"):
                for role in ("prompt", "target"):
                    folder = f"in-domain/{part}/Tile/{role}"
                    expected.add(f"{folder}/Tile_{part}_seed{seed}_prompt_seed{prompt_seed}.json")
    for prompt_seed in (1, 2):
        for role in ("prompt", "target"):
            expected.add(f"out-domain/Other/{role}/Other_prompt_seed{prompt_seed}.json")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert found == expected
    assert list(tmp_path.iterdir()) == [root]


def test_files_hold_what_their_place_says(tmp_path: Path) -> None:
    sets = [member("Tile"), member("Steel", classes="wxyz"), member("Other", "cross")]
    report = write(tmp_path, *sets)
    tree = SplitTree(tmp_path / "splits")
    training = Annotations.read(tree.training(42))
    by_set = {item.name: item for item in report.sets}

    seen = [f"{name}/{class_name}" for name in ("Tile", "Steel") for class_name in by_set[name].seen]
    assert list(training.class_names) == seen
    assert {image.file_name.split("/")[1] for image in training.images} == {"Tile", "Steel"}
    assert all(image.file_name.startswith("raw/") for image in training.images)
    steel = by_set["Steel"]
    # Of the seen classes 2 of 16 images are kept, one each.
    for part, classes, counts in (("unseen", steel.unseen, [5, 11]), ("seen", steel.seen, [3, 3])):
        pair = tree.in_domain("Steel", part, 42, 1)
        files = [Annotations.read(path) for path in (pair.prompt, pair.target)]
        assert [file.class_names for file in files] == [classes, classes]
        assert [len(file.images) for file in files] == counts
    pair = tree.cross_domain("Other", 1)
    assert len(Annotations.read(pair.prompt).class_names) == 4
    assert (pair.part, pair.split_seed) == ("cross", None)


def test_images_without_a_defect_train_beside_the_others(tmp_path: Path) -> None:
    free = (ImageRecord(0, "good/1.jpg", 30, 20), ImageRecord(0, "good/2.jpg", 9, 9))
    sets = [replace(member("Tile"), defect_free=free), member("Steel", classes="wxyz")]
    report = write(tmp_path, *sets, seeds=(42, 777))
    plain = write_splits([member("Tile"), sets[1]], RULES, (42, 777), (1,), tmp_path / "plain")
    for seed in (42, 777):
        training = Annotations.read(SplitTree(tmp_path / "splits").training(seed))
        without = Annotations.read(SplitTree(tmp_path / "plain").training(seed))
        shown = [image for image in training.images if training.instances_of(image.id)]
        added = [image for image in training.images if not training.instances_of(image.id)]
        assert [(image.file_name, image.width, image.height) for image in added] == [
            ("raw/Tile/good/1.jpg", 30, 20),
            ("raw/Tile/good/2.jpg", 9, 9),
        ]
        assert [image.file_name for image in shown] == [image.file_name for image in without.images]
        assert len({image.id for image in training.images}) == len(training.images)
        assert len(training.instances) == len(without.instances)
    told = {item.name: item for item in report.sets if item.split_seed == 42}
    assert (told["Tile"].training_defect_free, told["Steel"].training_defect_free) == (2, 0)
    assert [item.training_images for item in report.sets] == [item.training_images for item in plain.sets]


def test_a_set_of_which_every_class_trains_has_no_test_of_unseen_ones(tmp_path: Path) -> None:
    weld = replace(member("Weld", classes="w"), unseen=())
    report = write(tmp_path, member("Tile"), weld)
    told = {item.name: item for item in report.sets}["Weld"]
    assert (told.seen, told.unseen, told.untested_unseen) == (("p_w",), (), {})
    assert (told.training_images, told.seen_test_images) == (14, 2)
    assert [draw.part for draw in told.draws] == ["seen"]
    tree = SplitTree(tmp_path / "splits")
    assert "Weld/p_w" in Annotations.read(tree.training(42)).class_names
    assert not tree.in_domain("Weld", "unseen", 42, 1).prompt.exists()
    assert tree.in_domain("Weld", "seen", 42, 1).prompt.exists()


def test_report_counts(tmp_path: Path) -> None:
    write(tmp_path, member("Tile"), member("Other", "cross"))
    inside, cross = json.loads((tmp_path / "splits" / "report.json").read_text())["sets"]

    assert (inside["training_images"], inside["seen_test_images"]) == (42, 6)
    assert (inside["lost"]["images"], inside["lost"]["instances"]) == (0, 0)
    assert (inside["untested_seen"], inside["untested_unseen"], inside["untrained_seen"]) == ({}, {}, [])
    unseen = next(draw for draw in inside["draws"] if draw["part"] == "unseen")
    assert list(unseen["prompt_images"].values()) == [5]
    assert list(unseen["target_images_of"].values()) == [11]
    assert (cross["split_seed"], cross["seen"], len(cross["unseen"])) == (None, [], 4)
    assert cross["draws"][0]["target_images"] == 44
    assert (cross["lost"], cross["untested_unseen"]) == (None, {})


def rare(member: BenchmarkSet, *names: str) -> BenchmarkSet:
    """The set with one image left of each of these classes."""
    annotations = member.annotations
    dropped: set[int] = set()
    for category in annotations.categories:
        if category.name in names:
            showing = [item.image_id for item in annotations.instances if item.category_id == category.id]
            dropped.update(showing[1:])
    kept = annotations.keep_images({image.id for image in annotations.images} - dropped)
    return replace(member, annotations=kept)


def test_classes_that_cannot_be_prompted_are_left_out_and_named(tmp_path: Path) -> None:
    classes = "abcdefgh"
    whole = member("Tile", classes=classes)
    first, second = write(tmp_path, whole).sets[0].unseen
    sets = [rare(whole, first), rare(member("Other", "cross"), "p_a", "p_c")]

    report = write(tmp_path, *sets)

    reason = "1 image(s), but a prompt and a target are two"
    tile, other = report.sets
    assert (tile.unseen, tile.untested_unseen) == ((first, second), {first: reason})
    assert other.untested_unseen == {"p_a": reason, "p_c": reason}
    assert report.notes == (
        f"Tile, split seed 42: class {first} is not tested: {reason}",
        f"Other: class p_a is not tested: {reason}",
        f"Other: class p_c is not tested: {reason}",
    )
    tree = SplitTree(tmp_path / "splits")
    for pair, tested in (
        (tree.in_domain("Tile", "unseen", 42, 1), (second,)),
        (tree.cross_domain("Other", 1), ("p_b", "p_d")),
    ):
        for path in (pair.prompt, pair.target):
            assert Annotations.read(path).class_names == tested
    assert f"Tile/{first}" not in Annotations.read(tree.training(42)).class_names


def test_a_set_with_nothing_to_test_is_an_error(tmp_path: Path) -> None:
    whole = member("Tile")
    unseen = write(tmp_path, whole).sets[0].unseen
    with pytest.raises(DataError, match=r"Tile: split seed 42 leaves no unseen class .*p_.*another split"):
        write(tmp_path, rare(whole, *unseen))
    cross = rare(member("Other", "cross"), "p_a", "p_b", "p_c", "p_d")
    with pytest.raises(DataError, match=r"Other leaves no unseen class that can be tested \(p_a: 1 image"):
        write(tmp_path, whole, cross)


def test_the_naive_rule_is_told(tmp_path: Path) -> None:
    rules = replace(RULES, training_rule="naive")
    report = write(tmp_path, member("Tile"), rules=rules)
    assert report.training_rule == "naive"
    assert report.notes[0].startswith("NAIVE TRAINING")
    clean = write(tmp_path, member("Tile"))
    assert (clean.training_rule, clean.notes, clean.scored_on_prompts) == ("clean", (), False)


def test_written_again_it_is_the_same_and_nothing_old_stays(tmp_path: Path) -> None:
    root = tmp_path / "splits"
    write(tmp_path, member("Old"), member("Tile"), seeds=(1, 42))
    write(tmp_path, member("Tile"))
    first = {path: path.read_bytes() for path in root.rglob("*.json")}
    write(tmp_path, member("Tile"))
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == first
    names = [path.name.replace("prompt_seed1", "") for path in first]
    assert not [name for name in names if "Old" in name or "seed1.json" in name]


def test_a_failed_run_leaves_the_old_tree(tmp_path: Path) -> None:
    root = tmp_path / "splits"
    write(tmp_path, member("Tile"))
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    with pytest.raises(DataError, match="Tiny: split seed 42 leaves no unseen class"):
        write(tmp_path, member("Tile"), member("Tiny", images=1))
    with pytest.raises(DataError, match="no in-domain set"):
        write(tmp_path, member("Tile", "cross"))
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == before
    assert list(tmp_path.iterdir()) == [root]
