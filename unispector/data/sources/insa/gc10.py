"""GC10-DET: boxes on images of steel sheet, in any of the three ways it is packed.

- folders `1` to `10` of images, their VOC files in `lable`;
- the same under `images/<class>` and `label`;
- Supervisely: `ds/img`, with `ds/ann/<image's name>.json` (corners are pixels from 0, both in the box).

The folder of an image says nothing: images show several defects, and some lie in two folders. An image
and its annotation are known by their stem. Boxes are kept at any size (paper appendix 1.1 filters none).
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from unispector.data.sources import reasons
from unispector.data.sources.fields import to_name, to_number, to_size
from unispector.data.sources.rows import Box, Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree
from unispector.data.sources.voc_xml import BoxFile, read_voc

PRODUCT = "gc10"
_NAMES = "punching_hole welding_line crescent_gap water_spot oil_spot silk_spot inclusion rolled_pit crease"
DEFECTS = (*_NAMES.split(), "waist_folding")
IMAGE = r"(?:.*/)?(?:10|[1-9]|images/[^/]+|ds0?/img)/([^/]+)\.(?i:jpe?g)"
VOC_FILE = r"(?:.*/)?(?:lable|label)/([^/]+)\.(?i:xml)"
SUPERVISELY_FILE = r"(?:.*/)?ds0?/ann/([^/]+)\.(?i:jpe?g)\.json"


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    for match in tree.matching(r"(?:.*/)?meta\.json"):
        tree.account_for(match[0])
    annotations = _annotations(tree)
    stems = set()
    for match in tree.matching(IMAGE):
        image, stem = match[0], match[1]
        if stem in stems:
            yield Dropped(reasons.DUPLICATE, image)
        elif stem not in annotations:
            yield Dropped(reasons.NO_ANNOTATION, image)
        else:
            yield from _image_rows(image, _read(tree, annotations[stem]))
        stems.add(stem)
    for stem, name in annotations.items():
        if stem not in stems:
            yield Dropped(reasons.ORPHAN, name, len(_read(tree, name).boxes))


def _annotations(tree: ReleaseTree) -> dict[str, str]:
    """Stem of the image -> annotation file."""
    found: dict[str, str] = {}
    for pattern in (VOC_FILE, SUPERVISELY_FILE):
        for match in tree.matching(pattern):
            other = found.setdefault(match[1], match[0])
            if other != match[0]:
                raise tree.error(match[0], f"annotates the same image as {other}; remove one of the two")
    return found


def _image_rows(image: str, content: BoxFile) -> Iterator[Entry | Dropped]:
    marks, unknown = [], Counter[str]()
    for box in content.boxes:
        defect = _defect(box.defect)
        if defect is None:
            unknown[box.defect] += 1
        else:
            marks.append(replace(box, defect=defect))
    for name, count in unknown.items():
        yield Dropped(f"{reasons.UNKNOWN_CLASS}: {name}", image, count)
    if marks:
        yield Entry(image, PRODUCT, tuple(marks), content.size)
    elif not unknown:
        yield Dropped(reasons.DEFECT_FREE, image)


def _defect(written: str) -> str | None:
    """Defect of an object's name: `10_yaozhe`, with or without typos after the number, or English."""
    numbered = re.match(r"(10|[1-9])_", written)
    if numbered:
        return DEFECTS[int(numbered[1]) - 1]
    name = written.lower().replace(" ", "_")
    return name if name in DEFECTS else None


def _read(tree: ReleaseTree, name: str) -> BoxFile:
    return _read_supervisely(tree, name) if name.endswith(".json") else read_voc(tree, name, own=False)


def _read_supervisely(tree: ReleaseTree, name: str) -> BoxFile:
    content = tree.read_json(name)
    try:
        size, objects = content["size"], list(content["objects"])
        stated = to_size(size["width"], size["height"])
    except (KeyError, TypeError, ValueError) as error:
        raise tree.error(name, "no Supervisely annotation with `size` and `objects`; restore it") from error
    return BoxFile(stated, tuple(_box(tree, name, number, item) for number, item in enumerate(objects, 1)))


def _box(tree: ReleaseTree, name: str, number: int, item: Any) -> Box:
    try:
        if item["geometryType"] != "rectangle":
            raise ValueError(f"it is a {item['geometryType']!r}, GC10-DET has rectangles only")
        corners = [(to_number(x), to_number(y)) for x, y in item["points"]["exterior"]]
        if len(corners) != 2:
            raise ValueError(f"a rectangle of {len(corners)} corners instead of 2")
        # The schema leaves open which of the corners comes first.
        left, right = min(x for x, _ in corners), max(x for x, _ in corners)
        top, bottom = min(y for _, y in corners), max(y for _, y in corners)
        return Box(to_name(item["classTitle"]), (left, top, right - left + 1, bottom - top + 1))
    except KeyError as error:
        raise tree.error(name, f"object {number}: no {error}; restore the file") from error
    except (TypeError, ValueError) as error:
        raise tree.error(name, f"object {number}: {error}; correct it") from error


GC10 = Source(
    title="GC10-DET",
    layout=(
        "folders 1 to 10 of .jpg and lable/*.xml, or images/<class>/*.jpg and label/*.xml, "
        "or ds/img/*.jpg and ds/ann/*.jpg.json"
    ),
    published="Kaggle alex000kim/gc10det, or Dataset Ninja's gc10-det; CC BY 4.0 according to Dataset Ninja",
    rows=_rows,
    insa_name="GC10",
    domain="in",
    categories=frozenset(f"{PRODUCT}_{defect}" for defect in DEFECTS),
    drops_small=False,
)
