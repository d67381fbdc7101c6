"""Which images make a step: sets, classes, defect-free images, and what a step depends on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.episodes import EpisodeImage, EpisodeSampler, episode_images
from unispector.errors import ConfigError, TrainingError


def images(labels: Sequence[Sequence[int]], sets: Sequence[str] | None = None) -> list[EpisodeImage]:
    """Images of one set unless told; those without a label have no defect."""
    sets = sets or [""] * len(labels)
    return [
        EpisodeImage(tuple(sorted(set(own))), name, sound=not own)
        for own, name in zip(labels, sets, strict=True)
    ]


def sampler(pool: Sequence[EpisodeImage], **changes: int) -> EpisodeSampler:
    settings = {"batch_size": 8, "images_per_class": 2, "defect_free": 0, "views": 0, "seed": 0}
    return EpisodeSampler(pool, **(settings | changes))


def indices(drawn_by: EpisodeSampler, step: int) -> list[int]:
    return [index for index, _ in drawn_by.batch_at(step)]


LABELS = [[i % 5] for i in range(40)] + [[], [0, 1], [2, 3, 4]]
POOL = images(LABELS)


def test_a_step_shows_each_of_its_classes_with_distinct_images() -> None:
    for step in range(50):
        drawn = indices(sampler(POOL), step)
        assert len(drawn) == len(set(drawn)) == 8
        assert all(LABELS[index] for index in drawn)
        counts = Counter(label for index in drawn for label in LABELS[index])
        assert sum(count >= 2 for count in counts.values()) >= 3


def test_few_classes_with_many_images_each() -> None:
    pool = images([[i % 10] for i in range(200)])
    for step in range(50):
        drawn = indices(sampler(pool, batch_size=14, images_per_class=6, defect_free=2), step)
        assert sorted(Counter(index % 10 for index in drawn).values()) == [2, 6, 6]


def test_an_image_counts_for_each_of_its_labels() -> None:
    labels = [[0, 1]] * 4 + [[2]] * 4
    for step in range(40):
        drawn = indices(sampler(images(labels), batch_size=4), step)
        assert Counter(label for index in drawn for label in labels[index]) == {0: 2, 1: 2, 2: 2}


def test_sets_are_drawn_equally_often_however_large() -> None:
    pool = images([[0]] * 200 + [[1]] * 100 + [[2]] * 10, ["large"] * 300 + ["small"] * 10)
    drawn = [indices(sampler(pool, batch_size=2), step)[0] for step in range(2000)]
    small = np.mean([index >= 300 for index in drawn])
    assert small == pytest.approx(1 / 2, abs=0.05)


def test_classes_of_a_set_are_drawn_by_the_root_of_their_images() -> None:
    pool = images([[0]] * 90 + [[1]] * 10)
    drawn = [indices(sampler(pool, batch_size=2), step)[0] for step in range(2000)]
    # Roots 9.49 and 3.16.
    assert np.mean([index < 90 for index in drawn]) == pytest.approx(0.75, abs=0.04)


def test_a_further_class_is_of_the_same_set_more_often_than_not() -> None:
    pool = images([[i % 12] for i in range(120)], ["abc"[i % 12 // 4] for i in range(120)])
    same = []
    for step in range(2000):
        first, _, second, _ = indices(sampler(pool, batch_size=4), step)
        same.append(pool[first].set_name == pool[second].set_name)
        assert pool[first].labels != pool[second].labels
    assert np.mean(same) == pytest.approx(0.6, abs=0.05)


def test_a_set_of_one_class_is_followed_by_another_set() -> None:
    pool = images([[0]] * 9 + [[1]] * 9 + [[2]] * 9, ["one"] * 9 + ["two"] * 18)
    for step in range(60):
        drawn = indices(sampler(pool, batch_size=4), step)
        if pool[drawn[0]].set_name == "one":
            assert pool[drawn[2]].set_name == "two"


def test_defect_free_images_come_last_and_of_the_first_class_s_set() -> None:
    names = ["a"] * 20 + ["b"] * 20 + ["a"] * 5 + ["b"] + ["c"] * 4
    pool = images([[0]] * 20 + [[1]] * 20 + [[]] * 10, names)
    for step in range(60):
        drawn = indices(sampler(pool, defect_free=2), step)
        assert [pool[index].sound for index in drawn] == [False] * 6 + [True] * 2
        assert len(set(drawn)) == 8
        home = pool[drawn[0]].set_name
        assert [pool[index].set_name for index in drawn[6:]].count(home) == {"a": 2, "b": 1}[home]


def test_a_pool_without_enough_defect_free_images_gives_what_it_has() -> None:
    pool = images([[0]] * 20 + [[]])
    assert sum(pool[index].sound for index in indices(sampler(pool, defect_free=3), 0)) == 1
    pool = images([[0]] * 20)
    assert len(indices(sampler(pool, defect_free=3), 0)) == 8


def test_an_image_of_crowds_only_is_never_drawn() -> None:
    pool = [*images([[0]] * 5), EpisodeImage((), "", sound=False)]
    drawn = {index for step in range(50) for index in indices(sampler(pool, defect_free=1), step)}
    assert drawn == set(range(5))


def test_all_images_are_drawn_in_time() -> None:
    drawn = {index for step in range(200) for index in indices(sampler(POOL, defect_free=1), step)}
    assert drawn == set(range(len(POOL)))


def test_steps_depend_on_seed_and_step_only() -> None:
    first = sampler(POOL, defect_free=1)
    later = [first.batch_at(step) for step in (7, 3, 7)]
    assert later[0] == later[2] == sampler(POOL, defect_free=1).batch_at(7)
    assert later[0] != later[1]
    assert sampler(POOL, defect_free=1, seed=1).batch_at(7) != later[0]


def test_epoch_seeds_never_repeat() -> None:
    seeds = [epoch_seed for step in range(20) for _, epoch_seed in sampler(POOL).batch_at(step)]
    assert len(set(seeds)) == len(seeds) == 160


def test_epoch_seeds_are_views_each_as_likely_at_every_place() -> None:
    drawn = sampler(POOL, defect_free=1, views=4)
    seeds = np.array([[epoch_seed for _, epoch_seed in drawn.batch_at(step)] for step in range(400)])
    assert [indices(drawn, step) for step in range(9)] == [
        indices(sampler(POOL, defect_free=1), step) for step in range(9)
    ]
    for place in range(8):
        shares = np.bincount(seeds[:, place], minlength=4) / 400
        assert shares == pytest.approx(np.full(4, 1 / 4), abs=0.1)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_share_a_step(world: int) -> None:
    whole = sampler(POOL, defect_free=2, views=3)
    parts = [sampler(POOL, defect_free=2, views=3, rank=rank, world=world) for rank in range(world)]
    for step in range(5):
        slices = [part.batch_at(step) for part in parts]
        assert {len(part) for part in slices} == {8 // world}
        assert [key for part in slices for key in part] == whole.batch_at(step)


IMAGES = st.tuples(st.lists(st.integers(0, 5), max_size=3), st.sampled_from("ab"))


@given(
    st.lists(IMAGES, min_size=1, max_size=12).filter(lambda pool: any(own for own, _ in pool)),
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(0, 3),
)
@settings(deadline=None)
def test_batches_are_full_and_repeat_images_only_when_all_were_drawn(
    pool: list[tuple[list[int], str]], batch_size: int, images_per_class: int, defect_free: int
) -> None:
    defect_free = min(defect_free, batch_size - 1)
    known = images(*zip(*pool, strict=True))
    drawn = indices(
        sampler(known, batch_size=batch_size, images_per_class=images_per_class, defect_free=defect_free), 0
    )
    assert len(drawn) == batch_size
    sound = [index for index in drawn if known[index].sound]
    assert len(sound) == len(set(sound)) == min(defect_free, sum(image.sound for image in known))
    usable = [index for index, image in enumerate(known) if image.labels]
    counts = Counter(index for index in drawn if not known[index].sound)
    assert set(counts) <= set(usable)
    if counts.total() <= len(usable):
        assert max(counts.values()) == 1
    else:
        assert set(counts) == set(usable)


def test_training_without_labels_or_with_unequal_shares_is_refused() -> None:
    with pytest.raises(TrainingError, match="training file"):
        sampler(images([[], []]))
    with pytest.raises(ConfigError, match=r"train\.batch_size 8 .* 3 workers"):
        sampler(POOL, world=3)


def test_the_sets_of_a_merged_file() -> None:
    files = {
        "raw/Tile/crack/1.jpg": [1],
        "raw/Tile/dent/1.jpg": [2, 1],
        "raw/Tile/good/1.jpg": [],
        "raw/Tile/2.jpg": [],
        "raw/Weld/1.jpg": [3],
        "raw/Weld/good/2.jpg": [],
        "raw/1.jpg": [],
        "other/1.jpg": [],
        "raw/Weld/crowd.jpg": [-3],
    }
    instances: list[InstanceRecord] = []
    for image_id, labels in enumerate(files.values(), start=1):
        for label in labels:
            number, crowd = len(instances) + 1, int(label < 0)
            instances.append(
                InstanceRecord(number, image_id, abs(label), (1.0, 1.0, 2.0, 2.0), 4.0, None, crowd)
            )
    categories = ("Tile/crack", "Tile/dent", "Weld/a/b")
    annotations = Annotations(
        tuple(ImageRecord(number, name, 9, 9) for number, name in enumerate(files, start=1)),
        tuple(instances),
        tuple(CategoryRecord(number, name, "") for number, name in enumerate(categories, start=1)),
    )
    assert episode_images(annotations) == (
        EpisodeImage((0,), "Tile", sound=False),
        EpisodeImage((0, 1), "Tile", sound=False),
        EpisodeImage((), "Tile", sound=True),
        EpisodeImage((), "Tile", sound=True),
        EpisodeImage((2,), "Weld", sound=False),
        EpisodeImage((), "Weld", sound=True),
        EpisodeImage((), "", sound=True),
        EpisodeImage((), "", sound=True),
        EpisodeImage((), "Weld", sound=False),
    )
