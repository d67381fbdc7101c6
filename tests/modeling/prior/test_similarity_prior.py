"""The similarity prior against slow loops, and on planted patches that only features tell apart."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unispector.modeling.prior import comparison
from unispector.modeling.prior.comparison import HEADS, KEY, LEAST_GAP, MEASURES, LevelComparison, measure
from unispector.modeling.prior.similarity_prior import (
    FINEST,
    INSIDE,
    OUTSIDE,
    PATCH,
    SHARED,
    TYPICAL,
    SimilarityPrior,
)
from unispector.prior_structures import PriorFeatures, PriorMaps, PriorPrompts, PromptMemory
from unispector.structures import Targets, VisualPrompts

PADDED = 128
CHANNELS = (13, 14)  # of the levels that are compared, strides 8 and 16; the second one is attended to
FINEST_CHANNELS = 5  # of the backbone's stride 4


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def some_members(rows: int, classes: int, regions: int, seed: int = 0) -> Tensor:
    """Every class has a region of its own and, from row to row, others besides."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(rows, classes, regions, generator=generator) < 0.4
    return chosen | torch.eye(classes, regions, dtype=torch.bool)


def box(top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(PADDED, PADDED, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def disc(y: int, x: int, radius: int) -> Tensor:
    place = torch.arange(PADDED)
    return (place[:, None] - y).square() + (place - x).square() < radius**2


def regions(*masks: Tensor, images: list[int]) -> VisualPrompts:
    return VisualPrompts(
        torch.stack(masks), torch.tensor(images), torch.zeros(len(masks)).long(), torch.zeros(len(masks), 4)
    )


def levels_of(patches: Tensor, seed: int = 0, noise: float = 0.05) -> tuple[Tensor, ...]:
    """Unit vectors of images [B, P, P] bool: one vector on a patch, another elsewhere, and noise."""
    generator = torch.Generator().manual_seed(7)
    levels = []
    for level, channels in enumerate(CHANNELS):
        on, off = torch.linalg.qr(torch.randn(channels, 2, generator=generator)).Q.T
        share = F.avg_pool2d(patches[:, None].float(), 8 * 2**level)
        clean = share * on[:, None, None] + (1 - share) * off[:, None, None]
        jitter = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + level))
        levels.append(F.normalize(clean + noise * jitter, dim=1))
    return tuple(levels)


