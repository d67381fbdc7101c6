"""What looks more like a negative than the class loses score, by loops over cells."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unispector.detections import Detections
from unispector.inference.negatives import STEEPNESS, Negatives
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.rle import decode_rle, encode_rle
from unispector.prior_structures import PriorFeatures, PromptMemory
from unispector.structures import ImageFeatures

SIDES, CHANNELS, VALID = (8, 4), (5, 6), 0.75  # the image covers 6 x 6 and 3 x 3 of the cells
IMAGE = (48, 96)


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def bank_of(images: int) -> PromptBank:
    """Classes a (negatives 0 and 2) and b (negative 1); a on `images` images, b on one."""
    owners = (*[0] * images, 1)
    inside = tuple(unit(len(owners), 3 + level, c, seed=level).half() for level, c in enumerate(CHANNELS))
    memory = PromptMemory(
        inside,
        inside,
        tuple(i[..., 0] for i in inside),
        torch.arange(len(owners)),
        torch.zeros(len(owners), 2),
    )
    negatives = tuple(unit(3, 3 + level, c, seed=9 + level).half() for level, c in enumerate(CHANNELS))
    counts = (images, 1)
    return PromptBank(
        torch.ones(2, 4),
        ("a", "b"),
        counts,
        "f" * 64,
        (64, 64),
        memory,
        owners,
        negatives=negatives,
        negative_owners=(0, 1, 0),
    )


def features() -> ImageFeatures:
    """Of two images."""
    levels = tuple(
        unit(2, side, side, c, seed=20 + side).permute(0, 3, 1, 2)
        for side, c in zip(SIDES, CHANNELS, strict=True)
    )
    return ImageFeatures(
        torch.zeros(2, 1, 4), (), torch.zeros(2, 4, 1, 1), VALID, PriorFeatures(levels, torch.zeros(2))
    )


def found() -> Detections:
    draw = np.random.default_rng(3)
    masks = np.zeros((7, *IMAGE), dtype=bool)
    for mask in masks:
        y, x = draw.integers(0, 40), draw.integers(0, 80)
        mask[y : y + draw.integers(1, 30), x : x + draw.integers(1, 60)] = True
    scores = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.4, 0.2, 0.1])
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 1])
    boxes = torch.arange(28.0).view(7, 4)
    return Detections(boxes, scores, labels, tuple(encode_rle(masks)), ("a", "b"), IMAGE)


def best(cell: Tensor, marks: list[Tensor]) -> float:
    return max(float(cell.double() @ known.double()) for mark in marks for known in mark)


def looped(bank: PromptBank, row: int, label: int, masks: np.ndarray) -> float:
    """The mean by which a mask's cells are nearer to the negatives, less what the class's own marks are."""
    own = [place for place, owner in enumerate(bank.owners) if owner == label]
    other = [place for place, owner in enumerate(bank.negative_owners) if owner == label]
    levels = features().prior.levels
    margins, of_marks = [], np.zeros((len(own), len(levels)))
    for number, level in enumerate(levels):
        ins, neg = bank.memory.inside[number], bank.negatives[number]
        cells = round(level.shape[-1] * VALID)
        weights = masks.reshape(cells, IMAGE[0] // cells, cells, IMAGE[1] // cells).mean((1, 3))
        each = [
            best(level[row, :, y, x], [neg[i] for i in other])
            - best(level[row, :, y, x], [ins[i] for i in own])
            for y, x in np.ndindex(cells, cells)
        ]
        margins.append(np.average(each, weights=weights.ravel()))
        for place, image in enumerate(own):
            rest = [ins[i] for i in own if i != image]
            if rest:
                of_marks[place, number] = np.mean(
                    [best(cell, [neg[i] for i in other]) - best(cell, rest) for cell in ins[image]]
                )
    return float(np.mean(margins) - (of_marks.mean(1).max() if len(own) > 1 else 0))


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("row", [0, 1])
def test_findings_lose_what_they_are_nearer_to_a_negative(images: int, row: int):
    bank, before = bank_of(images), found()
    after = Negatives.of(bank, torch.device("cpu")).lower(before, features(), row)
    expected = {}
    for number, score in enumerate(before.scores.tolist()):
        nearer = looped(bank, row, int(before.labels[number]), decode_rle(before.masks_rle[number]))
        odds = score / (1 - score) * math.exp(-STEEPNESS * max(nearer, 0))
        expected[before.masks_rle[number]["counts"]] = odds / (1 + odds)
    got = {rle["counts"]: score for rle, score in zip(after.masks_rle, after.scores.tolist(), strict=True)}
    assert got == pytest.approx(expected, abs=1e-4)
    assert (
        0
        < sum(
            abs(got[key] - before_) > 1e-3
            for key, before_ in zip(expected, before.scores.tolist(), strict=True)
        )
        < 7
    )
    assert (after.scores.diff() <= 0).all()
    for number, code in enumerate(rle["counts"] for rle in after.masks_rle):
        place = [rle["counts"] for rle in before.masks_rle].index(code)
        assert torch.equal(after.boxes_xyxy[number], before.boxes_xyxy[place])
        assert after.labels[number] == before.labels[place]


def test_without_negatives_the_very_detections_come_back():
    bank, before = bank_of(2), found()
    plain = PromptBank(bank.embeddings, bank.class_names, bank.counts, bank.fingerprint, bank.image_sizes)
    assert Negatives.of(plain, torch.device("cpu")).lower(before, features(), 0) is before
