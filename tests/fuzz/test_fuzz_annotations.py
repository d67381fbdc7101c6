"""Annotation files of other tools, mutated: read right, or refused in one line; no mark is lost unsaid."""

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fuzz.mutations import (
    CORPUS,
    changed_bytes,
    changed_json,
    changed_words,
    changed_xml,
    check_line,
    examples,
    files_below,
    outcome,
)
from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources import SOURCES

SETS = CORPUS / "annotations"
NOTES = {
    path.relative_to(SETS).as_posix(): path
    for path in files_below(SETS, ("*.json", "*.xml", "*.txt", "*.yaml", "*.csv"))
}
REGIONS = ("box", "polygon", "ellipse", "mask", "polyline", "points", "cuboid", "skeleton")
LABELS = ("rectangle", "polygon", "brush", "ellipse", "keypoint", "vector")
STUDIO = [*LABELS, *(f"{kind}labels" for kind in LABELS), "videorectangle"]


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the corpus, so that one file of it can be another."""
    return Path(shutil.copytree(SETS, tmp_path_factory.mktemp("fuzz") / "sets"))


def converted(root: Path, source: str) -> tuple[ConversionReport, Annotations]:
    """What a conversion makes of a set, read again."""
    with tempfile.TemporaryDirectory() as folder:
        files = ConversionFiles.beside(Path(folder) / "out.json")
        report = convert_set(source, SOURCES[source], root, files, min_side=0.0)
        return report, Annotations.read(files.annotations)


def check(sets: Path, name: str, content: bytes) -> None:
    """Convert the set in which the file `name` holds `content`."""
    source, file = name.split("/", maxsplit=1)[0], sets / name
    file.write_bytes(content)
    try:
        found = outcome(lambda: converted(sets / source, source), str(sets / source), f"{source}: ")
        if found:
            report, annotations = found
            for told in (drop.reason for drop in report.dropped):
                check_line(told)
            if source in MARKS:
                lost = sum(drop.instances for drop in report.dropped)
                kept = sum(report.instances_kept.values())
                assert kept == len(annotations.instances)
                marks = MARKS[source](sets / source)
                # One of Label Studio with two labels is two instances.
                assert kept + lost == marks or (source == "label_studio" and kept + lost > marks)
            if source == "coco":
                check_boxes(annotations, json.loads(file.read_bytes().decode("utf-8-sig")))
    finally:
        shutil.copyfile(SETS / name, file)


def check_boxes(annotations: Annotations, content: dict[str, Any]) -> None:
    """Check that every box kept is that of a record, by pycocotools, with the class that the record names."""
    names = {row["id"]: " ".join(row["name"].split()) for row in content["categories"]}
    wanted = Counter(
        box for row in content["annotations"] for box in [own_box(row, names[row["category_id"]])] if box
    )
    classes = {category.id: category.name for category in annotations.categories}
    found = Counter(
        (classes[mark.category_id], *(round(side, 3) for side in mark.bbox)) for mark in annotations.instances
    )
    assert not found - wanted, (found - wanted, wanted)


def own_box(row: dict[str, Any], name: str) -> tuple[Any, ...] | None:
    """Class and box of a record inside of 40 x 30 pixels; of an outline the box of its pixels."""
    code = row.get("segmentation")
    if not code or code == [[]]:
        if not isinstance(row.get("bbox"), list) or len(row["bbox"]) != 4:
            return None
        x, y, w, h = map(float, row["bbox"])
        left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, 40.0), min(y + h, 30.0)
        return (name, round(left, 3), round(top, 3), round(right - left, 3), round(bottom - top, 3))
    if isinstance(code, list):
        parts = [[float(value) for value in part] for part in code if len(part) >= 6]
        code = coco_mask.merge(coco_mask.frPyObjects(parts, 30, 40)) if parts else None
    elif code.get("size") != [30, 40]:
        return None
    elif isinstance(code["counts"], list):
        code = coco_mask.frPyObjects(code, 30, 40)
    return (name, *map(float, coco_mask.toBbox(code))) if code else None


def coco_marks(root: Path) -> int:
    content = json.loads((root / "marks.json").read_bytes().decode("utf-8-sig"))
    return len(content["annotations"])


def voc_marks(root: Path) -> int:
    return sum(
        len(ElementTree.fromstring(path.read_bytes()).findall("object")) for path in root.glob("*.xml")
    )


def labelme_marks(root: Path) -> int:
    """Shapes; those of a group and class are one, unless their type marks no region."""
    alone, groups = 0, set()
    for path in root.glob("*.json"):
        for shape in json.loads(path.read_bytes().decode("utf-8-sig"))["shapes"]:
            kind = " ".join((shape.get("shape_type") or "polygon").split())
            if (
                shape.get("group_id") is None
                or kind in ("line", "point", "linestrip", "points")
                or kind not in KINDS
            ):
                alone += 1
            else:
                groups.add((path, repr(shape["group_id"]), " ".join(shape["label"].split())))
    return alone + len(groups)


KINDS = {"polygon", "rectangle", "circle", "mask", "oriented_rectangle", "rotation", "quadrilateral"}


def yolo_marks(root: Path) -> int:
    texts = (path.read_bytes().decode("utf-8-sig") for path in root.glob("labels/*.txt"))
    return sum(bool(line.strip()) for text in texts for line in text.splitlines())


def cvat_marks(root: Path) -> int:
    images = ElementTree.fromstring((root / "annotations.xml").read_bytes()).findall("image")
    return sum(shape.tag in REGIONS for image in images for shape in image)


def studio_marks(root: Path) -> int:
    total = 0
    for task in json.loads((root / "export.json").read_bytes().decode("utf-8-sig")):
        for annotation in (*(task.get("annotations") or []), *(task.get("predictions") or [])):
            total += sum(mark.get("type") in STUDIO for mark in annotation.get("result") or [])
    return total


MARKS: dict[str, Callable[[Path], int]] = {
    "coco": coco_marks,
    "voc": voc_marks,
    "labelme": labelme_marks,
    "yolo": yolo_marks,
    "cvat": cvat_marks,
    "label_studio": studio_marks,
}


@pytest.mark.parametrize("name", NOTES)
def test_the_corpus_itself(name: str, sets: Path) -> None:
    check(sets, name, NOTES[name].read_bytes())


@given(st.data())
@examples(200)
def test_bytes(sets: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(NOTES)))
    check(sets, name, data.draw(changed_bytes(NOTES[name].read_bytes())))


@given(st.data())
@examples(500)
def test_json(sets: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in sorted(NOTES) if name.endswith(".json")]))
    content = data.draw(changed_json(json.loads(NOTES[name].read_text())))
    check(sets, name, json.dumps(content).encode())


@given(st.data())
@examples(200)
def test_xml(sets: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in sorted(NOTES) if name.endswith(".xml")]))
    text = data.draw(changed_xml(NOTES[name].read_text()))
    check(sets, name, text.encode("utf-8", "surrogatepass"))


@given(st.data())
@examples(200)
def test_tables(sets: Path, data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from([name for name in sorted(NOTES) if re.search(r"\.(txt|yaml|csv)$", name)])
    )
    text = data.draw(changed_words(NOTES[name].read_text()))
    check(sets, name, text.encode("utf-8", "surrogatepass"))
