"""COCO annotation files of a raw release: what is harmless may be missing, what counts must be right.

Annotation ids, areas and image sizes may be absent; boxes, polygons, codes and the references between
the three lists may not be wrong. Images listed more than once are united.

`iscrowd` means a region of many instances, which is left out and counted. CVAT sets it for every brush mask,
though each is one instance. A run-length code with `iscrowd` is one instance where its record has CVAT's
attribute `occluded`, or where the file has no other segmentation: COCO's own groups stand beside single
objects in polygons. An `iscrowd` without a run-length code is always a group. Where nothing but the lack of
other segmentations speaks for single instances, it is told.

CVAT writes a turned box as the box before the turn, with the angle as its attribute `rotation`.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeGuard

from unispector.data.sources import reasons
from unispector.data.sources.fields import IMAGE_SUFFIX, to_number
from unispector.data.sources.outlines import flat, turned_box
from unispector.data.sources.rows import Box, Code, Dropped, Entry, Mark, Polygon
from unispector.data.sources.tree import ReleaseTree
from unispector.names import is_text, name_problem

CROWD = "region of many instances (iscrowd)"
REPEATED = "mark listed twice"
NO_PLACE = "mark without box and segmentation"
TAKEN_FOR_ONE = "region with iscrowd taken for one instance, as the file has no other segmentation"
_LISTS = ("images", "annotations", "categories")


def is_coco(content: object) -> TypeGuard[dict[str, list[Any]]]:
    """Return whether a JSON file's content has the three lists of a COCO file."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _LISTS)


@dataclass
class _Image:
    """The entries of one image so far."""

    size: tuple[int, int] | None
    marks: list[Mark] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)
    times_listed: int = 0
    by_name: bool = False  # its path leads out of the release; an image of its name lies inside
    # The COCO file that listed it last, and the path there as it was meant.
    listed: tuple[str, str] | None = None
    taken_for_one: bool = False  # see `TAKEN_FOR_ONE`


