"""The detector at its smallest: image side 72 (padded to 96, so the last level is an odd one)."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tiny import TINY_TRAINED, tiny_config
from unispector.config import ModelConfig
from unispector.modeling.build import build_model
from unispector.modeling.unispector import UniSpectorModel
from unispector.structures import ClassPrompts, ImageFeatures, VisualPrompts

SIDE, PADDED, WIDTH, BINS = 72, 96, 32, 16
LEVELS = ((2, 2), (3, 3), (6, 6), (12, 12))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Weights are drawn from the global generator; leave it as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def small_config() -> ModelConfig:
    return tiny_config(
        **TINY_TRAINED | {"image_size": SIDE, "decoder_layers": 2},
        backbone={"name": "test_efficientnet", "weights": "none", "frozen": False},
    )


@pytest.fixture
def small_model(small_config: ModelConfig) -> Callable[..., UniSpectorModel]:
    """`small_model(field=value, ...)` -> model in evaluation mode, no parameter left at zero."""

    def make(config: ModelConfig = small_config, **changes: Any) -> UniSpectorModel:
        model = build_model(config.model_copy(update=changes)).eval()
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        return model

    return make


@pytest.fixture
def features() -> ImageFeatures:
    """Random features of two images."""
    tokens = sum(h * w for h, w in LEVELS)
    return ImageFeatures(torch.randn(2, tokens, WIDTH), LEVELS, torch.randn(2, WIDTH, 24, 24), valid=72 / 96)


@pytest.fixture
def draw_regions() -> Callable[..., VisualPrompts]:
    """`draw_regions(image_index)` -> a random box region in each of the named images."""

    def draw(image_index: list[int], seed: int = 0) -> VisualPrompts:
        generator = torch.Generator().manual_seed(seed)
        count = len(image_index)
        masks = torch.zeros(count, PADDED, PADDED, dtype=torch.bool)
        for mask in masks:
            x, y = torch.randint(0, 56, (2,), generator=generator).tolist()
            w, h = torch.randint(1, 16, (2,), generator=generator).tolist()
            mask[y : y + h, x : x + w] = True
        spectra = torch.nn.functional.normalize(torch.rand(count, BINS, generator=generator), dim=-1)
        return VisualPrompts(
            masks, torch.tensor(image_index, dtype=torch.long), torch.zeros(count).long(), spectra
        )

    return draw


@pytest.fixture
def draw_prompts(draw_regions: Callable[..., VisualPrompts]) -> Callable[..., ClassPrompts]:
    """`draw_prompts(model, classes, sets=1)` -> random embeddings, and regions for the similarity prior.

    Of the regions, two more than classes, every second one is shared by several classes or sets.
    """

    @torch.no_grad()
    def draw(model: UniSpectorModel, classes: int, sets: int = 1, seed: int = 0) -> ClassPrompts:
        generator = torch.Generator().manual_seed(seed)
        pictures = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        regions = draw_regions([number % 2 for number in range(classes + 2)], seed)
        memory = model.encode_prompts(model.encode_images(pictures), regions).memory
        members = torch.rand(sets, classes, classes + 2, generator=generator) < 0.4
        members |= torch.eye(classes, classes + 2, dtype=torch.bool)
        embeddings = torch.randn(sets, classes, model.width, generator=generator)
        return model.class_prompts(embeddings, memory, members)

    return draw
