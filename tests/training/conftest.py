"""Small scenes with a bright rectangle or a dark ellipse, and the detector at its smallest."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torchvision.ops import masks_to_boxes

from tiny import TINY_TRAINED, tiny_config
from unispector.config.training import RIVALS
from unispector.data.loading import collate
from unispector.losses.criterion import Criterion, LossWeights
from unispector.modeling.build import build_model
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.boxes import xyxy_to_cxcywh
from unispector.ops.spectrum import crop_spectra
from unispector.structures import Batch, Sample, Targets

SIDE, BINS = 64, 16


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Weights are drawn from the global generator; leave it as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def scene(image_id: int, labels: tuple[int, ...], side: int) -> Sample:
    """Grey noise with one shape per label, side by side: 0 = bright rectangle, 1 = dark ellipse."""
    generator = torch.Generator().manual_seed(image_id)
    image = torch.randint(100, 150, (3, side, side), generator=generator, dtype=torch.uint8)
    place = torch.arange(side) + 0.5
    masks = torch.zeros(len(labels), side, side, dtype=torch.bool)
    for slot, label in enumerate(labels):
        step = side // len(labels)
        half_w, half_h = (torch.randint(9, 15, (2,), generator=generator)).tolist()
        cx = slot * step + step // 2 + int(torch.randint(-5, 6, (1,), generator=generator))
        cy = int(torch.randint(20, side - 20, (1,), generator=generator))
        x, y = ((place - cx) / half_w)[None], ((place - cy) / half_h)[:, None]
        masks[slot] = (x.abs() < 1) & (y.abs() < 1) if label == 0 else x**2 + y**2 < 1
        image[:, masks[slot]] = 220 if label == 0 else 40
    # torchvision counts to the last pixel, boxes to its far edge.
    corners = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    return Sample(
        image=image,
        targets=Targets(torch.tensor(labels, dtype=torch.long), xyxy_to_cxcywh(corners) / side, masks),
        roi_masks=masks,
        spectra=crop_spectra(image, corners, BINS, "interp", 16) if labels else torch.zeros(0, BINS),
        image_id=image_id,
        original_hw=(side, side),
    )


@pytest.fixture(scope="session")
def draw_batch() -> Callable[..., Batch]:
    """`draw_batch((0, 1), (1,), ..., first_id=1, side=64)` -> a batch of scenes with these labels."""

    def draw(*labels: tuple[int, ...], first_id: int = 1, side: int = SIDE) -> Batch:
        return collate([scene(first_id + i, each, side) for i, each in enumerate(labels)])

    return draw


@pytest.fixture(scope="session")
def make_model() -> Callable[..., UniSpectorModel]:
    """`make_model(variant="unispector" | "base" | a rival, field=value ...)` -> model in training mode."""

    def make(variant: str = "unispector", **changes: Any) -> UniSpectorModel:
        options = TINY_TRAINED | {"image_size": SIDE, "decoder_layers": 2, "queries": 12}
        backbone = {"name": "test_efficientnet", "weights": "none", "frozen": False}
        config = tiny_config(**options | {"backbone": backbone} | changes)
        if variant in RIVALS:
            config = config.as_rival(variant).model_copy(update={"classes": ("rectangle", "ellipse")})
        elif variant == "base":
            config = config.with_parts(sspe=False, pqs=False)
        return build_model(config).train()

    return make


@pytest.fixture(scope="session")
def criterion() -> Criterion:
    return Criterion(LossWeights(4, 5, 2, 5, 5, 1, 1, 1, 1), scale=30, margin=0.5, points=64)
