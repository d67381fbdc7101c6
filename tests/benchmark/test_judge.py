"""A detector judged under many sets of prompts at once."""

from dataclasses import replace

import numpy as np
import pytest

from unispector.benchmark.judge import Trial, advance, judge, read_pair, scores_on, share_bar, warn_of_shared
from unispector.config import EvaluateConfig
from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.evaluation.ground_truth import GroundTruth
from unispector.ops.files import read_image

SETTINGS = EvaluateConfig(batch_size=4, detections=15)


def renumbered(annotations, first):
    """The same file with other image ids, the images backwards."""
    ids = {image.id: first + number for number, image in enumerate(reversed(annotations.images))}
    return Annotations(
        tuple(replace(image, id=ids[image.id]) for image in reversed(annotations.images)),
        tuple(replace(instance, image_id=ids[instance.image_id]) for instance in annotations.instances),
        annotations.categories,
    )


@pytest.fixture(scope="module")
def steel(benchmark):
    return benchmark.annotations["steel"], benchmark.root / "data/raw/raw-steel"


@pytest.fixture(scope="module")
def trials(detector, steel):
    """Two draws of prompts whose targets overlap, the same file under another id in each."""
    annotations, folder = steel
    first, second = annotations.keep_images(range(1, 9)), annotations.keep_images(range(9, 17))
    return [
        Trial(detector.encode_annotations(first, folder), GroundTruth(annotations.keep_images(range(9, 25)))),
        Trial(detector.encode_annotations(second, folder), GroundTruth(renumbered(first, 100))),
        Trial(
            detector.encode_annotations(second, folder),
            GroundTruth(renumbered(annotations.keep_images([*range(1, 5), *range(17, 25)]), 200)),
        ),
    ]


def equal(left, right):
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in vars(left))


def test_trials_together_are_plain_detection_and_each_picture_is_read_once(detector, steel, trials):
    folder, read, shares = steel[1], [], []

    def picture(name):
        read.append(name)
        return read_image(folder / name)

    together = judge(detector, trials, picture, SETTINGS, shares.append)
    assert sorted(read) == sorted(image.file_name for image in steel[0].images)
    assert sum(shares) == pytest.approx(1)
    assert len(shares) == len(read)
    for trial, kept in zip(trials, together, strict=True):
        assert kept.keys() == set(trial.truth.image_ids)
        for image in trial.truth.annotations.images:
            (found,) = detector.detect([folder / image.file_name], trial.bank, limit=SETTINGS.detections)
            direct = trial.truth.overlaps(image.id, found)
            np.testing.assert_allclose(kept[image.id].scores, direct.scores, atol=1e-5)
            assert equal(replace(kept[image.id], scores=direct.scores), direct)
    assert max(overlap.box_iou.max(initial=0) for overlap in together[0].values()) > 0.9


def test_trials_of_other_classes_are_judged_in_a_pass_of_their_own(detector, steel, trials):
    annotations, folder = steel
    fewer = annotations.keep_categories([1, 2])
    odd = Trial(detector.encode_annotations(fewer, folder), GroundTruth(fewer.keep_images(range(9, 17))))
    shares = []
    mixed = judge(detector, [trials[0], odd, trials[1]], folder.joinpath, SETTINGS, shares.append)
    assert sum(shares) == pytest.approx(1)
    for trial, kept in zip([trials[0], odd, trials[1]], mixed, strict=True):
        (alone,) = judge(detector, [trial], folder.joinpath, SETTINGS, float)
        assert kept.keys() == alone.keys()
        for image_id, overlap in kept.items():
            np.testing.assert_allclose(overlap.scores, alone[image_id].scores, atol=1e-5)


def test_scores_are_those_of_plain_detection(detector, steel, trials):
    annotations, folder = steel
    few = detector.encode_annotations(annotations.keep_categories([1, 2]), folder)
    files = [folder / image.file_name for image in annotations.images[:5]]
    banks = [trials[0].bank, few, trials[1].bank]
    for bank, scores in zip(banks, scores_on(detector, banks, files, SETTINGS), strict=True):
        plain = detector.detect(files, bank, SETTINGS.batch_size, SETTINGS.detections)
        for of_image, found in zip(scores, plain, strict=True):
            np.testing.assert_allclose(of_image, found.scores.numpy(), atol=1e-5)


def test_pictures_that_are_prompts_and_targets_are_told(steel, caplog):
    annotations = steel[0]
    warn_of_shared(annotations.keep_images([1, 2]), annotations.keep_images([3, 4]))
    assert caplog.text == ""
    warn_of_shared(annotations.keep_images([1, 2]), annotations.keep_images([2, 3, 4]))
    assert "1 of 3 targets are prompts too" in caplog.text


def test_an_unreadable_target_is_named(detector, trials, tmp_path):
    with pytest.raises(DataError, match=r"\.png"):
        judge(detector, trials, tmp_path.joinpath, SETTINGS, float)


def test_targets_need_a_prompt_for_what_they_show_and_nothing_else(steel, tmp_path):
    annotations, _ = steel
    three = annotations.keep_categories([1, 2, 3])
    three.write(tmp_path / "p.json")
    annotations.write(tmp_path / "t.json")
    with pytest.raises(DataError, match=r"p\.json: no prompt for class 'black', which t\.json has"):
        read_pair(tmp_path / "p.json", tmp_path / "t.json")
    # A category that no target shows needs none.
    replace(three, categories=annotations.categories).write(tmp_path / "t.json")
    prompts, targets = read_pair(tmp_path / "p.json", tmp_path / "t.json")
    assert prompts == three
    assert targets.class_names == annotations.class_names


def test_the_bar_never_passes_its_end():
    with share_bar(2) as bar:
        move = advance(bar)
        for _ in range(21):
            move(0.1)
        assert bar.n == pytest.approx(2.0)
        move(0.5)
        assert bar.n == 2
    with share_bar(0) as bar:
        advance(bar)(1)
        assert bar.n == 0
