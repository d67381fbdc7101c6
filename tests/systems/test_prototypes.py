"""Nearest-prototype matching: finds textures it was shown, and bears every shape of prompt."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.ops.rle import decode_rle, encode_rle
from unispector.systems.prototypes import (
    MOST,
    PROTOTYPES,
    STEEPNESS,
    PrototypeDetector,
    _best_threshold,
    _class_prototypes,
    _instances,
    _marked,
)

NAMES = ("checks", "stripes")


@pytest.fixture(scope="module")
def detector():
    return PrototypeDetector(side=256)


def picture(path, seed, height, width, patches):
    """Smooth grey noise with textured patches (class name -> x, y, w, h)."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(120, 6, (height, width, 1)).repeat(3, 2)
    rows, columns = np.mgrid[:height, :width]
    textures = {"checks": (rows // 6 + columns // 6) % 2, "stripes": columns // 3 % 2}
    for name, (x, y, w, h) in patches.items():
        area = np.s_[y : y + h, x : x + w]
        pixels[area] = textures[name][area][..., None] * 200 + 20
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def prompt_file(folder, marks, names=NAMES, size=(240, 320)):
    """Images 0.png, 1.png, ... with these patches, and the annotations of their boxes."""
    images, instances = [], []
    for number, patches in enumerate(marks):
        picture(folder / f"{number}.png", number, *size, patches)
        images.append(ImageRecord(number, f"{number}.png", size[1], size[0]))
        for name, box in patches.items():
            row = (len(instances) + 1, number, names.index(name) + 1, tuple(map(float, box)))
            instances.append(InstanceRecord(*row, float(box[2] * box[3]), None))
    categories = tuple(CategoryRecord(i, name, "") for i, name in enumerate(names, start=1))
    return Annotations(tuple(images), tuple(instances), categories)


MARKS = (
    {"checks": (40, 40, 90, 80)},
    {"checks": (180, 100, 80, 100), "stripes": (20, 20, 80, 90)},
    {"stripes": (150, 60, 100, 80)},
)


def iou(mask, box):
    x, y, w, h = box
    filled = np.zeros_like(mask)
    filled[y : y + h, x : x + w] = True
    return (mask & filled).sum() / (mask | filled).sum()


@pytest.mark.parametrize("marks", [MARKS, MARKS[1:2]], ids=["several images", "one image"])
def test_each_texture_is_found_on_a_picture_of_another_size(detector, tmp_path, marks):
    prompts = detector.encode_prompts(prompt_file(tmp_path, marks), tmp_path)
    patches = {"checks": (60, 30, 120, 110), "stripes": (260, 180, 110, 90)}
    picture(tmp_path / "target.png", 9, 300, 400, patches)
    (found,) = detector.detect([tmp_path / "target.png"], prompts)
    assert found.class_names == NAMES
    assert found.image_hw == (300, 400)
    for label, name in enumerate(NAMES):
        best = int((found.labels == label).nonzero()[0])
        mask = decode_rle(found.masks_rle[best])
        assert iou(mask, patches[name]) > 0.5
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert found.boxes_xyxy[best].tolist() == tight


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
    assert len(prompts["checks"].foreground) == 1 + 32 * 27
    assert len(prompts["checks"].background) == PROTOTYPES


def test_cells_are_those_whose_centre_lies_in_the_box():
    image = ImageRecord(1, "a.png", 80, 40)
    box = (18.0, 7.0, 30.2, 18.0)
    prompts = Annotations((image,), (InstanceRecord(1, 1, 7, box, 1.0, None),), (CategoryRecord(7, "a", ""),))
    (inside,) = _marked(prompts, image, 8).view(1, 8, 8)
    x, y = (torch.arange(8) + 0.5) * 10, (torch.arange(8) + 0.5) * 5
    columns = (x >= box[0]) & (x < box[0] + box[2])
    rows = (y >= box[1]) & (y < box[1] + box[3])
    assert torch.equal(inside, rows[:, None] & columns)


def test_the_threshold_has_the_best_mean_iou():
    lot = torch.Generator().manual_seed(3)
    inside = torch.rand(3, 400, generator=lot) < 0.2
    maps = torch.rand(3, 400, generator=lot) + inside * 0.6

    def mean_iou(threshold):
        return np.mean([float((m >= threshold)[i].sum() / ((m >= threshold) | i).sum()) for m, i in pairs])

    pairs = list(zip(maps, inside, strict=True))
    best = max(mean_iou(threshold) for threshold in np.linspace(float(maps.min()), float(maps.max()), 128))
    assert mean_iou(_best_threshold(maps, inside)) == pytest.approx(best, abs=1e-6)


def test_a_pictures_map_is_made_of_the_other_pictures_cells():
    lot = torch.Generator().manual_seed(5)
    cells = torch.nn.functional.normalize(torch.randn(3, 25, 6, generator=lot), dim=2)
    inside = torch.rand(3, 25, generator=lot) < 0.3
    free = ~inside & (torch.rand(3, 25, generator=lot) < 0.8)
    maps = torch.zeros(3, 25)
    for number in range(3):
        others = [other for other in range(3) if other != number]
        near, far = cells[others][inside[others]], cells[others][free[others]]
        for place, cell in enumerate(cells[number]):
            maps[number, place] = max(float(cell @ p) for p in near) - max(float(cell @ p) for p in far)
    known = _class_prototypes(cells, inside, free)
    assert known.threshold == pytest.approx(_best_threshold(maps, inside), abs=1e-5)
    assert sorted(known.background.tolist()) == sorted(cells[free].tolist())


def test_what_another_class_marks_is_no_background(detector, tmp_path):
    prompts = detector.encode_prompts(prompt_file(tmp_path, MARKS[1:2]), tmp_path)
    marked = sum(len(known.foreground) for known in prompts.values())
    assert [len(known.background) for known in prompts.values()] == [32 * 32 - marked] * 2


def test_only_the_best_components_that_are_no_specks_are_kept():
    spots = torch.full((128, 128), -1.0)
    spots[::4, ::4] = torch.arange(1.0, 1025.0).view(32, 32) / 1024
    specks = _instances(0, spots.flatten(), 0.0, (128, 128))
    assert specks == []  # one pixel of 16384 is less than 0.0001
    spots[:, 1::4] = spots[:, ::4]
    pairs = _instances(0, spots.flatten(), 0.0, (128, 128))
    assert [found.score for found in pairs] == pytest.approx(
        [1 / (1 + np.exp(-STEEPNESS * (1 - rank / 1024))) for rank in range(MOST)]
    )


def test_a_class_without_a_prompt_is_named(detector, tmp_path):
    prompts = prompt_file(tmp_path, MARKS[:1])
    with pytest.raises(DataError, match="'stripes' has no prompt"):
        detector.encode_prompts(prompts, tmp_path)


def test_a_mask_marks_the_cells_it_covers_by_half_and_a_thin_one_those_it_covers_most():
    mask = np.zeros((64, 96), dtype=bool)
    mask[8:40, 10:60] = np.tri(32, 50, 10, dtype=bool)
    thin = np.zeros((64, 96), dtype=bool)
    thin[50, 2:30] = True
    codes = encode_rle(np.array([mask, thin]))
    boxes = ((10.0, 8.0, 42.0, 32.0), (2.0, 50.0, 28.0, 1.0))
    instances = tuple(
        InstanceRecord(i, 1, i, box, 1.0, code)
        for i, (box, code) in enumerate(zip(boxes, codes, strict=True), start=1)
    )
    image = ImageRecord(1, "a.png", 96, 64)
    prompts = Annotations(
        (image,), instances, tuple(CategoryRecord(i, name, "") for i, name in enumerate(NAMES, start=1))
    )
    inside = _marked(prompts, image, 8, "mask").numpy().reshape(2, 8, 8)
    shares = [each.reshape(8, 8, 8, 12).mean(axis=(1, 3)) for each in (mask, thin)]
    assert (inside[0] == (shares[0] >= 0.5)).all()
    assert (inside[1] == (shares[1] == shares[1].max())).all()
    assert 0 < inside[0].sum() < _marked(prompts, image, 8).view(2, -1)[0].sum()
    plain = Annotations((image,), (replace(instances[0], segmentation=None),), prompts.categories)
    assert (_marked(plain, image, 8, "mask") == _marked(plain, image, 8)).all()
