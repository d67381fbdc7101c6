import numpy as np
import pytest
import torch
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.dataset import InstanceDataset
from unispector.data.episodes import EpisodeSampler, episode_images
from unispector.data.loading import collate, training_batches
from unispector.data.samples import Frame
from unispector.data.transforms import Augmentation
from unispector.errors import DataError


def indices(sampler, step):
    return [index for index, _ in sampler.batch_at(step)]


@pytest.fixture
def annotations(tmp_path):
    """Twelve 40 x 50 images of three classes; every fourth has no instance, every sixth two."""
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
    return Annotations(tuple(images), tuple(instances), categories)


@pytest.fixture
def dataset(annotations, tmp_path):
    return InstanceDataset(
        annotations,
        tmp_path,
        frame=Frame(image_size=64, bins=16, spectrum_empty="interp", spectrum_min_side=16),
        augment=Augmentation(0.5, 0.5, True, (0.5, 1.3), (0.8, 1.1)),
        box_share=0.5,
        seed=0,
    )


@pytest.fixture
def sampler(annotations):
    return EpisodeSampler(
        episode_images(annotations), batch_size=4, images_per_class=2, defect_free=1, views=0, seed=0
    )


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
        assert [len(targets) > 0 for targets in batch.targets] == [True, True, True, False]
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_loaded_batches_lie_in_pinned_memory(dataset, sampler):
    (batch,) = training_batches(dataset, sampler, 0, 1, workers=1)
    for tensor in (batch.images, batch.prompts.roi_masks, *(target.masks for target in batch.targets)):
        assert tensor.is_pinned()
    assert torch.equal(batch.to("cuda").images.cpu(), batch.images)
