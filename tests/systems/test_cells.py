"""The cells of a feature map that prompts mark."""

from dataclasses import replace

import numpy as np
import torch

from textures import NAMES
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.ops.rle import encode_rle
from unispector.systems.cells import marked_cells


def test_cells_are_those_whose_centre_lies_in_the_box():
    image = ImageRecord(1, "a.png", 80, 40)
    box = (18.0, 7.0, 30.2, 18.0)
    prompts = Annotations((image,), (InstanceRecord(1, 1, 7, box, 1.0, None),), (CategoryRecord(7, "a", ""),))
    (inside,) = marked_cells(prompts, image, 8, "box").view(1, 8, 8)
    x, y = (torch.arange(8) + 0.5) * 10, (torch.arange(8) + 0.5) * 5
    columns = (x >= box[0]) & (x < box[0] + box[2])
    rows = (y >= box[1]) & (y < box[1] + box[3])
    assert torch.equal(inside, rows[:, None] & columns)


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
    inside = marked_cells(prompts, image, 8, "mask").numpy().reshape(2, 8, 8)
    shares = [each.reshape(8, 8, 8, 12).mean(axis=(1, 3)) for each in (mask, thin)]
    assert (inside[0] == (shares[0] >= 0.5)).all()
    assert (inside[1] == (shares[1] == shares[1].max())).all()
    assert 0 < inside[0].sum() < marked_cells(prompts, image, 8, "box").view(2, -1)[0].sum()
    plain = Annotations((image,), (replace(instances[0], segmentation=None),), prompts.categories)
    assert (marked_cells(plain, image, 8, "mask") == marked_cells(plain, image, 8, "box")).all()
