"""Average precision of detections against COCO ground truth; pycocotools is the referee.

Boxes and masks are judged in one go: AP over the IoU thresholds .50:.05:.95, AP50 and AP75, each
the mean precision over 101 recall points, averaged over the classes that have ground truth (paper,
evaluation protocol). All figures are in percent.
"""

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from unispector.data.coco import Annotations, InstanceRecord
from unispector.errors import DataError
from unispector.ops.rle import encode_rle, segmentation_to_mask
from unispector.structures import Detections

MAX_DETECTIONS = (1, 10, 100)
"""COCO's caps on the detections of one class in one image; AP is taken at the last."""

_ALL_AREAS = [0.0, 1e5**2]

Kind = Literal["bbox", "segm"]


@dataclass(frozen=True)
class ClassAP:
    """One class's average precision in percent, and its ground-truth instances."""

    AP: float
    AP50: float
    AP75: float
    instances: int


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision in percent.

    Attributes:
        AP: mean over the IoU thresholds .50:.05:.95 and the classes that have ground truth.
        AP50, AP75: the same at one threshold.
        per_class: class name -> its figures; None where a class has no ground truth, which leaves
            it out of every mean.
    """

    AP: float
    AP50: float
    AP75: float
    per_class: dict[str, ClassAP | None]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The figures `as_dict` was made of.

        Raises:
            KeyError: a figure is missing.
        """
        classes = {name: value and ClassAP(**value) for name, value in values["per_class"].items()}
        return cls(AP=values["AP"], AP50=values["AP50"], AP75=values["AP75"], per_class=classes)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; a class without ground truth is null."""
        classes = {name: value and dict(vars(value)) for name, value in self.per_class.items()}
        return {"AP": self.AP, "AP50": self.AP50, "AP75": self.AP75, "per_class": classes}


@dataclass(frozen=True)
class SetMetrics:
    """Result on one data set.

    Attributes:
        bbox, segm: average precision of the boxes and of the masks, in percent.
        images: images judged, those without any instance included.
        instances: ground-truth instances, crowds left out.
    """

    bbox: AveragePrecision
    segm: AveragePrecision
    images: int
    instances: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The metrics `as_dict` was made of.

        Raises:
            KeyError: a figure is missing.
        """
        return cls(
            bbox=AveragePrecision.from_dict(values["bbox"]),
            segm=AveragePrecision.from_dict(values["segm"]),
            images=int(values["images"]),
            instances=int(values["instances"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain nested numbers for JSON: `bbox.AP50`, `segm.AP50`, ... in percent."""
        return {
            "bbox": self.bbox.as_dict(),
            "segm": self.segm.as_dict(),
            "images": self.images,
            "instances": self.instances,
        }


def evaluate_detections(annotations: Annotations, detections: Mapping[int, Detections]) -> SetMetrics:
    """Judge detections by pycocotools' COCOeval, boxes and masks.

    At most 100 detections of one class in one image count. Detections with equal scores are ranked
    by class name, then box, then mask, across images by image id, so the order they come in never
    matters. An instance without a segmentation counts as its filled box. Crowds follow COCO's rule:
    what overlaps them is neither right nor wrong.

    Args:
        annotations: ground truth.
        detections: image id -> detections in that image's pixels; an image left out has none.

    Returns:
        Metrics in percent. No detections at all give 0, not an error.

    Raises:
        DataError: there is no ground truth, two of its categories share a name, a prompted class is no
            category of it, an image id is unknown, an image's size differs, or a score is not finite.
    """
    if len(set(annotations.class_names)) < len(annotations.categories):
        raise DataError("two categories of the ground truth have the same name; rename one")
    counted = [instance for instance in annotations.instances if not instance.iscrowd]
    if not counted:
        raise DataError("the ground truth has no instances, so AP is undefined; annotate at least one")
    results = list(_results(annotations, detections))
    with redirect_stdout(io.StringIO()):
        truth = _truth(annotations)
        bbox = _average_precision(annotations, _precision(truth, results, "bbox"))
        segm = _average_precision(annotations, _precision(truth, results, "segm"))
    return SetMetrics(bbox=bbox, segm=segm, images=len(annotations.images), instances=len(counted))


def _results(annotations: Annotations, detections: Mapping[int, Detections]) -> Iterator[dict[str, Any]]:
    """COCO results with both box and mask, in the order in which ties are broken."""
    images = {image.id: image for image in annotations.images}
    category_ids = {category.name: category.id for category in annotations.categories}
    for image_id in sorted(detections):
        found = detections[image_id]
        if image_id not in images:
            raise DataError(f"detections for image id {image_id}, which the ground truth does not have")
        image = images[image_id]
        if tuple(found.image_hw) != (image.height, image.width):
            height, width = found.image_hw
            raise DataError(
                f"{image.file_name}: the picture has {width}x{height} pixels, its record says {image.width}x"
                f"{image.height}; mend width and height in the annotation file"
            )
        unknown = sorted(set(found.class_names) - set(category_ids))
        if unknown:
            raise DataError(
                f"class {unknown[0]!r} was prompted but is no category of the ground truth "
                f"({', '.join(sorted(category_ids))}); use the same class names in both files"
            )
        yield from _results_of_image(image_id, found, category_ids)


def _results_of_image(
    image_id: int, found: Detections, category_ids: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    scores = found.scores.double().tolist()
    if not all(map(math.isfinite, scores)):
        raise DataError(f"image id {image_id}: a score is not finite; the model's weights are broken")
    names = [found.class_names[label] for label in found.labels.tolist()]
    boxes = found.boxes_xyxy.double().tolist()
    rows = zip(scores, names, boxes, found.masks_rle, strict=True)
    ranked = sorted(rows, key=lambda row: (-row[0], row[1], row[2], str(row[3]["counts"])))
    for score, name, (x0, y0, x1, y1), mask in ranked:
        yield {
            "image_id": image_id,
            "category_id": category_ids[name],
            "score": score,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": mask,
        }


def _truth(annotations: Annotations) -> Any:
    """The ground truth as a pycocotools COCO object; ids from 1, since id 0 means `no match` there."""
    from pycocotools.coco import COCO

    sizes = {image.id: (image.height, image.width) for image in annotations.images}
    instances = sorted(annotations.instances, key=lambda instance: (instance.image_id, instance.id))
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i.id, "height": i.height, "width": i.width} for i in annotations.images],
        "categories": [{"id": category.id} for category in annotations.categories],
        "annotations": [
            {
                "id": number,
                "image_id": instance.image_id,
                "category_id": instance.category_id,
                "bbox": list(instance.bbox),
                "area": instance.area,
                "iscrowd": int(instance.iscrowd),
                "segmentation": _segmentation(instance, *sizes[instance.image_id]),
            }
            for number, instance in enumerate(instances, start=1)
        ],
    }
    coco.createIndex()
    return coco


def _segmentation(instance: InstanceRecord, height: int, width: int) -> Any:
    if instance.segmentation is not None:
        return encode_rle(segmentation_to_mask(instance.segmentation, height, width)[None])[0]
    return filled_box_rle(instance.bbox, height, width)


def filled_box_rle(bbox_xywh: tuple[float, float, float, float], height: int, width: int) -> dict[str, Any]:
    """COCO RLE of every pixel a box touches, at least one.

    Args:
        bbox_xywh: left, top, width, height in pixels.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    x, y, w, h = bbox_xywh
    left, top = min(max(math.floor(x), 0), width - 1), min(max(math.floor(y), 0), height - 1)
    right, bottom = max(math.ceil(x + w), left + 1), max(math.ceil(y + h), top + 1)
    mask = np.zeros((1, height, width), dtype=bool)
    mask[0, top:bottom, left:right] = True
    return encode_rle(mask)[0]


def _precision(truth: Any, results: list[dict[str, Any]], kind: Kind) -> npt.NDArray[np.float64]:
    """Precision [10 thresholds, 101 recalls, C classes by id]; -1 where a class has no ground truth."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    keys = {"image_id", "category_id", "score"} | ({"bbox"} if kind == "bbox" else {"segmentation"})
    if results:
        found = truth.loadRes([{key: row[key] for key in row if key in keys} for row in results])
    else:
        found = COCO()
        found.dataset = {**truth.dataset, "annotations": []}
        found.createIndex()
    judge = COCOeval(truth, found, kind)
    judge.params.areaRng, judge.params.areaRngLbl = [_ALL_AREAS], ["all"]
    judge.params.maxDets = list(MAX_DETECTIONS)
    judge.evaluate()
    judge.accumulate()
    precision: npt.NDArray[np.float64] = judge.eval["precision"]
    return precision[:, :, :, 0, -1]


def _average_precision(annotations: Annotations, precision: npt.NDArray[np.float64]) -> AveragePrecision:
    """Means over recall, thresholds and the classes with ground truth."""
    by_threshold = 100.0 * precision.mean(axis=1)
    counts = {category.id: 0 for category in annotations.categories}
    for instance in annotations.instances:
        counts[instance.category_id] += not instance.iscrowd
    per_class: dict[str, ClassAP | None] = {}
    for column, category in enumerate(sorted(annotations.categories, key=lambda category: category.id)):
        values = by_threshold[:, column]
        instances = counts[category.id]
        figures = ClassAP(float(values.mean()), float(values[0]), float(values[5]), instances)
        per_class[category.name] = figures if instances else None
    present = [value for value in per_class.values() if value is not None]
    return AveragePrecision(
        AP=float(np.mean([value.AP for value in present])),
        AP50=float(np.mean([value.AP50 for value in present])),
        AP75=float(np.mean([value.AP75 for value in present])),
        per_class=per_class,
    )
