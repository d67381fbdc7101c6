from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.dataset import InstanceDataset
from unispector.data.loading import EpisodeSampler, collate, evaluation_batches, training_batches
from unispector.data.transforms import Augmentation
from unispector.errors import ConfigError, DataError, TrainingError

LABELS = [[i % 5] for i in range(40)] + [[], [0, 1], [2, 3, 4]]


def indices(sampler, step):
    return [index for index, _ in sampler.batch_at(step)]


def test_a_step_shows_each_of_its_classes_with_distinct_images():
    sampler = EpisodeSampler(LABELS, batch_size=8, images_per_class=2, seed=0)
    for step in range(50):
        drawn = indices(sampler, step)
        assert len(drawn) == len(set(drawn)) == 8
        assert all(LABELS[index] for index in drawn)
        counts = Counter(label for index in drawn for label in LABELS[index])
        assert sum(count >= 2 for count in counts.values()) >= 3


def test_an_image_counts_for_each_of_its_labels():
    labels = [[0, 1]] * 4 + [[2]] * 4
    sampler = EpisodeSampler(labels, batch_size=4, images_per_class=2, seed=0)
    for step in range(40):
        counts = Counter(label for index in indices(sampler, step) for label in labels[index])
        assert counts == {0: 2, 1: 2, 2: 2}


def test_classes_are_drawn_equally_often_however_rare():
    labels = [[0]] * 90 + [[1]] * 5 + [[2]] * 5
    sampler = EpisodeSampler(labels, batch_size=2, images_per_class=2, seed=3)
    counts = Counter(labels[index][0] for step in range(600) for index in indices(sampler, step))
    assert all(340 < counts[label] < 460 for label in range(3))


def test_all_images_of_a_class_are_drawn_in_time():
    sampler = EpisodeSampler(LABELS, batch_size=8, images_per_class=2, seed=0)
    drawn = {index for step in range(150) for index in indices(sampler, step)}
    assert drawn == {index for index, labels in enumerate(LABELS) if labels}


def test_steps_depend_on_seed_and_step_only():
    first = EpisodeSampler(LABELS, 8, 2, seed=0)
    later = [first.batch_at(step) for step in (7, 3, 7)]
    assert later[0] == later[2] == EpisodeSampler(LABELS, 8, 2, seed=0).batch_at(7)
    assert later[0] != later[1]
    assert EpisodeSampler(LABELS, 8, 2, seed=1).batch_at(7) != later[0]


def test_epoch_seeds_never_repeat():
    sampler = EpisodeSampler(LABELS, 8, 2, seed=0)
    seeds = [epoch_seed for step in range(20) for _, epoch_seed in sampler.batch_at(step)]
    assert len(set(seeds)) == len(seeds) == 160


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_share_a_step(world):
    whole = EpisodeSampler(LABELS, 8, 2, seed=0)
    parts = [EpisodeSampler(LABELS, 8, 2, seed=0, rank=rank, world=world) for rank in range(world)]
    for step in range(5):
        slices = [part.batch_at(step) for part in parts]
        assert {len(part) for part in slices} == {8 // world}
        assert [key for part in slices for key in part] == whole.batch_at(step)


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=12).filter(any),
    st.integers(1, 20),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_batches_are_full_and_repeat_images_only_when_all_were_drawn(labels, batch_size, images_per_class):
    drawn = indices(EpisodeSampler(labels, batch_size, images_per_class, seed=0), 0)
    usable = [index for index, image in enumerate(labels) if image]
    assert len(drawn) == batch_size
    counts = Counter(drawn)
    assert set(counts) <= set(usable)
    if batch_size <= len(usable):
        assert max(counts.values()) == 1
    else:
        assert set(counts) == set(usable)


def test_training_without_labels_or_with_unequal_shares_is_refused():
    with pytest.raises(TrainingError, match="training file"):
        EpisodeSampler([[], []], 8, 2, seed=0)
    with pytest.raises(ConfigError, match=r"train\.batch_size 8 .* 3 workers"):
        EpisodeSampler(LABELS, 8, 2, seed=0, world=3)


@pytest.fixture
def dataset(tmp_path):
    """Twelve 40 x 50 pictures of three classes; every fourth has no instance, every sixth two."""
    images, instances = [], []
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(tmp_path / f"{i}.png")
        images.append(ImageRecord(i + 1, f"{i}.png", 50, 40))
        count = 0 if i % 4 == 3 else 2 if i % 6 == 0 else 1
        for k in range(count):
            box = (5.0 + 15 * k, 8.0, 12.0, 10.0)
            instances.append(InstanceRecord(len(instances) + 1, i + 1, (i + k) % 3 + 1, box, 120.0, None))
    categories = tuple(CategoryRecord(i + 1, name, "") for i, name in enumerate("abc"))
    return InstanceDataset(
        Annotations(tuple(images), tuple(instances), categories),
        tmp_path,
        image_size=64,
        bins=16,
        spectrum_empty="interp",
        spectrum_min_side=16,
        augment=Augmentation(0.5, 0.5, True, (0.5, 1.3), (0.8, 1.1)),
        box_share=0.5,
        seed=0,
    )


