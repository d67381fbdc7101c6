"""PerSAM and PerSAM-F: they find what was marked, each instance once, and keep the protocol."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tiny_sam import NAMES, annotate, assert_protocol, paint, save_sam
from unispector.benchmark.other_detectors import benchmark as benchmark_stage
from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.ops.files import read_image
from unispector.ops.rle import decode_rle
from unispector.systems import persam
from unispector.systems.detector import BenchmarkDetector, TrainableDetector
from unispector.systems.persam import MOST, TRAINED, Lessons, PerSam, PerSamF, tune
from unispector.systems.sam import FrozenSam, Guess

MARKS = (
    [("red", (20, 30, 60, 50))],
    [("blue", (120, 60, 70, 80)), ("red", (10, 10, 40, 60)), ("red", (60, 120, 40, 40))],
)
TARGETS = [("red", (30, 100, 50, 60)), ("blue", (150, 40, 60, 60)), ("red", (180, 130, 60, 50))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def detector(checkpoint):
    return PerSam(str(checkpoint))


@pytest.fixture
def prompts(tmp_path):
    return annotate(tmp_path, MARKS)


def test_what_each_may_learn(detector, checkpoint):
    assert isinstance(detector, BenchmarkDetector)
    assert not isinstance(detector, TrainableDetector)
    assert isinstance(PerSamF(str(checkpoint)), TrainableDetector)
    assert detector.parameters == 73900


def test_a_class_is_the_mean_of_its_marked_cells_over_its_prompts(detector, checkpoint, prompts, tmp_path):
    sums, halves = [], []
    for image in prompts.images:
        features = detector._sam.see(read_image(tmp_path / image.file_name)).features[0]
        for instance in prompts.instances_of(image.id):
            if instance.category_id != 1:
                continue
            x, y, width, height = (value * 128 / 260 for value in instance.bbox)
            own = []
            for row in range(16):
                for column in range(16):
                    high = min(y + height, row * 8 + 8) - max(y, row * 8)
                    wide = min(x + width, column * 8 + 8) - max(x, column * 8)
                    if min(high, wide) > 0 and high * wide >= 32:
                        own.append(features[:, row, column])
            sums.append(sum(own) / len(own))
            halves.append(sums[-1] / 2 + torch.stack(own).max(0).values / 2)
    assert len(sums) == 3
    found = detector.encode_prompts(prompts, tmp_path)
    assert tuple(found) == NAMES
    expected = sum(sums) / 3
    torch.testing.assert_close(found["red"].embedding, expected)
    torch.testing.assert_close(found["red"].direction, expected / expected.norm())
    half = sum(halves) / 3
    tuned = PerSamF(str(checkpoint))
    tuned._mix = torch.ones(3) / 3
    torch.testing.assert_close(tuned.encode_prompts(prompts, tmp_path)["red"].direction, half / half.norm())


@pytest.mark.parametrize("size", [(200, 260), (300, 240), (200, 360)])
def test_the_place_most_alike_lies_on_what_was_marked(detector, prompts, tmp_path, size):
    paint(tmp_path / "t.png", TARGETS[:2], *size, seed=9)
    scene = detector._sam.see(read_image(tmp_path / "t.png"))
    targets = detector.encode_prompts(prompts, tmp_path)
    for name, (x, y, width, height) in TARGETS[:2]:
        similarity = detector._similarity(scene, targets[name].direction)
        (column, row), low = detector._points(similarity, int(similarity.argmax())) * max(size) / 128
        slack = max(size) / 32  # half a cell of the features
        assert x - slack < column < x + width + slack
        assert y - slack < row < y + height + slack
        assert (low >= 0).all()
        assert (low < torch.tensor([size[1], size[0]])).all()


def knowing(monkeypatch, boxes, size=(200, 260)):
    """Let SAM answer with the rectangle that its first point lies in; return the points it was asked with."""
    scale, asked = 128 / max(size), []

    def tokens(self, points, labels, box=None):
        asked.append((points, labels, box))
        return points[:1][None]

    def decode(self, features, tokens, mask=None, several=True, guidance=None):
        x, y = (tokens[0, 0] / scale).tolist()
        count = 3 if several else 1
        logits = torch.full((1, count, 64, 64), -8.0)
        for left, top, width, height in (box for _, box in boxes):
            if left <= x <= left + width and top <= y <= top + height:
                rows, columns = ((torch.arange(64) + 0.5) * 2 / scale for _ in range(2))
                inside = ((rows >= top) & (rows < top + height))[:, None]
                logits[:, -1] = (inside & ((columns >= left) & (columns < left + width))).float() * 16 - 8
        return Guess(logits, torch.linspace(0.1, 0.9, count)[None])

    monkeypatch.setattr(FrozenSam, "point_tokens", tokens)
    monkeypatch.setattr(FrozenSam, "decode", decode)
    return asked


def rectangle(box):
    x, y, width, height = box
    inside = np.zeros((200, 260), dtype=bool)
    inside[y : y + height, x : x + width] = True
    return inside


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("made", [PerSam, PerSamF])
def test_each_instance_of_each_class_is_found_once(checkpoint, prompts, tmp_path, monkeypatch, made):
    system = made(str(checkpoint))
    system._mix = torch.tensor([0.0, 0.0, 1.0])
    targets = system.encode_prompts(prompts, tmp_path)
    paint(tmp_path / "t.png", TARGETS, seed=9)
    asked = knowing(monkeypatch, TARGETS)
    (found,) = system.detect([tmp_path / "t.png"], targets)
    masks = [decode_rle(code) for code in found.masks_rle]
    for label, name in enumerate(NAMES):
        truth = [rectangle(box) for other, box in TARGETS if other == name]
        own = [mask for mask, found_label in zip(masks, found.labels, strict=True) if found_label == label]
        best = [[iou(mask, true) > 0.8 for true in truth] for mask in own[: len(truth)]]
        assert np.sum(best, axis=0).tolist() == [1] * len(truth)  # the best ones are the true ones
        assert (
            max(iou(own[a], own[b]) for a in range(len(own)) for b in range(a)) < 0.8 if len(own) > 1 else 1
        )
    refined = [box for _, _, box in asked if box is not None]
    assert len(refined) >= 3 * (1 if made is PerSam else 2)
    assert {labels for _, labels, _ in asked} == ({(1, 0)} if made is PerSam else {(1,)})


def test_the_search_ends_with_a_mask_found_again_or_where_little_is_alike(
    detector, prompts, tmp_path, monkeypatch
):
    targets = detector.encode_prompts(prompts, tmp_path)
    paint(tmp_path / "t.png", TARGETS, seed=9)
    asked = []

    def decode(self, features, tokens, mask=None, several=True, guidance=None):
        asked.append(guidance)
        logits = torch.full((1, 3 if several else 1, 64, 64), -8.0)
        logits[:, :, 5:9, 5:9] = answer
        return Guess(logits, torch.ones(1, logits.shape[1]))

    monkeypatch.setattr(FrozenSam, "decode", decode)
    answer = 8.0
    (found,) = detector.detect([tmp_path / "t.png"], targets)
    assert sorted(found.labels.tolist()) == [0, 1]
    assert len(asked) == 2 * 2 * 3  # each class's mask, and the same again
    asked.clear()
    answer = -8.0
    (found,) = detector.detect([tmp_path / "t.png"], targets)
    assert len(found) == 0
    assert 2 * 3 < len(asked) <= 2 * 3 * MOST
    biases = [guidance.bias for guidance in asked if guidance]
    assert not torch.equal(biases[0], biases[1])  # what was looked at no longer guides
    asked.clear()
    monkeypatch.setattr(persam, "LEAST", 1.0)
    list(detector.detect([tmp_path / "t.png"], targets))
    assert len(asked) == 2 * 3


def test_a_score_is_the_similarity_times_the_predicted_iou(detector, prompts, tmp_path, monkeypatch):
    targets = detector.encode_prompts(prompts, tmp_path)
    paint(tmp_path / "t.png", TARGETS, seed=9)
    similarity = detector._similarity(
        detector._sam.see(read_image(tmp_path / "t.png")), targets["blue"].direction
    )
    knowing(monkeypatch, TARGETS)
    (found,) = detector.detect([tmp_path / "t.png"], targets)
    assert float(found.scores[found.labels == 1][0]) == pytest.approx(0.9 * float(similarity.max()), rel=1e-5)


def test_the_guidance_is_high_where_it_is_alike_and_0_where_no_image_is(detector):
    similarity = torch.zeros(40, 64)
    similarity[8:16, 20:40] = 1
    bias = detector._bias(similarity).view(16, 16)
    assert (bias[10:] == 0).all()
    value = torch.sigmoid((1 - similarity.mean()) / similarity.std(correction=0))
    torch.testing.assert_close(bias[2:4, 5:10], value.expand(2, 5))
    assert (bias[:2] < 0.5).all()
    assert torch.isfinite(detector._bias(torch.ones(40, 64))).all()


@pytest.mark.parametrize("made", [PerSam, PerSamF])
def test_results_keep_the_protocol_and_do_not_depend_on_other_images(checkpoint, prompts, tmp_path, made):
    system = made(str(checkpoint))
    system._mix = torch.tensor([0.2, 0.3, 0.5])
    targets = system.encode_prompts(prompts, tmp_path)
    assert_protocol(system, targets, TARGETS[1:2], tmp_path, MOST)


def test_an_image_is_encoded_once_for_all_classes_and_let_go(detector, prompts, tmp_path, monkeypatch):
    targets = detector.encode_prompts(prompts, tmp_path)
    paths = [paint(tmp_path / f"t{i}.png", TARGETS, seed=i) for i in range(4)]
    seen, most = [], []
    see = FrozenSam.see

    def counted(self, *arguments, **options):
        gc.collect()
        most.append(sum(each() is not None for each in seen))
        scene = see(self, *arguments, **options)
        seen.append(weakref.ref(scene.features))
        return scene

    monkeypatch.setattr(FrozenSam, "see", counted)
    assert len(list(detector.detect(paths, targets))) == 4
    assert len(seen) == 4
    assert max(most) <= 1


def test_prompts_by_masks_are_others_than_by_boxes(checkpoint, prompts, tmp_path):
    outlined = tuple(
        replace(
            each, segmentation=[[each.bbox[0], each.bbox[1], *corner(each), each.bbox[0], corner(each)[1]]]
        )
        for each in prompts.instances
    )
    masks = Annotations(prompts.images, outlined, prompts.categories)
    by_box = PerSam(str(checkpoint)).encode_prompts(masks, tmp_path)["red"].embedding
    by_mask = PerSam(str(checkpoint), "mask").encode_prompts(masks, tmp_path)["red"].embedding
    assert not torch.allclose(by_box, by_mask)


def corner(instance):
    return instance.bbox[0] + instance.bbox[2], instance.bbox[1] + instance.bbox[3]


def lessons(right, count=3):
    """Lessons whose mask `right` is the true one, the others noise."""
    lot = torch.Generator().manual_seed(1)
    truth = (torch.rand(count, 200, generator=lot) < 0.2).float()
    logits = torch.randn(count, 3, 200, generator=lot) * 3
    logits[:, right] = truth * 12 - 6
    return Lessons(logits, truth)


@pytest.mark.parametrize("right", [0, 1, 2])
def test_the_tuning_weighs_the_mask_that_is_right(right):
    mix = tune(lessons(right))
    assert int(mix.argmax()) == right
    assert float(mix[right]) > 0.5
    assert float(mix.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(mix, tune(lessons(right)))


def test_what_was_tuned_is_kept_and_taken_again(checkpoint, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(persam, "STEPS", 20)
    system = PerSamF(str(checkpoint))
    system.fit(prompts, tmp_path, tmp_path / "out")
    kept = tmp_path / "out" / TRAINED
    assert load_file(kept)["mix"].tolist() == system._mix.tolist()
    again = PerSamF(f"{checkpoint},{kept}")
    again.fit(prompts, tmp_path / "nowhere", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    paint(tmp_path / "t.png", TARGETS, seed=9)
    one, other = (
        next(iter(each.detect([tmp_path / "t.png"], each.encode_prompts(prompts, tmp_path))))
        for each in (system, again)
    )
    assert torch.equal(one.scores, other.scores)
    assert one.masks_rle == other.masks_rle


def test_the_lessons_are_the_masks_of_each_instance(checkpoint, prompts, tmp_path):
    system = PerSamF(str(checkpoint))
    made = system._lessons(prompts, prompts.instances[1:3], tmp_path)
    assert made.logits.shape == (2, 3, 64 * 64)
    truth = made.truth.view(2, 64, 64)
    for share, instance in zip(truth, prompts.instances[1:3], strict=True):
        assert float(share.sum()) == pytest.approx(instance.area * (64 / 260) ** 2, rel=0.02)
        x, y, width, height = (value * 64 / 260 for value in instance.bbox)
        assert float(share[int(y + height / 2), int(x + width / 2)]) == 1
    assert (made.logits.view(2, 3, 64, 64)[:, :, 50:] == persam.OUTSIDE).all()


def test_without_seen_classes_each_class_is_tuned_on_its_prompts(checkpoint, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(persam, "STEPS", 20)
    targets = PerSamF(str(checkpoint)).encode_prompts(prompts, tmp_path)
    assert not torch.equal(targets["red"].mix, targets["blue"].mix)


@pytest.mark.parametrize("made", [PerSam, PerSamF])
def test_what_is_not_marked_is_named(checkpoint, prompts, tmp_path, made):
    with pytest.raises(DataError, match="'blue' has no prompt"):
        made(str(checkpoint)).encode_prompts(prompts.keep_images([0]), tmp_path)


def test_tuning_on_nothing_is_refused(checkpoint, prompts, tmp_path):
    with pytest.raises(DataError, match="no marked instance to learn from"):
        PerSamF(str(checkpoint)).fit(replace(prompts, instances=()), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["persam", "persam-f"])
def test_the_benchmark_judges_it(checkpoint, benchmark, new_project, short, tmp_path, monkeypatch, name):
    monkeypatch.setattr(persam, "STEPS", 5)
    report = benchmark_stage(
        name, name, short, new_project(variants=()), tmp_path / "out", weights=str(checkpoint)
    )
    assert len(report.rows) == 3
    assert report.models[0].provenance == {"detector": name, "weights": str(checkpoint)}
    trained = sorted(path.name for path in (tmp_path / "out").rglob("*.safetensors"))
    assert trained == ([TRAINED] if name == "persam-f" else [])
