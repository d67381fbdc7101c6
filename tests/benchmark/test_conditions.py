"""The prompt banks of a sweep against banks of files that were changed by hand."""

from itertools import combinations

import cv2
import pytest
import torch

from unispector.benchmark.conditions import CLEAN, Place, changed_prompts, counted_prompts
from unispector.config import SweepConfig
from unispector.data.coco import Annotations
from unispector.data.prompt_changes import prompt_pool, with_shifted_boxes

CONFIG = SweepConfig(
    blur=(0.0, 0.5, 2.0), box_iou=(0.3, 0.8), box_trials=2, counts=(1, 2, 4, 5, 6), count_trials=2
)
SEED = 7


@pytest.fixture(scope="module")
def steel(benchmark):
    return benchmark.annotations["steel"], benchmark.root / "data/raw/raw-steel"


@pytest.fixture(scope="module")
def prompts(steel):
    """Two images of each class; image 1 shows two classes."""
    return steel[0].keep_images(range(1, 9))


@pytest.fixture(scope="module")
def banks(detector, prompts, steel):
    """The bank of each place of a sweep; the same condition may stand for several."""
    conditions = changed_prompts(detector, prompts, steel[1], SEED, CONFIG, batch_size=3)
    assert conditions[0].places[0] == Place(*CLEAN)
    return {place: condition.bank for condition in conditions for place in condition.places}


def close(bank, other):
    assert (bank.class_names, bank.counts) == (other.class_names, other.counts)
    torch.testing.assert_close(bank.embeddings, other.embeddings, atol=1e-5, rtol=1e-4)


def apart(bank, other):
    """Far more than `close` lets pass."""
    return bool((bank.embeddings - other.embeddings).abs().max() > 1e-3)


def test_every_level_of_every_change_has_its_bank(banks):
    assert sorted(banks, key=str) == sorted(
        [
            Place("prompt_kind", 0.0),
            Place("prompt_kind", 1.0),
            *(Place("prompt_blur", sigma) for sigma in (0.0, 0.5, 2.0)),
            Place("prompt_box_iou", 1.0),
            *(Place("prompt_box_iou", iou, trial) for iou in (0.3, 0.8) for trial in (0, 1)),
        ],
        key=str,
    )


def test_prompts_as_drawn_are_the_reference_of_every_sweep(banks, detector, prompts, steel):
    clean = detector.encode_annotations(prompts, steel[1])
    for place in (Place(*CLEAN), Place("prompt_blur", 0.0), Place("prompt_box_iou", 1.0)):
        close(banks[place], clean)
        assert banks[place] is banks[Place(*CLEAN)]


def test_masks_are_prompts_of_another_kind(banks, detector, prompts, steel):
    close(banks[Place("prompt_kind", 1.0)], detector.encode_annotations(prompts, steel[1], "mask"))
    assert apart(banks[Place("prompt_kind", 1.0)], banks[Place(*CLEAN)])


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_blurred_prompts_are_blurred_files(banks, detector, prompts, steel, tmp_path, sigma):
    for image in prompts.images:
        pixels = cv2.imread(str(steel[1] / image.file_name))
        cv2.imwrite(str(tmp_path / image.file_name), cv2.GaussianBlur(pixels, (0, 0), sigma))
    close(banks[Place("prompt_blur", sigma)], detector.encode_annotations(prompts, tmp_path))
    assert apart(banks[Place("prompt_blur", sigma)], banks[Place(*CLEAN)])


@pytest.mark.parametrize(("iou", "trial"), [(0.3, 0), (0.3, 1), (0.8, 0)])
def test_inexact_boxes_are_files_with_other_boxes(banks, detector, prompts, steel, tmp_path, iou, trial):
    with_shifted_boxes(prompts, iou, SEED, trial).write(tmp_path / "shifted.json")
    shifted = Annotations.read(tmp_path / "shifted.json")
    close(banks[Place("prompt_box_iou", iou, trial)], detector.encode_annotations(shifted, steel[1]))
    assert apart(banks[Place("prompt_box_iou", iou, trial)], banks[Place(*CLEAN)])
    assert apart(banks[Place("prompt_box_iou", iou, 0)], banks[Place("prompt_box_iou", iou, 1)])


