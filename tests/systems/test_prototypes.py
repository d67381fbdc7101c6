"""Nearest-prototype matching: finds textures it was shown, and bears every shape of prompt."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from textures import MARKS, NAMES, assert_found, iou, prompt_file
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.ops.rle import decode_rle, encode_rle
from unispector.systems.cells import marked_cells
from unispector.systems.parts import MOST
from unispector.systems.prototypes import (
    PROTOTYPES,
    STEEPNESS,
    PrototypeDetector,
    _best_threshold,
    _class_prototypes,
    _instances,
    _marks,
)


@pytest.fixture(scope="module")
def detector():
    return PrototypeDetector(side=256)


def boxes_of(patches):
    """Prompts of one image of 80 x 80 pixels that is never opened."""
    instances = tuple(
        InstanceRecord(number, 1, NAMES.index(name) + 1, tuple(map(float, box)), 1.0, None)
        for number, (name, box) in enumerate(patches.items(), start=1)
    )
    categories = tuple(CategoryRecord(i, name, "") for i, name in enumerate(NAMES, start=1))
    return Annotations((ImageRecord(1, "a.png", 80, 80),), instances, categories)


@pytest.mark.parametrize("marks", [MARKS, MARKS[1:2]], ids=["several images", "one image"])
def test_each_texture_is_found_on_a_picture_of_another_size(detector, tmp_path, marks):
    prompts = detector.encode_prompts(prompt_file(tmp_path, marks), tmp_path)
    assert_found(detector, prompts, tmp_path)


def test_results_are_best_first_few_and_in_range_and_do_not_depend_on_other_pictures(detector, tmp_path):
    prompts = detector.encode_prompts(prompt_file(tmp_path, MARKS), tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (180, 90, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    paths = [tmp_path / "noise.png", tmp_path / "0.png"]
    together = list(detector.detect(paths, prompts))
    again = [next(detector.detect([path], prompts)) for path in paths]
    for one, other in zip(together, again, strict=True):
        assert torch.equal(one.scores, other.scores)
        assert one.masks_rle == other.masks_rle
        assert (one.scores.diff() <= 0).all()
        assert ((one.scores >= 0) & (one.scores <= 1)).all()
        assert (one.labels.bincount(minlength=2) <= MOST).all()
        areas = [decode_rle(code).sum() for code in one.masks_rle]
        assert min(areas, default=99) >= 0.0001 * one.image_hw[0] * one.image_hw[1]


def test_a_box_that_fills_the_only_picture_leaves_no_background_and_still_finds(detector, tmp_path):
    everything = prompt_file(tmp_path, [{"checks": (0, 0, 320, 240)}], names=("checks",))
    prompts = detector.encode_prompts(everything, tmp_path)
    assert len(prompts["checks"].background) == 0
    (found,) = detector.detect([tmp_path / "0.png"], prompts)
    assert iou(decode_rle(found.masks_rle[0]), (0, 0, 320, 240)) > 0.9


def test_a_tiny_box_is_one_cell_and_prototypes_are_capped(detector, tmp_path):
    prompts = detector.encode_prompts(
        prompt_file(tmp_path, [{"checks": (101, 101, 2, 1)}, {"checks": (0, 0, 320, 200)}], ("checks",)),
        tmp_path,
    )
    assert len(prompts["checks"].foreground) == 1 + 32 * 27 // 2
    assert len(prompts["checks"].background) == PROTOTYPES


def test_the_threshold_has_the_best_mean_iou_where_cells_are_sure():
    lot = torch.Generator().manual_seed(3)
    inside = torch.rand(3, 400, generator=lot) < 0.2
    unsure = ~inside & (torch.rand(3, 400, generator=lot) < 0.3)
    maps = torch.rand(3, 400, generator=lot) + inside * 0.6 + unsure * 0.5

    def mean_iou(threshold):
        sure = [(m[~u] >= threshold, i[~u]) for m, i, u in zip(maps, inside, unsure, strict=True)]
        return np.mean([float((a & i).sum() / (a | i).sum()) for a, i in sure])

    best = max(mean_iou(threshold) for threshold in np.linspace(float(maps.min()), float(maps.max()), 128))
    assert mean_iou(_best_threshold(maps, inside, unsure)) == pytest.approx(best, abs=1e-6)
    assert mean_iou(_best_threshold(maps, inside, torch.zeros_like(unsure))) < best - 0.001


def test_a_pictures_map_is_made_of_the_other_pictures_cells():
    lot = torch.Generator().manual_seed(5)
    cells = torch.nn.functional.normalize(torch.randn(3, 25, 6, generator=lot), dim=2)
    inside = torch.rand(3, 25, generator=lot) < 0.3
    free = ~inside & (torch.rand(3, 25, generator=lot) < 0.8)
    unsure = ~inside & ~free & (torch.rand(3, 25, generator=lot) < 0.5)
    maps = torch.zeros(3, 25)
    for number in range(3):
        others = [other for other in range(3) if other != number]
        near, far = cells[others][inside[others]], cells[others][free[others]]
        for place, cell in enumerate(cells[number]):
            maps[number, place] = max(float(cell @ p) for p in near) - max(float(cell @ p) for p in far)
    known = _class_prototypes(cells, inside, free, unsure)
    assert known.threshold == pytest.approx(_best_threshold(maps, inside, unsure), abs=1e-5)
    assert sorted(known.background.tolist()) == sorted(cells[free].tolist())


def test_of_a_box_the_half_that_is_least_like_the_surroundings_is_the_defect():
    prompts = boxes_of({"checks": (0, 0, 40, 30), "stripes": (50, 40, 30, 30)})
    cells = torch.nn.functional.normalize(
        torch.randn(64, 5, generator=torch.Generator().manual_seed(1)), dim=1
    )
    marked, defect = _marks(prompts, prompts.images[0], cells, "box")
    around = cells[~marked.any(0)]
    for mark, kept in zip(marked, defect, strict=True):
        alike = {
            place: max(float(cells[place] @ a) for a in around) for place in mark.nonzero()[:, 0].tolist()
        }
        least = sorted(alike, key=alike.__getitem__)[: -(-len(alike) // 2)]
        assert kept.nonzero()[:, 0].tolist() == sorted(least)
    assert torch.equal(marked, marked_cells(prompts, prompts.images[0], 8, "box"))


def test_of_a_mask_all_cells_are_the_defect_and_of_a_box_without_surroundings_too():
    prompts = boxes_of({"checks": (0, 0, 40, 30)})
    cells = torch.nn.functional.normalize(torch.randn(64, 5), dim=1)
    mask = np.zeros((80, 80), dtype=bool)
    mask[:30, :40] = True
    instance = replace(prompts.instances[0], segmentation=encode_rle(mask[None])[0])
    masked = replace(prompts, instances=(instance,))
    marked, defect = _marks(masked, masked.images[0], cells, "mask")
    assert marked.sum() == 3 * 4
    assert torch.equal(marked, defect)
    everything = boxes_of({"checks": (0, 0, 80, 80)})
    marked, defect = _marks(everything, everything.images[0], cells, "box")
    assert marked[0].all()
    assert torch.equal(marked, defect)


def test_what_is_neither_defect_nor_background_is_no_prototype(detector, tmp_path):
    prompts = detector.encode_prompts(prompt_file(tmp_path, MARKS[1:2]), tmp_path)
    marks = marked_cells(prompt_file(tmp_path, MARKS[1:2]), ImageRecord(0, "0.png", 320, 240), 32, "box")
    sizes = marks.sum(1).tolist()
    assert [len(known.foreground) for known in prompts.values()] == [-(-size // 2) for size in sizes]
    assert [len(known.background) for known in prompts.values()] == [32 * 32 - sum(sizes)] * 2


def test_a_class_without_a_prompt_is_named(detector, tmp_path):
    prompts = prompt_file(tmp_path, MARKS[:1])
    with pytest.raises(DataError, match="'stripes' has no prompt"):
        detector.encode_prompts(prompts, tmp_path)


def test_a_parts_score_grows_with_its_similarity_above_the_threshold():
    similarity = torch.full((64,), -1.0)
    similarity[:8], similarity[56:] = 0.3, 0.2
    better, worse = _instances(0, similarity, 0.1, (8, 8))
    assert better.score == pytest.approx(1 / (1 + math.exp(-STEEPNESS * 0.2)))
    assert worse.score == pytest.approx(1 / (1 + math.exp(-STEEPNESS * 0.1)))
