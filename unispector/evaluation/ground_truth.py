"""Ground truth of one test, and how far detections overlap it.

Overlaps are all that is kept of an image's detections: judging a test needs no masks any more, so a
sweep over many conditions stays small. IoUs are pycocotools' own and masks stay run-length coded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.ops.rle import Rle, encode_crop, segmentation_to_rle

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Kind = Literal["bbox", "segm"]
"""Judge by the boxes or by the masks."""


@dataclass(frozen=True)
class ImageTruth:
    """The g instances of one image by id, crowds among them."""

    ids: IntArray  # [g] of the annotation file
    classes: IntArray  # [g] position in the ground truth's `class_names`
    crowd: BoolArray  # [g] True marks a region that holds any number of instances
    boxes_xywh: FloatArray  # [g, 4] pixels
    mask_areas: FloatArray  # [g] pixels, at least 1
    masks: tuple[Rle, ...]  # g COCO RLEs that pycocotools can measure

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Overlaps:
    """An image's n detections, best first, against its g instances.

    Equal scores are ranked by class name, then box, then mask code, so the order detections come in
    never matters.
    """

    scores: FloatArray  # [n] in [0, 1]
    classes: IntArray  # [n] position in the ground truth's `class_names`
    boxes_xywh: FloatArray  # [n, 4] pixels
    mask_areas: FloatArray  # [n] pixels
    # [n, g] COCO's IoU, against a crowd the share of the detection that lies in it; 0 where the classes
    # differ.
    box_iou: FloatArray
    mask_iou: FloatArray

    def __len__(self) -> int:
        return len(self.scores)

    def iou(self, kind: Kind) -> FloatArray:
        """[n, g] of the boxes or of the masks."""
        return self.box_iou if kind == "bbox" else self.mask_iou


class GroundTruth:
    """Validated ground truth of one test, indexed by image.

    An instance without a segmentation, or whose segmentation covers no pixel, counts as its filled
    box: a scratch drawn thinner than a pixel can be found, as it can be learnt.

    Attributes:
        class_names: names of the categories, sorted by id.
        image_ids: all images in the file's order, those without instances among them.

    Raises:
        DataError: two categories share a name, every instance is a crowd or there is none, or a
            segmentation is malformed.
    """

    def __init__(self, annotations: Annotations) -> None:
        if len(set(annotations.class_names)) < len(annotations.categories):
            raise DataError("two categories of the ground truth have the same name; rename one")
        if all(instance.iscrowd for instance in annotations.instances):
            raise DataError("the ground truth has no instances, so AP is undefined; annotate at least one")
        self.annotations = annotations
        self.class_names = annotations.class_names
        self.image_ids = tuple(image.id for image in annotations.images)
        self._positions = {name: position for position, name in enumerate(self.class_names)}
        self._images = {image.id: image for image in annotations.images}
        self._instances = {image.id: _image_truth(annotations, image) for image in annotations.images}

    def image(self, image_id: int) -> ImageRecord:
        """Name and size of an image.

        Raises:
            DataError: there is no such image.
        """
        if image_id not in self._images:
            raise DataError(f"detections for image id {image_id}, which the ground truth does not have")
        return self._images[image_id]

    def instances(self, image_id: int) -> ImageTruth:
        """The instances of an image.

        Raises:
            DataError: there is no such image.
        """
        return self._instances[self.image(image_id).id]

    def overlaps(self, image_id: int, detections: Detections) -> Overlaps:
        """Rank an image's detections and measure how far they overlap its instances.

        Args:
            detections: in that image's pixels, with canonical mask codes, as `ops.rle` writes them.

        Raises:
            DataError: there is no such image, its size or a mask's differs, a prompted class is no
                category of the ground truth, or a score or a box is not finite.
        """
        self._check(self.image(image_id), detections)
        truth = self._instances[image_id]
        order = _ranking(detections)
        positions = np.array([self._positions[name] for name in detections.class_names], dtype=np.int64)
        classes = positions[detections.labels.cpu().numpy()[order]]
        boxes = boxes_xywh(detections)[order]
        masks = [detections.masks_rle[i] for i in order]
        box_iou, mask_iou = _ious(classes, boxes, masks, truth)
        return Overlaps(
            scores=detections.scores.double().cpu().numpy()[order],
            classes=classes,
            boxes_xywh=boxes,
            mask_areas=_areas(masks),
            box_iou=box_iou,
            mask_iou=mask_iou,
        )

    def _check(self, image: ImageRecord, found: Detections) -> None:
        image.check_size(image.file_name, *found.image_hw[::-1])
        unknown = sorted(set(found.class_names) - self._positions.keys())
        if unknown:
            raise DataError(
                f"class {unknown[0]!r} was prompted but is no category of the ground truth "
                f"({', '.join(sorted(self.class_names))}); use the same class names in both files"
            )
        if not (found.scores.isfinite().all() and found.boxes_xyxy.isfinite().all()):
            raise DataError(
                f"{image.file_name}: a score or a box is not finite; the model's weights are broken"
            )
        size = (image.height, image.width)
        if any(mask["size"] not in (size, list(size)) for mask in found.masks_rle):
            raise DataError(
                f"{image.file_name}: a detection's mask is not {image.width}x{image.height} as the image is; "
                "scale the masks back to the image"
            )


def boxes_xywh(found: Detections) -> FloatArray:
    """[n, 4] left, top, width, height in pixels."""
    corners = found.boxes_xyxy.double().cpu().numpy()
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def best_overlaps(truth: GroundTruth, overlaps: Mapping[int, Overlaps], kind: Kind) -> FloatArray:
    """Of every instance the IoU of the detection that overlaps it most, 0 without one; images in order.

    Args:
        overlaps: image id -> its detections; an image left out has none.
    """
    best = [
        overlaps[image_id].iou(kind).max(axis=0, initial=0)
        if image_id in overlaps
        else np.zeros(len(truth.instances(image_id)))
        for image_id in truth.image_ids
    ]
    return np.concatenate(best)


def filled_box_rle(bbox_xywh: tuple[float, float, float, float], height: int, width: int) -> Rle:
    """COCO RLE of every pixel of the image that a box touches, at least one.

    Args:
        bbox_xywh: left, top, width, height in pixels.
        height, width: of the image in pixels.
    """
    x, y, w, h = bbox_xywh
    left, top = min(max(math.floor(x), 0), width - 1), min(max(math.floor(y), 0), height - 1)
    right = min(max(math.ceil(x + w), left + 1), width)
    bottom = min(max(math.ceil(y + h), top + 1), height)
    return encode_crop(np.ones((bottom - top, right - left), dtype=bool), left, top, height, width)


def _image_truth(annotations: Annotations, image: ImageRecord) -> ImageTruth:
    instances = sorted(annotations.instances_of(image.id), key=lambda instance: instance.id)
    classes = [annotations.class_index[instance.category_id] for instance in instances]
    masks = tuple(_mask(instance, image) for instance in instances)
    return ImageTruth(
        ids=np.array([instance.id for instance in instances], dtype=np.int64),
        classes=np.array(classes, dtype=np.int64),
        crowd=np.array([bool(instance.iscrowd) for instance in instances], dtype=bool),
        boxes_xywh=np.array([instance.bbox for instance in instances], dtype=np.float64).reshape(-1, 4),
        mask_areas=_areas(masks),
        masks=masks,
    )


def _mask(instance: InstanceRecord, image: ImageRecord) -> Rle:
    size = (image.height, image.width)
    if instance.segmentation is not None:
        try:
            code = segmentation_to_rle(instance.segmentation, *size)
        except DataError as error:
            raise DataError(f"{image.file_name}: annotation {instance.id}: {error}") from error
        if coco_mask.area(code):
            return code
    return filled_box_rle(instance.bbox, *size)


def _ranking(found: Detections) -> list[int]:
    """The detections' positions, best first."""
    names = [found.class_names[label] for label in found.labels.tolist()]
    codes = [str(mask["counts"]) for mask in found.masks_rle]
    falling = (-found.scores.double()).tolist()
    keys = list(zip(falling, names, found.boxes_xyxy.tolist(), codes, strict=True))
    return sorted(range(len(keys)), key=keys.__getitem__)


def _ious(
    classes: IntArray, boxes: FloatArray, masks: Sequence[Mapping[str, Any]], truth: ImageTruth
) -> tuple[FloatArray, FloatArray]:
    """[n, g] of the boxes and of the masks."""
    box_iou, mask_iou = np.zeros((2, len(classes), len(truth)))
    for position in np.unique(truth.classes):
        rows, columns = np.flatnonzero(classes == position), np.flatnonzero(truth.classes == position)
        if len(rows):
            pairs, crowd = np.ix_(rows, columns), truth.crowd[columns]
            box_iou[pairs] = coco_mask.iou(boxes[rows], truth.boxes_xywh[columns], crowd)
            own, theirs = [masks[i] for i in rows.tolist()], [truth.masks[i] for i in columns.tolist()]
            mask_iou[pairs] = coco_mask.iou(own, theirs, crowd)
    return box_iou, mask_iou


def _areas(masks: Sequence[Mapping[str, Any]]) -> FloatArray:
    # One by one: `area` of a list of more than 255 overflows.
    return np.asarray([coco_mask.area(code) for code in masks], dtype=np.float64)
