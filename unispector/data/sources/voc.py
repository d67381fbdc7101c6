"""A user's own Pascal VOC set: images and .xml files of the same stem, in any folders."""

from collections import defaultdict
from collections.abc import Iterator

from unispector.data.sources import reasons
from unispector.data.sources.fields import IMAGE_SUFFIX
from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree
from unispector.data.sources.voc_xml import read_voc

# VOC keeps masks of the same stems in SegmentationClass and SegmentationObject.
IMAGE = rf"(?!(?:.*/)?Segmentation\w*/)(?:.*/)?([^/]+)\.{IMAGE_SUFFIX}"


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    images = defaultdict(list)
    for match in tree.matching(IMAGE):
        images[match[1]].append(match[0])
    annotated: dict[str, str] = {}
    for match in tree.matching(r"(?:.*/)?([^/]+)\.(?i:xml)"):
        name = match[0]
        content = read_voc(tree, name, own=True)
        image = _image_of(tree, name, images.get(match[1], []))
        if image is None:
            yield Dropped(reasons.ORPHAN, name, len(content.boxes))
            continue
        other = annotated.setdefault(image, name)
        if other != name:
            raise tree.error(name, f"annotates {image}, as does {other}; remove one of the two")
        if content.boxes:
            yield Entry(image, "", content.boxes, content.size)
        else:
            yield Dropped(reasons.DEFECT_FREE, image)
    for same_stem in images.values():
        yield from (Dropped(reasons.NO_ANNOTATION, image) for image in same_stem if image not in annotated)


def _image_of(tree: ReleaseTree, name: str, images: list[str]) -> str | None:
    """The nearest of the images that share an annotation's stem; None where there are none."""
    ranked = sorted(images, key=lambda image: _nearness(name, image), reverse=True)
    if len(ranked) > 1 and _nearness(name, ranked[0]) == _nearness(name, ranked[1]):
        raise tree.error(name, f"may belong to {ranked[0]} or {ranked[1]}; rename one pair of files")
    return ranked[0] if ranked else None


def _nearness(name: str, image: str) -> tuple[int, int]:
    """Folder names that two files share, counted from either end; then how few they do not share."""
    ours, theirs = name.split("/")[:-1], image.split("/")[:-1]
    shared = _common(ours, theirs) + _common(ours[::-1], theirs[::-1])
    return shared, -len(ours) - len(theirs)


def _common(ours: list[str], theirs: list[str]) -> int:
    """Length of the common beginning."""
    length = min(len(ours), len(theirs))
    return next((i for i in range(length) if ours[i] != theirs[i]), length)


VOC = Source(
    title="Pascal VOC",
    layout="images and .xml files of the same stem, in one folder or in two as JPEGImages and Annotations; "
    "whole numbers count pixels from 1, decimals, labelImg's and Label Studio's are edges from 0",
    published="your own data, as labelImg, CVAT, Datumaro and others write it",
    rows=_rows,
    drops_small=False,
)
