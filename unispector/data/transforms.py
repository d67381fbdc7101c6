"""From an image and its annotations to the square frame of the network, and its random changes.

Two frames: the image resized to S x S pixels, and the same padded right and below to P x P.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from unispector.ops.rle import BoolArray

ImageArray = npt.NDArray[np.uint8]

MOST_BETWEEN = 2**27  # pixels between the two passes of a resize; 400 MB

VISIBLE = 0.3  # share of an instance's box that a zoom must leave in the image


@dataclass(frozen=True)
class ResizedImage:
    """An image resized to the network's S x S pixels, with its K instances."""

    image: ImageArray  # [S, S, 3] uint8 RGB
    masks: BoolArray  # [K, S, S] bool; may be empty where a thin instance fell between the pixels
    boxes_xyxy: npt.NDArray[np.float32]  # [K, 4] float32 pixels in [0, S]
    kept: npt.NDArray[np.intp]  # [K] which of the image's annotated instances these are; a zoom may lose some

    @classmethod
    def of(
        cls, image: ImageArray, boxes_xywh: Sequence[Sequence[float]], masks: Sequence[BoolArray], size: int
    ) -> "ResizedImage":
        """Resize an image [h, w, 3] and its K boxes in pixels; the masks [S, S] are of the new size."""
        boxes = [resize_box(box, image.shape[:2], size) for box in boxes_xywh]
        return cls(
            image=resize_image(image, size),
            masks=np.stack(masks) if masks else np.zeros((0, size, size), dtype=np.bool_),
            boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
            kept=np.arange(len(boxes)),
        )


def resize_image(image: ImageArray, size: int) -> ImageArray:
    """Resize to a square, aspect not kept: bilinear, averaging when it shrinks.

    Equals Pillow's bilinear filter to one grey level, at a fraction of its time. The image is [h, w, 3] uint8
    RGB; `size` is the side S in pixels. Returns [S, S, 3] uint8.
    """
    if image.shape[:2] == (size, size):
        return image.copy()
    own = np.require(image, requirements=["C_CONTIGUOUS", "WRITEABLE"])  # torch takes no other arrays
    resized = torch.from_numpy(own).permute(2, 0, 1)[None]
    # The width comes first, and would blow up an image like a thread.
    steps = [(size, image.shape[1])] if image.shape[0] * size > MOST_BETWEEN else []
    for hw in (*steps, (size, size)):
        resized = functional.interpolate(resized, hw, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def resize_mask(mask: BoolArray, size: int) -> BoolArray:
    """Resize to a square by the nearest pixel: [h, w] to [size, size]."""
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(np.intp) for side in mask.shape)
    resized: BoolArray = mask[rows][:, columns]
    return resized


