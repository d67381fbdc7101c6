"""SSPE: which cells a region covers, and that nothing else enters its embedding."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unispector.modeling.prompt_encoder import PromptEncoder, roi_pyramid
from unispector.structures import ImageFeatures, VisualPrompts

WIDTH, BINS = 32, 16
Regions = Callable[..., VisualPrompts]


def pyramid_hw(padded: int) -> tuple[tuple[int, int], ...]:
    """Levels of a padded frame, coarse to fine; the coarsest is a stride-2 convolution's output."""
    last = padded // 32
    return tuple((n, n) for n in (-(-last // 2), last, last * 2, last * 4))


def encoder(**changes: bool) -> PromptEncoder:
    options = {"spectral": True, "visual_aligner": True, "log": True} | changes
    return PromptEncoder(WIDTH, 4, levels=4, bins=BINS, **options)


def trained() -> PromptEncoder:
    module = encoder()
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return module


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.data())
def test_a_region_covers_every_cell_it_touches(blocks: int, data: st.DataObject):
    padded = 32 * blocks
    pixels = data.draw(st.lists(st.tuples(*[st.integers(0, padded - 1)] * 2), min_size=1, max_size=4))
    mask = torch.zeros(1, padded, padded, dtype=torch.bool)
    for y, x in pixels:
        mask[0, y, x] = True
    level_hw = pyramid_hw(padded)
    cells = roi_pyramid(mask, level_hw)
    for stride, (side, _), covered in zip((64, 32, 16, 8), level_hw, cells, strict=True):
        grid = covered.view(side, side)
        if side * stride == padded:
            expected = {(y // stride, x // stride) for y, x in pixels}
            assert {(int(r), int(c)) for r, c in grid.nonzero()} == expected
        else:
            # The odd last level: cells whose centre is within one finer cell, as bilinear resizing has it.
            finer = [(y // 32, x // 32) for y, x in pixels]
            centre = (torch.arange(side) + 0.5) * (padded // 32) / side - 0.5
            sure, possible = (
                {
                    (row, column)
                    for y, x in finer
                    for row in range(side)
                    for column in range(side)
                    if max(abs(centre[row] - y), abs(centre[column] - x)) < reach
                }
                for reach in (1 - 1e-4, 1 + 1e-4)
            )
            assert sure <= {(int(r), int(c)) for r, c in grid.nonzero()} <= possible


@pytest.mark.parametrize("finer", [1, 3, 5, 7, 9, 15, 23])
def test_no_single_cell_is_lost_at_an_odd_last_level(finer: int):
    padded = finer * 32
    rows = torch.zeros(finer, 1, padded, dtype=torch.bool).expand(-1, padded, -1).clone()
    for index in range(finer):
        rows[index, index * 32, index * 32] = True
    for covered in roi_pyramid(rows, pyramid_hw(padded)):
        assert covered.any(1).all()


def outside(features: ImageFeatures, prompts: VisualPrompts) -> Tensor:
    """[T] tokens that the first region does not cover."""
    return ~torch.cat(roi_pyramid(prompts.roi_masks[:1], features.level_hw), dim=1)[0]


def test_only_cells_of_the_region_matter(features: ImageFeatures, draw_regions: Regions):
    module, prompts = trained(), draw_regions([1])
    before = module(features, prompts)
    free = outside(features, prompts)
    noise = torch.randn_like(features.memory)
    other_image = features.memory.clone()
    other_image[0] = noise[0]
    blind = torch.where(free[:, None], noise, features.memory)
    assert torch.equal(module(replace(features, memory=other_image), prompts), before)
    torch.testing.assert_close(module(replace(features, memory=blind), prompts), before, atol=1e-6, rtol=0)


def test_every_level_of_the_region_matters(features: ImageFeatures, draw_regions: Regions):
    module, prompts = trained(), draw_regions([1])
    before = module(features, prompts)
    inside = ~outside(features, prompts)
    start = 0
    for height, width in features.level_hw:
        level = torch.zeros_like(inside)
        level[start : start + height * width] = True
        start += height * width
        changed = torch.where((level & inside)[:, None], -features.memory, features.memory)
        assert (module(replace(features, memory=changed), prompts) - before).abs().max() > 1e-3


def test_each_region_is_embedded_for_itself(features: ImageFeatures, draw_regions: Regions):
    module = trained()
    prompts = draw_regions([1, 0, 1, 1, 0])
    together = module(features, prompts)
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = VisualPrompts(*(getattr(prompts, name)[order]
                               for name in ("roi_masks", "image_index", "labels", "spectra")))  # fmt: skip
    torch.testing.assert_close(module(features, shuffled), together[order], atol=1e-6, rtol=1e-5)
    for i in range(5):
        alone = VisualPrompts(*(getattr(prompts, name)[i : i + 1]
                                for name in ("roi_masks", "image_index", "labels", "spectra")))  # fmt: skip
        torch.testing.assert_close(module(features, alone)[0], together[i], atol=1e-6, rtol=1e-5)
    assert torch.cdist(together, together).fill_diagonal_(1).min() > 1e-3


def test_no_regions(features: ImageFeatures, draw_regions: Regions):
    assert trained()(features, draw_regions([])).shape == (0, WIDTH)


def test_an_empty_region_sees_the_whole_image(features: ImageFeatures, draw_regions: Regions):
    module = trained()
    prompts = draw_regions([0])
    empty = replace(prompts, roi_masks=torch.zeros_like(prompts.roi_masks))
    full = replace(prompts, roi_masks=torch.ones_like(prompts.roi_masks))
    torch.testing.assert_close(module(features, empty), module(features, full))


def test_training_starts_from_the_spatial_prompt(features: ImageFeatures, draw_regions: Regions):
    prompts = draw_regions([0, 1, 1])
    full = encoder()
    plain = encoder(spectral=False, visual_aligner=False)
    plain.load_state_dict({k: v for k, v in full.state_dict().items() if k in plain.state_dict()})
    assert torch.equal(full(features, prompts), plain(features, prompts))


def test_spectra_matter_only_to_the_spectral_branch(features: ImageFeatures, draw_regions: Regions):
    prompts = draw_regions([0, 1])
    other = replace(prompts, spectra=prompts.spectra.flip(1))
    module, plain = trained(), encoder(spectral=False)
    assert (module(features, prompts) - module(features, other)).abs().amax(1).min() > 1e-3
    assert torch.equal(plain(features, prompts), plain(features, other))


@pytest.mark.parametrize("log", [True, False])
def test_a_spectrum_with_zeros_gives_finite_gradients(log, features, draw_regions):
    module = encoder(log=log)
    prompts = draw_regions([0])
    spectra = torch.zeros(1, BINS)
    spectra[0, 0] = 1
    module(features, replace(prompts, spectra=spectra)).square().sum().backward()
    gradients = [p.grad for p in module.frequency_aligner.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)