def finest_of(patches: Tensor, seed: int = 0) -> Tensor:
    """Random features of stride 4."""
    shape = (len(patches), FINEST_CHANNELS, PADDED // 4, PADDED // 4)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def described(prior: SimilarityPrior, patches: Tensor, seed: int = 0) -> PriorFeatures:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (len(patches), 3, PADDED - 8, PADDED - 8), generator=generator)
    return prior.describe(pictures, levels_of(patches, seed), finest_of(patches, seed))


def memory_of(inside: Tensor, outside: Tensor, images: list[int] | None = None) -> PromptMemory:
    """A memory of one level, without sizes; plainness is what it is said to be."""
    return PromptMemory(
        (inside,),
        (outside,),
        ((inside @ outside.transpose(1, 2)).amax(2),),
        torch.tensor(images if images is not None else range(len(inside))),
        torch.zeros(len(inside), 2),
    )


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> SimilarityPrior:
    monkeypatch.setattr(comparison, "ATTENDING", CHANNELS[1])
    return SimilarityPrior(CHANNELS, FINEST_CHANNELS, 12).eval()


@pytest.fixture
def prior(untrained: SimilarityPrior) -> SimilarityPrior:
    """With weights as after training: none is zero."""
    for parameter in untrained.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return untrained


# Comparison


def looped_comparison(
    level: np.ndarray, inside: np.ndarray, outside: np.ndarray, mine: np.ndarray, typical: np.ndarray
) -> np.ndarray:
    """[7, h, w] for one image [D, h, w] and one class, whose prompts are those in `mine`."""
    out = np.zeros((7, *level.shape[1:]))
    mean_cell = level.reshape(len(level), -1).mean(1)
    mean_inside = np.mean([cell for number in mine for cell in inside[number]], axis=0)
    for y, x in np.ndindex(*level.shape[1:]):
        cell = level[:, y, x]
        best_in = [max(float(cell @ known) for known in inside[number]) for number in mine]
        best_out = [max(float(cell @ known) for known in outside[number]) for number in mine]
        difference = max(best_in) - max(best_out)
        scaled = (difference - typical[1]) / max(typical[0] - typical[1], LEAST_GAP)
        out[:, y, x] = (
            max(best_in),
            max(best_out),
            difference,
            cell @ mean_inside / np.linalg.norm(mean_inside),
            np.mean(best_in),
            min(max(scaled, -2), 3),
            1 - cell @ mean_cell / np.linalg.norm(mean_cell),
        )
    return out


@pytest.mark.parametrize("at_once", [1, 500, 2**24])
def test_every_cell_is_compared_as_loops_do(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparison, "AT_ONCE", at_once)
    level = unit(2, 3, 5, 6, seed=1).permute(0, 3, 1, 2)
    inside, outside = unit(5, 4, 6, seed=2), unit(5, 7, 6, seed=3)
    members = some_members(4, 3, 5)
    assert members.sum(2).unique().numel() > 2
    typical = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(4)) * 0.6 - 0.3
    cells = level.flatten(2).transpose(1, 2)
    found = measure(cells, inside, outside, members, typical).view(4, 3, 7, 3, 5)
    for row in range(4):
        for column in range(3):
            expected = looped_comparison(
                level[row // 2].numpy(),
                inside.numpy(),
                outside.numpy(),
                members[row, column].nonzero().flatten().numpy(),
                typical[row, column].numpy(),
            )
            np.testing.assert_allclose(found[row, column].numpy(), expected, atol=2e-5)
    assert found[:, :, 5].min() == -2
    assert found[:, :, 5].max() == 3


def looped_share(
    module: LevelComparison, cell: Tensor, memory: PromptMemory, mine: list[int], head: int
) -> float:
    """What one head says of one cell: softmax over all cells of the prompts in `mine`, marked against not."""
    attention, part = module.attention, slice(head * KEY, (head + 1) * KEY)
    assert attention is not None
    query = F.normalize(attention.query.weight[part].double() @ cell.double(), dim=0)
    on, everything = 0.0, 0.0
    for number in mine:
        for side, known in ((1, memory.inside[0][number]), (0, memory.outside[0][number])):
            for place, other in enumerate(known.double()):
                key = F.normalize(attention.key.weight[part].double() @ other, dim=0)
                logit = attention.sharpness[head].exp().item() * float(query @ key)
                if side:
                    plainness = memory.plainness[0][number, place].item()
                    logit += attention.marked[head].item() - attention.plain[head].item() * plainness
                everything += math.exp(logit)
                on += side * math.exp(logit)
    return 2 * on / everything - 1


@torch.no_grad()
def test_heads_tell_how_much_of_a_cells_attention_is_marked(monkeypatch: pytest.MonkeyPatch):
    """Also where classes and rows have different numbers of prompts, which are padded to the most."""
    monkeypatch.setattr(comparison, "ATTENDING", 6)
    module = LevelComparison(6)
    assert module.channels == MEASURES + HEADS
    for parameter in (module.attention.marked, module.attention.plain, module.attention.key.weight):
        torch.nn.init.normal_(parameter)
    level = unit(2, 2, 3, 6, seed=1).permute(0, 3, 1, 2)
    memory = memory_of(unit(5, 4, 6, seed=2), unit(5, 7, 6, seed=3))
    members = some_members(4, 3, 5)
    assert members.sum(2).amax(0).min() > members.sum(2).min()
    found = module(level, memory, 0, members, torch.tensor(TYPICAL).expand(4, 3, 2))
    heads = found.view(4, 3, -1, 2, 3)[:, :, MEASURES:]
    for row, column, head, y, x in np.ndindex(*heads.shape):
        mine = members[row, column].nonzero().flatten().tolist()
        expected = looped_share(module, level[row // 2, :, y, x], memory, mine, head)
        assert heads[row, column, head, y, x].item() == pytest.approx(expected, abs=1e-4)
    assert heads.std() > 0.1


@torch.no_grad()
def test_untrained_heads_compare(monkeypatch: pytest.MonkeyPatch):
    """A cell that is a marked one is found, by every head; so is one of the surroundings."""
    monkeypatch.setattr(comparison, "ATTENDING", 64)
    module = LevelComparison(64)
    on, off = unit(2, 64, seed=1)
    memory = memory_of(on.expand(1, 3, 64), off.expand(1, 3, 64))
    level = torch.stack((on, off), dim=1)[None, :, :, None]
    members = torch.ones(1, 1, 1, dtype=torch.bool)
    heads = module(level, memory, 0, members, torch.tensor(TYPICAL).expand(1, 1, 2))[0, MEASURES:, :, 0]
    assert (heads[:, 0] > 0.5).all()
    assert (heads[:, 1] < -0.5).all()


@torch.no_grad()
def test_the_scaled_difference_spreads_to_cells_of_the_same_image_that_look_alike(monkeypatch):
    monkeypatch.setattr(comparison, "ATTENDING", 6)
    module = LevelComparison(6)
    torch.nn.init.constant_(module.sharpness, math.log(5.0))
    level = unit(2, 3, 4, 6, seed=1).permute(0, 3, 1, 2)
    memory, members = memory_of(unit(4, 3, 6, seed=2), unit(4, 5, 6, seed=3)), some_members(6, 2, 4)
    typical = torch.rand(6, 2, 2, generator=torch.Generator().manual_seed(4))
    found = module(level, memory, 0, members, typical).view(6, 2, module.channels, 12).double().numpy()
    for row, column in np.ndindex(6, 2):
        cells = level[row // 3].flatten(1).T.double().numpy()
        scaled, spread = found[row, column, 5], found[row, column, 7]
        for place, cell in enumerate(cells):
            weights = [math.exp(5 * float(cell @ other)) for other in cells]
            assert spread[place] == pytest.approx(np.average(scaled, weights=weights), abs=1e-4)


@torch.no_grad()
def test_a_level_of_few_channels_is_measured_only():
    module = LevelComparison(6)
    assert not list(module.parameters())
    level, members = unit(2, 2, 3, 6, seed=1).permute(0, 3, 1, 2), some_members(2, 3, 4)
    memory, typical = memory_of(unit(4, 3, 6, seed=2), unit(4, 5, 6, seed=3)), torch.rand(2, 3, 2)
    found = module(level, memory, 0, members, typical).view(2, 3, MEASURES, 6)
    cells = level.flatten(2).transpose(1, 2)
    expected = measure(cells, memory.inside[0], memory.outside[0], members, typical)
    assert torch.equal(found[:, :, :-1], expected)
    assert torch.equal(found[:, :, -1], expected[:, :, 5])


# Calibration


def looped_calibration(cells: Tensor, inside: Tensor, outside: Tensor, mine: list[int]) -> float:
    differences = []
    for number in mine:
        others = [other for other in mine if other != number]
        for cell in cells[number]:
            best_in = max(float(cell @ known) for other in others for known in inside[other])
            best_out = max(float(cell @ known) for other in others for known in outside[other])
            differences.append(best_in - best_out)
    return float(np.mean(differences))


def test_each_image_is_judged_by_the_others_of_its_class(untrained: SimilarityPrior):
    inside, outside = (tuple(unit(5, 3 + n, 4 + n, seed=10 * k + n) for n in range(2)) for k in range(2))
    plainness = tuple(torch.zeros(side.shape[:2]) for side in inside)
    memory = PromptMemory(inside, outside, plainness, torch.arange(5), torch.zeros(5, 2))
    members = some_members(3, 3, 5, seed=1)
    members[0, 0] = torch.tensor([True, False, False, False, False])
    members[1, 0] = True
    found = untrained.calibrate(memory, members)
    assert found.shape == (3, 3, 2, 2)
    alone = 0
    for row, column in np.ndindex(3, 3):
        mine = members[row, column].nonzero().flatten().tolist()
        for level, (inside, outside) in enumerate(memory.levels):
            if len(mine) == 1:
                alone += 1
                expected = TYPICAL
            else:
                expected = tuple(
                    looped_calibration(cells, inside, outside, mine) for cells in (inside, outside)
                )
            assert found[row, column, level].tolist() == pytest.approx(expected, abs=1e-5)
    assert 0 < alone < 18


def test_some_of_many_cells_stand_for_all(untrained: SimilarityPrior):
    """Every third of 48, so that cells which repeat in threes are the same as all of them."""
    few = unit(3, 16, 6, seed=1), unit(3, 16, 6, seed=2)
    many = [side.repeat_interleave(3, dim=1) for side in few]
    members = torch.ones(1, 1, 3, dtype=torch.bool)
    found = untrained.calibrate(memory_of(*many), members)
    torch.testing.assert_close(found, untrained.calibrate(memory_of(*few), members))
    expected = [looped_calibration(side, *few, [0, 1, 2]) for side in few]
    assert found[0, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)


# Memory


def scattered(prior: SimilarityPrior) -> PriorFeatures:
    """Two images in which no two cells are alike."""
    features = described(prior, torch.zeros(2, PADDED, PADDED, dtype=torch.bool))
    sides = [level.shape[-1] for level in features.levels]
    levels = [unit(2, side, side, 8, seed=side).permute(0, 3, 1, 2) for side in sides]
    return replace(features, levels=tuple(levels))


def places(cells: Tensor, level: Tensor) -> list[tuple[int, int, int]]:
    """Image, row and column that each of the cells [m, D] is the feature of."""
    flat = level.permute(0, 2, 3, 1).reshape(-1, cells.shape[1])
    best = (cells @ flat.T).max(1)
    assert best.values.tolist() == pytest.approx([1] * len(cells), abs=1e-5)
    return [tuple(int(n) for n in np.unravel_index(i, (2, *level.shape[2:]))) for i in best.indices.tolist()]


def shares(mask: Tensor, side: int) -> dict[tuple[int, int], float]:
    """How much of each cell a mask covers."""
    size = PADDED // side
    return {
        (y, x): mask[y * size : (y + 1) * size, x * size : (x + 1) * size].float().mean().item()
        for y, x in np.ndindex(side, side)
    }


def test_cells_are_kept_where_they_belong(untrained: SimilarityPrior):
    first, second, third = box(5, 9, 61, 47), disc(90, 80, 27), box(0, 0, 33, 35)
    features = scattered(untrained)
    memory = untrained.remember(features, regions(first, second, third, images=[1, 1, 0]))
    assert len(memory) == 3
    assert memory.image.tolist() == [1, 1, 0]
    together = {0: third, 1: first | second}
    for number_of_level, (level, (inside, outside), plainness) in enumerate(
        zip(features.levels, memory.levels, memory.plainness, strict=True)
    ):
        side, factor = level.shape[-1], FINEST if number_of_level == 0 else 1
        assert inside.shape[:2] == plainness.shape == (3, factor * INSIDE)
        assert outside.shape[:2] == (3, factor * OUTSIDE)
        for number, (mask, image) in enumerate(((first, 1), (second, 1), (third, 0))):
            around = places(outside[number], level)
            free = {cell for cell, share in shares(together[image], side).items() if share == 0}
            assert {(y, x) for _, y, x in around} <= free
            # Evenly: from one end of the image to the other, and no cell twice while others are left out.
            assert len(set(around)) == min(len(around), len(free))
            assert max(y for _, y, _ in around) - min(y for _, y, _ in around) > side / 2
            covered = [cell for cell, share in shares(mask, side).items() if share >= 0.5]
            alike = {(y, x): float((outside[number] @ level[image, :, y, x]).max()) for y, x in covered}
            # Of a box the half that is least like what is kept of the surroundings; of a mask all.
            kept = sorted(covered, key=lambda cell: alike[cell])[: -(-len(covered) // 2)]
            kept = covered if mask is second else kept
            within = places(inside[number], level)
            assert {(y, x) for _, y, x in within} <= set(kept)
            assert len(set(within)) == min(len(within), len(kept))
            assert {n for n, _, _ in around + within} == {image}
            own = [alike[y, x] for _, y, x in within]
            assert plainness[number].tolist() == pytest.approx(own, abs=1e-5)


def test_sizes_are_logs_of_the_sides_of_the_marks(untrained: SimilarityPrior):
    bar, dots = box(3, 10, 11, 74), box(0, 0, 1, 1) | box(127, 63, 128, 64)
    memory = untrained.remember(scattered(untrained), regions(bar, dots, disc(64, 64, 11), images=[0, 1, 1]))
    expected = [[64 / 128, 8 / 128], [64 / 128, 1.0], [21 / 128, 21 / 128]]
    torch.testing.assert_close(memory.sizes.exp(), torch.tensor(expected))


def test_a_mask_is_remembered_by_all_of_it(untrained: SimilarityPrior):
    """The same region less one pixel is no box: the two thirds of it that are the defect stay two thirds."""
    patch, marked = box(32, 32, 96, 96), box(32, 32, 96, 128)
    marked[32, 32] = False
    features = described(untrained, patch[None], seed=1)
    memory = untrained.remember(features, regions(marked, images=[0]))
    for level, (inside, _) in zip(features.levels, memory.levels, strict=True):
        on = level[0, :, level.shape[-1] // 2, level.shape[-1] // 2]
        assert ((inside[0] @ on) > 0.7).float().mean().item() == pytest.approx(2 / 3, abs=0.05)


def test_a_box_is_remembered_by_what_differs_from_its_surroundings(untrained: SimilarityPrior):
    """A defect that fills two thirds of its box: nothing of the rest is kept inside."""
    patch, marked = box(32, 32, 96, 96), box(32, 32, 96, 128)
    features = described(untrained, patch[None], seed=1)
    memory = untrained.remember(features, regions(marked, images=[0]))
    for level, (inside, outside) in zip(features.levels, memory.levels, strict=True):
        on = level[0, :, level.shape[-1] // 2, level.shape[-1] // 2]
        assert (inside[0] @ on).min() > 0.7
        assert (outside[0] @ on).max() < 0.5


def test_few_cells_are_all_kept_and_equally_often(untrained: SimilarityPrior):
    features, mask = scattered(untrained), box(16, 32, 48, 64)
    memory = untrained.remember(features, regions(mask, images=[0]))
    for level, (inside, _) in zip(features.levels, memory.levels, strict=True):
        within = places(inside[0], level)
        half = (32 * level.shape[-1] // PADDED) ** 2 // 2
        assert len(set(within)) == half
        assert {within.count(cell) for cell in within} == {len(within) // half}


def test_a_region_of_one_pixel_keeps_the_cell_it_lies_in(untrained: SimilarityPrior):
    features = scattered(untrained)
    memory = untrained.remember(features, regions(box(37, 90, 38, 91), images=[1]))
    for level, (inside, outside) in zip(features.levels, memory.levels, strict=True):
        size = PADDED // level.shape[-1]
        own = (1, 37 // size, 90 // size)
        assert set(places(inside[0], level)) == {own}
        assert own not in places(outside[0], level)


def test_a_region_that_covers_all_has_no_surroundings(untrained: SimilarityPrior):
    features = scattered(untrained)
    everywhere, somewhere = box(0, 0, PADDED, PADDED), box(8, 8, 40, 40)
    memory = untrained.remember(features, regions(everywhere, somewhere, images=[0, 1]))
    for level, (inside, outside), plainness in zip(
        features.levels, memory.levels, memory.plainness, strict=True
    ):
        assert {n for n, _, _ in places(inside[0], level)} == {0}
        assert not outside[0].any()
        assert not plainness[0].any()
        assert outside[1].any()


def test_no_regions_no_memory(untrained: SimilarityPrior):
    features = described(untrained, torch.zeros(2, PADDED, PADDED, dtype=torch.bool))
    none = VisualPrompts(
        torch.zeros(0, PADDED, PADDED, dtype=torch.bool),
        torch.zeros(0).long(),
        torch.zeros(0).long(),
        torch.zeros(0, 4),
    )
    assert len(untrained.remember(features, none)) == 0


# Description


def test_detail_is_of_each_picture_alone(untrained: SimilarityPrior):
    patches = torch.stack([box(32, 32, 64, 96), box(0, 64, 96, 128)])
    levels, finest = levels_of(patches), finest_of(patches)
    pictures = torch.randint(0, 256, (2, 3, 120, 120), dtype=torch.uint8)
    both = untrained.describe(pictures, levels, finest)
    assert both.levels == levels
    assert both.detail.shape == (2, PATCH**2 + FINEST_CHANNELS, 32, 32)
    for image in range(2):
        own = slice(image, image + 1)
        alone = untrained.describe(pictures[own], tuple(level[own] for level in levels), finest[own])
        torch.testing.assert_close(alone.detail[0], both.detail[image])


def test_detail_is_relative_to_the_pictures_light_and_contrast(untrained: SimilarityPrior):
    picture = torch.randint(0, 256, (1, 3, 120, 120)).float()
    levels, finest = levels_of(box(32, 32, 64, 96)[None]), finest_of(torch.zeros(1))

    def contrast(picture: Tensor) -> Tensor:
        return untrained.describe(picture, levels, finest).detail[:, : PATCH**2]

    plain, dim = contrast(picture), contrast(0.5 * picture + 30)
    torch.testing.assert_close(plain, dim, atol=0.25, rtol=0)
    assert np.corrcoef(plain.flatten(), dim.flatten())[0, 1] > 0.999
    other = contrast(picture.flip(-1))
    assert abs(np.corrcoef(plain.flatten(), other.flatten())[0, 1]) < 0.5


def test_detail_holds_each_pixel_and_the_direction_of_the_finest_features(untrained: SimilarityPrior):
    """A bright pixel is in one channel of one cell; of features only the direction counts."""
    picture, levels = torch.full((1, 3, 128, 128), 100.0), levels_of(box(32, 32, 64, 96)[None])
    picture[0, :, 4 * 9 + 2, 4 * 20 + 3] = 200.0
    finest = finest_of(torch.zeros(1))
    detail = untrained.describe(picture, levels, 7 * finest).detail
    channel, y, x = np.unravel_index(int(detail[0, : PATCH**2].argmax()), (PATCH**2, 32, 32))
    assert (channel, y, x) == (2 * PATCH + 3, 9, 20)
    looks = detail[0, PATCH**2 :]
    torch.testing.assert_close(looks.norm(dim=0), torch.full((32, 32), 3.0))
    torch.testing.assert_close(F.cosine_similarity(looks, finest[0], dim=0), torch.ones(32, 32))


# The whole prior


@torch.no_grad()
def found_maps(
    prior: SimilarityPrior, target: PriorFeatures, memory: PromptMemory, members: Tensor
) -> PriorMaps:
    return prior(target, PriorPrompts(memory, members, prior.calibrate(memory, members)))


@pytest.mark.parametrize("prompts", [1, 3])
def test_untrained_it_finds_a_marked_patch_in_another_picture(untrained: SimilarityPrior, prompts: int):
    patches = [box(32, 32, 64, 96), box(64, 0, 128, 64), box(0, 64, 64, 128)][:prompts]
    marked = described(untrained, torch.stack(patches), seed=1)
    memory = untrained.remember(marked, regions(*patches, images=list(range(prompts))))
    there = box(64, 64, 128, 128)
    target = described(untrained, torch.stack([there, torch.zeros_like(there)]), seed=2)
    members = torch.ones(2, 1, prompts, dtype=torch.bool)
    found = found_maps(untrained, target, memory, members)
    logits = found.logits
    assert (found.presence == 0).all()
    side = logits.shape[-1]
    half = side // 2
    inner, far = side // 8, side // 4  # away from the patch's edge, where cells of both kinds blend
    assert (logits[0, 0, half + inner :, half + inner :] > 0).all()
    assert (logits[0, 0, : half - far] < 0).all()
    assert (logits[0, 0, :, : half - far] < 0).all()
    assert (logits[1] < 0).all()


@torch.no_grad()
def test_the_untrained_mask_is_the_comparison(untrained: SimilarityPrior):
    """The scaled difference at twice the side of stride 4, the mean of both levels."""
    patches = torch.stack([box(32, 32, 64, 96), box(64, 0, 128, 64), box(0, 64, 64, 128)])
    memory = untrained.remember(described(untrained, patches, seed=1), regions(*patches, images=[0, 1, 2]))
    target, members = described(untrained, patches[:2], seed=2), some_members(2, 2, 3)
    found = found_maps(untrained, target, memory, members)
    typical, scaled = untrained.calibrate(memory, members), []
    for number, level in enumerate(target.levels):
        cells = level.flatten(2).transpose(1, 2)
        measured = measure(cells, *memory.levels[number], members, typical[:, :, number])[:, :, 5]
        own = measured.unflatten(2, level.shape[-2:])
        scaled.append(F.interpolate(own, (64, 64), mode="bilinear", align_corners=False))
    alike = (scaled[0] + scaled[1]) / 2
    torch.testing.assert_close(found.likeness, alike, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.logits, 4 * (alike - 0.85), atol=1e-5, rtol=1e-5)


def test_rows_are_images_with_sets_of_prompts_one_by_one(prior: SimilarityPrior):
    patches = torch.stack([box(32, 32, 64, 96), box(64, 0, 128, 64), box(0, 64, 50, 128), box(9, 9, 30, 20)])
    memory = prior.remember(described(prior, patches, seed=1), regions(*patches, images=[0, 1, 2, 3]))
    target = described(prior, patches[[1, 3]], seed=2)
    members = some_members(3, 2, 4)
    together = found_maps(prior, target, memory, members.repeat(2, 1, 1))
    assert together.logits.shape == together.likeness.shape == (6, 2, PADDED // 2, PADDED // 2)
    assert together.presence.shape == (6, 2)
    assert together.coarse.shape == (6, 2, 12, PADDED // 8, PADDED // 8)
    assert together.fine.shape == (6, 2, 8, PADDED // 4, PADDED // 4)
    assert together.shared.shape == (2, SHARED, PADDED // 8, PADDED // 8)
    for image in range(2):
        one = PriorFeatures(
            tuple(level[image : image + 1] for level in target.levels), target.detail[image : image + 1]
        )
        for number in range(3):
            alone = found_maps(prior, one, memory, members[number : number + 1])
            row = image * 3 + number
            for name in ("logits", "presence", "likeness", "coarse", "fine"):
                found, expected = getattr(together, name)[row], getattr(alone, name)[0]
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, msg=name)
            torch.testing.assert_close(together.shared[image], alone.shared[0], atol=1e-4, rtol=1e-4)
    assert torch.pdist(together.logits.flatten(1)).min() > 1e-2


def test_classes_do_not_see_one_another(prior: SimilarityPrior):
    patches = torch.stack([box(32, 32, 64, 96), box(64, 0, 128, 64), box(0, 64, 50, 128)])
    memory = prior.remember(described(prior, patches, seed=1), regions(*patches, images=[0, 1, 2]))
    target, members = described(prior, patches[:1], seed=2), some_members(1, 3, 3)
    everything = found_maps(prior, target, memory, members)
    order = [2, 0]
    some = found_maps(prior, target, memory, members[:, order])
    for name in ("logits", "presence", "likeness", "coarse", "fine"):
        expected = getattr(everything, name)[:, order]
        torch.testing.assert_close(getattr(some, name), expected, atol=1e-4, rtol=1e-4, msg=name)
    torch.testing.assert_close(some.shared, everything.shared)


def test_nothing_divides_by_zero(prior: SimilarityPrior):
    everywhere = box(0, 0, PADDED, PADDED)
    levels = levels_of(everywhere[None], noise=0)
    for known, finest in (
        (levels, torch.ones(1, FINEST_CHANNELS, 32, 32)),
        (tuple(map(torch.zeros_like, levels)), torch.zeros(1, FINEST_CHANNELS, 32, 32)),
    ):
        constant = prior.describe(torch.full((1, 3, 120, 120), 128, dtype=torch.uint8), known, finest)
        for marks in ((everywhere,), (everywhere, box(0, 0, 1, 1))):
            memory = prior.remember(constant, regions(*marks, images=[0] * len(marks)))
            for members in (torch.eye(len(marks)), torch.ones(1, len(marks))):
                found = found_maps(prior, constant, memory, members[None].bool())
                for field in fields(found):
                    assert getattr(found, field.name).isfinite().all(), field.name


def test_float16_memory_is_as_good(prior: SimilarityPrior):
    patches = torch.stack([box(32, 32, 64, 96), box(64, 0, 128, 64)])
    memory = prior.remember(described(prior, patches, seed=1), regions(*patches, images=[0, 1]))
    short = memory.half()
    assert {t.dtype for t in (*short.inside, *short.outside, *short.plainness)} == {torch.float16}
    target, members = described(prior, patches, seed=2), torch.ones(2, 1, 2, dtype=torch.bool)
    full, rounded = (found_maps(prior, target, m, members).logits for m in (memory, short))
    torch.testing.assert_close(full, rounded, atol=0.05, rtol=0.01)


def test_only_the_prior_learns_from_its_maps(small_model, draw_regions, monkeypatch):
    monkeypatch.setattr(comparison, "ATTENDING", 1)
    model = small_model().train()
    pictures, marked = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8), draw_regions([0, 0, 1])
    nothing = Targets(torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0, 96, 96, dtype=torch.bool))
    mixing = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]).expand(2, 2, 3)
    maps = model(pictures, marked, mixing, [nothing] * 2).output.prior
    wanted = sum((part * torch.randn_like(part)).sum() for part in (maps.logits, maps.presence))
    wanted.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("similarity.prior."):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


def test_the_decoder_learns_from_the_prior_but_does_not_teach_it(small_model, draw_prompts):
    model = small_model()
    features = model.encode_images(torch.randint(0, 256, (1, 3, 72, 72), dtype=torch.uint8))
    last = model.detect(features, draw_prompts(model, 2)).layers[-1]
    (last.logits.square().sum() + last.masks.square().sum()).backward()
    assert all(parameter.grad is None for parameter in model.similarity.prior.parameters())
    assert all(parameter.grad.any() for parameter in model.similarity.evidence.parameters())