class Listing:
    """The images of one or several COCO files, each with all that is marked on it."""

    def __init__(self, tree: ReleaseTree) -> None:
        self._tree = tree
        self._images: dict[str, _Image] = {}

    def __contains__(self, file_name: str) -> bool:
        return file_name in self._images

    def add(self, file: str, content: object, folders: Sequence[str]) -> None:
        """Take in one COCO file, by its name in the release and its JSON.

        Its images may lie in `folders`; a path is taken relative to the first in which there is such a file.
        A path that leaves the release or climbs to a folder it lacks, as those of a labelling server do, and
        an address stand for the only image of their name inside.

        Raises:
            DataError: it is no COCO file, a record of it is malformed, an id stands for two things, an
                annotation refers to what is not listed, a path leaves the release and its name is not that of
                one image inside, or two paths that differ lead to one image.
        """
        if not is_coco(content):
            raise self._tree.error(
                file, "no COCO file, which has lists of images, annotations and categories; export it again"
            )
        try:
            names = _named(content, "categories", "name")
            paths = _named(content, "images", "file_name")
            listed = {id_: self._listed(file, path, folders) for id_, path in paths.items()}
            for where, row in _objects(content, "images"):
                _enter(where, row, listed[row["id"]])
            crowds_only = _crowds_only(content)
            for where, row in _objects(content, "annotations"):
                _add_mark(where, row, listed, names, crowds_only=crowds_only)
        except ValueError as error:
            raise self._tree.error(file, f"{error}; correct it or export the file again") from error

    def rows(self, product: str) -> Iterator[Entry | Dropped]:
        """A row per image that can be used, and what is left out of it."""
        for file_name, image in self._images.items():
            if file_name not in self._tree:
                yield Dropped(reasons.ORPHAN, file_name, len(image.marks) + image.losses.total())
                continue
            if image.times_listed > 1:
                yield Dropped(reasons.DUPLICATE, file_name)
            if image.by_name:
                yield Dropped(reasons.BY_NAME, file_name)
            if image.taken_for_one:
                yield Dropped(TAKEN_FOR_ONE, file_name)
            for reason, count in image.losses.items():
                yield Dropped(reason, file_name, count)
            if image.marks:
                yield Entry(file_name, product, tuple(image.marks), image.size)
            elif not image.losses:
                yield Dropped(reasons.DEFECT_FREE, file_name)

    def _listed(self, file: str, path: str, folders: Sequence[str]) -> _Image:
        place, by_name = self._place(file, path, folders), None
        foreign = (".." in path or "://" in path) and (place or "").rpartition("/")[0] not in self._folders
        if place is None or foreign:
            by_name = self._of_its_name(file, path)
        image = self._images.setdefault(by_name or place or self._tree.below("", path, file), _Image(None))
        image.by_name |= by_name is not None
        meant = _meant(folders[0], path)
        if (
            image.listed is not None
            and image.listed[1] != meant
            and (image.by_name or image.listed[0] == file)
        ):
            told = (
                f"the paths {image.listed[1]!r} and {meant!r} of two images both lead to {by_name or place}"
            )
            raise self._tree.error(file, f"{told}; correct one, or restore the other image")
        image.listed = file, meant
        return image

    def _of_its_name(self, file: str, path: str) -> str | None:
        """The only image of the release that has the name of a path which leads elsewhere."""
        same = self._by_name.get(path.replace("\\", "/").rpartition("/")[2], [])
        if len(same) > 1:
            raise self._tree.error(
                file,
                f"the path {path!r} in it leads elsewhere, and may be {same[0]} or {same[1]}; correct it",
            )
        return same[0] if same else None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        named = defaultdict(list)
        for match in self._tree.matching(rf"(?:.*/)?([^/]+\.{IMAGE_SUFFIX})"):
            named[match[1]].append(match[0])
        return named

    @cached_property
    def _folders(self) -> set[str]:
        return {name.rpartition("/")[0] for name in self._tree.files}

    def _place(self, file: str, path: str, folders: Sequence[str]) -> str | None:
        """Where a path leads; None where that is outside of the release."""
        first = self._tree.inside(folders[0], path)
        if first is None or ".." in path or first in self._tree:  # what climbs is meant from the first folder
            return first
        places = (self._tree.below(folder, path, file) for folder in folders[1:])
        return next((place for place in places if place in self._tree), first)


def _meant(folder: str, path: str) -> str:
    """A path as it was meant, wherever it leads, in one spelling."""
    slashed = path.replace("\\", "/")
    foreign = "://" in slashed or re.match("[A-Za-z]:", slashed)
    return slashed if foreign else posixpath.normpath(posixpath.join(folder.strip("/"), slashed))


