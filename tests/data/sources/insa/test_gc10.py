"""GC10-DET in its three packings: quirks are met, damage is refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from releases import convert, put, put_image, refused
from unispector.data.sources.insa.gc10 import GC10

SIZE = (160, 120)


def put_xml(path: Path, *objects: tuple[str, int, int, int, int], filename: str = "?") -> None:
    body = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>1</truncated><difficult>1</difficult>"
        f"<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    )
    put(
        path,
        f"<annotation><folder>x</folder><filename>{filename}</filename><size><width>{SIZE[0]}</width>"
        f"<height>{SIZE[1]}</height><depth>1</depth></size>{body}</annotation>",
    )


def rectangle(title: str, *corners: list[float]) -> dict[str, Any]:
    points = {"exterior": list(corners), "interior": []}
    return {"id": 1, "classTitle": title, "geometryType": "rectangle", "tags": [], "points": points}


def put_supervisely(path: Path, *objects: dict[str, Any]) -> None:
    sides = {"width": SIZE[0], "height": SIZE[1]}
    put(path, {"description": "", "tags": [], "size": sides, "objects": list(objects)})


@pytest.mark.parametrize(
    ("folders", "labels"),
    [(("4", "10"), "lable"), (("images/images/water_spot", "images/images/waist_folding"), "label/label")],
    ids=["numbered folders", "class folders"],
)
def test_voc_packings(tmp_path, folders, labels, raw):
    for folder, number in zip(folders[:1] * 2 + folders[1:] * 4, (1, 2, 2, 3, 4, 5), strict=True):
        put_image(raw / folder / f"img_01_1_0000{number}.jpg", SIZE)
    # The folder says water spot, the file says two other defects; its `filename` names another image.
    put_xml(
        raw / labels / "img_01_1_00001.xml",
        ("10_yaozhed", 1, 1, 160, 120),
        ("2_hanfeng", 11, 5, 20, 5),
        filename="../../img_01_1_00003.jpg",
    )
    put_xml(
        raw / labels / "img_01_1_00002.xml", ("9_zhehen", 2, 3, 4, 6), ("d", 1, 1, 9, 9), ("d", 2, 2, 9, 9)
    )
    put_xml(raw / labels / "img_01_1_00004.xml", ("d", 1, 1, 9, 9))
    put_xml(raw / labels / "img_01_1_00005.xml")
    put_xml(raw / labels / "gone.xml", ("1_chongkong", 1, 1, 9, 9), ("1_chongkong", 3, 3, 9, 9))
    put(raw / "notes.txt", "x")

    found = convert("gc10", raw, tmp_path / "out")

    first = sorted(folders)[0]
    assert found.class_boxes == {
        (f"{folders[0]}/img_01_1_00001.jpg", "gc10_waist_folding"): [(0, 0, 160, 120)],
        # Thinner than the size rule allows: people drew it, so it stays.
        (f"{folders[0]}/img_01_1_00001.jpg", "gc10_welding_line"): [(10, 4, 10, 1)],
        (f"{first}/img_01_1_00002.jpg", "gc10_crease"): [(1, 2, 3, 4)],
    }
    assert found.dropped == {
        "image listed twice": (1, 0),
        "image without its annotation": (1, 0),
        "image without defects": (1, 0),
        "unknown class: d": (2, 3),
        "annotation without its image": (1, 2),
        "file outside the layout": (1, 0),
    }
    assert found.report.min_side == 0


@pytest.mark.parametrize("dataset", ["ds", "ds0", "gc10/ds"])
def test_supervisely_packing(tmp_path, dataset, raw):
    images, labels = raw / dataset / "img", raw / dataset / "ann"
    put(raw / "meta.json", {})
    for name in ("a.jpg", "b.jpg", "bare.jpg"):
        put_image(images / name, SIZE)
    put_supervisely(
        labels / "a.jpg.json",
        rectangle("waist folding", [3, 2], [7, 9]),
        rectangle("silk_spot", [7, 9], [3, 2]),
        rectangle("silk_spot", [159, 0], [0, 119]),
        rectangle("glare", [0, 0], [5, 5]),
    )
    put_supervisely(labels / "b.jpg.json")
    put_supervisely(labels / "gone.jpg.json", rectangle("crease", [3, 2], [7, 9]))

    found = convert("gc10", raw, tmp_path / "out")

    assert found.class_boxes == {
        (f"{dataset}/img/a.jpg", "gc10_waist_folding"): [(3, 2, 5, 8)],
        (f"{dataset}/img/a.jpg", "gc10_silk_spot"): [(3, 2, 5, 8), (0, 0, 160, 120)],
    }
    assert found.dropped == {
        "image without defects": (1, 0),
        "image without its annotation": (1, 0),
        "unknown class: glare": (1, 1),
        "annotation without its image": (1, 1),
    }


ENGLISH = (
    "chongkong=punching_hole hanfeng=welding_line yueyawan=crescent_gap shuiban=water_spot youban=oil_spot "
    "siban=silk_spot yiwu=inclusion yahen=rolled_pit zhehen=crease yaozhe=waist_folding"
)


def test_every_class_by_number_and_by_name(tmp_path: Path) -> None:
    english = dict(pair.split("=") for pair in ENGLISH.split())
    for number, (name, title) in enumerate(english.items(), start=1):
        put_image(tmp_path / f"voc/{number}/{title}.jpg", SIZE)
        put_xml(tmp_path / f"voc/lable/{title}.xml", (f"{number}_{name}", 1, 1, 5, 5))
        put_image(tmp_path / f"ninja/ds/img/{title}.jpg", SIZE)
        written = title.replace("_", " ") if title == "waist_folding" else title
        put_supervisely(tmp_path / f"ninja/ds/ann/{title}.jpg.json", rectangle(written, [0, 0], [4, 4]))
    for packing in ("voc", "ninja"):
        found = convert("gc10", tmp_path / packing, tmp_path)
        assert {(Path(file).stem, category) for file, category in found.by_class} == {
            (title, f"gc10_{title}") for title in english.values()
        }
        assert found.report.instances_kept.keys() == GC10.categories
        assert len(GC10.categories) == 10


def voc_packing(root: Path) -> None:
    put_image(root / "1/a.jpg", SIZE)
    put_xml(root / "lable/a.xml", ("1_chongkong", 1, 1, 5, 5))


def supervisely(**change: Any) -> Callable[[Path], None]:
    """One image in this packing; `change` are keys of its only object."""

    def write(root: Path) -> None:
        put_image(root / "ds/img/a.jpg", SIZE)
        put_supervisely(root / "ds/ann/a.jpg.json", rectangle("crease", [0, 0], [4, 4]) | change)

    return write


def exterior(*corners: object) -> Callable[[Path], None]:
    return supervisely(points={"exterior": list(corners)})


def text(content: str) -> Callable[[Path], object]:
    return lambda root: put(root / "ds/ann/a.jpg.json", content)


DAMAGE: dict[str, tuple[tuple[Callable[[Path], object], ...], str]] = {
    "two annotations": (
        (voc_packing, lambda root: put_xml(root / "label/label/a.xml")),
        r"lable/a\.xml: annotates the same image as label/label/a\.xml",
    ),
    "two packings": ((voc_packing, supervisely()), "a.jpg.json: annotates the same image as lable/a.xml"),
    "bad json": ((supervisely(), text("{")), r"a\.jpg\.json: not valid JSON"),
    "a list": ((supervisely(), text("[]")), r"a\.jpg\.json: no Supervisely annotation"),
    "other size": (
        (supervisely(), lambda root: put_image(root / "ds/img/a.jpg", (50, 40))),
        r"img/a\.jpg: the image is 50x40",
    ),
    "no name": ((supervisely(classTitle=None),), r"a\.jpg\.json: object 1: it has no name"),
    "broken name": ((supervisely(classTitle="\ud800"),), r"object 1: '\\ud800' is no name"),
    "polygon": ((supervisely(geometryType="polygon"),), "object 1: it is a 'polygon'"),
    "no points": ((supervisely(points={}),), "object 1: no 'exterior'"),
    "one corner": ((exterior([1, 1]),), "object 1: a rectangle of 1 corners"),
    "nan": ((exterior([1, math.nan], [3, 3]),), "object 1: nan is no finite number"),
    "text": ((exterior([1, "x"], [3, 3]),), "object 1: 'x' is no finite number"),
    "huge": ((exterior([1, 10**400], [3, 3]),), "is no finite number"),
    "three values": ((exterior([1, 2, 3], [3, 3]),), "object 1: too many values"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage, raw):
    writers, message = DAMAGE[damage]
    for write in writers:
        write(raw)
    refused("gc10", raw, message)


def test_another_layout_is_told_what_is_expected(raw):
    put_image(raw / "pictures/a.jpg")
    refused("gc10", raw, "no image with a marked defect; GC10-DET has folders 1 to 10")
