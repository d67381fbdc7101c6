"""A user's own set as CVAT exports it: "CVAT for images 1.1", an XML file beside a folder of images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from unispector.data.sources import reasons
from unispector.data.sources.fields import other_size, to_name, to_number, to_size
from unispector.data.sources.named_images import NamedImages
from unispector.data.sources.outlines import Point, ellipse, flat, turned_box
from unispector.data.sources.rows import Box, Code, Dropped, Entry, Polygon
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree
from unispector.names import is_text
from unispector.ops.rle import encode_crop
from unispector.ops.tool_rle import decode_mask_runs

OUTSIDE = "mark that has left the image (outside)"
EMPTY = "mask that marks nothing"
_REGIONS = ("box", "polygon", "ellipse", "mask")
_NO_REGIONS = ("polyline", "points", "cuboid", "skeleton")

Region = Box | Polygon | Code


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    images = NamedImages(tree)
    for match in tree.matching(r".+\.(?i:xml)"):
        file = match[0]
        try:
            root = fromstring(tree.read_text(file))
        except (ParseError, DefusedXmlException) as error:
            raise tree.error(file, f"not valid XML ({error}); restore the file") from error
        if root.tag != "annotations":
            raise tree.error(file, f"no CVAT annotation, its root is <{root.tag}>; remove or replace it")
        if root.find("track") is not None:
            raise tree.error(
                file,
                "has tracks of a video; export the task as 'CVAT for images 1.1', which has single images",
            )
        for number, item in enumerate(root.findall("image"), start=1):
            try:
                yield from _image_rows(images, file, item)
            except (TypeError, ValueError) as error:
                told = f"image {number} ({item.get('name')!r})"
                raise tree.error(file, f"{told}: {error}; correct it or export the task again") from error
    yield from (Dropped(reasons.NO_ANNOTATION, image) for image in images.not_annotated())


def _image_rows(images: NamedImages, file: str, item: Any) -> Iterator[Entry | Dropped]:
    name = (item.get("name") or "").replace("\\", "/").strip("/")
    if not name or not is_text(name):
        raise ValueError("its name is no text")
    shapes = [shape for shape in item if shape.tag in (*_REGIONS, *_NO_REGIONS)]
    image = images.find(name, file, least=len(name.split("/")))
    if image is None:
        yield Dropped(reasons.ORPHAN, name, len(shapes))
        return
    images.annotate(image, f"image {item.get('id')}", file)
    size = to_size(item.get("width"), item.get("height"))
    if size and any(shape.tag == "mask" for shape in shapes):  # before a mask of that size is made
        own = images.size(image)
        if own != size:
            raise ValueError(f"{image} is {other_size(own, 'its masks are of', size)}")
    marks: list[Region] = []
    losses = Counter[str]()
    for shape in shapes:
        mark = _region(shape, size)
        if isinstance(mark, str):
            losses[mark] += 1
        else:
            marks.append(mark)
    for reason, count in losses.items():
        yield Dropped(reason, image, count)
    if marks:
        yield Entry(image, "", tuple(marks), size)
    elif not losses:
        yield Dropped(reasons.DEFECT_FREE, image)


def _region(shape: Any, size: tuple[int, int] | None) -> Region | str:
    """A shape's region, or why it has none."""
    if shape.tag in _NO_REGIONS:
        return f"{reasons.NOT_A_REGION}: {shape.tag}"
    if shape.get("outside") == "1":
        return OUTSIDE
    defect = to_name(shape.get("label"))
    if shape.tag == "mask":
        return _painted(defect, shape, size)
    degrees = to_number(shape.get("rotation") or 0)
    if shape.tag == "box":
        return _box(defect, [to_number(shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")], degrees)
    if shape.tag == "ellipse":
        x, y, across, down = (to_number(shape.get(key)) for key in ("cx", "cy", "rx", "ry"))
        return Polygon(defect, (flat(ellipse((x, y), (across, down), degrees)),))
    corners = [_point(pair) for pair in (shape.get("points") or "").split(";")]
    if len(corners) < 3:
        raise ValueError(f"{defect!r} is a polygon of {len(corners)} points")
    return Polygon(defect, (flat(corners),))


def _point(pair: str) -> Point:
    x, _, y = pair.partition(",")
    return to_number(x), to_number(y)


def _box(defect: str, sides: Sequence[float], degrees: float) -> Box | Polygon:
    """A box; one that was turned, around its centre, is a polygon."""
    left, top, right, bottom = sides
    if right < left or bottom < top:
        raise ValueError(f"the box of {defect!r} ends before it begins")
    if not degrees:
        return Box(defect, (left, top, right - left, bottom - top))
    return Polygon(defect, (flat(turned_box(sides, degrees)),))


def _painted(defect: str, shape: Any, size: tuple[int, int] | None) -> Code | str:
    """A mask: runs along the rows of its window in the image."""
    if size is None:
        raise ValueError("it has a mask, but no width and height")
    place = [to_number(shape.get(key)) for key in ("left", "top", "width", "height")]
    if any(not value.is_integer() for value in place):
        raise ValueError(f"the mask of {defect!r} lies between pixels")
    left, top, width, height = map(int, place)
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f"the mask of {defect!r} leaves the image")
    runs = [int(run) for run in (shape.get("rle") or "").split(",")]
    crop = decode_mask_runs(runs, height, width)
    return Code(defect, encode_crop(crop, left, top, size[1], size[0])) if crop.any() else EMPTY


CVAT = Source(
    title="CVAT",
    layout="annotations.xml of 'CVAT for images 1.1', and its images in any folders under their names",
    published="your own data, exported by CVAT as 'CVAT for images 1.1'",
    rows=_rows,
    drops_small=False,
)
