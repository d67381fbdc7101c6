"""Batches with what a frozen backbone makes of their images: read where it is kept, else made and kept."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unispector.data.episodes import SampleKey
from unispector.data.map_cache import MapCache, Maps
from unispector.modeling.backbones.backbone import Backbone
from unispector.structures import Batch
from unispector.training.loop import NonFiniteError


def with_maps(
    batches: Iterator[Batch],
    keys: Iterator[Sequence[SampleKey]],
    cache: MapCache,
    backbone: Backbone,
    start: int,
) -> Iterator[Batch]:
    """Add the backbone's maps to every batch.

    Args:
        batches: of the steps from `start` on.
        keys: which image and view each of their images is.
        cache: where maps are kept.
        backbone: frozen, on its device; its weights are those the cache is for.

    Yields:
        The batches, their maps on the CPU and rounded to float16, whether they were kept or not.

    Raises:
        NonFiniteError: the backbone's maps of an image are not finite, computed a second time neither.
    """
    for step, (batch, own) in enumerate(zip(batches, keys, strict=True), start=start + 1):
        kept = {place: cache.read(*key) for place, key in enumerate(own)}
        known = {place: maps for place, maps in kept.items() if maps is not None and _are_finite(maps)}
        missing = [place for place in range(len(own)) if place not in known]
        if missing:
            computed = _computed(backbone, batch.images[missing])
            for place, maps in zip(missing, computed, strict=True):
                known[place] = _finite(backbone, batch, place, maps, step)
                cache.write(*own[place], known[place])
        levels = zip(*(known[place] for place in range(len(own))), strict=True)
        yield replace(batch, maps=tuple(torch.stack(level) for level in levels))


def _computed(backbone: Backbone, images: Tensor) -> list[Maps]:
    """Image by image, in full precision until they are rounded."""
    device = next(backbone.parameters()).device
    with torch.no_grad():
        maps = backbone(images.to(device))
    return list(zip(*(level.half().cpu() for level in maps), strict=True))


def _finite(backbone: Backbone, batch: Batch, place: int, maps: Maps, step: int) -> Maps:
    """The maps of one image, computed anew by itself if they are not finite."""
    if not _are_finite(maps):
        (maps,) = _computed(backbone, batch.images[place : place + 1])
        if not _are_finite(maps):
            raise NonFiniteError(step, "what the backbone makes of an image", (batch.image_ids[place],))
    return maps


def _are_finite(maps: Maps) -> bool:
    return all(bool(level.isfinite().all()) for level in maps)
