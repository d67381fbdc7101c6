"""Changes of target images in the robustness sweeps, in five severities, and of their ground truth."""

import io
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.data.prompt_changes import blurred
from unispector.data.transforms import ImageArray, change_brightness, change_contrast
from unispector.errors import DataError
from unispector.ops.rle import BoolArray, encode_crop, segmentation_to_mask

TargetChange = Literal["blur", "noise", "jpeg", "brightness", "contrast", "rotation", "scale"]
FloatArray = npt.NDArray[np.float64]

LEVELS: dict[TargetChange, tuple[float, ...]] = {
    "blur": (0.25, 0.5, 0.75, 1.0, 1.25),
    "noise": (5, 10, 20, 30, 40),
    "jpeg": (80, 60, 40, 25, 10),
    "brightness": (0.8, 0.65, 0.5, 0.4, 0.3),
    "contrast": (0.8, 0.65, 0.5, 0.4, 0.3),
    "rotation": (2, 4, 6, 8, 10),
    "scale": (0.9, 0.8, 0.7, 0.6, 0.5),
}
"""The values of severities 1 to 5, in `UNITS`; severity 0 is the image as it is."""

UNITS: dict[TargetChange, str] = {
    "blur": "sigma in % of the shorter side",
    "noise": "sigma in grey levels",
    "jpeg": "quality",
    "brightness": "factor on grey levels",
    "contrast": "factor on the distance to the mean",
    "rotation": "degrees counter-clockwise",
    "scale": "factor on lengths",
}

GEOMETRIC: frozenset[TargetChange] = frozenset({"rotation", "scale"})
"""The changes that move the ground truth."""

FILL_CELLS = 4  # cells a side whose mean colours fill what a moved image leaves open


def change_image(
    image: ImageArray, kind: TargetChange, severity: int, rng: np.random.Generator
) -> ImageArray:
    """A target image as a worse camera or another pose would show it.

    Blur goes with the image's size, because the network sees every image at the same size; of an image under
    200 pixels the mildest blur may leave every grey level as it is. Noise is one value per pixel on all three
    channels, so that grey images stay grey. Rotation and scale are about the centre. What they leave open
    takes the colours along the image's edge, averaged over large cells: black corners would pass for defects,
    a mirrored image would show defects that the ground truth lacks, and repeated edge pixels would draw
    stripes. The image is [h, w, 3] uint8 RGB; `severity` is 0 (as it is) to 5, see `LEVELS`; the noise comes
    from `rng`. Returns uint8 [h, w, 3], of the same size.
    """
    if severity == 0:
        return image
    level = LEVELS[kind][severity - 1]
    match kind:
        case "blur":
            changed = blurred(image, level / 100 * min(image.shape[:2]))
        case "noise":
            noise = rng.normal(0, level, (*image.shape[:2], 1))
            changed = np.asarray(np.rint(image + noise).clip(0, 255), dtype=np.uint8)
        case "jpeg":
            changed = _compressed(image, int(level))
        case "brightness":
            changed = change_brightness(image, level)
        case "contrast":
            changed = change_contrast(image, level)
        case "rotation" | "scale":
            changed = _moved(image, _matrix(kind, level, image.shape[0], image.shape[1]))
    return changed


def _compressed(image: ImageArray, quality: int) -> ImageArray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def _matrix(kind: TargetChange, level: float, height: int, width: int) -> FloatArray:
    """[2, 3] from a pixel's column and row, counted from 0, to where it comes to lie."""
    angle, scale = (level, 1.0) if kind == "rotation" else (0.0, level)
    return np.asarray(cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale))


def _moved(image: ImageArray, matrix: FloatArray) -> ImageArray:
    height, width = image.shape[:2]
    cells = cv2.resize(image, (FILL_CELLS, FILL_CELLS), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
    filled = cv2.warpAffine(smooth, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    # Shrinking without a blur would alias: the blur that stands for the wider pixels.
    shrunk = blurred(image, 0.5 * np.sqrt(max(1 / np.linalg.det(matrix[:, :2]) - 1, 0)))
    moved = cv2.warpAffine(shrunk, matrix, (width, height), dst=filled, borderMode=cv2.BORDER_TRANSPARENT)
    return np.asarray(moved, dtype=np.uint8)


def change_annotations(annotations: Annotations, kind: TargetChange, severity: int) -> Annotations:
    """The ground truth of images that `change_image` changed.

    Only rotation and scale move it. A mask moves by the nearest pixel, its box is tight around it. An
    instance that has only a box gets the tight box of the moved one. What comes to lie wholly outside the
    image is left out; its image stays. `severity` is 0 (as it is) to 5, see `LEVELS`; all is in pixels of the
    files. Returns annotations with the same images, classes and ids; masks are run-length codes.

    Raises:
        DataError: a mask is malformed; the message names the image and the annotation.
    """
    if severity == 0 or kind not in GEOMETRIC:
        return annotations
    level = LEVELS[kind][severity - 1]
    images = {image.id: image for image in annotations.images}
    moved = []
    for instance in annotations.instances:
        image = images[instance.image_id]
        matrix = _matrix(kind, level, image.height, image.width)
        try:
            moved.append(_moved_instance(instance, image, matrix))
        except DataError as error:
            raise DataError(f"{image.file_name}: annotation {instance.id}: {error}") from error
    return replace(annotations, instances=tuple(item for item in moved if item is not None))


def _moved_instance(
    instance: InstanceRecord, image: ImageRecord, matrix: FloatArray
) -> InstanceRecord | None:
    """None where nothing of it is left in the image."""
    if instance.segmentation:
        mask = segmentation_to_mask(instance.segmentation, image.height, image.width)
        if mask.any():  # a polygon thinner than a pixel marks none
            return _with_mask(instance, _moved_mask(mask, matrix))
    return _moved_box(instance, image, matrix)


def _with_mask(instance: InstanceRecord, mask: BoolArray) -> InstanceRecord | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    left, top = int(columns[0]), int(rows[0])
    crop = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    return replace(
        instance,
        bbox=(float(left), float(top), float(crop.shape[1]), float(crop.shape[0])),
        area=float(np.count_nonzero(crop)),
        segmentation=encode_crop(crop, left, top, *mask.shape),
    )


def _moved_mask(mask: BoolArray, matrix: FloatArray) -> BoolArray:
    """The mask moved by the nearest pixel; empty only where all of its pixels left the image."""
    height, width = mask.shape
    warped = cv2.warpAffine(mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST)
    moved = np.asarray(warped, dtype=np.bool_)
    if not moved.any():  # a thin mask may fall between the pixels that are looked up: look where its own go
        rows, columns = np.nonzero(mask)
        x, y = np.rint(matrix @ np.stack([columns, rows, np.ones_like(rows)])).astype(np.intp)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        moved[y[inside], x[inside]] = True
    return moved


def _moved_box(instance: InstanceRecord, image: ImageRecord, matrix: FloatArray) -> InstanceRecord | None:
    x, y, width, height = instance.bbox
    # The matrix is about pixel centres, half a pixel from the corners that boxes are counted from.
    columns = np.array([x, x + width, x + width, x]) - 0.5
    rows = np.array([y, y, y + height, y + height]) - 0.5
    moved = matrix @ np.stack([columns, rows, np.ones(4)]) + 0.5
    across, down = moved[0].clip(0, image.width), moved[1].clip(0, image.height)
    left, top = float(across.min()), float(down.min())
    right, bottom = float(across.max()), float(down.max())
    if left >= right or top >= bottom:
        return None
    box = (left, top, right - left, bottom - top)
    return replace(instance, bbox=box, area=box[2] * box[3], segmentation=None)
