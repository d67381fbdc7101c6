"""The user's three calls: load, encode, detect."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import save_tiny, tiny_config, tiny_network
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.errors import CheckpointError, DataError, PromptBankError
from unispector.inference.detector import ALL, Prompt, UniSpector
from unispector.inference.geometry import Geometry
from unispector.inference.marking import mark
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling import saved_model
from unispector.modeling.saved_model import load_model
from unispector.ops.rle import decode_rle, encode_rle
from unispector.prompts.bank import find_bank
from unispector.structures import EncodedPrompts

Closer = Callable[[int, float], UniSpector]
SIZES = ((50, 70), (64, 64), (90, 30), (33, 120), (64, 80))


MARKS = (((1, (5, 5, 20, 10)), (1, (40, 30, 10, 10))), ((2, (8, 8, 40, 40)),), ((1, (2, 60, 24, 20)),))


def half_mask(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    x, y, w, h = box
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[y : y + h, x : x + w // 2] = True
    return mask


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in SIZES]


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model)


@pytest.fixture(scope="module")
def model_without_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tiny_config(similarity_prior={"enabled": False})
    return save_tiny(tmp_path_factory.mktemp("without_prior"), tiny_network(model, seed=0), model)


@pytest.fixture(scope="module")
def bank(detector: UniSpector, pictures: list[np.ndarray]) -> PromptBank:
    return detector.encode(
        [
            Prompt(pictures[0], boxes_xywh=[(5, 5, 20, 10), (40, 30, 10, 10)], label="crack"),
            Prompt(pictures[1], boxes_xywh=[(8, 8, 40, 40)], label="hole"),
            Prompt(pictures[2], boxes_xywh=[(2, 60, 24, 20)], label="crack"),
        ]
    )


@pytest.fixture(scope="module")
def annotations(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[np.ndarray]
) -> tuple[Annotations, Path]:
    """The prompts of `bank` as a COCO file with images; each mask is the left half of its box."""
    root = tmp_path_factory.mktemp("prompts")
    images, instances = [], []
    for index, boxes in enumerate(MARKS, start=1):
        pixels = pictures[index - 1]
        Image.fromarray(pixels).save(root / f"{index}.png")
        images.append(ImageRecord(index, f"{index}.png", pixels.shape[1], pixels.shape[0]))
        for category, (x, y, w, h) in boxes:
            (code,) = encode_rle(half_mask(pixels, (x, y, w, h))[None])
            box = (float(x), float(y), float(w), float(h))
            instances.append(InstanceRecord(len(instances) + 1, index, category, box, w * h / 2, code))
    categories = (CategoryRecord(1, "crack", "defect"), CategoryRecord(2, "hole", "defect"))
    return Annotations(tuple(images), tuple(instances), categories), root


def assert_same(left: Detections, right: Detections) -> None:
    assert left.labels.tolist() == right.labels.tolist()
    torch.testing.assert_close(left.scores, right.scores, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(left.boxes_xyxy, right.boxes_xyxy, atol=1e-2, rtol=1e-4)


def assert_encoded(left: EncodedPrompts, right: EncodedPrompts) -> None:
    torch.testing.assert_close(left.embeddings, right.embeddings, atol=1e-5, rtol=1e-4)
    for of_left, of_right in zip(left.memory.levels, right.memory.levels, strict=True):
        torch.testing.assert_close(of_left, of_right, atol=1e-5, rtol=1e-4)


def test_a_class_prompt_is_the_mean_over_instances_not_images(detector, pictures, bank):
    marks = [(pictures[0], (5, 5, 20, 10)), (pictures[0], (40, 30, 10, 10)), (pictures[2], (2, 60, 24, 20))]
    alone = [detector.encode([Prompt(image, boxes_xywh=[box])]).embeddings[0] for image, box in marks]
    assert bank.class_names == ("crack", "hole")
    assert bank.counts == (3, 1)
    torch.testing.assert_close(bank.embeddings[0], torch.stack(alone).mean(0), atol=1e-5, rtol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 1e-4


@pytest.fixture(scope="module")
def closer(tiny_model: Path) -> Closer:
    """`closer(size, magnify)`: the tiny detector with other frames."""

    def built(size: int, magnify: float) -> UniSpector:
        saved = load_model(tiny_model)
        model = saved.config.model.model_copy(update={"image_size": size, "magnify": magnify})
        return UniSpector(replace(saved, config=saved.config.model_copy(update={"model": model})))

    return built


def test_a_class_with_small_marks_is_encoded_and_looked_for_closer(closer, annotations, pictures):
    """As by the same network with a larger frame; the other class as without."""
    usual, larger, both = closer(96, 1.0), closer(128, 1.0), closer(96, 2.0)
    instances = both.encode_instances(*annotations)
    bank = instances.bank()
    assert dict(zip(bank.class_names, bank.image_sizes, strict=True)) == {"crack": 128, "hole": 96}
    alone = [larger.encode_annotations(*annotations).select(["crack"])]
    alone.append(usual.encode_annotations(*annotations).select(["hole"]))
    torch.testing.assert_close(bank.embeddings, torch.cat([each.embeddings for each in alone]))
    assert sorted(instances.instance_ids) == [1, 2, 3, 4]
    for number, label in zip(instances.instance_ids, instances.labels.tolist(), strict=True):
        (instance,) = [each for each in annotations[0].instances if each.id == number]
        assert annotations[0].class_index[instance.category_id] == label
    for picture, found in zip(pictures, both.detect(pictures, bank, batch_size=2), strict=True):
        apart = [one.detect([picture], own)[0] for one, own in zip((larger, usual), alone, strict=True)]
        assert len(apart[0])
        assert len(apart[1])
        scores = torch.cat([each.scores for each in apart])
        order = scores.argsort(descending=True, stable=True)
        expected = Detections(
            boxes_xyxy=torch.cat([each.boxes_xyxy for each in apart])[order],
            scores=scores[order],
            labels=torch.tensor([0] * len(apart[0]) + [1] * len(apart[1]))[order],
            masks_rle=(),
            class_names=("crack", "hole"),
            image_hw=picture.shape[:2],
        )
        assert_same(found, expected)
    assert len(both.detect(pictures[:1], bank, limit=3)[0]) == 3


def test_prompts_and_annotations_are_looked_at_equally_closely(closer, annotations, pictures):
    detector = closer(96, 2.0)
    marks = [(pictures[i], [box for _, box in boxes], boxes[0][0]) for i, boxes in enumerate(MARKS)]
    prompts = [Prompt(image, boxes, label=("crack", "hole")[number - 1]) for image, boxes, number in marks]
    by_hand, by_file = detector.encode(prompts), detector.encode_annotations(*annotations)
    assert by_hand.image_sizes == by_file.image_sizes == (128, 96)
    torch.testing.assert_close(by_hand.embeddings, by_file.embeddings, atol=1e-5, rtol=1e-4)


def test_alternative_banks_of_several_sizes_are_tried_in_one_pass(closer, annotations, pictures):
    detector = closer(96, 2.0)
    bank = detector.encode_annotations(*annotations)
    banks = [replace(bank, image_sizes=sizes) for sizes in ((96, 96), (128, 96), (96, 128), (192, 192))]
    together = list(detector.stream_banks(pictures, banks, batch_size=2))
    for number, each in enumerate(banks):
        for one, all_of_them in zip(detector.detect(pictures, each, batch_size=2), together, strict=True):
            assert_same(one, all_of_them[number])


def test_a_bank_of_another_size_of_the_input_is_refused(detector: UniSpector, bank: PromptBank) -> None:
    with pytest.raises(PromptBankError, match="wants an input of 4000 pixels; this model looks at 80;"):
        detector.detect([], replace(bank, image_sizes=(4000, 80)))


def test_prompts_do_not_depend_on_the_batch(detector, pictures, bank):
    prompts = [Prompt(image, boxes_xywh=[(3, 3, 20, 20)], label=str(i)) for i, image in enumerate(pictures)]
    together = detector.encode(prompts, batch_size=8)
    one_by_one = detector.encode(prompts, batch_size=1)
    torch.testing.assert_close(together.embeddings, one_by_one.embeddings, atol=1e-5, rtol=1e-4)


def test_annotations_encode_as_the_same_prompts_given_by_hand(detector, bank, annotations):
    encoded = detector.encode_annotations(*annotations)
    assert (encoded.class_names, encoded.counts) == (bank.class_names, bank.counts)
    torch.testing.assert_close(encoded.embeddings, bank.embeddings, atol=1e-5, rtol=1e-4)


def test_annotated_masks_prompt_by_themselves_when_asked_to(detector, pictures, annotations):
    by_box = detector.encode_annotations(*annotations)
    by_mask = detector.encode_annotations(*annotations, roi="mask")
    assert (by_mask.embeddings - by_box.embeddings).abs().max() > 1e-5
    frame = Geometry(80, 256, "interp", 16)
    sample = mark(Prompt(pictures[1], masks=half_mask(pictures[1], MARKS[1][0][1])), 0, frame)
    assert sample.roi_masks.sum() == 25 * 50  # 20 x 40 pixels of 64 x 64, seen at 80 x 80


def test_a_category_without_instance_is_named(detector, annotations):
    given, root = annotations
    more = Annotations(
        given.images, given.instances, (*given.categories, CategoryRecord(3, "dent", "defect"))
    )
    with pytest.raises(PromptBankError, match="class 'dent' has no prompt"):
        detector.encode_annotations(more, root)


def test_masks_and_boxes_prompt_differently(detector: UniSpector, pictures: list[np.ndarray]) -> None:
    mask = np.zeros(SIZES[0], dtype=bool)
    mask[5:15, 5:10] = True
    mask[10:15, 5:25] = True
    by_mask = detector.encode([Prompt(pictures[0], masks=mask)])
    by_box = detector.encode([Prompt(pictures[0], boxes_xywh=[(5, 5, 20, 10)])])
    filled = np.zeros(SIZES[0], dtype=bool)
    filled[5:15, 5:25] = True
    by_filled = detector.encode([Prompt(pictures[0], masks=filled)])
    assert (by_mask.embeddings - by_box.embeddings).abs().max() > 1e-5
    assert by_filled.embeddings.shape == by_box.embeddings.shape


def test_batches_detect_what_single_pictures_do(detector, pictures, bank):
    together = detector.detect(pictures, bank, batch_size=3)
    assert [found.image_hw for found in together] == list(SIZES)
    for picture, found in zip(pictures, together, strict=True):
        assert len(found) > 0
        assert_same(found, detector.detect([picture], bank)[0])


def test_targets_and_prompts_are_seen_alike(detector, pictures, bank, monkeypatch):
    seen: list[torch.Tensor] = []
    encode = detector._network.model.encode_images
    monkeypatch.setattr(
        detector._network.model, "encode_images", lambda images: seen.append(images) or encode(images)
    )
    detector.encode([Prompt(pictures[3], boxes_xywh=[(1, 1, 20, 20)])])
    detector.detect(pictures[2:4], bank)
    (prompt,), targets = seen[0], torch.cat(seen[1:])  # a batch a thread
    assert [torch.equal(prompt, target) for target in targets].count(True) == 1


def test_files_and_arrays_detect_the_same(detector, pictures, bank, tmp_path):
    Image.fromarray(pictures[3]).save(tmp_path / "a.png")
    assert_same(detector.detect([tmp_path / "a.png"], bank)[0], detector.detect([pictures[3]], bank)[0])
    assert_same(detector.detect([str(tmp_path / "a.png")], bank)[0], detector.detect([pictures[3]], bank)[0])


def test_detections_are_in_the_pictures_own_pixels(detector, pictures, bank):
    for found, (height, width) in zip(detector.detect(pictures, bank, limit=7), SIZES, strict=True):
        assert len(found) <= 7
        assert found.class_names == bank.class_names
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= torch.tensor([width, height, width, height])).all()
        assert (found.scores.diff() <= 0).all()
        assert all(mask["size"] == [height, width] for mask in found.masks_rle)


def test_a_bank_works_after_a_round_trip_and_only_with_its_model(
    detector: UniSpector, bank: PromptBank, pictures: list[np.ndarray], other_tiny_model: Path, tmp_path: Path
) -> None:
    bank.save(tmp_path / "bank.safetensors")
    again = PromptBank.load(tmp_path / "bank.safetensors")
    assert_same(detector.detect(pictures[:1], again)[0], detector.detect(pictures[:1], bank)[0])
    other = UniSpector.load(other_tiny_model)
    with pytest.raises(PromptBankError, match="build the bank again with this model"):
        other.detect(pictures[:1], again)


def other_width(bank: PromptBank, change: Callable[[torch.Tensor], torch.Tensor], part: str) -> PromptBank:
    if part == "embeddings":
        return replace(bank, embeddings=change(bank.embeddings))
    own = {side: tuple(map(change, getattr(bank.memory, side))) for side in ("inside", "outside")}
    return replace(bank, memory=replace(bank.memory, **own))


def without_level(bank: PromptBank) -> PromptBank:
    sides = ("inside", "outside", "plainness")
    return replace(
        bank, memory=replace(bank.memory, **{side: getattr(bank.memory, side)[:1] for side in sides})
    )


@pytest.mark.parametrize(
    "broken",
    [
        lambda bank: other_width(bank, lambda cells: cells[..., :-1], "embeddings"),
        lambda bank: other_width(bank, lambda cells: torch.nn.functional.pad(cells, (0, 1)), "embeddings"),
        lambda bank: other_width(bank, lambda cells: torch.nn.functional.pad(cells, (0, 1)), "memory"),
        without_level,
        lambda bank: replace(bank, memory=None, owners=()),
    ],
)
def test_a_bank_whose_sizes_are_not_those_of_the_model_is_refused_at_every_door(
    detector, bank, pictures, tmp_path, broken
):
    broken(bank).save(tmp_path / "bank.safetensors")
    wrong = PromptBank.load(tmp_path / "bank.safetensors")
    with pytest.raises(PromptBankError, match="channels; this model's have"):
        detector.stream(pictures, wrong)
    with pytest.raises(PromptBankError, match="channels; this model's have"):
        detector.with_negatives(wrong, [])
    with pytest.raises(PromptBankError, match=r"bank\.safetensors: .*channels; this model's have"):
        find_bank(tmp_path / "bank.safetensors", detector)


def test_a_stream_refuses_another_models_bank_before_the_first_picture(bank, other_tiny_model):
    with pytest.raises(PromptBankError):
        UniSpector.load(other_tiny_model).stream(iter([]), bank)


def encoded_images(detector: UniSpector, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of images whenever the network encodes some."""
    counts: list[int] = []
    encode = detector._network.model.encode_images
    monkeypatch.setattr(
        detector._network.model, "encode_images", lambda images: counts.append(len(images)) or encode(images)
    )
    return counts


