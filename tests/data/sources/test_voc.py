"""Own Pascal VOC sets: pairing, boxes, damage; and NEU-DET, a real one."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources.voc import VOC
from unispector.errors import DataError

SIZE = (60, 40)
Boxes = dict[tuple[str, str], list[list[float]]]


def put_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def item(name: str, *corners: object) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name><difficult>1</difficult><bndbox>{box}</bndbox></object>"


def put_xml(path: Path, *items: str, size: str = "<width>60</width><height>40</height>") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><size>{size}</size>{''.join(items)}</annotation>")


def convert(root: Path, out: Path) -> tuple[ConversionReport, Boxes]:
    files = ConversionFiles.beside(out / "own.json")
    report = convert_set("own", VOC, root, files, min_side=0.01)
    content = json.loads(files.annotations.read_text())
    images = {image["id"]: image["file_name"] for image in content["images"]}
    categories = {category["id"]: category["name"] for category in content["categories"]}
    boxes: Boxes = {}
    for row in content["annotations"]:
        boxes.setdefault((images[row["image_id"]], categories[row["category_id"]]), []).append(row["bbox"])
    return report, boxes


def dropped(report: ConversionReport) -> dict[str, tuple[int, int]]:
    return {row.reason: (row.files, row.instances) for row in report.dropped}


def test_boxes_count_pixels_from_one_and_include_both_ends(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    put_image(root / "a.png")
    put_xml(
        root / "a.xml",
        item(" deep\n scratch ", 1, 1, 60, 40),
        item("dent", 5, 6, 5, 6),
        item("dent", "5.5", "6.0", 8, 9),
        item("thin", 5, 6, 4.5, 30),
        item("dent", 50, 30, 70, 70),
        item("dent", 61, 1, 70, 9),
        item("dent", 9, 9, 3, 12),
    )

    report, boxes = convert(root, tmp_path)

    assert boxes == {
        ("a.png", "deep scratch"): [[0, 0, 60, 40]],
        # Under the size rule, yet drawn by a person.
        ("a.png", "thin"): [[4, 5, 0.5, 25]],
        ("a.png", "dent"): [[4, 5, 1, 1], [4.5, 5, 3.5, 4], [49, 29, 11, 11]],
    }
    assert dropped(report) == {"region without a pixel of its image": (1, 2)}


@pytest.mark.parametrize(
    "size", ["<width>0</width><height>0</height>", "", "<width>60</width>"], ids=["zero", "none", "half"]
)
def test_a_size_that_is_not_stated_is_not_checked(tmp_path: Path, size: str) -> None:
    put_image(tmp_path / "raw/a.png")
    put_xml(tmp_path / "raw/a.xml", item("dent", 1, 1, 2, 2), size=size)
    assert convert(tmp_path / "raw", tmp_path)[1] == {("a.png", "dent"): [[0, 0, 2, 2]]}


@pytest.mark.parametrize(
    ("pairs", "distractors"),
    [
        ([("a.jpg", "a.xml")], ["old/a.jpg"]),
        ([("IMAGES/a.JPG", "ANNOTATIONS/a.XML")], []),
        (
            [("JPEGImages/a.jpg", "Annotations/a.xml")],
            ["SegmentationClass/a.png", "SegmentationObject/a.png"],
        ),
        (
            [
                ("train/JPEGImages/a.b.jpg", "train/Annotations/a.b.xml"),
                ("val/img/a.b.bmp", "val/ann/a.b.xml"),
            ],
            [],
        ),
        ([("images/train/a.jpg", "xml/train/a.xml"), ("images/val/a.jpg", "xml/val/a.xml")], []),
        ([("x/a.tif", "x/a.xml"), ("x/x/a.webp", "x/x/a.xml"), ("a.jpeg", "a.xml")], []),
    ],
    ids=["beside", "parallel", "VOC2012", "parts", "parts below", "nested"],
)
def test_an_annotation_belongs_to_the_nearest_image_of_its_stem(
    tmp_path: Path, pairs: list[tuple[str, str]], distractors: list[str]
) -> None:
    for name in distractors:
        put_image(tmp_path / "raw" / name)
    for image, xml in pairs:
        put_image(tmp_path / "raw" / image)
        put_xml(tmp_path / "raw" / xml, item(f"of {xml}", 1, 1, 2, 2))
    _, boxes = convert(tmp_path / "raw", tmp_path)
    assert set(boxes) == {(image, f"of {xml}") for image, xml in pairs}


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for name in ("a.png", "bare.png", "clean.png"):
        put_image(root / name)
    put_xml(root / "a.xml", item("dent", 1, 1, 2, 2))
    put_xml(root / "clean.xml")
    put_xml(root / "gone.xml", item("dent", 1, 1, 2, 2), item("dent", 1, 1, 2, 2))
    (root / "train.txt").write_text("a\n")
    report, _ = convert(root, tmp_path)
    assert dropped(report) == {
        "image without its annotation": (1, 0),
        "image without defects": (1, 0),
        "annotation without its image": (1, 2),
        "file outside the layout": (1, 0),
    }
    assert report.instances_kept == {"dent": 1}


def xml(*items: str, **parts: str) -> Callable[[Path], object]:
    return lambda root: put_xml(root / "ann/a.xml", *items, **parts)


def text(content: str) -> Callable[[Path], object]:
    return lambda root: (root / "ann/a.xml").write_text(content)


BOMB = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'
DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "no image",
        lambda root: (root / "img/a.png").write_bytes(b"\x89PNG\r\n"),
        r"img/a\.png: not a readable image",
    ),
    (
        "other size",
        lambda root: put_image(root / "img/a.png", (40, 60)),
        r"a\.png: the image is 40x60 .* 60x40",
    ),
    ("empty file", text(""), r"ann/a\.xml: not valid XML"),
    ("cut off", text("<annotation><object><name>"), r"ann/a\.xml: not valid XML"),
    ("entities", text(BOMB), r"ann/a\.xml: not valid XML \(EntitiesForbidden"),
    ("file of the machine", text(OUTSIDE), r"ann/a\.xml: not valid XML \(EntitiesForbidden"),
    ("other xml", text("<annotations/>"), r"ann/a\.xml: no Pascal VOC annotation, its root is <annotations>"),
    ("bad size", xml(size="<width>x</width><height>3</height>"), r"a\.xml: <size>: 'x' is no finite number"),
    ("negative size", xml(size="<width>-5</width><height>3</height>"), r"<size>: -5x3 is no size"),
    ("part size", xml(size="<width>1.5</width><height>3</height>"), r"a\.xml: <size>: 1\.5x3 is no size"),
    ("no name", xml(item(" ", 1, 1, 2, 2)), r"a\.xml: object 1 \(' '\): ' ' is no name"),
    (
        "no box",
        xml("<object><name>dent</name></object>"),
        r"a\.xml: object 1 \('dent'\): a number is missing",
    ),
    (
        "nan",
        xml(item("dent", 1, 1, 2, 2), item("dent", 1, "NaN", 2, 2)),
        r"object 2 \('dent'\): 'NaN' is no finite",
    ),
    ("infinite", xml(item("dent", 1, 1, "1e999", 2)), r"'1e999' is no finite number"),
    ("word", xml(item("dent", 1, 1, 2, "two")), r"object 1 \('dent'\): 'two' is no finite number"),
    (
        "two images",
        lambda root: put_image(root / "img/a.jpg"),
        r"ann/a\.xml: may belong to img/a\.jpg or img/a\.png",
    ),
    (
        "equally near",
        lambda root: put_image(root / "pic/a.jpg"),
        r"a\.xml: may belong to img/a\.png or pic/a\.jpg",
    ),
    (
        "two annotations",
        lambda root: put_xml(root / "old/a.xml"),
        r"old/a\.xml: annotates img/a\.png, as does ann/a",
    ),
]


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE]
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    put_image(tmp_path / "raw/img/a.png")
    put_xml(tmp_path / "raw/ann/a.xml", item("dent", 1, 1, 2, 2))
    convert(tmp_path / "raw", tmp_path)
    damage(tmp_path / "raw")
    with pytest.raises(DataError, match=message) as caught:
        convert(tmp_path / "raw", tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists() or not list((tmp_path / "refused").glob("own*"))


def test_paths_in_an_annotation_lead_nowhere(tmp_path: Path) -> None:
    put_image(tmp_path / "secret.png", (10, 10))
    put_image(tmp_path / "raw/a.png")
    hostile = "<filename>../secret.png</filename><path>/etc/passwd</path>"
    put_xml(tmp_path / "raw/a.xml", hostile, item("dent", 1, 1, 2, 2))
    assert set(convert(tmp_path / "raw", tmp_path)[1]) == {("a.png", "dent")}


def test_neu_det_as_text_search_finds_it(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "neu_det"
    if not root.is_dir():
        pytest.skip("NEU-DET is not at hand")

    report, boxes = convert(root, tmp_path)

    expected: dict[tuple[str, str], list[list[float]]] = {}
    for file in root.glob("*/*.xml"):
        folder = {"ANNOTATIONS": "IMAGES", "Validation_Annotations": "Validation_Images"}[file.parent.name]
        content = re.sub(r"\s+", "", file.read_text(encoding="utf-8"))
        pattern = r"<name>([^<]+)</name>.*?<xmin>(\d+)</xmin><ymin>(\d+)</ymin><xmax>(\d+)</xmax><ymax>(\d+)<"
        for name, *corners in re.findall(pattern, content):
            a, b, c, d = map(int, corners)
            box = [a - 1.0, b - 1.0, c - a + 1.0, d - b + 1.0]
            expected.setdefault((f"{folder}/{file.stem}.jpg", name), []).append(box)
    assert boxes == expected
    assert report.dropped == ()
    assert report.images_kept == len(list(root.glob("*/*.jpg"))) == 1800
    counts = Counter({name: 0 for _, name in expected})
    for (_, name), found in expected.items():
        counts[name] += len(found)
    assert report.instances_kept == counts
    assert counts == {
        "crazing": 689,
        "inclusion": 1011,
        "patches": 881,
        "pitted_surface": 432,
        "rolled-in_scale": 628,
        "scratches": 548,
    }
    # Pixels count from 1: boxes reach both ends of the 200 pixels and none is cut at the border.
    assert min(box[0] for found in boxes.values() for box in found) == 0
    assert max(box[0] + box[2] for found in boxes.values() for box in found) == 200
