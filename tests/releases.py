"""Raw releases as tests write them, and what a conversion makes of one."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from unispector.data.coco import Annotations, InstanceRecord
from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources import SOURCES, Source
from unispector.errors import DataError

Box = tuple[float, float, float, float]
Components = list[tuple[str, Box, float]]


def put(path: Path, content: Any) -> Path:
    """Write pixels, bytes, text or, of anything else, JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def put_image(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    """Write a grey image of a size (w, h)."""
    return put(path, np.full((size[1], size[0], 3), 120, np.uint8))


def filled(*places: tuple[slice, slice], size: tuple[int, int] = (60, 40)) -> npt.NDArray[np.bool_]:
    """[h, w] mask of these rows and columns in an image of a size (w, h)."""
    mask = np.zeros(size[::-1], np.bool_)
    for place in places:
        mask[place] = True
    return mask


def components_of(mask: npt.NDArray[Any], category: str, min_side: float = 0.0) -> Components:
    """Class, box (x, y, w, h) and area of the components that are large enough, sorted; by scipy."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    found = []
    for label, (y, x) in enumerate(ndimage.find_objects(labels), start=1):
        w, h = x.stop - x.start, y.stop - y.start
        if w >= min_side * mask.shape[1] and h >= min_side * mask.shape[0]:
            box = (float(x.start), float(y.start), float(w), float(h))
            found.append((category, box, float((labels == label).sum())))
    return sorted(found)


@dataclass(frozen=True)
class Converted:
    """What a conversion gave."""

    report: ConversionReport  # its report
    annotations: Annotations  # its annotation file
    # Reason, file and instances of every row of the table of dropped files, sorted.
    told: list[tuple[str, str, int]]

    @property
    def marks(self) -> dict[str, list[tuple[str, InstanceRecord]]]:
        """Image file -> class and record of its instances, in the order of the file."""
        names = {category.id: category.name for category in self.annotations.categories}
        return {
            image.file_name: [
                (names[mark.category_id], mark) for mark in self.annotations.instances_of(image.id)
            ]
            for image in self.annotations.images
        }

    @property
    def boxes(self) -> dict[str, list[tuple[str, Box]]]:
        """Image file -> class and box of its instances, in the order of the file."""
        return {file: [(name, mark.bbox) for name, mark in marks] for file, marks in self.marks.items()}

    @property
    def components(self) -> dict[str, Components]:
        """Image file -> class, box and area of its instances, sorted."""
        return {
            file: sorted((name, mark.bbox, mark.area) for name, mark in marks)
            for file, marks in self.marks.items()
        }

    @property
    def by_class(self) -> dict[tuple[str, str], list[InstanceRecord]]:
        """(image file, class) -> its instances, in the order of the file."""
        found: dict[tuple[str, str], list[InstanceRecord]] = {}
        for file, marks in self.marks.items():
            for name, mark in marks:
                found.setdefault((file, name), []).append(mark)
        return found

    @property
    def class_boxes(self) -> dict[tuple[str, str], list[Box]]:
        """(image file, class) -> boxes of its instances, in the order of the file."""
        return {key: [mark.bbox for mark in marks] for key, marks in self.by_class.items()}

    @property
    def dropped(self) -> dict[str, tuple[int, int]]:
        """Reason -> files and instances that were dropped."""
        return {row.reason: (row.files, row.instances) for row in self.report.dropped}


def convert(source: str | Source, raw: Path, out: Path, **options: Any) -> Converted:
    """Convert a release of a layout, or of the one that `SOURCES` calls so."""
    files = ConversionFiles.beside(out / "set.json")
    options = {"min_side": 0.01, **options}
    report = convert_set("set", SOURCES[source] if isinstance(source, str) else source, raw, files, **options)
    with files.dropped.open(encoding="utf-8", newline="") as table:
        told = [(row["reason"], row["file_name"], int(row["instances"])) for row in csv.DictReader(table)]
    return Converted(report, Annotations.read(files.annotations), sorted(told))


def refused(source: str, raw: Path, message: str) -> None:
    """Convert: one line that names the file and how to mend it; files of an earlier run stay."""
    out = raw.parent / "refused"
    names = ("set.json", "set.report.json", "set.dropped.csv")
    earlier = {put(out / name, "of an earlier run") for name in names}
    with pytest.raises(DataError, match=message) as caught:
        convert(source, raw, out)
    told = str(caught.value)
    assert told.isprintable()
    assert str(raw) in told
    assert re.search(r"[;,] \w+ ", told), "how to mend it"
    assert set(out.iterdir()) == earlier
    assert {path.read_text() for path in earlier} == {"of an earlier run"}
