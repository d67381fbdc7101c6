"""Own Pascal VOC sets: pairing, boxes, damage that only they can have; and NEU-DET, a real one."""

import re
from collections import Counter
from pathlib import Path

import pytest

from releases import convert, put, put_image, refused


def item(name: str, *corners: object) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name><difficult>1</difficult><bndbox>{box}</bndbox></object>"


def put_xml(path: Path, *items: str, size: str = "<width>60</width><height>40</height>") -> None:
    put(path, f"<annotation><size>{size}</size>{''.join(items)}</annotation>")


def test_boxes_count_pixels_from_one_and_include_both_ends(tmp_path, raw):
    put_image(raw / "a.png")
    put_xml(
        raw / "a.xml",
        item(" deep\n scratch ", 1, 1, 60, 40),
        item("dent", 5, 6, 5, 6),
        item("thin", 5, 6, 5, 30),
        item("dent", 50, 30, 70, 70),
        item("dent", 61, 1, 70, 9),
        item("turned", 9, 30, 3, 12),
    )

    found = convert("voc", raw, tmp_path)

    assert found.class_boxes == {
        ("a.png", "deep scratch"): [(0, 0, 60, 40)],
        # Under the size rule, yet drawn by a person.
        ("a.png", "thin"): [(4, 5, 1, 25)],
        ("a.png", "dent"): [(4, 5, 1, 1), (49, 29, 11, 11)],
        ("a.png", "turned"): [(2, 11, 7, 19)],
    }
    assert found.dropped == {"region without a pixel of its image": (1, 1)}


LABELIMG = "<path>C:\\me\\a.png</path><source><database>Unknown</database></source>"
DATUMARO = "<source><database>Unknown</database><annotation>Unknown</annotation></source>"
LABEL_STUDIO = "<source><database>MyDatabase</database><annotation>COCO2017</annotation></source>"
VOC2011 = "<source><database>The VOC2011 Database</database></source>"


@pytest.mark.parametrize(
    ("tool", "corners", "box"),
    [
        ("", (4, 7, 14, 15), (3, 6, 11, 9)),
        ("", ("4.0", "7.0", "14.0", "15.0"), (4, 7, 10, 8)),
        ("", ("4.25", 7, "14.5", 15), (4.25, 7, 10.25, 8)),
        ("", ("14.5", 15, "4.25", 7), (4.25, 7, 10.25, 8)),
        (DATUMARO, ("0.0", "0.0", "60.0", "40.0"), (0, 0, 60, 40)),
        (DATUMARO, (1, 1, 60, 40), (0, 0, 60, 40)),
        (LABELIMG, (4, 7, 14, 15), (4, 7, 10, 8)),
        ("<path>a.png</path><source><database>NEU-DET</database></source>", (4, 7, 14, 15), (3, 6, 11, 9)),
        (LABEL_STUDIO, (4, 7, 14, 15), (4, 7, 10, 8)),
        ("<source><database>MyDatabase</database></source>", (4, 7, 14, 15), (3, 6, 11, 9)),
        ("", ("4e0", "7", "14e0", "15"), (4, 7, 10, 8)),
        (VOC2011, ("4.5", "7.0", "14.0", "15.0"), (3.5, 6, 10.5, 9)),
    ],
)
def test_corners_are_pixels_from_one_or_edges_from_zero_as_the_tool_has_them(
    tmp_path, raw, tool, corners, box
):
    put_image(raw / "a.png")
    put_xml(raw / "a.xml", tool, item("dent", *corners))
    assert convert("voc", raw, tmp_path).class_boxes == {("a.png", "dent"): [box]}


def test_a_file_with_one_decimal_has_edges_only(tmp_path, raw):
    put_image(raw / "a.png")
    put_xml(raw / "a.xml", item("dent", 4, 7, 14, 15), item("dent", "1.5", 2, 3, 4))
    assert convert("voc", raw, tmp_path).class_boxes["a.png", "dent"] == [(4, 7, 10, 8), (1.5, 2, 1.5, 2)]


def test_a_box_that_cvat_turned_is_turned(tmp_path, raw):
    put_image(raw / "a.png")
    items = []
    for name, value in (("rotation", "90.0"), ("rotation", "0.0"), ("rotation", "left"), ("angle", "90.0")):
        told = f"<attributes><attribute><name>{name}</name><value>{value}</value></attribute></attributes>"
        items.append(item("dent", "20.0", "10.0", "30.0", "14.0").replace("</object>", f"{told}</object>"))
    put_xml(raw / "a.xml", *items)
    found = convert("voc", raw, tmp_path)
    straight = (20, 10, 10, 4)
    assert found.class_boxes == {("a.png", "dent"): [(23, 7, 4, 10), straight, straight, straight]}


