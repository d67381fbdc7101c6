"""GC10-DET in its three packings: quirks are met, damage is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources.gc10 import GC10
from unispector.errors import DataError

SIZE = (160, 120)
Boxes = dict[tuple[str, str], list[list[float]]]


def put_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 90).save(path)


def put_xml(
    path: Path, *objects: tuple[str, int, int, int, int], size: tuple[int, int] = SIZE, filename: str = "?"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>1</truncated><difficult>1</difficult>"
        f"<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    )
    path.write_text(
        f"<annotation><folder>x</folder><filename>{filename}</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>1</depth></size>{body}</annotation>"
    )


def rectangle(title: str, *corners: list[float]) -> dict[str, Any]:
    points = {"exterior": list(corners), "interior": []}
    return {"id": 1, "classTitle": title, "geometryType": "rectangle", "tags": [], "points": points}


def put_supervisely(path: Path, *objects: dict[str, Any], size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = {"width": size[0], "height": size[1]}
    path.write_text(json.dumps({"description": "", "tags": [], "size": sides, "objects": list(objects)}))


def convert(root: Path, out: Path) -> tuple[ConversionReport, Boxes]:
    """The report, and boxes by file name and category."""
    files = ConversionFiles.beside(out / "GC10.json")
    report = convert_set("GC10", GC10, root, files, min_side=0.01)
    content = json.loads(files.annotations.read_text())
    images = {image["id"]: image["file_name"] for image in content["images"]}
    categories = {category["id"]: category["name"] for category in content["categories"]}
    boxes: Boxes = {}
    for item in content["annotations"]:
        key = images[item["image_id"]], categories[item["category_id"]]
        boxes.setdefault(key, []).append(item["bbox"])
    return report, boxes


def dropped(report: ConversionReport) -> dict[str, tuple[int, int]]:
    return {item.reason: (item.files, item.instances) for item in report.dropped}


@pytest.mark.parametrize(
    ("folders", "labels"),
    [(("4", "10"), "lable"), (("images/images/water_spot", "images/images/waist_folding"), "label/label")],
    ids=["numbered folders", "class folders"],
)
def test_voc_packings(tmp_path: Path, folders: tuple[str, str], labels: str) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    for folder, stem in [
        (folders[0], "img_01_1_00001"),
        (folders[0], "img_01_1_00002"),
        (folders[1], "img_01_1_00002"),
        (folders[1], "img_01_1_00003"),
        (folders[1], "img_01_1_00004"),
        (folders[1], "img_01_1_00005"),
    ]:
        put_image(root / folder / f"{stem}.jpg")
    # The folder says water spot, the file says two other defects; its `filename` names another image.
    put_xml(
        root / labels / "img_01_1_00001.xml",
        ("10_yaozhed", 1, 1, 160, 120),
        ("2_hanfeng", 11, 5, 20, 5),
        filename="../../img_01_1_00003.jpg",
    )
    put_xml(
        root / labels / "img_01_1_00002.xml", ("9_zhehen", 2, 3, 4, 6), ("d", 1, 1, 9, 9), ("d", 2, 2, 9, 9)
    )
    put_xml(root / labels / "img_01_1_00004.xml", ("d", 1, 1, 9, 9))
    put_xml(root / labels / "img_01_1_00005.xml")
    put_xml(root / labels / "gone.xml", ("1_chongkong", 1, 1, 9, 9), ("1_chongkong", 3, 3, 9, 9))
    (root / "notes.txt").write_text("x")

    report, boxes = convert(root, out)

    first = sorted(folders)[0]
    assert boxes == {
        (f"{folders[0]}/img_01_1_00001.jpg", "gc10_waist_folding"): [[0, 0, 160, 120]],
        # Thinner than the size rule allows: people drew it, so it stays.
        (f"{folders[0]}/img_01_1_00001.jpg", "gc10_welding_line"): [[10, 4, 10, 1]],
        (f"{first}/img_01_1_00002.jpg", "gc10_crease"): [[1, 2, 3, 4]],
    }
    assert dropped(report) == {
        "image listed twice": (1, 0),
        "image without its annotation": (1, 0),
        "image without defects": (1, 0),
        "unknown class: d": (2, 3),
        "annotation without its image": (1, 2),
        "file outside the layout": (1, 0),
    }
    assert report.min_side == 0


@pytest.mark.parametrize("dataset", ["ds", "ds0", "gc10/ds"])
def test_supervisely_packing(tmp_path: Path, dataset: str) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    images, labels = root / dataset / "img", root / dataset / "ann"
    (root / "raw").mkdir(parents=True)
    (root / "meta.json").write_text("{}")
    for name in ("a.jpg", "b.jpg", "bare.jpg"):
        put_image(images / name)
    put_supervisely(
        labels / "a.jpg.json",
        rectangle("waist folding", [3, 2], [7, 9]),
        rectangle("silk_spot", [7, 9], [3, 2]),
        rectangle("silk_spot", [159, 0], [0, 119]),
        rectangle("glare", [0, 0], [5, 5]),
    )
    put_supervisely(labels / "b.jpg.json")
    put_supervisely(labels / "gone.jpg.json", rectangle("crease", [3, 2], [7, 9]))

    report, boxes = convert(root, out)

    assert boxes == {
        (f"{dataset}/img/a.jpg", "gc10_waist_folding"): [[3, 2, 5, 8]],
        (f"{dataset}/img/a.jpg", "gc10_silk_spot"): [[3, 2, 5, 8], [0, 0, 160, 120]],
    }
    assert dropped(report) == {
        "image without defects": (1, 0),
        "image without its annotation": (1, 0),
        "unknown class: glare": (1, 1),
        "annotation without its image": (1, 1),
    }


def test_every_class_by_number_and_by_name(tmp_path: Path) -> None:
    english = {
        "chongkong": "punching_hole",
        "hanfeng": "welding_line",
        "yueyawan": "crescent_gap",
        "shuiban": "water_spot",
        "youban": "oil_spot",
        "siban": "silk_spot",
        "yiwu": "inclusion",
        "yahen": "rolled_pit",
        "zhehen": "crease",
        "yaozhe": "waist_folding",
    }
    for number, (name, title) in enumerate(english.items(), start=1):
        put_image(tmp_path / f"voc/{number}/{title}.jpg")
        put_xml(tmp_path / f"voc/lable/{title}.xml", (f"{number}_{name}", 1, 1, 5, 5))
        put_image(tmp_path / f"ninja/ds/img/{title}.jpg")
        written = title.replace("_", " ") if title == "waist_folding" else title
        put_supervisely(tmp_path / f"ninja/ds/ann/{title}.jpg.json", rectangle(written, [0, 0], [4, 4]))
    for packing in ("voc", "ninja"):
        report, boxes = convert(tmp_path / packing, tmp_path)
        assert {(Path(file).stem, category) for file, category in boxes} == {
            (title, f"gc10_{title}") for title in english.values()
        }
        assert report.instances_kept.keys() == GC10.categories
        assert len(GC10.categories) == 10


def break_voc(root: Path) -> None:
    put_image(root / "1/a.jpg")
    put_xml(root / "lable/a.xml", ("1_chongkong", 1, 1, 5, 5))


def break_supervisely(root: Path) -> None:
    put_image(root / "ds/img/a.jpg")
    put_supervisely(root / "ds/ann/a.jpg.json", rectangle("crease", [0, 0], [4, 4]))


def supervisely(**change: Any) -> Callable[[Path], object]:
    """A change of the only object's keys."""
    item = rectangle("crease", [0, 0], [4, 4]) | change
    return lambda root: put_supervisely(root / "ds/ann/a.jpg.json", item)


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(content)