def resize_box(bbox_xywh: Sequence[float], image_hw: tuple[int, int], size: int) -> tuple[float, ...]:
    """Corners of a box in the resized image.

    The box is left, top, width and height in pixels of the file; `size` is the side S of the resized image.
    Returns x0, y0, x1, y1 in pixels, clipped to [0, S].
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
    """Random changes of a training image (paper appendix 3.4); the turned square stays a square."""

    horizontal_flip: float  # chance of a left-right flip
    vertical_flip: float  # chance of a top-bottom flip
    quarter_turns: bool  # turn by 0, 90, 180 or 270 degrees, equally likely
    brightness: tuple[float, float]  # range of the factor on all values
    contrast: tuple[float, float]  # range of the factor on the distance to the mean value of the image
    # Largest factor, per axis, of a random zoom onto an instance; 1 = none (as in the paper).
    zoom: float = 1.0

    def __call__(self, scene: ResizedImage, rng: np.random.Generator) -> ResizedImage:
        """A changed copy of `scene`, all chance taken from `rng`."""
        if self.zoom > 1 and len(scene.kept):
            scene = zoom_in(scene, random_window(scene, self.zoom, rng))
        # Light before flips: the result is the same, and the flips stay views until one last copy.
        image = change_brightness(scene.image, rng.uniform(*self.brightness))
        image = change_contrast(image, rng.uniform(*self.contrast))
        scene = replace(scene, image=image)
        if rng.random() < self.horizontal_flip:
            scene = flip_horizontally(scene)
        if rng.random() < self.vertical_flip:
            scene = flip_vertically(scene)
        return turn(scene, int(rng.integers(4))) if self.quarter_turns else scene


def flip_horizontally(scene: ResizedImage) -> ResizedImage:
    """Mirror left and right."""
    size = len(scene.image)
    x0, y0, x1, y1 = scene.boxes_xyxy.T
    boxes = np.stack([size - x1, y0, size - x0, y1], axis=1)
    return replace(scene, image=scene.image[:, ::-1], masks=scene.masks[:, :, ::-1], boxes_xyxy=boxes)


def flip_vertically(scene: ResizedImage) -> ResizedImage:
    """Mirror top and bottom."""
    size = len(scene.image)
    x0, y0, x1, y1 = scene.boxes_xyxy.T
    boxes = np.stack([x0, size - y1, x1, size - y0], axis=1)
    return replace(scene, image=scene.image[::-1], masks=scene.masks[:, ::-1], boxes_xyxy=boxes)


def turn(scene: ResizedImage, quarters: int) -> ResizedImage:
    """Turn counter-clockwise by `quarters` times 90 degrees."""
    size, boxes = len(scene.image), scene.boxes_xyxy
    for _ in range(quarters % 4):
        x0, y0, x1, y1 = boxes.T
        boxes = np.stack([y0, size - x1, y1, size - x0], axis=1)
    return replace(
        scene,
        image=np.rot90(scene.image, quarters),
        masks=np.rot90(scene.masks, quarters, axes=(1, 2)),
        boxes_xyxy=boxes,
    )


def random_window(scene: ResizedImage, zoom: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A window x0, y0, x1, y1, 1 to `zoom` times smaller per axis, that holds an instance's middle."""
    size = len(scene.image)
    sides = np.rint(size / np.exp(rng.uniform(0, np.log(zoom), size=2))).astype(int)
    box = scene.boxes_xyxy[rng.integers(len(scene.boxes_xyxy))]
    middle = (box[:2] + box[2:]) / 2
    start = np.rint(middle - rng.random(2) * sides).astype(int).clip(0, size - sides)
    return int(start[0]), int(start[1]), int(start[0] + sides[0]), int(start[1] + sides[1])


def zoom_in(scene: ResizedImage, window: tuple[int, int, int, int]) -> ResizedImage:
    """Enlarge a window to the whole image.

    Instances of which less than `VISIBLE` of the box is left are lost. The box of one that is cut is tight
    around what is left of its mask. The window is x0, y0, x1, y1 in whole pixels.
    """
    size, (x0, y0, x1, y1) = len(scene.image), window
    corners, scale = np.array([x0, y0, x0, y0]), np.tile([size / (x1 - x0), size / (y1 - y0)], 2)
    whole = scene.boxes_xyxy
    cut = np.stack(
        [whole[:, i].clip(low, high) for i, (low, high) in enumerate([(x0, x1), (y0, y1)] * 2)], axis=1
    )
    share = _areas(cut) / np.maximum(_areas(whole), 1e-6)
    left = np.flatnonzero(share >= min(VISIBLE, share.max()))
    masks = [resize_mask(scene.masks[i, y0:y1, x0:x1], size) for i in left]
    boxes = ((cut - corners) * scale).astype(np.float32)[left]
    for box, mask, visible in zip(boxes, masks, share[left], strict=True):
        if visible < 1 and mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    image = resize_image(scene.image[y0:y1, x0:x1], size)
    return ResizedImage(image, np.stack(masks), boxes, scene.kept[left])


def _areas(boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    areas: npt.NDArray[np.float32] = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    return areas


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
