"""The similarity prior against slow loops, and on planted patches that only features tell apart."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unispector.modeling import similarity_prior
from unispector.modeling.similarity_prior import LEAST_GAP, TYPICAL, SimilarityPrior, compare
from unispector.modeling.unispector import UniSpectorModel
from unispector.structures import (
    ClassPrompts,
    PriorFeatures,
    PriorMaps,
    PriorPrompts,
    PromptMemory,
    Targets,
    VisualPrompts,
)

PADDED = 128
CHANNELS = (13, 14)  # of the backbone's levels, strides 8 and 16


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


def regions(*masks: Tensor, images: list[int]) -> VisualPrompts:
    return VisualPrompts(
        torch.stack(masks), torch.tensor(images), torch.zeros(len(masks)).long(), torch.zeros(len(masks), 4)
    )


def levels_of(patches: Tensor, seed: int = 0, noise: float = 0.05) -> list[Tensor]:
    """Unit vectors of pictures [B, P, P] bool: one vector on a patch, another elsewhere, and noise."""
    generator = torch.Generator().manual_seed(7)
    levels = []
    for level, channels in enumerate(CHANNELS):
        on, off = torch.linalg.qr(torch.randn(channels, 2, generator=generator)).Q.T
        share = F.avg_pool2d(patches[:, None].float(), 8 * 2**level)
        clean = share * on[:, None, None] + (1 - share) * off[:, None, None]
        jitter = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + level))
        levels.append(F.normalize(clean + noise * jitter, dim=1))
    return levels


def described(prior: SimilarityPrior, patches: Tensor, seed: int = 0) -> PriorFeatures:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (len(patches), 3, PADDED - 8, PADDED - 8), generator=generator)
    return prior.describe(pictures, levels_of(patches, seed))


@pytest.fixture
def untrained() -> SimilarityPrior:
    return SimilarityPrior(8).eval()


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
    monkeypatch.setattr(similarity_prior, "AT_ONCE", at_once)
    level = unit(2, 3, 5, 6, seed=1).permute(0, 3, 1, 2)
    inside, outside = unit(5, 4, 6, seed=2), unit(5, 7, 6, seed=3)
    members = some_members(4, 3, 5)
    assert members.sum(2).unique().numel() > 2
    typical = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(4)) * 0.6 - 0.3
    found = compare(level, inside, outside, members, typical).view(4, 3, 7, 3, 5)
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


def test_each_prompt_is_judged_by_the_others_of_its_class(untrained: SimilarityPrior):
    sides = [tuple(unit(5, 3 + n, 4 + n, seed=10 * k + n) for n in range(2)) for k in range(2)]
    memory = PromptMemory(*sides)
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


# Memory


def scattered(prior: SimilarityPrior) -> PriorFeatures:
    """Two pictures in which no two cells are alike."""
    features = described(prior, torch.zeros(2, PADDED, PADDED, dtype=torch.bool))
    sides = [level.shape[-1] for level in features.levels]
    levels = [unit(2, side, side, 8, seed=side).permute(0, 3, 1, 2) for side in sides]
    return replace(features, levels=tuple(levels))


def places(cells: Tensor, level: Tensor) -> list[tuple[int, int, int]]:
    """Picture, row and column that each of the cells [m, D] is the feature of."""
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
    first, second, third = box(5, 9, 61, 47), box(70, 40, 110, 128), box(0, 0, 33, 35)
    features = scattered(untrained)
    memory = untrained.remember(features, regions(first, second, third, images=[1, 1, 0]))
    assert len(memory) == 3
    together = {0: third, 1: first | second}
    for level, (inside, outside) in zip(features.levels, memory.levels, strict=True):
        side = level.shape[-1]
        for number, (mask, image) in enumerate(((first, 1), (second, 1), (third, 0))):
            around = places(outside[number], level)
            free = {cell for cell, share in shares(together[image], side).items() if share == 0}
            assert {(y, x) for _, y, x in around} <= free
            # Evenly: from one end of the picture to the other, and no cell twice while others are left out.
            assert len(set(around)) == min(len(around), len(free))
            assert max(y for _, y, _ in around) - min(y for _, y, _ in around) > side / 2
            # Inside, the half that is least like what is kept of the surroundings.
            covered = [cell for cell, share in shares(mask, side).items() if share >= 0.5]
            alike = {(y, x): float((outside[number] @ level[image, :, y, x]).max()) for y, x in covered}
            half = sorted(covered, key=lambda cell: alike[cell])[: -(-len(covered) // 2)]
            within = places(inside[number], level)
            assert {(y, x) for _, y, x in within} <= set(half)
            assert len(set(within)) == min(len(within), len(half))
            assert {n for n, _, _ in around + within} == {image}


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
    for level, (inside, outside) in zip(features.levels, memory.levels, strict=True):
        assert {n for n, _, _ in places(inside[0], level)} == {0}
        assert not outside[0].any()
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
    levels = levels_of(torch.stack([box(32, 32, 64, 96), box(0, 64, 96, 128)]))
    pictures = torch.randint(0, 256, (2, 3, 120, 120), dtype=torch.uint8)
    both = untrained.describe(pictures, levels)
    assert both.levels == tuple(levels)
    for image in range(2):
        alone = untrained.describe(
            pictures[image : image + 1], [level[image : image + 1] for level in levels]
        )
        torch.testing.assert_close(alone.detail[0], both.detail[image])


def test_detail_is_relative_to_the_pictures_light_and_contrast(untrained: SimilarityPrior):
    picture = torch.randint(0, 256, (1, 3, 120, 120)).float()
    levels = levels_of(box(32, 32, 64, 96)[None])
    plain, dim = (untrained.describe(each, levels).detail for each in (picture, 0.5 * picture + 30))
    torch.testing.assert_close(plain, dim, atol=0.25, rtol=0)
    assert np.corrcoef(plain.flatten(), dim.flatten())[0, 1] > 0.999
    other = untrained.describe(picture.flip(-1), levels).detail
    assert abs(np.corrcoef(plain.flatten(), other.flatten())[0, 1]) < 0.5


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
    logits = found_maps(untrained, target, memory, members).logits
    side = logits.shape[-1]
    half = side // 2
    inner, far = side // 8, side // 4  # away from the patch's edge, where cells of both kinds blend
    assert (logits[0, 0, half + inner :, half + inner :] > 0).all()
    assert (logits[0, 0, : half - far] < 0).all()
    assert (logits[0, 0, :, : half - far] < 0).all()
    assert (logits[1] < 0).all()


def test_rows_are_images_with_sets_of_prompts_one_by_one(prior: SimilarityPrior):
    patches = torch.stack([box(32, 32, 64, 96), box(64, 0, 128, 64), box(0, 64, 50, 128), box(9, 9, 30, 20)])
    memory = prior.remember(described(prior, patches, seed=1), regions(*patches, images=[0, 1, 2, 3]))
    target = described(prior, patches[[1, 3]], seed=2)
    members = some_members(3, 2, 4)
    together = found_maps(prior, target, memory, members.repeat(2, 1, 1))
    assert together.logits.shape == (6, 2, PADDED // 2, PADDED // 2)
    assert together.presence.shape == (6, 2)
    for image in range(2):
        one = PriorFeatures(
            tuple(level[image : image + 1] for level in target.levels), target.detail[image : image + 1]
        )
        for number in range(3):
            alone = found_maps(prior, one, memory, members[number : number + 1])
            row = image * 3 + number
            torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(together.presence[row], alone.presence[0], atol=1e-4, rtol=1e-4)
    assert torch.pdist(together.logits.flatten(1)).min() > 1e-2


def test_classes_do_not_see_one_another(prior: SimilarityPrior):
    patches = torch.stack([box(32, 32, 64, 96), box(64, 0, 128, 64), box(0, 64, 50, 128)])
    memory = prior.remember(described(prior, patches, seed=1), regions(*patches, images=[0, 1, 2]))
    target, members = described(prior, patches[:1], seed=2), some_members(1, 3, 3)
    everything = found_maps(prior, target, memory, members)
    order = [2, 0]
    some = found_maps(prior, target, memory, members[:, order])
    torch.testing.assert_close(some.logits, everything.logits[:, order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(some.presence, everything.presence[:, order], atol=1e-4, rtol=1e-4)


def test_nothing_divides_by_zero(prior: SimilarityPrior):
    everywhere = box(0, 0, PADDED, PADDED)
    levels = levels_of(everywhere[None], noise=0)
    for known in (levels, [torch.zeros_like(level) for level in levels]):
        constant = prior.describe(torch.full((1, 3, 120, 120), 128, dtype=torch.uint8), known)
        for marks in ((everywhere,), (everywhere, box(0, 0, 1, 1))):
            memory = prior.remember(constant, regions(*marks, images=[0] * len(marks)))
            for members in (torch.eye(len(marks)), torch.ones(1, len(marks))):
                found = found_maps(prior, constant, memory, members[None].bool())
                assert found.logits.isfinite().all()
                assert found.presence.isfinite().all()


def test_float16_memory_is_as_good(prior: SimilarityPrior):
    patches = torch.stack([box(32, 32, 64, 96), box(64, 0, 128, 64)])
    memory = prior.remember(described(prior, patches, seed=1), regions(*patches, images=[0, 1]))
    short = PromptMemory(*(tuple(t.half() for t in side) for side in (memory.inside, memory.outside))).float()
    target, members = described(prior, patches, seed=2), torch.ones(2, 1, 2, dtype=torch.bool)
    full, rounded = (found_maps(prior, target, m, members).logits for m in (memory, short))
    torch.testing.assert_close(full, rounded, atol=0.05, rtol=0.01)


def test_only_the_prior_learns_from_its_maps(
    small_model: Callable[..., UniSpectorModel], draw_regions: Callable[..., VisualPrompts]
):
    model = small_model().train()
    pictures, marked = torch.randint(0, 256, (2, 3, 72, 72), dtype=torch.uint8), draw_regions([0, 0, 1])
    nothing = Targets(torch.zeros(0).long(), torch.zeros(0, 4), torch.zeros(0, 96, 96, dtype=torch.bool))
    mixing = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]).expand(2, 2, 3)
    maps = model(pictures, marked, mixing, [nothing] * 2).output.prior
    wanted = sum((part * torch.randn_like(part)).sum() for part in (maps.logits, maps.presence))
    wanted.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("prior."):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        else:
            assert parameter.grad is None, name


def test_the_decoder_learns_from_the_prior_but_does_not_teach_it(
    small_model: Callable[..., UniSpectorModel], draw_prompts: Callable[..., ClassPrompts]
):
    model = small_model()
    features = model.encode_images(torch.randint(0, 256, (1, 3, 72, 72), dtype=torch.uint8))
    last = model.detect(features, draw_prompts(model, 2)).layers[-1]
    (last.logits.square().sum() + last.masks.square().sum()).backward()
    assert all(parameter.grad is None for parameter in model.prior.parameters())
    assert all(parameter.grad.any() for parameter in model.evidence.parameters())
