"""A user's own set as Label Studio exports it: JSON with the tasks, and the images in any folders.

Of a task's annotations the latest counts that was not cancelled; predictions are no annotations.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from unispector.data.sources import reasons
from unispector.data.sources.fields import IMAGE_SUFFIX, other_size, to_name, to_number, to_size
from unispector.data.sources.named_images import NamedImages
from unispector.data.sources.outlines import Point, ellipse, flat, turned
from unispector.data.sources.rows import Box, Code, Dropped, Entry, Polygon
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree
from unispector.names import is_text
from unispector.ops.files import read_image_size
from unispector.ops.rle import encode_rle
from unispector.ops.tool_rle import decode_brush

NOT_AN_EXPORT = "JSON that is no Label Studio export"
CANCELLED = "annotation that was cancelled"
EARLIER = "annotation with a later one of the same task"
PREDICTION = "prediction, which nobody has accepted"
NO_LABEL = "mark without a class"
TURNED_VIEW = "mark drawn on a turned view of the image"

_SHAPES = ("rectangle", "polygon", "brush", "ellipse")
_LABELLED = tuple(f"{shape}labels" for shape in _SHAPES)
_NO_REGIONS = ("keypoint", "keypointlabels", "vector", "vectorlabels", "videorectangle")
_UPLOADS = re.compile(
    r"(?:.*/)?(?:data|media)/upload/.*"
)  # the server's own folder, of which a user's files know nothing
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")

Region = Box | Polygon | Code


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    images = NamedImages(tree)
    for match in tree.matching(r".+\.(?i:json)"):
        file = match[0]
        content = tree.read_json(file)
        if not isinstance(content, list):
            yield Dropped(NOT_AN_EXPORT, file)
            continue
        for number, task in enumerate(content, start=1):
            yield from _task_rows(tree, images, file, number, task)
    yield from (Dropped(reasons.NO_ANNOTATION, image) for image in images.not_annotated())


def _task_rows(
    tree: ReleaseTree, images: NamedImages, file: str, number: int, task: object
) -> Iterator[Entry | Dropped]:
    try:
        path = image_path(_image_of(task))
        told = _Told(task)
    except ValueError as error:
        raise tree.error(file, f"task {number} {error}") from error
    name = path.rpartition("/")[2]
    image = images.find(path, file, least=1)
    if image is None and _UPLOAD_PREFIX.match(name):  # uploads get one, the user's own files have none
        image = images.find(_UPLOAD_PREFIX.sub("", name), file, least=1)
    for reason, count in told.losses.items():
        yield Dropped(reason, image or path, count)
    if image is None:
        yield Dropped(reasons.ORPHAN, path, sum(map(_is_region, told.result)))
        return
    images.annotate(image, f"task {number}", file)
    if not _UPLOADS.fullmatch(path) and not _agree(path, image):
        yield Dropped(reasons.BY_NAME, image)
    try:
        yield from _image_rows(tree, image, told.result, annotated=told.annotated)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise tree.error(
            file, f"task {number} is not as Label Studio writes it ({error}); export it again"
        ) from error


def _agree(path: str, image: str) -> bool:
    """Return whether one of two paths is the end of the other."""
    return f"/{path}".endswith(f"/{image}") or f"/{image}".endswith(f"/{path}")


def _image_of(task: object) -> str:
    """What a task calls its image: `data.image`, or the only text that ends like the name of one."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise ValueError("has no `data`; export the project as JSON, not as JSON-MIN")
    data = task["data"]
    if isinstance(data.get("image"), str):
        return str(data["image"])
    ends = re.compile(rf".+\.{IMAGE_SUFFIX}(?:[?#].*)?", re.DOTALL)
    texts = [value for value in data.values() if isinstance(value, str) and ends.fullmatch(value)]
    if len(texts) != 1:
        raise ValueError(f"has {len(texts)} images in `data`; export a project of one image a task")
    return texts[0]


def image_path(address: str) -> str:
    """The path of an image in Label Studio's address of it, without what its server adds.

    `/data/local-files/?d=a/b.png` is `a/b.png`, `s3://bucket/a/b.png` is `a/b.png`, `/data/upload/1/b.png` is
    `data/upload/1/b.png`.

    Raises:
        ValueError: there is none; ends with the remedy.
    """
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError as error:
        raise ValueError(f"has an image of the address {address!r} ({error}); correct it") from error
    inner = parse_qs(parts.query).get("d", [""])[0]
    path = inner.replace("\\", "/") or unquote(parts.path)
    path = "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
    if not path or not is_text(path):
        raise ValueError(f"has an image of the address {address!r}, which names no file; correct it")
    return path