def _objects(content: dict[str, list[Any]], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The records of one of the lists, each with what to call it in a message."""
    for position, row in enumerate(content[key]):
        where = f"{key}[{position}]"
        if not isinstance(row, dict):
            raise ValueError(f"{where} is no object")
        yield where, row


def _named(content: dict[str, list[Any]], key: str, name: str) -> dict[Hashable, str]:
    """Id -> name of one of the lists."""
    named: dict[Hashable, str] = {}
    for where, row in _objects(content, key):
        id_, text = _reference(where, row, "id"), row.get(name)
        if not isinstance(text, str) or not text.strip() or not is_text(text):
            raise ValueError(f"{where}: {name} {text!r} is no text")
        if key == "categories" and (problem := name_problem(text.strip())):
            raise ValueError(f"{where}: {name} {text[:80]!r} {problem}")
        if named.setdefault(id_, text.strip()) != text.strip():
            raise ValueError(f"{where}: the id {id_!r} stands for {named[id_]!r} already")
    return named


def _reference(where: str, row: Mapping[str, Any], key: str) -> Hashable:
    value = row.get(key)
    if not isinstance(value, int | float | str):
        raise ValueError(f"{where}: {key} {value!r} is no id")
    return value


def _enter(where: str, row: Mapping[str, Any], image: _Image) -> None:
    image.times_listed += 1
    width, height = row.get("width"), row.get("height")
    if not width and not height:
        return
    if not isinstance(width, int) or not isinstance(height, int):
        raise ValueError(f"{where}: width {width!r} and height {height!r} are no whole numbers")
    if image.size not in (None, (width, height)):
        raise ValueError(f"{where}: {row['file_name']!r} is listed with another width or height before")
    image.size = (width, height)


def _crowds_only(content: dict[str, list[Any]]) -> bool:
    """Return whether all segmentations of a file are run-length codes with `iscrowd`."""
    segmented = [row for _, row in _objects(content, "annotations") if row.get("segmentation")]
    return all(row.get("iscrowd") and isinstance(row["segmentation"], dict) for row in segmented)


def _is_cvats(row: Mapping[str, Any]) -> bool:
    attributes = row.get("attributes")
    return isinstance(attributes, dict) and "occluded" in attributes


def _add_mark(
    where: str,
    row: Mapping[str, Any],
    images: Mapping[Hashable, _Image],
    categories: Mapping[Hashable, str],
    *,
    crowds_only: bool,
) -> None:
    """Enter an annotation; `crowds_only` as of `_crowds_only`."""
    image_id, category_id = _reference(where, row, "image_id"), _reference(where, row, "category_id")
    if image_id not in images:
        raise ValueError(f"{where}: there is no image with the id {image_id!r}")
    if category_id not in categories:
        raise ValueError(f"{where}: there is no category with the id {category_id!r}")
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"{where}: iscrowd {crowd!r} is neither 0 nor 1")
    image, mark = images[image_id], _mark(where, row, categories[category_id])
    is_single = isinstance(mark, Code) and (crowds_only or _is_cvats(row))
    if crowd and not is_single:
        image.losses[CROWD] += 1
    elif not row.get("segmentation") and row.get("bbox") in (None, []):
        image.losses[NO_PLACE] += 1
    elif mark is None:
        image.losses[reasons.NOT_A_REGION] += 1
    elif mark in image.marks:
        image.losses[REPEATED] += 1
    else:
        image.marks.append(mark)
        image.taken_for_one |= bool(crowd) and not _is_cvats(row)


def _mark(where: str, row: Mapping[str, Any], defect: str) -> Mark | None:
    """The instance; None if it has no place or is a point or a line, which marks no region."""
    segmentation = row.get("segmentation")
    if isinstance(segmentation, dict) and segmentation:
        if not _are_counts(segmentation.get("counts")):
            raise ValueError(f"{where}: counts of its segmentation are no run-length code")
        return Code(defect, segmentation)
    if not isinstance(segmentation, list | None):
        raise ValueError(f"{where}: segmentation is neither a list of polygons nor a run-length code")
    parts = [_numbers(where, "a polygon", part) for part in segmentation or () if part != []]
    if any(len(part) % 2 for part in parts):
        raise ValueError(f"{where}: a polygon has an x without its y")
    if parts:
        regions = tuple(part for part in parts if len(part) >= 6)
        return Polygon(defect, regions) if regions else None
    if row.get("bbox") in (None, []):
        return None
    box = _numbers(where, "bbox", row.get("bbox"))
    if len(box) != 4 or min(box[2:]) < 0:
        raise ValueError(f"{where}: bbox {list(box)} is not x, y, width, height")
    left, top, width, height = box
    attributes = row.get("attributes")
    degrees = attributes.get("rotation") if isinstance(attributes, dict) else None
    if isinstance(degrees, int | float) and not isinstance(degrees, bool) and to_number(degrees) % 360:
        return Polygon(defect, (flat(turned_box((left, top, left + width, top + height), degrees)),))
    return Box(defect, (left, top, width, height))


def _are_counts(counts: object) -> bool:
    """Return whether it is text or whole numbers; whether they make up a mask is seen where it is decoded."""
    if isinstance(counts, list):
        return all(isinstance(count, int) for count in counts)
    return isinstance(counts, str) and counts.isascii()


def _numbers(where: str, what: str, values: object) -> tuple[float, ...]:
    """Finite numbers; comparing also refuses NaN and what is too large for a float."""
    if not isinstance(values, list) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and -1e12 < value < 1e12
        for value in values
    ):
        raise ValueError(f"{where}: {what} is no list of numbers")
    return tuple(float(value) for value in values)
