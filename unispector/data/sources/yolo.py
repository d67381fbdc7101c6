"""A user's own YOLO set: `images/**` with `labels/**.txt` parallel to it, or labels beside images.

Rows are `class cx cy w h` or `class x1 y1 x2 y2 ...`, in shares of the image's width and height, so the
size of every marked image is read, from its header.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from unispector.config.yaml_text import read_yaml
from unispector.data.sources import reasons
from unispector.data.sources.fields import IMAGE_SUFFIX, to_name, to_number
from unispector.data.sources.rows import Box, Dropped, Entry, Polygon
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree
from unispector.errors import DataError
from unispector.ops.files import read_image_size

TOLERANCE = 0.01  # what exporters round or let stick out


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    names = _class_names(tree)
    labels: dict[str, str] = {}
    for match in tree.matching(rf"(.+)\.{IMAGE_SUFFIX}"):
        image = match[0]
        label = next((name for name in _label_names(match[1]) if name in tree), None)
        if label is None:
            yield Dropped(reasons.NO_ANNOTATION, image)
            continue
        other = labels.setdefault(label, image)
        if other != image:
            raise tree.error(image, f"shares {label} with {other}; rename one of the images")
        rows = _label_rows(tree, label)
        if rows:
            size = read_image_size(tree.root / image)
            yield Entry(image, "", tuple(_marks(tree, label, rows, size, names)))
        else:
            yield Dropped(reasons.DEFECT_FREE, image)
    for match in tree.matching(r"(?:.*/)?labels/(?:.*/)?(?!classes\.txt)[^/]+\.txt"):
        if match[0] not in labels:
            yield Dropped(reasons.ORPHAN, match[0], len(_label_rows(tree, match[0])))


def _label_names(stem: str) -> Iterator[str]:
    """List an image's possible label files: the last folder `images` swapped for `labels`, or beside it."""
    before, images, after = f"/{stem}".rpartition("/images/")
    if images:
        yield f"{before}/labels/{after}.txt"[1:]
    yield f"{stem}.txt"


def _label_rows(tree: ReleaseTree, label: str) -> dict[int, list[str]]:
    """Line number -> fields of the lines that are not blank."""
    lines = enumerate(_lines(tree.read_text(label)), start=1)
    return {number: line.split() for number, line in lines if line.strip()}


def _lines(text: str) -> list[str]:
    """The lines that every tool sees; `splitlines` also cuts where a name has an odd character."""
    return re.split(r"\r\n?|\n", text)


def _marks(
    tree: ReleaseTree,
    label: str,
    rows: dict[int, list[str]],
    size: tuple[int, int],
    names: Mapping[float, str],
) -> Iterator[Box | Polygon]:
    for number, fields in rows.items():
        try:
            yield _mark([to_number(field) for field in fields], size, names)
        except ValueError as error:
            raise tree.error(label, f"line {number}: {error}; correct it") from error


def _mark(numbers: list[float], size: tuple[int, int], names: Mapping[float, str]) -> Box | Polygon:
    width, height = size
    defect, values = names.get(numbers[0]), numbers[1:]
    if defect is None:
        raise ValueError(f"class {numbers[0]:g} has no name in data.yaml or classes.txt")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"{len(values)} numbers after the class are neither a box nor a polygon")
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in values):
        raise ValueError("coordinates must be shares of the image, 0 to 1")
    if len(values) == 4:
        x, y, w, h = values
        return Box(defect, ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height))
    return Polygon(defect, (tuple(value * size[i % 2] for i, value in enumerate(values)),))


def _class_names(tree: ReleaseTree) -> Mapping[float, str]:
    """Class id -> name; the keys compare with the numbers of a row."""
    found: dict[str, dict[float, str]] = {}
    for match in tree.matching(r"(?:.*/)?data\.ya?ml"):
        found[match[0]] = _names_of_yaml(tree, match[0])
    for match in tree.matching(r"(?:.*/)?classes\.txt"):
        lines = _lines(tree.read_text(match[0]).rstrip(" \t\r\n"))
        found[match[0]] = _checked_names(tree, match[0], dict(enumerate(lines)))
    if not found:
        raise DataError(f"{tree.root}: neither data.yaml nor classes.txt; add one with the names of classes")
    (first, names), *others = found.items()
    for file, other in others:
        if other != names:
            raise tree.error(
                file, f"its class names differ from those in {first}; keep the file that is right"
            )
    return names


def _names_of_yaml(tree: ReleaseTree, file: str) -> dict[float, str]:
    try:
        content = read_yaml(tree.read_text(file))
    except ValueError as error:
        raise tree.error(file, f"not valid YAML ({error}); correct it") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise tree.error(file, "no `names` of classes; add them as a list, or as id: name")
    if "kpt_shape" in content:
        raise tree.error(file, "its labels are keypoints; export boxes or polygons")
    return _checked_names(tree, file, names)


def _checked_names(tree: ReleaseTree, file: str, names: Mapping[Any, Any]) -> dict[float, str]:
    checked: dict[float, str] = {}
    for id_, written in names.items():
        try:
            # YAML reads a class called 7 as a number, which its text tells; one called `no` is lost.
            is_number = isinstance(written, int | float) and not isinstance(written, bool)
            checked[to_number(id_)] = to_name(str(written) if is_number else written)
        except ValueError as error:
            remedy = "correct it" if isinstance(written, str) else "put names in quotes"
            raise tree.error(file, f"class {id_}: {error}; {remedy}") from error
    if len(checked) < len(names):
        raise tree.error(file, "two ids are one number, written differently; remove one")
    if len(set(checked.values())) < len(names):
        raise tree.error(file, "two classes share a name; rename one")
    return checked


YOLO = Source(
    title="YOLO",
    layout="data.yaml or classes.txt, images/**, and labels/**.txt parallel to them or beside the images",
    published="your own data, as Ultralytics reads it and CVAT, Label Studio and others write it",
    rows=_rows,
    drops_small=False,
)