class _Told:
    """What a task tells: `result` counts, `losses` are marks that do not.

    Raises:
        ValueError: its lists are none; ends with the remedy.
    """

    def __init__(self, task: Any) -> None:
        annotations = _dicts(task, "annotations")
        counted = [each for each in annotations if not each.get("was_cancelled")]
        counted.sort(key=_when)
        self.losses: Counter[str] = Counter()
        for reason, lost in (
            (CANCELLED, [each for each in annotations if each.get("was_cancelled")]),
            (EARLIER, counted[:-1]),
            (PREDICTION, _dicts(task, "predictions")),
        ):
            if lost:
                self.losses[reason] = sum(
                    _is_region(mark) for each in lost for mark in _dicts(each, "result")
                )
        self.annotated = bool(counted)
        self.result = _dicts(counted[-1], "result") if counted else []


def _dicts(record: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = record.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"has `{key}` that are no list of records; export the project as JSON")
    return found


def _when(annotation: dict[str, Any]) -> tuple[str, float]:
    """Sorts annotations by time; all of an export are of one time zone."""
    time = annotation.get("updated_at") or annotation.get("created_at") or ""
    number = annotation.get("id")
    return str(time), float(number) if isinstance(number, int) else 0.0


def _is_region(mark: dict[str, Any]) -> bool:
    """Return whether a record of a result is a mark; others are choices, texts, relations or labels."""
    return mark.get("type") in (*_SHAPES, *_LABELLED, *_NO_REGIONS)


def _image_rows(
    tree: ReleaseTree, image: str, result: list[dict[str, Any]], *, annotated: bool
) -> Iterator[Entry | Dropped]:
    # With <Rectangle> and <Labels> apart, a mark and its labels are two records of one id.
    labels = {mark.get("id"): mark["value"]["labels"] for mark in result if mark.get("type") == "labels"}
    marks: list[Region] = []
    sizes, losses = set(), Counter[str]()
    for record in filter(_is_region, result):
        kind, value = record["type"], record["value"]
        names = value.get(kind) or labels.get(record.get("id"))
        if names and not isinstance(names, list):
            raise ValueError("the labels of a mark are no list")
        size = to_size(record.get("original_width"), record.get("original_height"))
        if kind in _NO_REGIONS:
            losses[f"{reasons.NOT_A_REGION}: {kind}"] += 1
        elif not names:
            losses[NO_LABEL] += 1
        elif record.get("image_rotation"):
            losses[TURNED_VIEW] += 1
        else:
            sizes.add(_checked_size(tree, image, size, brush=kind.startswith("brush")))
            marks += [_mark(to_name(name), kind.removesuffix("labels"), value, size) for name in names]
    if len(sizes) > 1:
        raise ValueError("its marks state different sizes of the image")
    for reason, count in losses.items():
        yield Dropped(reason, image, count)
    if marks:
        yield Entry(image, "", tuple(marks), sizes.pop())
    elif not losses:
        yield Dropped(reasons.DEFECT_FREE if annotated else reasons.NO_ANNOTATION, image)


def _checked_size(
    tree: ReleaseTree, image: str, size: tuple[int, int] | None, *, brush: bool
) -> tuple[int, int]:
    """The stated size; that of a brush is compared with the image before a mask of it is made."""
    if size is None:
        raise ValueError("a mark lacks original_width or original_height")
    if brush and (own := read_image_size(tree.root / image)) != size:
        raise ValueError(f"{image} is {other_size(own, 'its brush is of', size)}")
    return size


def _mark(defect: str, shape: str, value: dict[str, Any], size: tuple[int, int] | None) -> Region:
    """A mark's region; its numbers are per cent of the image's width and height."""
    width, height = size or (0, 0)

    def to_point(x: object, y: object) -> Point:
        return to_number(x) * width / 100, to_number(y) * height / 100

    if shape == "brush":
        if value.get("format", "rle") != "rle":
            raise ValueError(f"a brush of the format {value['format']!r}")
        return Code(defect, encode_rle(decode_brush(value["rle"], height, width)[None])[0])
    if shape == "polygon":
        corners = [to_point(x, y) for x, y in value["points"]]
        if len(corners) < 3:
            raise ValueError(f"{defect!r} is a polygon of {len(corners)} points")
        return Polygon(defect, (flat(corners),))
    degrees, first = to_number(value.get("rotation") or 0), to_point(value["x"], value["y"])
    if shape == "ellipse":
        return Polygon(defect, (flat(ellipse(first, to_point(value["radiusX"], value["radiusY"]), degrees)),))
    w, h = to_point(value["width"], value["height"])
    if not degrees:
        return Box(defect, (*first, w, h))
    left, top = first
    corners = [first, (left + w, top), (left + w, top + h), (left, top + h)]
    return Polygon(defect, (flat(turned(corners, first, degrees)),))


LABEL_STUDIO = Source(
    title="Label Studio",
    layout="the project exported as JSON, and its images in any folders, named as there or as before upload",
    published="your own data, exported by Label Studio as JSON (not JSON-MIN)",
    rows=_rows,
    drops_small=False,
)
