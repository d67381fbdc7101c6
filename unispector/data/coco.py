"""COCO annotation files as one typed, validated table; the only place that reads or writes them.

Boxes are xywh in pixels of the image file, (0, 0) the outer corner of the first pixel.
Annotation ids start at 1: pycocotools takes a match with id 0 for no match at all.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import numpy as np

from unispector.errors import DataError
from unispector.names import is_text, name_problem
from unispector.ops.files import atomic_write_text
from unispector.ops.json_text import parse_json

Value = TypeVar("Value")
Segmentation = dict[str, Any] | list[list[float]]
MEND = "run `unispector convert coco` on the folder, which mends that"
BOX_SLACK = 1.0  # pixels a box may stick out: other tools round its corners


@dataclass(frozen=True)
class ImageRecord:
    """One image: `file_name` is a posix path relative to the data's root, sizes are pixels."""

    id: int
    file_name: str
    width: int
    height: int

    def check_size(self, file: object, width: int, height: int) -> None:
        """Refuse an image whose size is not the stated one; `file` names it.

        Raises:
            DataError: it is not; of a swapped size, the message says what an EXIF orientation does.
        """
        if (width, height) == (self.width, self.height):
            return
        mend = "mend width and height in the annotation file or restore the image"
        if (height, width) == (self.width, self.height):
            mend = (
                "its EXIF orientation may turn it: `unispector convert coco` reads such files, or swap width "
                "and height in the annotation file if the marks lie on the upright image"
            )
        stated = f"{self.width}x{self.height}"
        raise DataError(f"{file}: the image has {width}x{height} pixels, its record says {stated}; {mend}")


@dataclass(frozen=True)
class InstanceRecord:
    """One defect of an image."""

    id: int  # at least 1, unique in the file
    image_id: int  # the image it lies in
    category_id: int  # its class
    bbox: tuple[float, float, float, float]  # x, y, width, height in pixels
    area: float  # pixels of the mask (of the box where there is no mask)
    segmentation: Segmentation | None  # COCO run-length code or polygons; None = the filled box is the mask
    iscrowd: int = 0  # 1 marks a region that holds any number of instances

    @property
    def outlined(self) -> bool:
        """Return whether it has an outline of its own; a polygon that is the box is none."""
        code = self.segmentation
        if code is None:
            return False
        if isinstance(code, dict) or len(code) != 1 or len(code[0]) != 8:
            return True
        x, y, width, height = self.bbox
        corners = sorted([(x, y), (x + width, y), (x, y + height), (x + width, y + height)])
        points = sorted(zip(code[0][::2], code[0][1::2], strict=True))
        return not np.allclose(points, corners, atol=0.01)


@dataclass(frozen=True)
class CategoryRecord:
    """One class; `supercategory` is the product it occurs on."""

    id: int
    name: str
    supercategory: str


