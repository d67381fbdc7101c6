"""A whole set to its three files: numbering, sums, what was dropped, all or nothing, any workers."""

import errno
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from releases import Converted, put
from releases import convert as convert_release
from unispector.data.convert import ConversionFiles
from unispector.data.sources import Source, reasons
from unispector.data.sources.rows import BinaryMask, Box, Dropped, Entry
from unispector.data.sources.tree import ReleaseTree
from unispector.errors import DataError


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    """`<product>/<defect>/<name>.bmp` with `<name>.png`; `box-*` are known by a box."""
    for match in tree.matching(r"((\w+)/(\w+)/(.+))\.bmp"):
        image, mask = match[0], f"{match[1]}.png"
        if match[4].startswith("box"):
            yield Entry(image, match[2], (Box(match[3], (2.25, 3.0, 9.5, 4.0)),))
        elif mask in tree:
            yield Entry(image, match[2], (BinaryMask(mask, match[3]),))
        else:
            yield Dropped(reasons.NO_MASK, image, instances=1)


SOURCE = Source(title="Test", layout="product/defect/name.bmp", published="nowhere", rows=_rows)


def put_marked(root: Path, name: str, *boxes: tuple[int, int, int, int], mask: bool = True) -> None:
    """A 30 x 20 image `<name>.bmp` and a mask with boxes x, y, w, h."""
    pixels = np.zeros((20, 30), np.uint8)
    put(root / f"{name}.bmp", pixels)
    for x, y, w, h in boxes:
        pixels[y : y + h, x : x + w] = 255
    if mask:
        put(root / f"{name}.png", pixels)


def convert(raw: Path, out: Path, source: Source = SOURCE, **options: object) -> Converted:
    return convert_release(source, raw, out, min_side=0.1, **options)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    put_marked(root, "tile/scratch/b", (3, 2, 8, 6))
    put_marked(root, "tile/scratch/ä", (0, 0, 4, 4), (10, 10, 5, 5), (20, 0, 1, 15))
    put_marked(root, "tile/dent/a", (29, 0, 1, 20), (5, 5, 6, 6))
    put_marked(root, "pipe/dent/box-1", mask=False)
    put_marked(root, "pipe/dent/black")
    put_marked(root, "pipe/rust/specks", (1, 1, 1, 1), (8, 8, 2, 1))
    put_marked(root, "pipe/rust/lost", mask=False)
    (root / "notes.txt").write_text("x")
    (root / "tile/._b.bmp").write_text("x")
    return root


def test_numbers_names_and_measures(raw, tmp_path):
    annotations = convert(raw, tmp_path / "out").annotations

    assert [(record.id, record.file_name, record.width, record.height) for record in annotations.images] == [
        (1, "pipe/dent/box-1.bmp", 30, 20),
        (2, "tile/dent/a.bmp", 30, 20),
        (3, "tile/scratch/b.bmp", 30, 20),
        (4, "tile/scratch/ä.bmp", 30, 20),
    ]
    assert [(record.id, record.name, record.supercategory) for record in annotations.categories] == [
        (1, "pipe_dent", "pipe"),
        (2, "tile_dent", "tile"),
        (3, "tile_scratch", "tile"),
    ]
    assert [(i.id, i.image_id, i.category_id, i.bbox, i.area, i.iscrowd) for i in annotations.instances] == [
        (1, 1, 1, (2.25, 3.0, 9.5, 4.0), 38.0, 0),
        (2, 2, 2, (5.0, 5.0, 6.0, 6.0), 36.0, 0),
        (3, 3, 3, (3.0, 2.0, 8.0, 6.0), 48.0, 0),
        (4, 4, 3, (0.0, 0.0, 4.0, 4.0), 16.0, 0),
        (5, 4, 3, (10.0, 10.0, 5.0, 5.0), 25.0, 0),
    ]


def test_categories_are_sorted_by_name_not_by_folder(tmp_path):
    for name in ("a/x/1", "a1/x/1"):
        put_marked(tmp_path / "raw", name, (1, 1, 9, 9))
    annotations = convert(tmp_path / "raw", tmp_path / "out").annotations
    assert annotations.class_names == ("a1_x", "a_x")
    assert [instance.category_id for instance in annotations.instances] == [2, 1]


def test_the_file_is_what_annotations_would_write(raw, tmp_path):
    annotations = convert(raw, tmp_path / "out").annotations
    annotations.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "out/set.json").read_bytes()


def test_report_and_table_account_for_everything(raw, tmp_path):
    found = convert(raw, tmp_path / "out")
    told = json.loads((tmp_path / "out/set.report.json").read_text(encoding="utf-8"))

    assert (told["name"], told["min_side"]) == ("set", 0.1)
    assert (told["images_read"], told["images_kept"]) == (6, 4)
    assert told["instances_read"] == {"pipe_dent": 1, "pipe_rust": 2, "tile_dent": 2, "tile_scratch": 4}
    assert told["instances_kept"] == {"pipe_dent": 1, "pipe_rust": 0, "tile_dent": 1, "tile_scratch": 3}
    assert {item["reason"]: (item["files"], item["instances"]) for item in told["dropped"]} == {
        "component too small": (2, 2),
        "every component too small": (1, 2),
        "file outside the layout": (1, 0),
        "hidden file": (1, 0),
        "image without its mask": (1, 1),
        "mask marks nothing": (1, 0),
    }
    assert found.told == [
        ("component too small", "tile/dent/a.bmp", 1),
        ("component too small", "tile/scratch/ä.bmp", 1),
        ("every component too small", "pipe/rust/specks.bmp", 2),
        ("file outside the layout", "notes.txt", 0),
        ("hidden file", "tile/._b.bmp", 0),
        ("image without its mask", "pipe/rust/lost.bmp", 1),
        ("mask marks nothing", "pipe/dent/black.bmp", 0),
    ]
    small = sum(count for reason, _, count in found.told if "too small" in reason)
    report = found.report
    assert sum(report.instances_read.values()) == sum(report.instances_kept.values()) + small


