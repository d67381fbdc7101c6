"""Seen and unseen classes, prompts and targets: nothing leaks, whatever occurs together."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from labelled import labelled
from unispector.data.coco import Annotations
from unispector.data.protocol.splits import (
    SplitRules,
    choose_unseen,
    draw_prompts,
    merge_training,
    split_set,
    untestable,
)
from unispector.errors import DataError

REAL = Path("../shared/data/magnetic_tile")
RULES = SplitRules(unseen_fraction=0.25, prompts_per_class=5, tail_images=10, seen_test_fraction=0.15)


def ids(annotations: Annotations) -> set[int]:
    return {image.id for image in annotations.images}


def names_on(annotations: Annotations, image_id: int) -> set[str]:
    names = {category.id: category.name for category in annotations.categories}
    return {names[id_] for id_ in annotations.labels_of(image_id)}


@pytest.mark.parametrize(("classes", "unseen"), [(2, 1), (3, 1), (5, 1), (10, 3), (73, 18), (111, 28)])
def test_a_quarter_is_unseen(classes, unseen):
    names = [f"c{number}" for number in range(classes)]
    chosen = choose_unseen(names, 0.25, 42)
    assert len(chosen) == unseen
    assert chosen == tuple(sorted(set(chosen) & set(names)))
    assert choose_unseen(names[::-1], 0.25, 42) == chosen
    assert len({choose_unseen(names, 0.25, seed) for seed in range(20)}) > 1


def test_too_few_classes_are_refused():
    with pytest.raises(DataError, match="1 classes cannot be split"):
        choose_unseen(["a"], 0.25, 42)
    with pytest.raises(DataError, match=r"lower split.unseen_fraction"):
        choose_unseen(["a", "b"], 0.9, 42)
    with pytest.raises(DataError, match=r"Tile: 1 classes .*data\.sets\.Tile\.unseen \(\[\] = nothing\)"):
        split_set("Tile", labelled([["a"]] * 30), RULES, 42)


def test_classes_that_are_named_are_held_out_whatever_the_seed():
    annotations = labelled([["a"], ["b"], ["c"], ["b", "c"]] * 6)
    for seed in (42, 82):
        split = split_set("Tile", annotations, RULES, seed, unseen=["c", "a"])
        assert (split.unseen, split.seen) == (("a", "c"), ("b",))
        assert all(names_on(annotations, image.id) == {"b"} for image in split.training.images)


def test_a_set_of_which_every_class_trains():
    annotations = labelled([["a"]] * 20)
    split = split_set("Tile", annotations, RULES, 42, unseen=[])
    assert (split.unseen, split.tested_unseen, split.seen) == ((), (), ("a",))
    assert (len(split.training.images), len(split.seen_test.images)) == (17, 3)
    assert not ids(split.training) & ids(split.seen_test)


def test_an_unknown_class_to_hold_out_is_named_with_those_there_are():
    with pytest.raises(DataError, match=r"data\.sets\.Tile\.unseen: d is no class of the set; .*are a, b$"):
        split_set("Tile", labelled([["a"], ["b"]] * 6), RULES, 42, unseen=["b", "d"])


@st.composite
def multi_label(draw: st.DrawFn) -> Annotations:
    names = [f"c{number}" for number in range(draw(st.integers(2, 6)))]
    image = st.lists(st.sampled_from(names), max_size=4)
    return labelled(draw(st.lists(image, min_size=1, max_size=60)), names)


def test_the_papers_classes_come_out():
    """3 of GC10's 10 classes, 1 of Magnetic Tile's 5, 28 of Real-IAD's 111, 18 of MVTec AD's 73."""
    for classes, unseen in ((10, 3), (5, 1), (111, 28), (73, 18)):
        annotations = labelled([[f"c{number:03}"] for number in range(classes) for _ in range(12)])
        for seed in (42, 82, 777):
            split = split_set("Set", annotations, RULES, seed)
            assert (len(split.unseen), len(split.seen)) == (unseen, classes - unseen)
            assert split.tested_unseen == split.unseen


@given(multi_label(), st.integers(0, 50), st.integers(0, 50), st.floats(0, 0.9))
def test_nothing_leaks(annotations, seed, prompt_seed, held_share):
    rules = SplitRules(0.25, 2, 3, held_share)
    shown = {image.id: names_on(annotations, image.id) for image in annotations.images}
    unseen = set(choose_unseen(annotations.class_names, 0.25, seed))
    usable = {id_ for id_, names in shown.items() if names and not names & unseen}
    if not usable:
        with pytest.raises(DataError, match="leaves no training image"):
            split_set("Set", annotations, rules, seed)
        return
    split = split_set("Set", annotations, rules, seed)

    assert set(split.unseen) == unseen
    assert sorted(split.seen + split.unseen) == sorted(annotations.class_names)
    assert not unseen & set(split.training.class_names)
    assert all(shown[id_] and not shown[id_] & unseen for id_ in ids(split.training) | ids(split.seen_test))
    assert not ids(split.training) & ids(split.seen_test)
    assert ids(split.training) | ids(split.seen_test) == usable

    for classes, tested, pool in (
        (split.unseen, split.tested_unseen, annotations),
        (split.seen, split.tested_seen, split.seen_test),
    ):
        assert set(tested) == {name for name in classes if can_be_tested(pool, name)}
        draw = draw_prompts("Set", pool, tested, rules, prompt_seed)
        assert not ids(draw.prompt) & ids(draw.target)
        assert not (ids(draw.prompt) | ids(draw.target)) & ids(split.training)
        assert all(len(shown[id_]) == 1 for id_ in ids(draw.prompt))
        showing = {id_ for id_ in ids(pool) if shown[id_] & set(tested)}
        assert ids(draw.prompt) | ids(draw.target) == showing
        for part in (draw.prompt, draw.target):
            assert set(part.class_names) == set(tested)
            wanted = {
                item
                for item in annotations.instances
                if item.image_id in ids(part) and annotations.class_names[item.category_id - 1] in tested
            }
            assert set(part.instances) == wanted
            assert {name for id_ in ids(part) for name in names_on(part, id_)} == set(tested)


def can_be_tested(pool: Annotations, class_name: str) -> bool:
    on = [names_on(pool, image.id) for image in pool.images if class_name in names_on(pool, image.id)]
    return len(on) >= 2 and {class_name} in on


@given(multi_label(), st.integers(0, 50), st.floats(0, 0.9))
def test_the_naive_rule_trains_on_all_seen_instances(annotations, seed, held_share):
    rules = SplitRules(0.25, 2, 3, held_share, "naive")
    unseen = set(choose_unseen(annotations.class_names, 0.25, seed))
    name_of = {category.id: category.name for category in annotations.categories}
    seen_instances = {item for item in annotations.instances if name_of[item.category_id] not in unseen}
    assume(seen_instances)

    split = split_set("Set", annotations, rules, seed)

    kept = ids(split.seen_test)
    assert all(not names_on(annotations, id_) & unseen for id_ in kept)
    assert set(split.training.instances) == {item for item in seen_instances if item.image_id not in kept}
    assert ids(split.training) == {item.image_id for item in split.training.instances}
    assert not unseen & set(split.training.class_names)
    assert set(split.training.class_names) == {name_of[item.category_id] for item in split.training.instances}
    if any(not names_on(annotations, item.image_id) & unseen for item in seen_instances):
        clean = split_set("Set", annotations, replace(rules, training_rule="clean"), seed)
        assert (clean.seen_test, clean.lost) == (split.seen_test, split.lost)
        gained = ids(split.training) - ids(clean.training)
        assert (ids(clean.training) < ids(split.training)) == bool(gained)
        assert len(gained) == split.lost.images
        assert len(split.training.instances) - len(clean.training.instances) == split.lost.instances


@given(multi_label(), st.integers(0, 50))
def test_what_the_clean_rule_costs(annotations, seed):
    """Counted again from the plain list of labels."""
    unseen = choose_unseen(annotations.class_names, 0.25, seed)
    labels = [
        [annotations.class_names[item.category_id - 1] for item in annotations.instances_of(image.id)]
        for image in annotations.images
    ]
    assume(any(set(image) - set(unseen) for image in labels))

    lost = split_set("Set", annotations, replace(RULES, training_rule="naive"), seed).lost

    seen_on = [sum(name not in unseen for name in image) for image in labels]
    pairs = [(image, count) for image, count in zip(labels, seen_on, strict=True) if count]
    assert lost.images == sum(1 for image, _ in pairs if set(image) & set(unseen))
    assert lost.instances == sum(count for image, count in pairs if set(image) & set(unseen))
    assert lost.images_by_class == {name: sum(name in image for image, _ in pairs) for name in unseen}
    for name in unseen:
        assert lost.instances_by_class.pop(name) == sum(count for image, count in pairs if name in image)
    assert not lost.instances_by_class


@pytest.mark.parametrize(("images", "prompts"), [(2, 1), (10, 1), (11, 5), (40, 5)])
def test_number_of_prompt_images(images, prompts):
    draw = draw_prompts("Set", labelled([["a", "a"]] * images), ["a"], RULES, 42)
    assert (len(draw.prompt.images), len(draw.target.images)) == (prompts, images - prompts)
    assert len(draw.prompt.instances) == 2 * prompts


def test_a_class_mostly_among_others_gets_the_prompts_there_are():
    annotations = labelled([["a"]] * 3 + [["a", "b"]] * 20 + [["b"]] * 20)
    draw = draw_prompts("Set", annotations, ["a"], RULES, 42)
    assert ids(draw.prompt) == {1, 2, 3}
    assert ids(draw.target) == set(range(4, 24))
    assert draw.target.class_names == ("a",)


def test_a_class_always_leaves_itself_a_target():
    draw = draw_prompts("Set", labelled([["a"]] * 4), ["a"], SplitRules(0.25, 5, 0, 0), 42)
    assert (len(draw.prompt.images), len(draw.target.images)) == (3, 1)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([["a"], ["b"], ["b"]], "1 image(s), but a prompt and a target are two"),
        ([["b"], ["b"]], "0 image(s), but a prompt and a target are two"),
        ([["a", "b"]] * 9 + [["b"]] * 9, "none of its 9 images is without another class, as a prompt is"),
    ],
)
def test_a_class_without_enough_images_is_named(labels, words):
    annotations = labelled(labels, ["a", "b"])
    assert untestable(annotations, ["a", "b"]) == {"a": words}
    assert untestable(annotations, ["b"]) == {}
    with pytest.raises(DataError) as caught:
        draw_prompts("Set", annotations, ["a", "b"], RULES, 42)
    assert str(caught.value) == f"Set: class a: {words}; add images or drop the class"


def test_draws_depend_on_the_seed_and_not_on_other_classes():
    labels = [["a"]] * 30 + [["b"]] * 30
    both = draw_prompts("Set", labelled(labels), ["a", "b"], RULES, 42)
    alone = draw_prompts("Set", labelled(labels), ["a"], RULES, 42)
    grown = draw_prompts("Set", labelled([*labels, *[["c"]] * 30]), ["a", "b", "c"], RULES, 42)
    assert ids(alone.prompt) == {id_ for id_ in ids(both.prompt) if id_ <= 30}
    assert ids(both.prompt) < ids(grown.prompt)
    draws = [draw_prompts("Set", labelled(labels), ["a"], RULES, seed).prompt for seed in range(9)]
    assert len({frozenset(ids(draw)) for draw in draws}) > 1


def test_kept_images_of_seen_classes():
    names = [name for name in "abcd" for _ in range(40)]
    annotations = labelled([[name] for name in names])
    split = split_set("Set", annotations, RULES, 42)
    for name in split.seen:
        kept = [id_ for id_ in ids(split.seen_test) if names_on(annotations, id_) == {name}]
        assert len(kept) == 6  # 15 % of 40
    assert split.tested_seen == split.seen
    assert len(split.training.images) == 3 * 34


def test_a_small_class_keeps_all_images_for_training():
    """15 % of 9 images is one image, too few for a prompt and a target."""
    labels = [[name] for name, count in (("a", 40), ("b", 9), ("c", 40), ("d", 9)) for _ in range(count)]
    split = split_set("Set", labelled(labels), RULES, 42)
    small = {"b", "d"} & set(split.seen)
    assert small
    assert set(split.tested_seen) == set(split.seen) - small
    for name in small:
        trained = [id_ for id_ in ids(split.training) if names_on(labelled(labels), id_) == {name}]
        assert len(trained) == 9


def test_no_training_image_is_an_error():
    with pytest.raises(DataError, match="Set: split seed 42 leaves no training image"):
        split_set("Set", labelled([["a", "b"]] * 30), RULES, 42)


@given(st.lists(multi_label(), min_size=1, max_size=3))
def test_merged_training_keeps_every_instance(sets):
    assume(all(annotations.instances for annotations in sets))
    members = {f"S{n}": (f"raw/{n}", annotations) for n, annotations in enumerate(sets)}
    merged = merge_training(members)

    assert [image.id for image in merged.images] == list(range(1, len(merged.images) + 1))
    assert [item.id for item in merged.instances] == list(range(1, len(merged.instances) + 1))
    assert sorted(merged.class_index) == list(range(1, len(merged.categories) + 1))
    found = {
        (image.file_name, name, item.bbox)
        for image in merged.images
        for item in merged.instances_of(image.id)
        for name in [merged.class_names[merged.class_index[item.category_id]]]
    }
    wanted = {
        (f"{folder}/{image.file_name}", f"{name}/{annotations.class_names[item.category_id - 1]}", item.bbox)
        for name, (folder, annotations) in members.items()
        for image in annotations.images
        for item in annotations.instances_of(image.id)
    }
    assert found == wanted
    assert len(merged.instances) == sum(len(annotations.instances) for annotations in sets)


def test_two_sets_of_the_same_files_are_refused():
    one = labelled([["a"], ["b"]])
    with pytest.raises(DataError, match="same images"):
        merge_training({"A": ("raw", one), "B": ("raw", one)})


@pytest.mark.skipif(not REAL.is_dir(), reason="the Magnetic Tile release is not at hand")
@pytest.mark.parametrize(("seed", "unseen"), [(42, "uneven"), (82, "uneven"), (777, "break")])
def test_real_release_splits_the_same_way_for_ever(seed, unseen):
    folders = [path.parts[-3] for path in sorted(REAL.glob("MT_*/Imgs/*.jpg"))]
    labels = [folder.replace("MT_", "magnetic_tile_").lower() for folder in folders if folder != "MT_Free"]
    split = split_set("MagneticTile", labelled([[label] for label in labels]), RULES, seed)
    assert split.unseen == (f"magnetic_tile_{unseen}",)
    assert len(split.tested_seen) == 4