@dataclass(frozen=True)
class Annotations:
    """The content of one COCO annotation file."""

    images: tuple[ImageRecord, ...]
    instances: tuple[InstanceRecord, ...]
    categories: tuple[CategoryRecord, ...]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read and validate a COCO file.

        `area` may be missing (the box's is taken), as may `iscrowd` (0), `supercategory` (empty) and
        `segmentation` (the filled box is the mask).

        Raises:
            DataError: the file cannot be read, is no JSON, or a record is malformed: a missing or
                ill-typed key, a duplicate id, file or class name, annotation id 0, an unknown image
                or class, a box that is empty or leaves its image, no record at all.
        """
        path = Path(path)
        raw = _read_json(path)
        annotations = cls(
            images=_records(path, raw, "images", _image),
            instances=_records(path, raw, "annotations", _instance),
            categories=_records(path, raw, "categories", _category),
        )
        problem = annotations._problem()
        if problem:
            raise DataError(f"{path}: {problem}")
        return annotations

    def write(self, path: str | Path) -> None:
        """Write the COCO file atomically; equal annotations give equal bytes."""
        text = json.dumps(self.as_coco(), separators=(",", ":"), ensure_ascii=False)
        atomic_write_text(path, text + "\n")

    def as_coco(self) -> dict[str, Any]:
        """The file's content as plain lists and dicts, as pycocotools takes it."""
        return {
            "info": {},  # pycocotools' loadRes copies it
            "images": [vars(image) | {} for image in self.images],
            "annotations": [_instance_as_coco(instance) for instance in self.instances],
            "categories": [vars(category) | {} for category in self.categories],
        }

    def instances_of(self, image_id: int) -> tuple[InstanceRecord, ...]:
        """The instances of one image in file order; empty for an image without any."""
        return self._instances_by_image.get(image_id, ())

    def labels_of(self, image_id: int) -> frozenset[int]:
        """The category ids that occur in one image."""
        return frozenset(instance.category_id for instance in self.instances_of(image_id))

    def keep_images(self, ids: Collection[int]) -> Self:
        """Only these images and their instances; all categories and all ids stay as they are."""
        kept = frozenset(ids)
        return type(self)(
            images=tuple(image for image in self.images if image.id in kept),
            instances=tuple(instance for instance in self.instances if instance.image_id in kept),
            categories=self.categories,
        )

    def with_images(self, images: Iterable[ImageRecord]) -> Self:
        """Also these images, without an instance and with ids of their own; all else stays as it is."""
        first = max((image.id for image in self.images), default=0) + 1
        added = tuple(replace(image, id=number) for number, image in enumerate(images, start=first))
        return type(self)(self.images + added, self.instances, self.categories)

    def keep_categories(self, ids: Collection[int]) -> Self:
        """Only these categories and their instances; all images and all ids stay as they are."""
        kept = frozenset(ids)
        return type(self)(
            images=self.images,
            instances=tuple(instance for instance in self.instances if instance.category_id in kept),
            categories=tuple(category for category in self.categories if category.id in kept),
        )

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, sorted by id."""
        return tuple(category.name for category in sorted(self.categories, key=lambda record: record.id))

    @cached_property
    def class_index(self) -> dict[int, int]:
        """Category id -> position in `class_names`."""
        return {id_: index for index, id_ in enumerate(sorted(category.id for category in self.categories))}

    @cached_property
    def _instances_by_image(self) -> dict[int, tuple[InstanceRecord, ...]]:
        grouped: defaultdict[int, list[InstanceRecord]] = defaultdict(list)
        for instance in self.instances:
            grouped[instance.image_id].append(instance)
        return {image_id: tuple(instances) for image_id, instances in grouped.items()}

    def _problem(self) -> str | None:
        """Describe a contradiction between the records, or return None."""
        for key, records in (
            ("images", self.images),
            ("annotations", self.instances),
            ("categories", self.categories),
        ):
            if not records:
                return f"no {key}; an annotation file needs at least one"
            twice = _duplicate(record.id for record in records)
            if twice is not None:
                remedy = MEND if key == "annotations" else "ids must be unique"
                return f"{key}: id {twice} occurs twice; {remedy}"
        for key, names in (
            ("images: file_name", [image.file_name for image in self.images]),
            ("categories: name", [category.name for category in self.categories]),
        ):
            name = _duplicate(names)
            if name is not None:
                return f"{key} {name!r} occurs twice; merge the two records"
        return self._dangling() or self._outside()

    def _dangling(self) -> str | None:
        sizes = {image.id: [image.height, image.width] for image in self.images}
        category_ids = {category.id for category in self.categories}
        for instance in self.instances:
            if instance.image_id not in sizes:
                return f"annotation {instance.id}: unknown image_id {instance.image_id}; add the image"
            if instance.category_id not in category_ids:
                return f"annotation {instance.id}: unknown category_id {instance.category_id}; add the class"
            code = instance.segmentation
            if isinstance(code, dict) and code["size"] != sizes[instance.image_id]:
                found, wanted = code["size"], sizes[instance.image_id]
                return f"annotation {instance.id}: mask size {found} is not its image's [h, w] {wanted}"
        return None

    def _outside(self) -> str | None:
        by_id = {image.id: image for image in self.images}
        sizes = np.array([(by_id[i.image_id].width, by_id[i.image_id].height) for i in self.instances])
        boxes = np.array([instance.bbox for instance in self.instances], dtype=np.float64)
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        outside = (low < -BOX_SLACK) | (high > sizes + BOX_SLACK) | (low >= sizes) | (high <= 0)
        bad = np.flatnonzero(outside.any(axis=1))
        if len(bad) == 0:
            return None
        instance = self.instances[bad[0]]
        image = by_id[instance.image_id]
        box = [round(value, 2) for value in instance.bbox]
        return (
            f"annotation {instance.id}: bbox {box} leaves image {image.file_name} "
            f"({image.width}x{image.height}); bbox is x, y, width, height in pixels"
        )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        raw = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); export the annotations as COCO JSON") from error
    if not isinstance(raw, dict):
        raise DataError(f"{path}: not a COCO file; its top level must be an object with images")
    return raw


def _records(
    path: Path, raw: Mapping[str, Any], key: str, parse: Callable[[Mapping[str, Any]], Value]
) -> tuple[Value, ...]:
    """Parse one list of the file; the message of a bad record says which it is."""
    rows = raw.get(key)
    if not isinstance(rows, list):
        raise DataError(f"{path}: no list {key!r}; export the annotations as COCO JSON")
    parsed = []
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: {key}[{position}] is no object; export the annotations as COCO JSON")
        try:
            parsed.append(parse(row))
        except ValueError as error:
            where = f"{key}[{position}] (id {row.get('id', 'missing')})"
            raise DataError(f"{path}: {where}: {error}{_of_image(raw, row)}") from error
    return tuple(parsed)


def _of_image(raw: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Words that name the image of a bad annotation; empty where there is none."""
    images = raw["images"] if "image_id" in row and isinstance(raw.get("images"), list) else []
    of = (image for image in images if isinstance(image, dict) and image.get("id") == row["image_id"])
    name = next(of, {}).get("file_name")
    return f" (image {name})" if isinstance(name, str) else ""


def _image(row: Mapping[str, Any]) -> ImageRecord:
    file_name = _text(row, "file_name").replace("\\", "/")
    parts = PurePosixPath(file_name)
    if parts.is_absolute() or ".." in parts.parts or not file_name:
        raise ValueError(f"file_name {file_name!r} must be a path below the data's root")
    if not is_text(file_name):
        raise ValueError(f"file_name {file_name!r} must be one line of UTF-8; rename the image")
    return ImageRecord(
        id=_whole(row, "id", 0),
        file_name=file_name,
        width=_whole(row, "width", 1),
        height=_whole(row, "height", 1),
    )


def _instance(row: Mapping[str, Any]) -> InstanceRecord:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        remedy = f"; {MEND}" if box in (None, []) else ""
        raise ValueError(f"bbox must be four numbers: x, y, width, height{remedy}")
    x, y, width, height = (float(value) for value in box)
    if width <= 0 or height <= 0:
        raise ValueError(f"bbox {box} is empty; width and height must be above 0")
    area = row.get("area", width * height)
    if not _is_finite(area) or area < 0:
        raise ValueError(f"area {area!r} must be a number of pixels")
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd {crowd!r} must be 0 or 1")
    return InstanceRecord(
        id=_whole(row, "id", 1),
        image_id=_whole(row, "image_id", 0),
        category_id=_whole(row, "category_id", 0),
        bbox=(x, y, width, height),
        area=float(area),
        segmentation=_segmentation(row.get("segmentation")),
        iscrowd=int(crowd),
    )


def _category(row: Mapping[str, Any]) -> CategoryRecord:
    supercategory = row.get("supercategory", "")
    for key, name in (("name", _text(row, "name")), ("supercategory", supercategory)):
        if isinstance(name, str) and name and (problem := name_problem(name)):
            raise ValueError(f"{key} {name[:80]!r} {problem}; rename the class")
    return CategoryRecord(
        id=_whole(row, "id", 0),
        name=_text(row, "name"),
        supercategory=supercategory if isinstance(supercategory, str) else "",
    )


def _segmentation(value: object) -> Segmentation | None:
    if value is None or value == []:
        return None
    if isinstance(value, dict) and {"size", "counts"} <= value.keys():
        return value
    if isinstance(value, list) and all(_is_polygon(part) for part in value):
        return value
    raise ValueError("segmentation must be polygons of at least three x, y pairs, or a run-length code")


def _is_polygon(value: object) -> bool:
    enough = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return enough and all(_is_finite(number) for number in value)  # type: ignore[attr-defined]


def _instance_as_coco(instance: InstanceRecord) -> dict[str, Any]:
    row = vars(instance) | {"bbox": list(instance.bbox)}
    if instance.segmentation is None:
        del row["segmentation"]
    return row


def _whole(row: Mapping[str, Any], key: str, least: int) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
        # Names what a conversion numbers anew: any id that is one, and none at all of annotations.
        mends = key.endswith("id") and (isinstance(value, int | float | str) or least == 1)
        remedy = f"; {MEND}" if mends else ""
        raise ValueError(f"{key} {value!r} must be a whole number, at least {least}{remedy}")
    return value


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} {value!r} must be a text")
    return value


def _is_finite(value: object) -> bool:
    # Comparing also refuses NaN, infinities and integers too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e12 < value < 1e12


def _duplicate(values: Iterable[Value]) -> Value | None:
    seen: set[Value] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
