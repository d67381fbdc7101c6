"""Large images: marks are encoded from tiles, targets searched in tiles."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.merging import Seams
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.tiles import windows
from unispector.ops.rle import decode_rle, encode_rle

LARGE = (200, 300)
BOX = (150.0, 60.0, 12.0, 10.0)
WINDOW = (124, 33, 188, 97)  # 64 pixels a side around the box's middle
FAR = (20.0, 150.0, 12.0, 10.0)


def noise(*hw: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model)


@pytest.fixture(scope="module")
def bank(detector: UniSpector) -> PromptBank:
    marked = noise(*LARGE)
    prompts = [Prompt(marked, [BOX, FAR], label="crack"), Prompt(marked, [(200, 20, 9, 9)], label="hole")]
    return detector.encode(prompts, tile=64)


def crop(pixels: np.ndarray) -> np.ndarray:
    left, top, right, bottom = WINDOW
    return pixels[top:bottom, left:right]


def assert_equal(left: Detections, right: Detections) -> None:
    """To the last bit."""
    assert torch.equal(left.scores, right.scores)
    assert torch.equal(left.boxes_xyxy, right.boxes_xyxy)
    assert torch.equal(left.labels, right.labels)
    assert left.masks_rle == right.masks_rle
    assert (left.class_names, left.image_hw) == (right.class_names, right.image_hw)


def test_a_mark_is_encoded_from_the_tile_around_it(detector: UniSpector) -> None:
    pixels = noise(*LARGE)
    mask = np.zeros(LARGE, dtype=np.bool_)
    mask[60:70, 150:156] = True
    shifted = (BOX[0] - WINDOW[0], BOX[1] - WINDOW[1], *BOX[2:])
    by_box = detector.encode([Prompt(pixels, [BOX])], tile=64)
    expected = detector.encode([Prompt(crop(pixels), [shifted])], tile=0)
    assert by_box.tiles == (64,)
    torch.testing.assert_close(by_box.embeddings, expected.embeddings)
    by_mask = detector.encode([Prompt(pixels, masks=mask)], tile=64)
    around = mask[33:97, 121:185]  # the mask's middle lies three pixels to the left
    expected = detector.encode([Prompt(pixels[33:97, 121:185], masks=around)], tile=0)
    torch.testing.assert_close(by_mask.embeddings, expected.embeddings)
    whole = detector.encode([Prompt(pixels, [BOX])], tile=0)
    assert not torch.allclose(by_box.embeddings, whole.embeddings, atol=1e-3)


@pytest.mark.parametrize("roi", ["box", "mask"])
def test_annotations_are_encoded_as_prompts_are(detector: UniSpector, tmp_path: Path, roi: str) -> None:
    pixels = noise(*LARGE)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((2, *LARGE), dtype=np.bool_)
    mask[0, 60:70, 150:162] = mask[1, 150:160, 20:32] = True
    mask[0, 62, 155:162] = mask[1, 152, 22:32] = False
    instances = tuple(
        InstanceRecord(number, 1, category, box, 100.0, code)
        for number, category, box, code in zip((3, 7), (2, 1), (BOX, FAR), encode_rle(mask), strict=True)
    )
    categories = (CategoryRecord(1, "hole", ""), CategoryRecord(2, "crack", ""))
    annotations = Annotations((ImageRecord(1, "a.png", LARGE[1], LARGE[0]),), instances, categories)
    embeddings = detector.encode_instances(annotations, tmp_path, roi, tile=64)
    assert sorted(zip(embeddings.instance_ids, embeddings.labels.tolist(), strict=True)) == [(3, 1), (7, 0)]
    marks = ({"boxes_xywh": [FAR]}, {"boxes_xywh": [BOX]})
    if roi == "mask":
        marks = ({"masks": mask[1]}, {"masks": mask[0]})
    prompts = [Prompt(pixels, label=name, **own) for name, own in zip(("hole", "crack"), marks, strict=True)]
    expected = detector.encode(prompts, tile=64)
    found = embeddings.bank()
    assert found.tiles == expected.tiles == (64, 64)
    assert found.image_sizes == expected.image_sizes
    torch.testing.assert_close(found.embeddings, expected.embeddings)


def test_marks_in_several_tiles_count_once_each(bank: PromptBank, detector: UniSpector) -> None:
    assert (bank.class_names, bank.counts, bank.tiles) == (("crack", "hole"), (2, 1), (64, 64))
    alone = [detector.encode([Prompt(noise(*LARGE), [box])], tile=64).embeddings[0] for box in (BOX, FAR)]
    torch.testing.assert_close(bank.embeddings[0], torch.stack(alone).mean(0), atol=1e-5, rtol=1e-4)


def test_what_is_no_larger_than_a_tile_is_looked_at_as_without_tiles(
    detector: UniSpector, bank: PromptBank
) -> None:
    images = [noise(50, 70, seed=1), noise(64, 64, seed=2), noise(30, 80, seed=3)]
    for batch_size in (1, 2, 8):
        tiled, plain = (detector.detect(images, each, batch_size) for each in (bank, bank.tiled(0)))
        for found, expected in zip(tiled, plain, strict=True):
            assert_equal(found, expected)


def test_a_bank_without_tiles_takes_the_plain_path(
    detector: UniSpector, bank: PromptBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unispector.inference.detector.TiledSearch", None)
    assert len(detector.detect([noise(*LARGE)], bank.tiled(0))[0])


def test_a_large_image_is_its_tiles_and_itself_put_together(detector: UniSpector, bank: PromptBank) -> None:
    pixels, told = noise(*LARGE, seed=5), []
    (found,) = detector.stream(
        [pixels], bank, limit=30, progress=lambda done, total: told.append((done, total))
    )
    plain = bank.tiled(0)
    seams, tiles = Seams(LARGE, 64, 30), windows(LARGE, 64)
    for tile in tiles:
        part = np.ascontiguousarray(pixels[tile.top : tile.bottom, tile.left : tile.right])
        seams.add(tile, detector.detect([part], plain, limit=30)[0])
    (whole,) = detector.detect([pixels], plain, limit=30)
    expected = seams.merged(whole, 0.7)
    assert 0 < len(found) <= 30
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=1e-4)
    assert found.labels.tolist() == expected.labels.tolist()
    assert (found.scores.diff() <= 0).all()
    assert all(decode_rle(code).shape == LARGE for code in found.masks_rle)
    assert told == [(done, len(tiles)) for done in range(1, len(tiles) + 1)]


def test_each_class_is_looked_for_in_its_own_tiles(detector: UniSpector, bank: PromptBank) -> None:
    pixels = noise(*LARGE, seed=6)
    mixed = replace(bank, tiles=(64, 0))
    (found,) = detector.detect([pixels], mixed)
    for name in bank.class_names:
        (alone,) = detector.detect([pixels], mixed.select([name]))
        rows = [row for row, label in enumerate(found.labels.tolist()) if found.class_names[label] == name]
        assert len(rows) == len(alone) or len(found) == 300
        torch.testing.assert_close(found.scores[rows], alone.scores[: len(rows)], atol=1e-5, rtol=1e-4)
    banks = [mixed, replace(bank, tiles=(64, 64)), bank.tiled(0)]
    for own, together in zip(banks, next(detector.stream_banks([pixels], banks)), strict=True):
        torch.testing.assert_close(
            together.scores, detector.detect([pixels], own)[0].scores, atol=1e-5, rtol=1e-4
        )


def test_large_images_are_read_one_at_a_time_and_in_order(detector: UniSpector, bank: PromptBank) -> None:
    shapes = [(40, 50), LARGE, (64, 64), (60, 60), (100, 100), (30, 30)]
    read: list[int] = []

    def images() -> Iterator[np.ndarray]:
        for number, hw in enumerate(shapes):
            read.append(number)
            yield noise(*hw, seed=number)

    stream = detector.stream(images(), bank, batch_size=2)
    for number, found in enumerate(stream):
        assert found.image_hw == shapes[number]
        assert read[-1] <= number + 2
        if shapes[number] == LARGE:
            assert read[-1] == number
    assert len(read) == len(shapes)
