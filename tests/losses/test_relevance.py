"""Token targets against loops over cells."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.losses.instances import Instances
from unispector.losses.relevance import relevance_targets
from unispector.structures import Targets

CLASSES = 3


def rectangles(counts: tuple[int, ...], side: int, seed: int) -> Instances:
    """Random rectangles, overlaps and one-pixel ones among them."""
    draw = np.random.default_rng(seed)
    targets = []
    for count in counts:
        masks = torch.zeros(count, side, side, dtype=torch.bool)
        for mask in masks:
            (y, x), (h, w) = draw.integers(0, side, 2), draw.integers(1, side, 2)
            mask[y : y + h, x : x + w] = True
        labels = torch.as_tensor(draw.integers(0, CLASSES, count))
        targets.append(
            Targets(labels, torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)), masks)
        )
    return Instances.of(targets)


def coverage(mask: np.ndarray, i: int, j: int, hw: tuple[int, int]) -> float:
    """Share of cell (i, j) of an h x w grid that a mask covers; cells reach out to whole pixels."""
    rows = slice(math.floor(i * mask.shape[0] / hw[0]), math.ceil((i + 1) * mask.shape[0] / hw[0]))
    columns = slice(math.floor(j * mask.shape[1] / hw[1]), math.ceil((j + 1) * mask.shape[1] / hw[1]))
    return float(mask[rows, columns].mean())


def by_loops(instances: Instances, image: int, column: int, hw: tuple[int, int]) -> np.ndarray:
    own = [
        mask.numpy()
        for mask, at, label in zip(instances.masks, instances.image, instances.labels, strict=True)
        if at == image and label == column
    ]
    target = np.zeros(hw)
    if not own:
        return target
    union = np.max(own, axis=0)
    for i, j in np.ndindex(*hw):
        target[i, j] = min(2 * coverage(union, i, j, hw), 1)
    for mask in own:
        covered = np.array([[coverage(mask, i, j, hw) for j in range(hw[1])] for i in range(hw[0])])
        target[np.unravel_index(covered.argmax(), hw)] = 1
    return target


@pytest.mark.parametrize(
    ("side", "levels"), [(64, ((1, 1), (2, 2), (4, 4), (8, 8))), (96, ((2, 2), (3, 3), (6, 6), (12, 12)))]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_targets_are_those_of_the_loops(side: int, levels: tuple[tuple[int, int], ...], seed: int):
    instances = rectangles((3, 0, 5), side, seed)
    found = relevance_targets(instances, CLASSES, levels)
    assert found.shape == (3, sum(h * w for h, w in levels), CLASSES)
    for image, column in np.ndindex(3, CLASSES):
        expected = np.concatenate([by_loops(instances, image, column, hw).ravel() for hw in levels])
        np.testing.assert_allclose(found[image, :, column].numpy(), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    side=st.sampled_from([32, 64, 96]),
    x=st.integers(0, 95),
    y=st.integers(0, 95),
    label=st.integers(0, CLASSES - 1),
)
def test_one_pixel_is_found_on_every_level(side: int, x: int, y: int, label: int):
    masks = torch.zeros(1, side, side, dtype=torch.bool)
    masks[0, y % side, x % side] = True
    instances = Instances.of([Targets(torch.tensor([label]), torch.full((1, 4), 0.5), masks)])
    levels = [(math.ceil(side / stride),) * 2 for stride in (64, 32, 16, 8)]
    target = relevance_targets(instances, CLASSES, levels)[0]
    sizes = [h * w for h, w in levels]
    for part in target.split(sizes):
        assert (part[:, label] == 1).sum() == 1
    assert target.sum(0)[[c for c in range(CLASSES) if c != label]].eq(0).all()


def test_two_halves_of_one_class_make_a_full_cell():
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, :8, :2], masks[1, :8, 2:4] = True, True  # a quarter of the cell each
    masks[0, 8:, :8], masks[1, 8:, 8:] = True, True  # and a cell of their own elsewhere
    boxes = torch.full((2, 4), 0.5)
    same = relevance_targets(Instances.of([Targets(torch.tensor([0, 0]), boxes, masks)]), 2, ((2, 2),))
    assert same[0, 0].tolist() == [1.0, 0.0]
    apart = relevance_targets(Instances.of([Targets(torch.tensor([0, 1]), boxes, masks)]), 2, ((2, 2),))
    assert apart[0, 0].tolist() == [0.5, 0.5]


def test_no_instance_at_all():
    instances = rectangles((0, 0), 32, 0)
    assert not relevance_targets(instances, CLASSES, ((1, 1), (2, 2))).any()
