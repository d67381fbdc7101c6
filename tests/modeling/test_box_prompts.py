"""T-Rex2's prompts: one embedding per class and image, of its boxes alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unispector.modeling.box_prompts import BoxPromptEncoder, mask_boxes
from unispector.structures import ImageFeatures, VisualPrompts

WIDTH, SIDE = 32, 64
LEVELS = ((1, 1), (2, 2), (4, 4), (8, 8))


@pytest.fixture
def encoder() -> BoxPromptEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = BoxPromptEncoder(WIDTH, 4, points=2, feedforward=48)
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)  # sampling that looks at the tokens
    return made.double().eval()


def features(images: int) -> ImageFeatures:
    lot = torch.Generator().manual_seed(1)
    memory = torch.randn(images, sum(h * w for h, w in LEVELS), WIDTH, generator=lot, dtype=torch.float64)
    return ImageFeatures(memory, LEVELS, torch.zeros(images, WIDTH, 16, 16))


def marked(*regions: tuple[int, int, tuple[int, int, int, int]]) -> VisualPrompts:
    """Regions: image, label, and box x, y, width, height in pixels."""
    masks = torch.zeros(len(regions), SIDE, SIDE, dtype=torch.bool)
    for mask, (_, _, (x, y, width, height)) in zip(masks, regions, strict=True):
        mask[y : y + height, x : x + width] = True
    images, labels = (torch.tensor([region[i] for region in regions], dtype=torch.int64) for i in (0, 1))
    return VisualPrompts(masks, images, labels, torch.zeros(len(regions), 16))


REGIONS = (
    (1, 0, (4, 8, 20, 12)),
    (0, 1, (30, 30, 8, 30)),
    (0, 0, (2, 2, 10, 10)),
    (0, 1, (40, 4, 16, 6)),
    (2, 1, (20, 20, 30, 30)),
    (0, 1, (8, 40, 9, 9)),
)


def test_every_class_of_every_image_is_encoded_as_if_it_were_alone(encoder: BoxPromptEncoder) -> None:
    known = features(3)
    together = encoder(known, marked(*REGIONS))
    assert together.shape == (len(REGIONS), WIDTH)
    for image, label in {region[:2] for region in REGIONS}:
        own = [i for i, region in enumerate(REGIONS) if region[:2] == (image, label)]
        one = ImageFeatures(known.memory[image : image + 1], LEVELS, known.mask_features[:1])
        alone = encoder(one, marked(*((0, label, REGIONS[i][2]) for i in own)))
        torch.testing.assert_close(together[own], alone)
        torch.testing.assert_close(together[own], together[own[:1]].expand(len(own), -1))
    different = together[[0, 1, 2, 4]]
    assert (torch.cdist(different, different) + 9 * torch.eye(4)).min() > 0.01


def test_only_the_box_of_a_region_counts(encoder: BoxPromptEncoder) -> None:
    box = marked((0, 0, (10, 20, 24, 16)))
    corners = marked((0, 0, (10, 20, 24, 16)))
    corners.roi_masks[:, 21:35, 11:33] = False
    torch.testing.assert_close(encoder(features(1), box), encoder(features(1), corners))
    moved = encoder(features(1), marked((0, 0, (14, 20, 24, 16))))
    assert (moved - encoder(features(1), box)).abs().max() > 1e-3


def test_the_order_of_the_regions_plays_no_part(encoder: BoxPromptEncoder) -> None:
    order = [3, 0, 5, 2, 4, 1]
    straight = encoder(features(3), marked(*REGIONS))
    turned = encoder(features(3), marked(*(REGIONS[i] for i in order)))
    torch.testing.assert_close(turned, straight[order])


def test_no_prompts_are_no_rows(encoder: BoxPromptEncoder) -> None:
    assert encoder(features(2), marked()).shape == (0, WIDTH)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=5))
def test_boxes_are_tight(pixels: list[tuple[int, int]]) -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    for x, y in pixels:
        mask[0, y, x] = True
    box: Tensor = mask_boxes(mask)[0] * 16
    xs, ys = np.array(pixels).T
    left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    expected = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    assert box.tolist() == pytest.approx(expected)
