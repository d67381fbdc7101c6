"""A user's own LabelMe set: one JSON file of shapes for each image, beside it or naming it."""

import base64
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from unispector.data.sources import reasons
from unispector.data.sources.fields import IMAGE_SUFFIX, to_name, to_number, to_size
from unispector.data.sources.outlines import ellipse, flat
from unispector.data.sources.rows import Box, Code, Dropped, Entry, Polygon
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree
from unispector.errors import DataError
from unispector.ops.files import decode_mask, read_image_size
from unispector.ops.rle import Rle, decode_rle, encode_rle, segmentation_to_mask

Region = Box | Polygon | Code

# Type, corner by corner -> fewest corners.
_POLYGONS = {"polygon": 3, "oriented_rectangle": 4, "rotation": 4, "quadrilateral": 4}


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    images = defaultdict(list)
    for match in tree.matching(rf"(.+)\.{IMAGE_SUFFIX}"):
        images[match[1]].append(match[0])
    annotated: dict[str, str] = {}
    for match in tree.matching(r"(.+)\.(?i:json)"):
        name = match[0]
        content = tree.read_json(name)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise tree.error(name, "no LabelMe annotation, it has no list `shapes`; remove or replace it")
        image = _image_of(tree, name, content.get("imagePath"), images.get(match[1], []))
        if image is None:
            yield Dropped(reasons.ORPHAN, name, len(content["shapes"]))
            continue
        other = annotated.setdefault(image, name)
        if other != name:
            raise tree.error(name, f"annotates {image}, as does {other}; remove one of the two")
        yield from _image_rows(tree, image, name, content)
    for same_stem in images.values():
        yield from (Dropped(reasons.NO_ANNOTATION, image) for image in same_stem if image not in annotated)


def _image_of(tree: ReleaseTree, name: str, path: object, beside: list[str]) -> str | None:
    """The image at the path that an annotation names, else the one of that name beside it.

    Where neither is there, the one of the annotation's stem beside it, unless the path leaves the release.
    """
    if isinstance(path, str):
        folder = name.rpartition("/")[0]
        image = tree.inside(folder, path)
        if image is not None and image in tree:
            return image
        named = tree.inside(folder, path.replace("\\", "/").rpartition("/")[2])
        if named is None or named not in tree or not re.fullmatch(rf".+\.{IMAGE_SUFFIX}", named):
            tree.below(folder, path, name)
        elif named in beside:
            return named
        else:
            beside = [named, *beside]
    if len(beside) > 1:
        raise tree.error(name, f"may belong to {beside[0]} or {beside[1]}; correct its imagePath")
    return beside[0] if beside else None


def _image_rows(
    tree: ReleaseTree, image: str, name: str, content: dict[str, Any]
) -> Iterator[Entry | Dropped]:
    try:
        size = to_size(content.get("imageWidth"), content.get("imageHeight"))
    except ValueError as error:
        raise tree.error(name, f"imageWidth, imageHeight: {error}; correct them") from error
    canvas = read_image_size(tree.root / image) if any(map(_is_mask, content["shapes"])) else (0, 0)
    groups = defaultdict(list)
    for number, shape in enumerate(content["shapes"], start=1):
        try:
            mark = _mark(shape, canvas)
        except (AttributeError, DataError, KeyError, TypeError, ValueError) as error:
            raise tree.error(
                name, f"shape {number} is not as LabelMe writes it ({error}); mend it"
            ) from error
        if mark is None:
            yield Dropped(f"{reasons.NOT_A_REGION}: {_kind(shape)}", image, 1)
        else:
            group = shape.get("group_id")
            groups[mark.defect, f"alone {number}" if group is None else repr(group)].append(mark)
    try:
        marks = tuple(map(_joined, groups.values()))
    except DataError as error:
        raise tree.error(name, f"shapes of one group: {error}") from error
    if marks:
        yield Entry(image, "", marks, size)
    elif not content["shapes"]:
        yield Dropped(reasons.DEFECT_FREE, image)


def _is_mask(shape: object) -> bool:
    return isinstance(shape, dict) and shape.get("shape_type") == "mask"


def _kind(shape: dict[str, Any]) -> str:
    """A shape's type; early versions write polygons without one.

    Raises:
        ValueError: it is no text.
    """
    return to_name(shape.get("shape_type") or "polygon")


def _mark(shape: dict[str, Any], canvas: tuple[int, int]) -> Region | None:
    """A shape's region; None where its type has none."""
    kind = _kind(shape)
    if kind not in _POLYGONS and kind not in ("rectangle", "circle", "mask"):
        return None
    defect = to_name(shape["label"])
    points = [(to_number(x), to_number(y)) for x, y in shape["points"]]
    if len(points) < _POLYGONS.get(kind, 2):
        raise ValueError(f"{defect!r} is a {kind} of {len(points)} points")
    if kind == "rectangle":
        return _rectangle(defect, points)
    if kind == "mask":
        return Code(defect, _painted(shape["mask"], points, canvas))
    return Polygon(defect, (flat(points if kind in _POLYGONS else _circle(points[0], points[1])),))


def _painted(picture: str, points: list[tuple[float, float]], canvas: tuple[int, int]) -> Rle:
    """A mask: an image in base64, between the first and the last of its pixels in the image."""
    width, height = canvas
    crop = decode_mask(base64.b64decode(picture, validate=True), "its mask")
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
    if crop.shape != (bottom - top + 1, right - left + 1):
        raise ValueError(f"its mask is {crop.shape[1]}x{crop.shape[0]}, its points say otherwise")
    if left < 0 or top < 0 or right >= width or bottom >= height:
        raise ValueError("its mask leaves the image")
    mask = np.zeros((1, height, width), np.bool_)
    mask[0, top : bottom + 1, left : right + 1] = crop > 0
    return encode_rle(mask)[0]


def _rectangle(defect: str, points: list[tuple[float, float]]) -> Box:
    columns, rows = [x for x, _ in points], [y for _, y in points]
    left, top = min(columns), min(rows)
    return Box(defect, (left, top, max(columns) - left, max(rows) - top))


def _circle(centre: tuple[float, float], on_it: tuple[float, float]) -> list[tuple[float, float]]:
    radius = math.dist(centre, on_it)
    return ellipse(centre, (radius, radius))


def _joined(marks: list[Region]) -> Region:
    """Shapes of one group as one instance."""
    if len(marks) == 1:
        return marks[0]
    polygons = [list(part) for mark in marks for part in _parts(mark)]
    masks = [decode_rle(mark.rle) for mark in marks if isinstance(mark, Code)]
    if not masks:
        return Polygon(marks[0].defect, tuple(map(tuple, polygons)))
    if polygons:
        masks.append(segmentation_to_mask(polygons, *masks[0].shape))
    return Code(marks[0].defect, encode_rle(np.logical_or.reduce(masks)[None])[0])


def _parts(mark: Region) -> tuple[tuple[float, ...], ...]:
    """A mark's polygons."""
    match mark:
        case Polygon():
            return mark.parts
        case Box():
            x, y, w, h = mark.xywh
            return ((x, y, x + w, y, x + w, y + h, x, y + h),)
        case Code():
            return ()


LABELME = Source(
    title="LabelMe",
    layout="images, each with a .json of the same stem beside it, or one whose imagePath names it",
    published="your own data, as LabelMe, X-AnyLabeling and others write it",
    rows=_rows,
    drops_small=False,
)