@pytest.mark.parametrize(
    "size", ["<width>0</width><height>0</height>", "", "<width>60</width>"], ids=["zero", "none", "half"]
)
def test_a_size_that_is_not_stated_is_not_checked(tmp_path, size, raw):
    put_image(raw / "a.png")
    put_xml(raw / "a.xml", item("dent", 1, 1, 2, 2), size=size)
    assert convert("voc", raw, tmp_path).class_boxes == {("a.png", "dent"): [(0, 0, 2, 2)]}


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
def test_an_annotation_belongs_to_the_nearest_image_of_its_stem(tmp_path, pairs, distractors, raw):
    for name in distractors:
        put_image(raw / name)
    for image, xml in pairs:
        put_image(raw / image)
        put_xml(raw / xml, item(f"of {xml}", 1, 1, 2, 2))
    found = convert("voc", raw, tmp_path)
    assert set(found.by_class) == {(image, f"of {xml}") for image, xml in pairs}


def test_sets_aside_by_reason(tmp_path, raw):
    for name in ("a.png", "bare.png", "clean.png"):
        put_image(raw / name)
    put_xml(raw / "a.xml", item("dent", 1, 1, 2, 2))
    put_xml(raw / "clean.xml")
    put_xml(raw / "gone.xml", item("dent", 1, 1, 2, 2), item("dent", 1, 1, 2, 2))
    put(raw / "train.txt", "a\n")
    found = convert("voc", raw, tmp_path)
    assert found.dropped == {
        "image without its annotation": (1, 0),
        "image without defects": (1, 0),
        "annotation without its image": (1, 2),
        "file outside the layout": (1, 0),
    }
    assert found.report.instances_kept == {"dent": 1}


@pytest.mark.parametrize(
    ("file", "items", "message"),
    [
        (
            "ann/a.xml",
            [item("dent", 1, 1, 2, 2), item("dent", 1, "NaN", 2, 2)],
            r"ann/a\.xml: object 2 \('dent'\): ymin: 'NaN' is no finite",
        ),
        ("ann/a.xml", [item("dent", "6_1", 1, 70, 2)], r"object 1 \('dent'\): xmin: '6_1' is no finite"),
        ("pic/a.jpg", [], r"ann/a\.xml: may belong to img/a\.png or pic/a\.jpg"),
        ("old/a.xml", [], r"old/a\.xml: annotates img/a\.png, as does ann/a"),
    ],
    ids=["the second object", "an underscore", "equally near", "two annotations"],
)
def test_damage_is_named(file, items, message, raw):
    put_image(raw / "img/a.png")
    put_xml(raw / "ann/a.xml", item("dent", 1, 1, 2, 2))
    if file.endswith("xml"):
        put_xml(raw / file, *items)
    else:
        put_image(raw / file)
    refused("voc", raw, message)


def test_neu_det_as_text_search_finds_it(shared_data, tmp_path):
    root = shared_data / "neu_det"
    if not root.is_dir():
        pytest.skip("NEU-DET is not at hand")

    found = convert("voc", root, tmp_path)

    expected: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for file in root.glob("*/*.xml"):
        folder = {"ANNOTATIONS": "IMAGES", "Validation_Annotations": "Validation_Images"}[file.parent.name]
        content = re.sub(r"\s+", "", file.read_text(encoding="utf-8"))
        pattern = r"<name>([^<]+)</name>.*?<xmin>(\d+)</xmin><ymin>(\d+)</ymin><xmax>(\d+)</xmax><ymax>(\d+)<"
        for name, *corners in re.findall(pattern, content):
            a, b, c, d = map(int, corners)
            box = (a - 1.0, b - 1.0, c - a + 1.0, d - b + 1.0)
            expected.setdefault((f"{folder}/{file.stem}.jpg", name), []).append(box)
    boxes = found.class_boxes
    assert boxes == expected
    assert found.told == []
    assert found.report.images_kept == len(list(root.glob("*/*.jpg"))) == 1800
    counts: Counter[str] = Counter()
    for (_, name), of_class in expected.items():
        counts[name] += len(of_class)
    assert found.report.instances_kept == counts
    assert counts == {
        "crazing": 689,
        "inclusion": 1011,
        "patches": 881,
        "pitted_surface": 432,
        "rolled-in_scale": 628,
        "scratches": 548,
    }
    # Pixels count from 1: boxes reach both ends of the 200 pixels and none is cut at the border.
    assert min(box[0] for of_class in boxes.values() for box in of_class) == 0
    assert max(box[0] + box[2] for of_class in boxes.values() for box in of_class) == 200
