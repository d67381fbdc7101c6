"""Pascal VOC's annotation file: `annotation/{size,object*{name,bndbox}}`, parsed safely."""

from dataclasses import dataclass
from typing import Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from unispector.data.sources.fields import to_name, to_number, to_size
from unispector.data.sources.rows import Box
from unispector.data.sources.tree import ReleaseTree

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class BoxFile:
    """An annotation file that holds boxes."""

    size: tuple[int, int] | None  # width and height of the image in pixels; None = it states none
    boxes: tuple[Box, ...]  # one per object; `defect` is the name as it is written, blanks trimmed


def read_voc(tree: ReleaseTree, name: str) -> BoxFile:
    """Read an XML file; accounts for it.

    Corners count pixels from 1 and both belong to the box: x = xmin - 1, width = xmax - xmin + 1.
    `filename`, `path`, `difficult` and `truncated` are not looked at.

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
    objects = enumerate(root.findall("object"), start=1)
    return BoxFile(size, tuple(_box(tree, name, number, item) for number, item in objects))


def _box(tree: ReleaseTree, name: str, number: int, item: Any) -> Box:
    written = item.findtext("name")
    try:
        left, top, right, bottom = (to_number(item.findtext(f"bndbox/{side}")) for side in SIDES)
        return Box(to_name(written), (left - 1, top - 1, right - left + 1, bottom - top + 1))
    except ValueError as error:
        raise tree.error(name, f"object {number} ({written!r}): {error}; correct it") from error
