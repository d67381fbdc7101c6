"""What the models in the package must find, whoever trained them."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.tiles import windows
from unispector.modeling.saved_model import SHIPPED, SHIPPED_MODELS, WEIGHTS
from unispector.ops.rle import segmentation_to_mask

SIDE, SPOT = 400, 6
MODELS = [name for name in SHIPPED_MODELS if (SHIPPED / name / WEIGHTS).is_file()]


def spotted(seed: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int], npt.NDArray[np.bool_]]:
    """A mottled grey surface with one dark spot of six pixels: image, its left and top, its mask."""
    draw = np.random.default_rng(seed)
    surface = cv2.GaussianBlur(draw.normal(0, 1, (SIDE, SIDE)), (0, 0), 3)
    left, top = (int(value) for value in draw.integers(40, SIDE - 40, 2))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    middle = (SPOT - 1) / 2
    spot = (columns - left - middle) ** 2 + (rows - top - middle) ** 2 <= (SPOT / 2) ** 2
    grey = 150 + 8 * surface / surface.std() + draw.normal(0, 3, (SIDE, SIDE)) - 60 * spot
    image = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return image, (left, top), np.asarray(spot, dtype=np.bool_)


@pytest.mark.parametrize("name", MODELS)
def test_a_defect_of_six_pixels_is_found_and_not_drawn_too_wide(name: str) -> None:
    detector = UniSpector.load(name)
    image, (left, top), _ = spotted(0)
    bank = detector.encode([Prompt(image, [(left, top, SPOT, SPOT)], label="spot")])
    targets = [spotted(seed) for seed in range(100, 104)]
    for found, (_, _, truth) in zip(detector.detect([t[0] for t in targets], bank), targets, strict=True):
        drawn = segmentation_to_mask(found.masks_rle[0], SIDE, SIDE)
        assert (drawn & truth).sum() >= 0.5 * (drawn | truth).sum()
        rows, columns = np.nonzero(drawn)
        assert np.ptp(rows) + 1 <= 2 * SPOT
        assert np.ptp(columns) + 1 <= 2 * SPOT


@pytest.mark.slow
def test_a_scratch_across_many_tiles_is_one_detection() -> None:
    """Marked where it is short; on the other image it crosses tiles in both directions."""
    marked, target = (rough(seed) for seed in range(2))
    for start, end in (((300, 300), (360, 330)), ((900, 500), (960, 560))):
        cv2.line(marked, start, end, (20, 20, 20), 4)
    truth = np.zeros(target.shape[:2], dtype=np.uint8)
    for canvas, colour in ((target, (20, 20, 20)), (truth, (1,))):
        cv2.line(canvas, (150, 150), (1250, 760), colour, 4)
    detector = UniSpector.load("fast")
    prompt = Prompt(marked, [(297, 297, 67, 37), (897, 497, 67, 67)], label="scratch")
    bank = detector.encode([prompt], tile=448)
    tiles = [
        tile
        for tile in windows((900, 1400), 448)
        if truth[tile.top : tile.bottom, tile.left : tile.right].any()
    ]
    assert len(tiles) >= 4
    (found,) = detector.detect([target], bank)
    (box,) = found.above(0.05).boxes_xyxy.tolist()
    assert box == pytest.approx([148, 148, 1253, 763], abs=15)
    mask = segmentation_to_mask(found.masks_rle[0], 900, 1400)
    assert (mask & (truth > 0)).sum() >= 0.7 * truth.sum()
    # As a whole it comes in pieces.
    (squeezed,) = detector.detect([target], detector.encode([prompt], tile=0))
    assert len(squeezed.above(0.05)) > 1


def rough(seed: int) -> npt.NDArray[np.uint8]:
    """A rough grey surface of 1400 x 900 pixels."""
    rough = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 40, (900, 1400)), (0, 0), 2)
    return np.repeat((128 + 2 * rough).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