def test_the_levels_are_those_asked_for_and_the_reference(detector, prompts, steel):
    config = SweepConfig(blur=(), box_iou=())
    conditions = changed_prompts(detector, prompts, steel[1], SEED, config, batch_size=3)
    assert [place for condition in conditions for place in condition.places] == [
        Place("prompt_kind", 0.0),
        Place("prompt_box_iou", 1.0),
        Place("prompt_blur", 0.0),
        Place("prompt_kind", 1.0),
    ]


@pytest.fixture(scope="module")
def counted(detector, prompts, steel):
    """Banks by number and trial, files that became prompts, and the targets."""
    targets = steel[0].keep_images(range(9, 25))
    conditions, taken = counted_prompts(detector, (prompts, targets), steel[1], SEED, CONFIG, 3)
    return {c.places[0]: c.bank for c in conditions if len(c.places) == 1}, taken, targets


def test_numbers_no_class_reaches_are_left_out(counted, prompts):
    banks, taken, targets = counted
    assert {place.level for place in banks} == {1, 2, 4, 5}
    assert {place.trial for place in banks} == {0, 1}
    assert len(banks) == 8
    assert taken <= {image.file_name for image in targets.images}
    assert not taken & {image.file_name for image in prompts.images}
    assert len(taken) == 8


@pytest.fixture(scope="module")
def chosen(counted, detector, prompts, steel):
    """For each number, trial and class the images whose instances' mean the bank holds, by trying all."""
    banks, _, targets = counted
    pool = prompt_pool(prompts, targets, 6, SEED)
    single = detector.encode_instances(pool.annotations, steel[1])
    image_of = {instance.id: instance.image_id for instance in pool.annotations.instances}
    images = {}
    for position, name in enumerate(prompts.class_names):
        vectors = {image: [] for image in pool.order[name]}
        for row, (number, label) in enumerate(zip(single.instance_ids, single.labels, strict=True)):
            if label == position and image_of[number] in vectors:
                vectors[image_of[number]].append(single.encoded.embeddings[row])
        for place, bank in banks.items():
            images[place.level, place.trial, name] = behind(vectors, bank.embeddings[position])
    return images, {name: len(order) for name, order in pool.order.items()}


def behind(vectors, embedding):
    """The images whose instances' mean is the embedding."""
    (found,) = (
        set(images)
        for count in range(1, len(vectors) + 1)
        for images in combinations(vectors, count)
        if torch.allclose(
            torch.stack([vector for image in images for vector in vectors[image]]).mean(0),
            embedding,
            atol=1e-5,
            rtol=1e-4,
        )
    )
    return found


def test_each_class_gets_so_many_images_or_all_it_has(chosen):
    images, available = chosen
    # Of four targets two may prompt; half shows on three prompt images, the others on two.
    assert available == {"bright": 4, "dark": 4, "half": 5, "black": 4}
    for (level, _, name), found in images.items():
        assert len(found) == min(level, available[name])


def test_more_prompts_are_the_fewer_and_others_in_an_order_of_each_trial(chosen):
    images, available = chosen
    for name in available:
        for trial in (0, 1):
            assert images[1, trial, name] < images[2, trial, name] < images[4, trial, name]
    assert any(images[1, 0, name] != images[1, 1, name] for name in available)


def test_prompts_of_a_class_without_targets_are_its_own(detector, prompts, steel):
    targets = steel[0].keep_images([9])
    conditions, taken = counted_prompts(detector, (prompts, targets), steel[1], SEED, CONFIG, 3)
    assert taken == frozenset()  # half of one image is none
    assert max(place.level for c in conditions for place in c.places) == 2