@pytest.fixture(scope="module")
def banks(detector: UniSpector, pictures: list[np.ndarray]) -> list[PromptBank]:
    """Five draws of prompts for the same two classes."""
    return [
        detector.encode(
            [
                Prompt(pictures[number], boxes_xywh=[(3, 4, 22, 18)], label="crack"),
                Prompt(pictures[(number + 1) % 5], boxes_xywh=[(8, 6, 15, 12)], label="hole"),
            ]
        )
        for number in range(5)
    ]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", [300, 6])
def test_many_banks_detect_what_each_does_alone_and_pictures_are_encoded_once(
    detector: UniSpector,
    pictures: list[np.ndarray],
    banks: list[PromptBank],
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    threads: int,
) -> None:
    alone = [detector.detect(pictures, bank, batch_size=2, limit=limit) for bank in banks]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    counts = encoded_images(detector, monkeypatch)
    together = list(detector.stream_banks(iter(pictures), banks, batch_size=2, limit=limit))
    assert counts == ([2, 2, 1] if threads == 1 else [1] * 5)  # a batch is shared among the threads
    assert len(together) == len(pictures)
    for picture, of_image in enumerate(together):
        assert len(of_image) == len(banks)
        for bank, found in enumerate(of_image):
            assert_same(found, alone[bank][picture])
            torch.testing.assert_close(found.scores, alone[bank][picture].scores, atol=1e-7, rtol=1e-5)
            assert found.masks_rle == alone[bank][picture].masks_rle
            assert (found.class_names, found.image_hw) == (("crack", "hole"), SIZES[picture])
    scores = [[found.scores[0].item() for found in of_image] for of_image in together]
    assert min(abs(first - other) for first, *others in scores for other in others) > 1e-5


