"""Own YOLO sets: class names, labels, boxes and polygons in shares of the image, damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources.yolo import YOLO
from unispector.errors import DataError
from unispector.ops.rle import decode_rle

SIZE = (60, 40)


def put_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def put_text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def convert(root: Path, out: Path) -> tuple[ConversionReport, dict[tuple[str, str], list[dict[str, Any]]]]:
    files = ConversionFiles.beside(out / "own.json")
    report = convert_set("own", YOLO, root, files, min_side=0.01)
    content = json.loads(files.annotations.read_text())
    images = {image["id"]: image["file_name"] for image in content["images"]}
    categories = {category["id"]: category["name"] for category in content["categories"]}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in content["annotations"]:
        found.setdefault((images[row["image_id"]], categories[row["category_id"]]), []).append(row)
    return report, found


def dropped(report: ConversionReport) -> dict[str, tuple[int, int]]:
    return {row.reason: (row.files, row.instances) for row in report.dropped}


def test_boxes_and_polygons_scale_with_the_image(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    put_text(root / "data.yaml", "path: ../../elsewhere\ntrain: ../train/images\nnames: [dent, scratch]\n")
    put_image(root / "images/train/a.png")
    put_image(root / "images/val/a.png", (100, 200))
    label = "0 0.5 0.5 1 1\n\n1 0.5 0.25 0.1 0.1\r\n1.0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"
    put_text(root / "labels/train/a.txt", label)
    put_text(root / "labels/val/a.txt", "0 .5 .5 .002 .002 \n0 .5 .5 .02 .005 \n1 1.005 1.0 0.1 0.1")

    report, found = convert(root, tmp_path)

    assert [row["bbox"] for row in found["images/train/a.png", "dent"]] == [[0, 0, 60, 40]]
    box, polygon = found["images/train/a.png", "scratch"]
    assert box["bbox"] == pytest.approx([27, 8, 6, 4])
    # The polygon covers x 6 to 30 and y 4 to 20 of the 60 x 40 pixels.
    pixels = np.zeros((40, 60), bool)
    pixels[4:20, 6:30] = True
    assert (decode_rle(polygon["segmentation"]) == pixels).all()
    assert polygon["bbox"] == [6, 4, 24, 16]
    assert polygon["area"] == pixels.sum()
    (dent,) = found["images/val/a.png", "dent"]  # the other fills no pixel
    assert dent["bbox"] == pytest.approx([49, 99.5, 2, 1])
    assert found["images/val/a.png", "scratch"][0]["bbox"] == pytest.approx([95.5, 190, 4.5, 10])
    assert dropped(report) == {"region without a pixel of its image": (1, 1)}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.jpg", "labels/a.txt"),
        ("train/images/a.b.jpg", "train/labels/a.b.txt"),
        ("images/x/images/a.jpg", "images/x/labels/a.txt"),
        ("images/x/y/a.jpg", "labels/x/y/a.txt"),
        ("images/a.jpg", "images/a.txt"),
        ("a.JPG", "a.txt"),
    ],
)
@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("data.yaml", "nc: 2\nnames:\n  3: dent\n  7: scratch\n"),
        ("data.yml", "{names: [a, b, c, dent, d, e, f, scratch]}"),
        ("classes.txt", "a\nb\nc\n dent \nd\ne\nf\nscratch\n\n"),
        ("labels/classes.txt", "a\nb\nc\ndent\nd\ne\nf\nscratch"),
    ],
)
def test_layouts_and_lists_of_names(tmp_path: Path, image: str, label: str, file: str, names: str) -> None:
    put_image(tmp_path / "raw" / image)
    put_text(tmp_path / "raw" / label, "7 .5 .5 .5 .5\n3 .5 .5 .5 .5")
    put_text(tmp_path / "raw" / file, names)
    report, found = convert(tmp_path / "raw", tmp_path)
    assert set(found) == {(image, "scratch"), (image, "dent")}
    assert report.dropped == ()


def test_images_and_labels_may_be_packed(tmp_path: Path) -> None:
    put_text(tmp_path / "raw/data.yaml", "names: [dent]")
    put_image(tmp_path / "raw/images/a.png")
    put_text(tmp_path / "raw/labels/a.txt", "0 .5 .5 1 1")
    for folder in ("images", "labels"):
        shutil.make_archive(str(tmp_path / "raw" / folder), "zip", tmp_path / "raw" / folder)
        shutil.rmtree(tmp_path / "raw" / folder)
    report, found = convert(tmp_path / "raw", tmp_path)
    assert [row["bbox"] for row in found["images/a.png", "dent"]] == [[0, 0, 60, 40]]
    assert report.dropped == ()


def test_names_that_yaml_reads_as_numbers(tmp_path: Path) -> None:
    put_image(tmp_path / "raw/a.png")
    put_text(tmp_path / "raw/a.txt", "0 .5 .5 .5 .5\n1 .5 .5 .5 .5")
    put_text(tmp_path / "raw/data.yaml", "names: [0, 'no']")
    assert convert(tmp_path / "raw", tmp_path)[0].instances_kept == {"0": 1, "no": 1}


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    put_text(root / "classes.txt", "dent")
    put_text(root / "data.yaml", "names: {0: dent}")
    for name in ("a", "bare", "clean", "blank"):
        put_image(root / f"images/{name}.png")
    put_text(root / "labels/a.txt", "0 .5 .5 .5 .5\n0 .5 .5 0 .5")
    put_text(root / "labels/clean.txt", "")
    put_text(root / "labels/blank.txt", "\n \n")
    put_text(root / "labels/gone.txt", "0 .5 .5 .5 .5\n\n0 .5 .5 .5 .5")
    put_text(root / "images/a.txt", "0 .5 .5 .5 .5")
    put_text(root / "train.txt", "../../etc/passwd")
    report, _ = convert(root, tmp_path)
    assert dropped(report) == {
        "image without its annotation": (1, 0),
        "image without defects": (2, 0),
        "annotation without its image": (1, 2),
        "region without a pixel of its image": (1, 1),
        "file outside the layout": (2, 0),
    }
    assert report.instances_kept == {"dent": 1}


def label(content: str) -> Callable[[Path], object]:
    return lambda root: put_text(root / "labels/a.txt", content)


def names(content: str, file: str = "data.yaml") -> Callable[[Path], object]:
    return lambda root: put_text(root / file, content)


def no_names(root: Path) -> None:
    (root / "data.yaml").unlink()


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "cut image",
        lambda root: (root / "images/a.png").write_bytes(b"\x89PNG\r\n"),
        r"a\.png: not a readable image",
    ),
    (
        "two images",
        lambda root: put_image(root / "images/a.jpg"),
        r"a\.png: shares labels/a\.txt with images/a\.jpg",
    ),
    ("not utf-8", lambda root: (root / "labels/a.txt").write_bytes(b"\xff"), r"labels/a\.txt: is not UTF-8"),
    ("class id", label("0 .5 .5 .5 .5\n2 .5 .5 .5 .5"), r"labels/a\.txt: line 2: class 2 has no name"),
    ("half class", label("0.5 .5 .5 .5 .5"), r"a\.txt: line 1: class 0\.5 has no name"),
    ("no class", label("dent .5 .5 .5 .5"), r"a\.txt: line 1: 'dent' is no finite number"),
    ("nan", label("0 .5 nan .5 .5"), r"a\.txt: line 1: 'nan' is no finite number"),
    ("infinite", label("0 .5 inf .5 .5"), r"'inf' is no finite number"),
    ("pixels", label("0 30 20 6 4"), r"a\.txt: line 1: coordinates must be shares"),
    ("just outside", label("0 1.02 .5 .1 .1"), r"a\.txt: line 1: coordinates must be shares"),
    ("negative", label("0 .5 -.5 .1 .1"), r"a\.txt: line 1: coordinates must be shares"),
    ("short", label("0 .5 .5"), r"line 1: 2 numbers after the class are neither"),
    ("a score", label("0 .5 .5 .1 .1 .9"), r"line 1: 5 numbers after the class are neither"),
    ("odd polygon", label("0 .1 .1 .2 .2 .3 .3 .4"), r"line 1: 7 numbers after the class are neither"),
    ("no names", no_names, r"raw: neither data\.yaml nor classes\.txt"),
    ("bad yaml", names("names: [a\nb: {"), r"data\.yaml: not valid YAML"),
    ("python yaml", names("names: !!python/object/apply:os.getcwd []"), r"data\.yaml: not valid YAML"),
    ("a list", names("[dent]"), r"data\.yaml: no `names`"),
    ("names without", names("names:"), r"data\.yaml: no `names`"),
    ("a word lost", names("names: [yes, no]"), r"data\.yaml: class 0: True is no name; put names in quotes"),
    ("bad id", names("names: {x: dent}"), r"data\.yaml: class x: 'x' is no finite number"),
    ("no such name", names("names: ['', dent]"), r"data\.yaml: class 0: it has no name"),
    ("same name", names("names: [dent, ' dent']"), r"data\.yaml: two classes share a name"),
    ("keypoints", names("names: [dent]\nkpt_shape: [17, 3]"), r"data\.yaml: its labels are keypoints"),
    (
        "two lists",
        names("scratch", "labels/classes.txt"),
        r"labels/classes\.txt: its class names differ .* data\.yaml",
    ),
]


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE]
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    put_text(tmp_path / "raw/data.yaml", "names: [dent]")
    put_image(tmp_path / "raw/images/a.png")
    put_text(tmp_path / "raw/labels/a.txt", "0 .5 .5 .5 .5")
    convert(tmp_path / "raw", tmp_path)
    damage(tmp_path / "raw")
    with pytest.raises(DataError, match=message) as caught:
        convert(tmp_path / "raw", tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists() or not list((tmp_path / "refused").glob("own*"))
