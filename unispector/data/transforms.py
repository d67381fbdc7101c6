"""From a picture and its annotations to the square frame of the network, and its random changes.

Two frames: the picture resized to S x S pixels, and the same padded right and below to P x P.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from unispector.ops.masks import BoolArray

ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A picture resized to the network's S x S pixels, with its K instances.

    Attributes:
        image: [S, S, 3] uint8 RGB.
        masks: [K, S, S] bool; may be empty where a thin instance fell between the pixels.
        boxes_xyxy: [K, 4] float32 pixels in [0, S].
    """

    image: ImageArray
    masks: BoolArray
    boxes_xyxy: npt.NDArray[np.float32]


def resize_image(image: ImageArray, size: int) -> ImageArray:
    """Resize to a square, aspect not kept: bilinear, averaging when it shrinks.

    Equals Pillow's bilinear filter to one grey level, at a fraction of its time.

    Args:
        image: [h, w, 3] uint8 RGB.
        size: side S in pixels.

    Returns:
        [S, S, 3] uint8.
    """
    if image.shape[:2] == (size, size):
        return image.copy()
    own = np.require(image, requirements=["C_CONTIGUOUS", "WRITEABLE"])  # torch takes no other arrays
    planes = torch.from_numpy(own).permute(2, 0, 1)[None]
    resized = functional.interpolate(
        planes, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def resize_mask(mask: BoolArray, size: int) -> BoolArray:
    """Resize to a square by the nearest pixel: [h, w] to [size, size]."""
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(np.intp) for side in mask.shape)
    resized: BoolArray = mask[rows][:, columns]
    return resized


def resize_box(bbox_xywh: Sequence[float], image_hw: tuple[int, int], size: int) -> tuple[float, ...]:
    """Corners of a box in the resized picture.

    Args:
        bbox_xywh: left, top, width and height in pixels of the file.
        image_hw: height and width of the file.
        size: side S of the resized picture.

    Returns:
        x0, y0, x1, y1 in pixels, clipped to [0, S].
    """
    (x, y, w, h), (height, width) = bbox_xywh, image_hw
    corners = (x * size / width, y * size / height, (x + w) * size / width, (y + h) * size / height)
    return tuple(min(max(value, 0.0), float(size)) for value in corners)


def pad_masks(masks: Tensor, padded_size: int) -> Tensor:
    """Pad right and below with background: [K, S, S] to [K, P, P]."""
    margin = padded_size - masks.shape[-1]
    return functional.pad(masks, (0, margin, 0, margin))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training picture (paper appendix 3.4); the turned square stays a square.

    Attributes:
        horizontal_flip: chance of a left-right flip.
        vertical_flip: chance of a top-bottom flip.
        quarter_turns: turn by 0, 90, 180 or 270 degrees, equally likely.
        brightness: range of the factor on all values.
        contrast: range of the factor on the distance to the mean value of the picture.
    """

    horizontal_flip: float
    vertical_flip: float
    quarter_turns: bool
    brightness: tuple[float, float]
    contrast: tuple[float, float]

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """A changed copy of `scene`, all chance taken from `rng`."""
        # Light before flips: the result is the same, and the flips stay views until one last copy.
        image = change_brightness(scene.image, rng.uniform(*self.brightness))
        image = change_contrast(image, rng.uniform(*self.contrast))
        scene = Scene(image, scene.masks, scene.boxes_xyxy)
        if rng.random() < self.horizontal_flip:
            scene = flip_horizontally(scene)
        if rng.random() < self.vertical_flip:
            scene = flip_vertically(scene)
        return turn(scene, int(rng.integers(4))) if self.quarter_turns else scene


def flip_horizontally(scene: Scene) -> Scene:
    """Mirror left and right."""
    size = len(scene.image)
    x0, y0, x1, y1 = scene.boxes_xyxy.T
    boxes = np.stack([size - x1, y0, size - x0, y1], axis=1)
    return Scene(scene.image[:, ::-1], scene.masks[:, :, ::-1], boxes)


def flip_vertically(scene: Scene) -> Scene:
    """Mirror top and bottom."""
    size = len(scene.image)
    x0, y0, x1, y1 = scene.boxes_xyxy.T
    boxes = np.stack([x0, size - y1, x1, size - y0], axis=1)
    return Scene(scene.image[::-1], scene.masks[:, ::-1], boxes)


def turn(scene: Scene, quarters: int) -> Scene:
    """Turn counter-clockwise by `quarters` times 90 degrees."""
    size, boxes = len(scene.image), scene.boxes_xyxy
    for _ in range(quarters % 4):
        x0, y0, x1, y1 = boxes.T
        boxes = np.stack([y0, size - x1, y1, size - x0], axis=1)
    return Scene(np.rot90(scene.image, quarters), np.rot90(scene.masks, quarters, axes=(1, 2)), boxes)


def change_brightness(image: ImageArray, factor: float) -> ImageArray:
    """Every value times `factor`, clipped to 0..255, fraction cut off."""
    return _look_up(image, np.arange(256) * factor)


def change_contrast(image: ImageArray, factor: float) -> ImageArray:
    """Every value's distance to the mean of all values times `factor`, clipped, fraction cut off."""
    mean = float(image.mean())
    return _look_up(image, (1 - factor) * mean + factor * np.arange(256))


def _look_up(image: ImageArray, values: npt.NDArray[np.floating[Any]]) -> ImageArray:
    """Replace grey level i by `values[i]`, clipped to 0..255, fraction cut off."""
    table = values.clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(np.ascontiguousarray(image), table), dtype=np.uint8)
