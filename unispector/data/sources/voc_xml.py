"""Pascal VOC's annotation file: `annotation/{size,object*{name,bndbox}}`, parsed safely.

PASCAL counts pixels from 1 and both corners belong to the box. Tools differ, and say so by what they write:

- decimals (CVAT, Datumaro, VoTT) are edges, measured from 0, unless the database is PASCAL's own;
- labelImg truncates such edges to whole numbers; it writes a `<path>` and the database `Unknown`;
- so does Label Studio; it writes the database `MyDatabase` and the annotation `COCO2017`.

CVAT writes a turned box with the angle as an attribute `rotation`, clockwise in degrees; the corners are
those before the turn.
"""

import re
from dataclasses import dataclass
from typing import Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from unispector.data.sources.fields import to_name, to_number, to_size
from unispector.data.sources.outlines import flat, turned_box
from unispector.data.sources.rows import Box, Polygon
from unispector.data.sources.tree import ReleaseTree

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class BoxFile:
    """An annotation file that holds boxes."""

    size: tuple[int, int] | None  # width and height of the image in pixels; None = it states none
    # One per object, a polygon where it was turned; `defect` is the name as it is written, blanks trimmed.
    boxes: tuple[Box | Polygon, ...]


def read_voc(tree: ReleaseTree, name: str, *, own: bool) -> BoxFile:
    """Read an XML file; accounts for it.

    Pixels: x = xmin - 1, width = xmax - xmin + 1. Edges, looked for in `own` data only: x = xmin, width =
    xmax - xmin; there CVAT's turned boxes are polygons. Corners are sorted. `filename`, `difficult` and
    `truncated` are not looked at.

    Raises:
        DataError: it is absent, damaged, no XML or no VOC annotation, declares entities, or an object
            lacks a name or a finite corner.
    """
    try:
        root = fromstring(tree.read_text(name))
    except (ParseError, DefusedXmlException) as error:
        raise tree.error(name, f"not valid XML ({error}); restore the file") from error
    if root.tag != "annotation":
        raise tree.error(name, f"no Pascal VOC annotation, its root is <{root.tag}>; remove or replace it")
    try:
        size = to_size(root.findtext("size/width"), root.findtext("size/height"))
    except ValueError as error:
        raise tree.error(name, f"<size>: {error}; correct it") from error
    pixel = 0 if own and _has_edges(root) else 1
    objects = enumerate(root.findall("object"), start=1)
    boxes = tuple((item, _box(tree, name, number, item, pixel)) for number, item in objects)
    return BoxFile(size, tuple(_turned(item, box) if own else box for item, box in boxes))


def _has_edges(root: Any) -> bool:
    """Return whether corners are edges measured from 0, by the tool that wrote the file."""
    database = (root.findtext("source/database") or "").strip()
    if root.find("path") is not None and database == "Unknown":
        return True
    if database == "MyDatabase" and (root.findtext("source/annotation") or "").strip() == "COCO2017":
        return True
    corners = (item.findtext(f"bndbox/{side}") or "" for item in root.findall("object") for side in SIDES)
    return not database.startswith("The VOC") and any(
        re.fullmatch(r"\s*[+-]?\d+\s*", corner) is None for corner in corners
    )


def _box(tree: ReleaseTree, name: str, number: int, item: Any, pixel: int) -> Box:
    """An object's box; `pixel` is 1 where corners are pixels counted from 1, and 0 where they are edges."""
    written = item.findtext("name")
    try:
        defect, (x0, y0, x1, y1) = to_name(written), (_corner(item, side) for side in SIDES)
    except ValueError as error:
        raise tree.error(name, f"object {number} ({written!r}): {error}; correct it") from error
    (left, right), (top, bottom) = sorted((x0, x1)), sorted((y0, y1))
    return Box(defect, (left - pixel, top - pixel, right - left + pixel, bottom - top + pixel))


def _turned(item: Any, box: Box) -> Box | Polygon:
    """A box as CVAT turned it; an attribute of that name that is no number is another tool's."""
    for attribute in item.iterfind("attributes/attribute"):
        if (attribute.findtext("name") or "").strip() == "rotation":
            try:
                degrees = to_number(attribute.findtext("value"))
            except ValueError:
                continue
            if degrees % 360:
                x, y, w, h = box.xywh
                return Polygon(box.defect, (flat(turned_box((x, y, x + w, y + h), degrees)),))
    return box


def _corner(item: Any, side: str) -> float:
    try:
        return to_number(item.findtext(f"bndbox/{side}"))
    except ValueError as error:
        raise ValueError(f"{side}: {error}") from error
