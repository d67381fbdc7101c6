"""Batches with maps: the backbone runs once for every view, and what it gives is the same from the disk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unispector.config import BackboneConfig
from unispector.data.map_cache import MapCache
from unispector.modeling.unispector import UniSpectorModel
from unispector.structures import Batch
from unispector.training.loop import Callbacks, NonFiniteError, Recipe, fit
from unispector.training.maps import with_maps
from unispector.training.optim import build_optimiser, linear_schedule

MakeModel = Callable[..., UniSpectorModel]
DrawBatch = Callable[..., Batch]
FROZEN = BackboneConfig(name="test_efficientnet", weights="none", frozen=True)
KEYS = [[(0, 0), (1, 0), (2, 1)], [(1, 0), (3, 0), (0, 0)], [(0, 0), (1, 0), (2, 1)]]


@pytest.fixture
def model(make_model: MakeModel) -> UniSpectorModel:
    return make_model(backbone=FROZEN)


@pytest.fixture
def cache(model: UniSpectorModel, tmp_path: Path) -> MapCache:
    return MapCache(tmp_path / "maps", 4, 2, model.backbone.map_shapes)


@pytest.fixture
def batches(draw_batch: DrawBatch) -> list[Batch]:
    """One image per key: those of the same key are equal."""
    scenes = {(0, 0): 1, (1, 0): 2, (2, 1): 3, (3, 0): 4}
    made = []
    for keys in KEYS:
        parts = [draw_batch((0, 1), first_id=scenes[key]) for key in keys]
        whole = draw_batch((0, 1), (0, 1), (0, 1))
        images = torch.cat([part.images for part in parts])
        made.append(replace(whole, images=images, image_ids=tuple(scenes[key] for key in keys)))
    return made


def counted(model: UniSpectorModel) -> list[int]:
    """Images of each call of the backbone from now on."""
    seen: list[int] = []
    model.backbone.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    return seen


def test_every_view_is_computed_once_and_equals_the_backbone(model, cache, batches):
    seen = counted(model)
    found = list(with_maps(iter(batches), iter(KEYS), cache, model.backbone, 0))
    assert seen == [3, 1]
    assert cache.share() == 4 / 8
    for batch, given in zip(found, batches, strict=True):
        assert torch.equal(batch.images, given.images)
        assert batch.maps is not None
        with torch.no_grad():
            expected = model.backbone(batch.images)
        for level, own in zip(batch.maps, expected, strict=True):
            assert (level.dtype, level.shape) == (torch.float16, own.shape)
            torch.testing.assert_close(level.float(), own, atol=1e-3, rtol=1e-3)


def test_from_the_disk_it_is_the_same_to_the_bit(model, cache, batches):
    first = list(with_maps(iter(batches), iter(KEYS), cache, model.backbone, 0))
    seen = counted(model)
    again = list(with_maps(iter(batches), iter(KEYS), cache, model.backbone, 0))
    assert seen == []
    for one, other in zip(first, again, strict=True):
        assert one.maps is not None
        assert other.maps is not None
        assert all(map(torch.equal, one.maps, other.maps))


def broken(model: UniSpectorModel, times: int) -> None:
    """The backbone's answer for the bright image is no number, `times` times."""
    left = iter(range(times))

    def spoil(module: torch.nn.Module, inputs: tuple[Tensor], maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        spoilt = [level.clone() for level in maps]
        for place, image in enumerate(inputs[0]):
            if torch.equal(image, inputs[0].new_full(image.shape, 255)) and next(left, None) is not None:
                spoilt[-1][place, 0, 0, 0] = torch.inf
        return tuple(spoilt)

    model.backbone.register_forward_hook(spoil)


def test_what_is_not_finite_is_computed_anew(model, cache, batches):
    batch = batches[0]
    batch.images[1] = 255
    broken(model, times=1)
    (found,) = with_maps(iter([batch]), iter(KEYS[:1]), cache, model.backbone, 0)
    assert found.maps is not None
    assert all(level.isfinite().all() for level in found.maps)
    kept = cache.read(1, 0)
    assert kept is not None
    assert all(torch.equal(level[1], own) for level, own in zip(found.maps, kept, strict=True))


def test_what_stays_not_finite_names_the_image_and_is_not_kept(model, cache, batches):
    batch = batches[0]
    batch.images[1] = 255
    broken(model, times=2)
    with pytest.raises(NonFiniteError, match=r"step 8: what the backbone makes of an image .*images \[2\]"):
        next(with_maps(iter([batch]), iter(KEYS[:1]), cache, model.backbone, 7))
    assert cache.read(1, 0) is None


def test_a_training_with_kept_maps_is_the_one_without(make_model, draw_batch, criterion, tmp_path):
    """But for the rounding of the maps."""
    keys = [[(0, 0), (1, 0)], [(2, 0), (0, 0)], [(1, 0), (2, 0)]]

    def stream() -> Iterator[Batch]:
        scenes = {number: draw_batch((0, 1), first_id=number + 1) for number in range(3)}
        for own in keys:
            pair = draw_batch((0, 1), (0, 1))
            yield replace(pair, images=torch.cat([scenes[number].images for number, _ in own]))

    losses = []
    for kept in (False, True):
        torch.manual_seed(0)
        model, totals = make_model(backbone=FROZEN), list[float]()
        batches = stream()
        if kept:
            cache = MapCache(tmp_path, 3, 1, model.backbone.map_shapes)
            batches = with_maps(batches, iter(keys), cache, model.backbone, 0)
        optimiser = build_optimiser(model, learning_rate=1e-3, backbone_rate=0.5, weight_decay=0.05)
        fit(
            model,
            criterion,
            batches,
            optimiser,
            linear_schedule(optimiser, steps=3, warmup=0, start=0),
            Recipe(3, 7, None, 5, 1.0, clip_norm=0.1, bf16=False, log_every=1, save_every=9),
            Callbacks(
                report=lambda step, figures, totals=totals: totals.append(figures["loss/total"]),
                save=lambda step: None,
                look=lambda step, prompts: None,
            ),
        )
        losses.append(totals)
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert len(set(losses[1])) == 3