def exterior(*corners: object) -> Callable[[Path], object]:
    return supervisely(points={"exterior": list(corners)})


VOC_DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("no image at all", text("1/a.jpg", "no image"), r"1/a\.jpg: not a readable image"),
    (
        "other size",
        lambda root: put_image(root / "1/a.jpg", (50, 40)),
        r"1/a\.jpg: the image is 50x40 but .* 160x120",
    ),
    ("bad xml", text("lable/a.xml", "<annotation><object>"), r"lable/a\.xml: not valid XML"),
    ("not utf-8", lambda root: (root / "lable/a.xml").write_bytes(b"\xff\xfe\x00"), r"a\.xml: is not UTF-8"),
    (
        "no number",
        lambda root: put_xml(root / "lable/a.xml", ("1_chongkong", "x", 1, 5, 5)),  # type: ignore[arg-type]
        r"a\.xml: object 1 \('1_chongkong'\): 'x' is no finite number",
    ),
    (
        "nan",
        lambda root: put_xml(root / "lable/a.xml", ("1_chongkong", 1, "nan", 5, 5)),  # type: ignore[arg-type]
        r"a\.xml: object 1 .*: 'nan' is no finite number",
    ),
    (
        "two annotations",
        lambda root: put_xml(root / "label/label/a.xml"),
        r"lable/a\.xml: annotates the same image as label/label/a\.xml",
    ),
    ("two packings", break_supervisely, r"ds/ann/a\.jpg\.json: annotates the same image as lable/a\.xml"),
]
SUPERVISELY_DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("bad json", text("ds/ann/a.jpg.json", "{"), r"a\.jpg\.json: not valid JSON"),
    ("a list", text("ds/ann/a.jpg.json", "[]"), r"a\.jpg\.json: no Supervisely annotation"),
    (
        "other size",
        lambda root: put_image(root / "ds/img/a.jpg", (50, 40)),
        r"img/a\.jpg: the image is 50x40",
    ),
    ("no name", supervisely(classTitle=None), r"a\.jpg\.json: object 1: it has no name"),
    ("broken name", supervisely(classTitle="\ud800"), r"a\.jpg\.json: object 1: '\\ud800' is no name"),
    ("polygon", supervisely(geometryType="polygon"), r"object 1: it is a 'polygon', GC10-DET has rectangles"),
    ("no points", supervisely(points={}), r"object 1: no 'exterior'"),
    ("one corner", exterior([1, 1]), r"object 1: a rectangle of 1 corners"),
    ("nan", exterior([1, float("nan")], [3, 3]), r"object 1: nan is no finite number"),
    ("text", exterior([1, "x"], [3, 3]), r"object 1: 'x' is no finite number"),
    ("huge", exterior([1, 10**400], [3, 3]), r"is no finite number"),
    ("three values", exterior([1, 2, 3], [3, 3]), r"object 1: too many values"),
]


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in VOC_DAMAGE], ids=[c[0] for c in VOC_DAMAGE]
)
def test_damage_to_a_voc_packing_is_named(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    break_voc(tmp_path / "raw")
    convert(tmp_path / "raw", tmp_path)
    damage(tmp_path / "raw")
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in SUPERVISELY_DAMAGE], ids=[c[0] for c in SUPERVISELY_DAMAGE]
)
def test_damage_to_supervisely_is_named(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    break_supervisely(tmp_path / "raw")
    convert(tmp_path / "raw", tmp_path)
    damage(tmp_path / "raw")
    refused(tmp_path, message)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        convert(folder / "raw", folder / "refused")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not (folder / "refused/GC10.json").exists()


def test_another_layout_is_told_what_is_expected(tmp_path: Path) -> None:
    put_image(tmp_path / "raw/pictures/a.jpg")
    refused(tmp_path, r"no image with a marked defect; GC10-DET has folders 1 to 10")