def test_how_many_banks_are_decoded_at_once_changes_nothing(detector, pictures, banks, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    whole = list(detector.stream_banks(pictures, banks, batch_size=2))
    decoded: list[int] = []
    detect = detector._network.model.detect
    monkeypatch.setattr(
        detector._network.model,
        "detect",
        lambda features, prompts: decoded.append(len(prompts.embeddings)) or detect(features, prompts),
    )
    cells = (
        (detector._network.row_maps + 2 * detector._network.prior_maps) * 24 * 24
    )  # maps of an image under one bank
    for room, parts in ((5 * cells, [2, 2, 1] * 3), (1, [1] * 15), (100 * cells, [5, 5, 5])):
        monkeypatch.setattr("unispector.inference.network.LOGITS_AT_ONCE", room)
        decoded.clear()
        for left, right in zip(whole, detector.stream_banks(pictures, banks, batch_size=2), strict=True):
            for one, other in zip(left, right, strict=True):
                assert_same(one, other)
                assert one.masks_rle == other.masks_rle
        assert decoded == parts


def test_banks_of_other_classes_are_refused_before_the_first_picture(detector, pictures, bank):
    renamed = replace(bank, class_names=("hole", "crack"))
    with pytest.raises(PromptBankError, match=r"\(hole, crack and crack, hole\)"):
        detector.stream_banks(iter([]), [bank, renamed])
    other = replace(bank, fingerprint="0" * 64)
    with pytest.raises(PromptBankError, match="build the bank again"):
        detector.stream_banks(iter([]), [bank, other])


def test_an_image_is_encoded_once_for_all_its_instances_and_any_of_them_make_a_bank(
    detector: UniSpector, annotations: tuple[Annotations, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, root = annotations
    counts = encoded_images(detector, monkeypatch)
    everything = detector.encode_instances(given, root, batch_size=2)
    assert counts == [2, 1]
    assert everything.instance_ids == (1, 2, 3, 4)
    assert everything.labels.tolist() == [0, 0, 1, 0]
    assert everything.fingerprint == detector.fingerprint
    for ids in ((1, 3), (2, 3), (1, 2, 3), (3, 4)):
        kept = tuple(instance for instance in given.instances if instance.id in ids)
        alone = detector.encode_annotations(replace(given, instances=kept), root)
        some = everything.only(ids).bank()
        assert (some.class_names, some.counts) == (alone.class_names, alone.counts)
        torch.testing.assert_close(some.embeddings, alone.embeddings, atol=1e-5, rtol=1e-4)


def test_crowds_are_no_prompts_and_leave_no_gap(detector, annotations):
    given, root = annotations
    crowd = tuple(replace(instance, iscrowd=int(instance.id == 2)) for instance in given.instances)
    without = detector.encode_instances(replace(given, instances=crowd), root)
    everything = detector.encode_instances(given, root)
    assert without.instance_ids == (1, 3, 4)
    rest = everything.encoded.rows(torch.tensor([0, 2, 3]))
    torch.testing.assert_close(without.encoded.embeddings, rest.embeddings, atol=1e-5, rtol=1e-4)
    # The crowd's place counts as surroundings, of the instance in its image only.
    torch.testing.assert_close(without.encoded.memory.inside, rest.memory.inside, atol=1e-5, rtol=1e-4)
    for found, expected in zip(without.encoded.memory.outside, rest.memory.outside, strict=True):
        torch.testing.assert_close(found[1:], expected[1:], atol=1e-5, rtol=1e-4)
    assert not torch.equal(without.encoded.memory.outside[0][0], rest.memory.outside[0][0])


def test_instances_follow_the_images_whatever_the_order_of_the_file(detector, annotations):
    given, root = annotations
    backwards = Annotations(given.images[::-1], given.instances[::-1], given.categories)
    found = detector.encode_instances(backwards, root)
    assert found.instance_ids == (4, 3, 2, 1)
    everything = detector.encode_instances(given, root)
    assert_encoded(found.encoded, everything.encoded.rows(torch.tensor([3, 2, 1, 0])))


def test_pictures_are_changed_before_they_are_looked_at(detector, annotations, tmp_path):
    given, root = annotations
    seen: list[tuple[int, int]] = []

    def negative(pixels: np.ndarray) -> np.ndarray:
        seen.append(pixels.shape[:2])
        return 255 - pixels

    for image in given.images:
        with Image.open(root / image.file_name) as picture:
            Image.fromarray(255 - np.asarray(picture)).save(tmp_path / image.file_name)
    for roi in ("box", "mask"):
        changed = detector.encode_instances(given, root, roi, change=negative)
        on_disk = detector.encode_instances(given, tmp_path, roi)
        assert_encoded(changed.encoded, on_disk.encoded)
    assert seen == 2 * [(image.height, image.width) for image in given.images]
    plain = detector.encode_instances(given, root, "mask").encoded
    assert (changed.encoded.embeddings - plain.embeddings).abs().max() > 1e-4
    assert (changed.encoded.memory.inside[0] - plain.memory.inside[0]).abs().max() > 1e-2


def exactly_same(left: Detections, right: Detections) -> bool:
    return (
        torch.equal(left.boxes_xyxy, right.boxes_xyxy)
        and torch.equal(left.scores, right.scores)
        and torch.equal(left.labels, right.labels)
        and left.masks_rle == right.masks_rle
    )


def test_the_banks_memory_survives_its_file_and_changes_what_is_found(
    detector, bank, pictures, tmp_path, monkeypatch
):
    bank.save(tmp_path / "bank.safetensors")
    again = PromptBank.load(tmp_path / "bank.safetensors")
    without = replace(bank, memory=None, owners=())
    monkeypatch.setattr(detector, "check", lambda bank: None)  # it refuses the one without
    for picture in pictures:
        found, loaded, poorer = (detector.detect([picture], each)[0] for each in (bank, again, without))
        assert exactly_same(found, loaded)
        assert not torch.equal(found.scores[:5], poorer.scores[:5])


def test_banks_of_different_numbers_of_prompts_are_tried_in_one_pass(detector, pictures, bank, banks):
    mixed = [banks[0], bank, banks[1].merge(bank), banks[2].merge(banks[3])]
    assert [each.counts for each in mixed] == [(1, 1), (3, 1), (4, 2), (2, 2)]
    for picture, of_image in zip(pictures, detector.stream_banks(pictures, mixed, 3), strict=True):
        for each, found in zip(mixed, of_image, strict=True):
            (alone,) = detector.detect([picture], each)
            assert_same(found, alone)
            assert found.masks_rle == alone.masks_rle


def test_the_order_of_classes_in_a_bank_plays_no_part(detector, pictures, bank):
    turned = bank.select(["hole", "crack"])
    for found, other in zip(detector.detect(pictures, bank), detector.detect(pictures, turned), strict=True):
        assert_same(found, replace(other, labels=1 - other.labels))


def test_a_model_without_similarity_prior_has_no_memory(model_without_prior, pictures, tmp_path):
    plain = UniSpector.load(model_without_prior)
    marks = [
        Prompt(pictures[0], boxes_xywh=[(5, 5, 20, 10)], label="a"),
        Prompt(pictures[1], boxes_xywh=[(8, 8, 40, 40)], label="b"),
    ]
    bank = plain.encode(marks)
    assert (bank.memory, bank.owners) == (None, ())
    bank.save(tmp_path / "bank.safetensors")
    again = PromptBank.load(tmp_path / "bank.safetensors")
    assert (again.memory, again.owners) == (None, ())
    (found,) = plain.detect(pictures[:1], bank)
    assert len(found) > 0
    for both in plain.stream_banks(pictures[:1], [again, bank.merge(again)]):
        assert_same(both[0], found)
        assert_same(both[1], found)


# Negatives


def rows_of(found: Detections) -> list[tuple[object, int, float]]:
    return list(zip(found.masks_rle, found.labels.tolist(), found.scores.tolist(), strict=True))


def test_what_looks_like_a_negative_scores_less_and_nothing_else_changes(detector, bank, pictures, tmp_path):
    plain = detector.detect(pictures[4], bank)
    row = next(i for i in range(len(plain)) if plain.class_names[int(plain.labels[i])] == "crack")
    again = Prompt(pictures[4], masks=decode_rle(plain.masks_rle[row]), label="crack")
    opposed = detector.with_negatives(bank, again)
    assert opposed.negative_owners == (0,)
    changed = detector.detect(pictures[4], opposed)
    assert {str(mask) for mask in changed.masks_rle} == {str(mask) for mask in plain.masks_rle}
    assert (changed.scores.diff() <= 0).all()
    scores = {
        (str(mask), label): score
        for mask, label, score in zip(
            plain.masks_rle, plain.labels.tolist(), plain.scores.tolist(), strict=True
        )
    }
    for mask, label, score in zip(
        changed.masks_rle, changed.labels.tolist(), changed.scores.tolist(), strict=True
    ):
        assert score == scores[str(mask), label] or (label == 0 and score < scores[str(mask), label])
    place = [str(mask) for mask in changed.masks_rle].index(str(plain.masks_rle[row]))
    assert changed.scores[place] < plain.scores[row]

    opposed.save(tmp_path / "bank.safetensors")
    assert exactly_same(changed, detector.detect(pictures[4], PromptBank.load(tmp_path / "bank.safetensors")))


def test_negatives_are_given_with_the_prompts_or_later(detector, pictures):
    prompts = [Prompt(pictures[0], boxes_xywh=[(5, 5, 20, 10)], label=name) for name in ("crack", "hole")]
    marks = [
        Prompt(pictures[1], boxes_xywh=[(8, 8, 20, 20)], label="hole"),
        Prompt(pictures[2], masks=half_mask(pictures[2], (2, 40, 24, 20)), label=ALL),
    ]
    at_once = detector.encode(prompts, negatives=marks)
    later = detector.with_negatives(detector.encode(prompts), marks)
    assert at_once.negative_owners == later.negative_owners == (0, 1, 1)
    one_by_one = detector.encode(prompts)
    for one in marks[::-1]:
        one_by_one = detector.with_negatives(one_by_one, [one])
    # The same marks in another order: what is found is the same.
    assert one_by_one.negative_owners == (0, 1, 1)
    for other in (later, one_by_one):
        assert_same(*(detector.detect([pictures[4]], each)[0] for each in (at_once, other)))


def test_alternative_banks_with_and_without_negatives_are_tried_in_one_pass(detector, bank, pictures):
    mark_ = Prompt(pictures[4], boxes_xywh=[(4, 8, 40, 40)], label="crack")
    banks = [bank, detector.with_negatives(bank, [mark_]), detector.with_negatives(bank, [mark_, mark_])]
    together = next(detector.stream_banks([pictures[4]], banks))
    for each, found in zip(banks, together, strict=True):
        assert_same(found, detector.detect([pictures[4]], each)[0])


def test_negatives_that_cannot_be_used_are_refused(
    detector, bank, pictures, model_without_prior, other_tiny_model
):
    known = Prompt(pictures[3], boxes_xywh=[(4, 8, 20, 20)], label="crack")
    with pytest.raises(PromptBankError, match="what is not 'defect', but the classes are crack, hole"):
        detector.with_negatives(bank, [replace(known, label="defect")])
    with pytest.raises(DataError, match="boxes or with masks"):
        detector.with_negatives(bank, [replace(known, boxes_xywh=())])
    with pytest.raises(PromptBankError, match="build the bank again"):
        UniSpector.load(other_tiny_model).with_negatives(bank, [known])
    without = UniSpector.load(model_without_prior)
    plain = without.encode([known])
    assert without.with_negatives(plain, []) == plain
    with pytest.raises(PromptBankError, match="no similarity prior"):
        without.with_negatives(plain, [known])


def test_an_unreadable_target_is_named(detector: UniSpector, bank: PromptBank, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        detector.detect([tmp_path / "broken.png"], bank)


def test_no_pictures_no_detections_and_no_prompts_no_bank(detector: UniSpector, bank: PromptBank) -> None:
    assert detector.detect([], bank) == []
    with pytest.raises(PromptBankError, match="mark at least one"):
        detector.encode([])


def test_an_absent_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a model directory"):
        UniSpector.load(tmp_path)


def test_the_packages_models_load_by_name(tiny_model, other_tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "SHIPPED", tmp_path)
    shutil.copytree(tiny_model, tmp_path / "fast")
    fast = UniSpector.load(tiny_model).fingerprint
    assert UniSpector.load().fingerprint == UniSpector.load("fast").fingerprint == fast
    with pytest.raises(CheckpointError, match="accurate: the package ships no such model yet; it has fast"):
        UniSpector.load("accurate")
    shutil.copytree(other_tiny_model, tmp_path / "accurate")
    assert UniSpector.load("accurate").fingerprint == UniSpector.load(other_tiny_model).fingerprint != fast


def kinds_of(pixels: np.ndarray, folder: Path) -> dict[str, object]:
    """The same image in every kind that is taken."""
    Image.fromarray(pixels).save(folder / "a.png")
    deep = pixels.astype(np.uint16) * 256
    return {
        "array": pixels,
        "alpha": np.dstack([pixels, pixels[..., 0]]),
        "deep": deep,
        "path": folder / "a.png",
        "text": str(folder / "a.png"),
        "pil": Image.fromarray(pixels),
        "opened": Image.open(folder / "a.png"),
    }


def test_one_image_of_any_kind_gives_its_detections_and_a_list_a_list(detector, pictures, bank, tmp_path):
    (expected,) = detector.detect([pictures[3]], bank)
    for kind, image in kinds_of(pictures[3], tmp_path).items():
        one, several = detector.detect(image, bank), detector.detect([image], bank)
        assert isinstance(one, Detections), kind
        assert isinstance(several, list), kind
        assert exactly_same(one, expected), kind
        assert exactly_same(several[0], expected), kind
    assert len(detector.detect((image for image in pictures[:3]), bank)) == 3
    assert exactly_same(next(detector.stream(str(tmp_path / "a.png"), bank)), expected)


def test_a_grey_image_is_one_of_three_equal_channels(detector, pictures, bank):
    grey = pictures[0][..., 0]
    expected = detector.detect(grey[..., None].repeat(3, 2), bank)
    for image in (grey, grey[..., None], Image.fromarray(grey)):
        assert exactly_same(detector.detect(image, bank), expected)


@pytest.mark.parametrize("image", [np.zeros((4, 5, 3)), torch.zeros(3, 4, 5), b"a.png", 5, None])
def test_what_is_no_image_is_one_line(detector: UniSpector, bank: PromptBank, image: object) -> None:
    with pytest.raises(DataError, match="image"):
        detector.detect(image, bank)  # type: ignore[call-overload]
    with pytest.raises(DataError, match="image"):
        detector.encode(Prompt(image, [(1, 1, 2, 2)]))  # type: ignore[arg-type]


def test_prompts_of_any_kind_encode_the_same(detector, pictures, tmp_path):
    expected = detector.encode([Prompt(pictures[1], [(8, 8, 40, 40)])])
    for kind, image in kinds_of(pictures[1], tmp_path).items():
        encoded = detector.encode(Prompt(image, [(8, 8, 40, 40)]))
        assert torch.equal(encoded.embeddings, expected.embeddings), kind


def test_the_bank_says_at_which_depth_targets_are_read(detector, pictures, tmp_path, caplog):
    eight, twelve = pictures[1], pictures[1].astype(np.uint16) << 4
    expected = detector.encode(Prompt(eight, [(8, 8, 40, 40)]))
    bank = detector.encode(Prompt(twelve, [(8, 8, 40, 40)]), bit_depth=12)
    assert not caplog.messages
    assert torch.equal(bank.embeddings, expected.embeddings)
    bank.save(tmp_path / "bank")
    found = detector.detect(eight, bank)
    for same in (bank, PromptBank.load(tmp_path / "bank"), bank.select(bank.class_names), bank.merge(bank)):
        assert same.bit_depth == 12
        assert exactly_same(detector.detect(twelve, same), found) or same.counts != bank.counts
    with pytest.raises(PromptBankError, match="banks of 12 and 16 bits cannot be merged"):
        bank.merge(expected)
    with pytest.raises(PromptBankError, match="different bit depths"):
        detector.stream_banks([eight], [bank, expected])
    with pytest.raises(DataError, match="a bit depth of 20; give 8 to 16"):
        detector.encode(Prompt(twelve, [(8, 8, 40, 40)]), bit_depth=20)


def test_a_bank_that_does_not_say_its_depth_has_16_bits(bank, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    bank.save(tmp_path / "new")
    with safe_open(tmp_path / "new", framework="pt") as file:
        left_out = ("bit_depth", "checksum")
        metadata = {key: value for key, value in file.metadata().items() if key not in left_out}
        metadata["format"] = "unispector prompt bank 4"
        save_file({key: file.get_tensor(key) for key in file.keys()}, tmp_path / "old", metadata)  # noqa: SIM118
    assert PromptBank.load(tmp_path / "old").bit_depth == 16


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "gpu", "meta", ""])
def test_a_device_that_is_not_there_is_one_line(tiny_model: Path, device: str) -> None:
    with pytest.raises(DataError, match=f"no device '{device}'; this machine has cpu only"):
        UniSpector.load(tiny_model, device)


@pytest.mark.parametrize("hw", [(1, 1), (30000, 10), (10, 30000)])
def test_odd_sizes_are_looked_at(detector: UniSpector, bank: PromptBank, hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    found = detector.detect(image, bank)
    assert found.image_hw == hw
    assert found.plot(image).size
    detector.encode(Prompt(image, [(0, 0, hw[1], hw[0])]))