@pytest.fixture
def sampler(dataset):
    return EpisodeSampler([dataset.image_labels(i) for i in range(len(dataset))], 4, 2, seed=0)


def assert_equal(a, b):
    assert (a.image_ids, a.original_hw) == (b.image_ids, b.original_hw)
    assert torch.equal(a.images, b.images)
    for one, other in zip(a.targets, b.targets, strict=True):
        assert all(torch.equal(vars(one)[name], vars(other)[name]) for name in vars(one))
    assert all(torch.equal(vars(a.prompts)[name], vars(b.prompts)[name]) for name in vars(a.prompts))


def test_collate_keeps_every_instance_with_its_image(dataset):
    samples = [dataset.sample(index) for index in (3, 0, 1, 7)]
    batch = collate(samples)
    assert batch.images.shape == (4, 3, 64, 64)
    assert [len(targets) for targets in batch.targets] == [0, 2, 1, 0]
    assert batch.prompts.image_index.tolist() == [1, 1, 2]
    assert batch.image_ids == (4, 1, 2, 8)
    for sample, targets, image in zip(samples, batch.targets, range(4), strict=True):
        assert torch.equal(batch.images[image], sample.image)
        assert torch.equal(targets.masks, sample.targets.masks)
        assert torch.equal(targets.boxes, sample.targets.boxes)
        rows = batch.prompts.image_index == image
        assert torch.equal(batch.prompts.labels[rows], sample.targets.labels)
        assert torch.equal(batch.prompts.roi_masks[rows], sample.roi_masks)
        assert torch.equal(batch.prompts.spectra[rows], sample.spectra)


def test_collate_without_any_instance(dataset):
    batch = collate([dataset.sample(3), dataset.sample(7)])
    assert len(batch.prompts) == 0
    assert batch.prompts.roi_masks.shape == (0, 64, 64)
    assert [len(targets) for targets in batch.targets] == [0, 0]


def test_resumed_training_sees_the_same_batches(dataset, sampler):
    whole = list(training_batches(dataset, sampler, 0, 6, workers=0))
    resumed = list(training_batches(dataset, sampler, 4, 6, workers=0))
    assert (len(whole), len(resumed)) == (6, 2)
    for a, b in zip(whole[4:], resumed, strict=True):
        assert_equal(a, b)
    assert list(training_batches(dataset, sampler, 6, 6, workers=0)) == []


def test_training_batches_come_from_the_sampler_and_are_augmented_anew(dataset, sampler):
    batches = list(training_batches(dataset, sampler, 0, 8, workers=0))
    seen = {}
    for step, batch in enumerate(batches):
        assert list(batch.image_ids) == [index + 1 for index in indices(sampler, step)]
        assert all(len(targets) for targets in batch.targets)
        for image_id, image in zip(batch.image_ids, batch.images, strict=True):
            seen.setdefault(image_id, set()).add(image.numpy().tobytes())
    assert max(len(versions) for versions in seen.values()) > 1


def test_workers_load_the_same_batches(dataset, sampler):
    alone = training_batches(dataset, sampler, 2, 7, workers=0)
    shared = training_batches(dataset, sampler, 2, 7, workers=2)
    for a, b in zip(alone, shared, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_stops_training_with_one_line(dataset, sampler, tmp_path, workers):
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"\.png: not a readable image") as caught:
        next(training_batches(dataset, sampler, 0, 1, workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
def test_evaluation_goes_through_all_images_in_order(dataset, batch_size):
    batches = list(evaluation_batches(dataset, batch_size))
    assert [image_id for batch in batches for image_id in batch.image_ids] == list(range(1, 13))
    assert all(len(batch.image_ids) == batch_size for batch in batches[:-1])
    assert_equal(batches[0], collate([dataset.sample(index) for index in range(min(batch_size, 12))]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_loaded_batches_lie_in_pinned_memory(dataset, sampler):
    (batch,) = training_batches(dataset, sampler, 0, 1, workers=1)
    for tensor in (batch.images, batch.prompts.roi_masks, *(target.masks for target in batch.targets)):
        assert tensor.is_pinned()
    assert torch.equal(batch.to("cuda").images.cpu(), batch.images)