def test_every_file_of_the_release_is_kept_or_told(raw, tmp_path):
    found = convert(raw, tmp_path / "out")
    every = {path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file()}
    masks = {name for name in every if name.endswith(".png")}
    told = {name for _, name, _ in found.told}
    assert found.marks.keys() | told == every - masks


def test_examples_are_the_first_few(raw, tmp_path):
    for number in range(9):
        (raw / f"extra-{number}").write_text("")
    found = convert(raw, tmp_path / "out")
    (item,) = (item for item in found.report.dropped if item.reason == "file outside the layout")
    assert (item.files, item.examples) == (10, tuple(f"extra-{number}" for number in range(5)))
    assert Counter(reason for reason, _, _ in found.told)[item.reason] == 10


def test_the_size_rule_is_for_cut_masks_only(raw, tmp_path):
    found = convert(raw, tmp_path / "out", replace(SOURCE, drops_small=False))
    assert found.report.min_side == 0.0
    assert len(found.annotations.instances) == sum(found.report.instances_read.values()) == 9


def test_workers_change_nothing(tmp_path):
    raw = tmp_path / "raw"
    for number in range(205):
        put_marked(raw, f"tile/scratch/{number}", (number % 20, number % 9, 2 + number % 7, 1 + number % 4))
    put_marked(raw, "tile/dent/black")
    steps: list[tuple[int, int]] = []
    convert(raw, tmp_path / "one", progress=lambda done, total: steps.append((done, total)))
    convert(raw, tmp_path / "two", workers=2)

    assert steps == [(done, 206) for done in range(1, 207)]
    for name in ("set.json", "set.report.json", "set.dropped.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    (raw / "tile/scratch/77.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"77\.png: not a readable image"):
        convert(raw, tmp_path / "three", workers=2)
    assert list((tmp_path / "three").iterdir()) == []


def test_a_broken_file_leaves_the_old_files(raw, tmp_path):
    convert(raw, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(before) == {"set.json", "set.report.json", "set.dropped.csv"}
    (raw / "tile/scratch/ä.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"scratch/ä\.png: not a readable image"):
        convert(raw, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_refuses_what_is_no_such_release(tmp_path):
    with pytest.raises(DataError, match=r"raw: no such folder"):
        convert(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"no image with a marked defect; Test has product/defect/name\.bmp"):
        convert(tmp_path / "raw", tmp_path / "out")
    put_marked(tmp_path / "raw", "tile/dent/black")
    told = r"set: no instance left of 1 images; dropped: mask marks nothing \(1, as tile/dent/black\.bmp\); "
    with pytest.raises(DataError, match=told):
        convert(tmp_path / "raw", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_what_emptied_a_set_is_told_with_its_number(tmp_path):
    raw = tmp_path / "raw"
    put_marked(raw, "tile/dent/a", mask=False)
    put_marked(raw, "tile/dent/b", mask=False)
    told = (
        r"no image with a marked defect; dropped: image without its mask \(2, as tile/dent/a\.bmp\); correct"
    )
    with pytest.raises(DataError, match=told):
        convert(raw, tmp_path / "out")
    put_marked(raw, "tile/dent/a", (0, 0, 2, 1), (5, 5, 1, 1))
    told = r"dropped: every .* small \(2, as tile/dent/a\.bmp\), image .* \(1, .*\); .* or lower min_side"
    with pytest.raises(DataError, match=told):
        convert(raw, tmp_path / "out")


def test_a_set_of_boxes_outside_their_images_is_not_told_of_masks(tmp_path):
    raw = tmp_path / "raw"
    put(raw / "a.png", np.zeros((20, 30), np.uint8))
    box = "<bndbox><xmin>90</xmin><ymin>90</ymin><xmax>99</xmax><ymax>99</ymax></bndbox>"
    put(raw / "a.xml", f"<annotation><object><name>dent</name>{box}</object></annotation>")
    with pytest.raises(DataError, match=r"dropped: region without a pixel .* \(1, as a\.png\)") as caught:
        convert_release("voc", raw, tmp_path / "out")
    assert "mask" not in str(caught.value)
    assert "min_side" not in str(caught.value)


def test_two_products_may_not_share_a_category(tmp_path):
    put_marked(tmp_path / "raw", "a/b_c/1", (1, 1, 9, 9))
    put_marked(tmp_path / "raw", "a_b/c/1", (1, 1, 9, 9))
    with pytest.raises(DataError, match=r"a_b/c/1\.bmp: category 'a_b_c' is made of two products"):
        convert(tmp_path / "raw", tmp_path / "out")


def test_names_of_the_files():
    files = ConversionFiles.beside(Path("insa/MVTec.v1.json"))
    assert files.report == Path("insa/MVTec.v1.report.json")
    assert files.dropped == Path("insa/MVTec.v1.dropped.csv")


def test_a_full_temporary_folder_is_named(raw, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> io.StringIO:
        stream = io.StringIO()
        stream.write = refuse
        return stream

    def refuse(_: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left") as told:
        convert(raw, tmp_path / "out")
    assert told.value.filename == tempfile.gettempdir()
    assert not list((tmp_path / "out").glob("*"))
