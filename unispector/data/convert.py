"""Any raw source to one COCO-style InsA annotation file, with a report of what was kept and dropped."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.sources.rows import Dropped, SourceImage, SourceSet
from unispector.errors import DataError
from unispector.ops.files import atomic_write_text
from unispector.ops.rle import encode_rle

EMPTY_MASK = "mask marks nothing"
TOO_SMALL = "every component too small"
SMALL_COMPONENT = "component too small"


@dataclass(frozen=True)
class DropCount:
    """What was dropped for one reason: so many instances, on these files."""

    reason: str
    instances: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class ConversionReport:
    """What a raw set gave.

    Attributes:
        name: name of the set.
        min_side: smallest share of the image's sides a component may have.
        images_read: images with a mask that were opened.
        images_kept: images in the annotation file.
        instances_read: components before the size rule, per category.
        instances_kept: components in the annotation file, per category.
        dropped: the rest, by reason.
    """

    name: str
    min_side: float
    images_read: int
    images_kept: int
    instances_read: dict[str, int]
    instances_kept: dict[str, int]
    dropped: tuple[DropCount, ...]

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        atomic_write_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def convert_set(name: str, source: SourceSet, min_side: float) -> tuple[Annotations, ConversionReport]:
    """Turn a raw set into annotations (paper appendix 1.1).

    Masks become run-length codes; box and area are those of the mask, to the pixel. A component is
    dropped when its box's width or height is under `min_side` of the image's, an image when none of its
    components is left. Categories are named `<product>_<defect>`, sorted by name; all ids start at 1.

    Args:
        name: name of the set, for messages and the report.
        source: the rows of its reader.
        min_side: share in [0, 1).

    Raises:
        DataError: a file of the set cannot be used, or nothing is left of the set.
    """
    kept: list[_Kept] = []
    dropped = list(source.dropped)
    read: Counter[str] = Counter()
    images_read = 0
    for image in source.images:
        images_read += 1
        read.update(f"{source.product}_{defect}" for defect in image.defects)
        item, losses = _filter(image, len(kept) + 1, min_side)
        dropped += losses
        if item is not None:
            kept.append(item)
    if not kept:
        raise DataError(f"{name}: no instance left of {images_read} images; check masks and data.min_side")
    annotations = _number(kept, source.product)
    names = {category.id: category.name for category in annotations.categories}
    per_class = Counter(names[instance.category_id] for instance in annotations.instances)
    report = ConversionReport(
        name=name,
        min_side=min_side,
        images_read=images_read,
        images_kept=len(kept),
        instances_read=dict(sorted(read.items())),
        instances_kept={key: per_class[key] for key in sorted(read)},
        dropped=_by_reason(dropped),
    )
    return annotations, report


@dataclass(frozen=True)
class _Kept:
    """An image and its K instances that passed the size rule, masks already encoded."""

    image: ImageRecord
    defects: tuple[str, ...]
    boxes_xywh: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]
    codes: list[dict[str, Any]]


def _filter(image: SourceImage, image_id: int, min_side: float) -> tuple[_Kept | None, list[Dropped]]:
    if len(image.masks) == 0:
        return None, [Dropped(EMPTY_MASK, image.file_name)]
    boxes = tight_boxes_xywh(image.masks)
    # Quotients round right, while 0.07 * 100 is above 7 in floating point.
    large = (boxes[:, 2] / image.width >= min_side) & (boxes[:, 3] / image.height >= min_side)
    lost = int((~large).sum())
    if lost == len(boxes):
        return None, [Dropped(TOO_SMALL, image.file_name, lost)]
    masks = image.masks[large]
    item = _Kept(
        image=ImageRecord(image_id, image.file_name, image.width, image.height),
        defects=tuple(defect for defect, keep in zip(image.defects, large, strict=True) if keep),
        boxes_xywh=boxes[large],
        areas=masks.sum(axis=(1, 2)),
        codes=encode_rle(masks),
    )
    return item, [Dropped(SMALL_COMPONENT, image.file_name, lost)] if lost else []


def tight_boxes_xywh(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Smallest boxes around masks.

    Args:
        masks: bool [K, h, w], none of them empty.

    Returns:
        int64 [K, 4] x, y, width, height in pixels.
    """
    columns: npt.NDArray[np.bool_] = np.any(masks, axis=1)
    rows: npt.NDArray[np.bool_] = np.any(masks, axis=2)
    x, y = columns.argmax(axis=1), rows.argmax(axis=1)
    right = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    bottom = rows.shape[1] - rows[:, ::-1].argmax(axis=1)
    return np.stack([x, y, right - x, bottom - y], axis=1)


def _number(kept: list[_Kept], product: str) -> Annotations:
    """Give ids from 1: categories by name, instances in the source's order."""
    defects = sorted({defect for item in kept for defect in item.defects})
    category_id = {defect: position for position, defect in enumerate(defects, start=1)}
    instances: list[InstanceRecord] = []
    for item in kept:
        for defect, (x, y, width, height), area, code in zip(
            item.defects, item.boxes_xywh.tolist(), item.areas.tolist(), item.codes, strict=True
        ):
            instances.append(
                InstanceRecord(
                    id=len(instances) + 1,
                    image_id=item.image.id,
                    category_id=category_id[defect],
                    bbox=(float(x), float(y), float(width), float(height)),
                    area=float(area),
                    segmentation=code,
                )
            )
    return Annotations(
        images=tuple(item.image for item in kept),
        instances=tuple(instances),
        categories=tuple(
            CategoryRecord(id_, f"{product}_{defect}", product) for defect, id_ in category_id.items()
        ),
    )


def _by_reason(dropped: Iterable[Dropped]) -> tuple[DropCount, ...]:
    grouped: defaultdict[str, list[Dropped]] = defaultdict(list)
    for item in dropped:
        grouped[item.reason].append(item)
    return tuple(
        DropCount(
            reason=reason,
            instances=sum(item.instances for item in items),
            files=tuple(sorted(item.file_name for item in items)),
        )
        for reason, items in sorted(grouped.items())
    )
