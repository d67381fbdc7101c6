"""Annotation files put together."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.combine import joined, overlaid, with_prompts
from unispector.errors import DataError

NAMES = ("crack", "dent", "hole")


@st.composite
def files(draw, prefix=""):
    """Annotations whose ids are any numbers and whose categories come in any order."""
    ids = st.integers(1, 10**6)
    category_ids = sorted(draw(st.sets(ids, min_size=3, max_size=3)))
    categories = [
        CategoryRecord(number, name, prefix) for number, name in zip(category_ids, NAMES, strict=True)
    ]
    image_ids = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    images = [ImageRecord(number, f"{prefix}{number}.png", 40 + number % 7, 50) for number in image_ids]
    instances = [
        InstanceRecord(
            number,
            draw(st.sampled_from(image_ids)),
            draw(st.sampled_from(category_ids)),
            (float(draw(st.integers(0, 20))), 1.0, 5.0, 6.0),
            30.0,
            None,
            draw(st.sampled_from((0, 0, 0, 1))),
        )
        for number in draw(st.lists(ids, max_size=6, unique=True))
    ]
    return Annotations(tuple(images), tuple(instances), tuple(draw(st.permutations(categories))))


def content(annotations):
    """What a file says, whatever its ids."""
    names = {category.id: category.name for category in annotations.categories}
    return {
        image.file_name: (
            image.width,
            image.height,
            sorted((names[i.category_id], i.bbox, i.iscrowd) for i in annotations.instances_of(image.id)),
        )
        for image in annotations.images
    }


@given(files("a/"), files("b/"))
def test_a_joined_file_says_what_its_parts_say(first, second):
    both = joined(first, second)
    assert content(both) == content(first) | content(second)
    assert [image.file_name for image in both.images] == [
        image.file_name for part in (first, second) for image in part.images
    ]
    assert [image.id for image in both.images] == list(range(1, len(both.images) + 1))
    assert [i.id for i in both.instances] == list(range(1, len(both.instances) + 1))
    assert len(both.instances) == len(first.instances) + len(second.instances)
    assert both.categories == first.categories


def one(file_name="1.png", names=NAMES):
    categories = tuple(CategoryRecord(number, name, "") for number, name in enumerate(names, start=1))
    instance = InstanceRecord(1, 1, 1, (1.0, 1.0, 2.0, 2.0), 4.0, None)
    return Annotations((ImageRecord(1, file_name, 9, 9),), (instance,), categories)


def test_a_joined_file_can_be_written_and_read(tmp_path):
    both = joined(one("1.png"), one("2.png"))
    both.write(tmp_path / "both.json")
    assert Annotations.read(tmp_path / "both.json") == both


def test_an_image_in_both_files_is_named():
    with pytest.raises(DataError, match=r"x/1\.png: the image is in both files"):
        joined(one("x/1.png"), one("x/1.png"))


@pytest.mark.parametrize("names", [("crack", "hole", "dent"), ("crack", "dent")])
def test_other_classes_are_told(names):
    with pytest.raises(DataError, match=f"crack, dent, hole and {', '.join(names)}"):
        joined(one("1.png"), one("2.png", names))


@given(files(), st.integers(1, 4))
def test_overlaid_variants_can_be_told_apart_again(annotations, count):
    variants = [
        replace(
            annotations,
            instances=tuple(
                replace(i, bbox=(i.bbox[0], float(shift), 5.0, 6.0)) for i in annotations.instances
            ),
        )
        for shift in range(count)
    ]
    together, ids = overlaid(variants)
    assert (together.images, together.categories) == (annotations.images, annotations.categories)
    assert sorted(number for own in ids for number in own) == list(range(1, len(together.instances) + 1))
    assert len(ids) == count
    for variant, own in zip(variants, ids, strict=True):
        kept = tuple(instance for instance in together.instances if instance.id in own)
        assert [replace(i, id=0) for i in kept] == [replace(i, id=0) for i in variant.instances]


def test_the_ids_of_variants_need_not_be_alike():
    first = one()
    second = replace(first, instances=tuple(replace(i, id=n) for n in (1, 2) for i in first.instances))
    _, ids = overlaid([first, second, first])
    assert ids == (frozenset({1}), frozenset({2, 3}), frozenset({4}))


def test_prompts_that_are_targets_already_are_not_added_again():
    boxes = [InstanceRecord(n, n, 1, (1.0, 1.0, 5.0, 6.0), 30.0, None) for n in (1, 2, 3)]
    images = [ImageRecord(n, f"{n}.png", 40, 50) for n in (1, 2, 3)]
    whole = Annotations(tuple(images), tuple(boxes), (CategoryRecord(1, "crack", ""),))
    targets = whole.keep_images([1, 2])
    assert with_prompts(targets, whole.keep_images([2])) == targets
    both = with_prompts(targets, whole.keep_images([2, 3]))
    assert [image.file_name for image in both.images] == ["1.png", "2.png", "3.png"]
    assert len(both.instances) == 3
