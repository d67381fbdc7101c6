"""Own LabelMe sets: shapes, groups, which image a file belongs to, damage."""

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources.labelme import LABELME
from unispector.errors import DataError
from unispector.ops.rle import decode_rle

SIZE = (60, 40)
SQUARE = [[2, 3], [12, 3], [12, 13], [2, 13]]


def put_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def shape(
    kind: str | None = "polygon", points: object = SQUARE, label: object = "dent", group: object = None
) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}


def put_json(path: Path, *shapes: object, **change: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imageData": None}
    content |= {"imagePath": f"{path.stem}.png", "imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    path.write_text(json.dumps(content | change))


def convert(root: Path, out: Path) -> tuple[ConversionReport, list[tuple[str, str, dict[str, Any]]]]:
    """The report, and file name, category and record of every instance."""
    files = ConversionFiles.beside(out / "own.json")
    report = convert_set("own", LABELME, root, files, min_side=0.01)
    content = json.loads(files.annotations.read_text())
    images = {image["id"]: image["file_name"] for image in content["images"]}
    categories = {category["id"]: category["name"] for category in content["categories"]}
    rows = content["annotations"]
    return report, [(images[row["image_id"]], categories[row["category_id"]], row) for row in rows]


def dropped(report: ConversionReport) -> dict[str, tuple[int, int]]:
    return {row.reason: (row.files, row.instances) for row in report.dropped}


def pixels(*areas: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], bool)
    for area in areas:
        mask[area] = True
    return mask


def test_polygons_and_rectangles(tmp_path: Path) -> None:
    put_image(tmp_path / "raw/a.png")
    old = shape(label="scratch")
    del old["shape_type"], old["group_id"]
    put_json(
        tmp_path / "raw/a.json",
        shape(),
        shape("rectangle", [[9.5, 3], [4, 8]]),
        shape("rectangle", [[4, 8], [4.1, 8.1]]),
        shape("rectangle", [[4, 8], [4.6, 8.6]]),
        shape("rectangle", [[50, 30], [70, 30], [70, 50], [50, 50]]),
        old,
        shape(None, label="untyped"),
    )

    report, found = convert(tmp_path / "raw", tmp_path)

    assert [name for _, name, _ in found] == ["dent"] * 4 + ["scratch", "untyped"]
    for place in (0, 4, 5):
        row = found[place][2]
        assert (decode_rle(row["segmentation"]) == pixels((slice(3, 13), slice(2, 12)))).all()
        assert (row["bbox"], row["area"]) == ([2, 3, 10, 10], 100)
    assert found[1][2]["bbox"] == [4, 3, 5.5, 5]
    # Smaller than a mask's component could be, yet it fills a pixel; the one before fills none.
    assert found[2][2]["bbox"] == pytest.approx([4, 8, 0.6, 0.6])
    assert found[3][2]["bbox"] == [50, 30, 10, 10]
    assert dropped(report) == {"region without a pixel of its image": (1, 1)}


def test_a_circle_is_a_centre_and_a_point_on_it(tmp_path: Path) -> None:
    put_image(tmp_path / "raw/a.png")
    put_json(
        tmp_path / "raw/a.json", shape("circle", [[30, 20], [33, 16]]), shape("circle", [[30, 20], [42, 20]])
    )
    _, found = convert(tmp_path / "raw", tmp_path)
    y, x = np.mgrid[:40, :60] + 0.5
    for (_, _, row), radius in zip(found, (5, 12), strict=True):
        mask = decode_rle(row["segmentation"])
        distance = np.hypot(x - 30, y - 20)
        assert mask[distance < radius - 0.8].all()
        assert not mask[distance > radius + 0.8].any()
        assert row["area"] == pytest.approx(math.pi * radius**2, rel=0.03)


def test_shapes_of_one_group_and_label_are_one_instance(tmp_path: Path) -> None:
    put_image(tmp_path / "raw/a.png")
    apart = [[30, 20], [40, 20], [40, 30], [30, 30]]
    put_json(
        tmp_path / "raw/a.json",
        shape(group=1),
        shape(group=2),
        shape("rectangle", [[40, 30], [30, 20]], group=1),
        shape(label="scratch", points=apart, group=1),
        shape(points=apart),
        shape(points=apart),
        shape("point", [[1, 1]], group=1),
    )
    report, found = convert(tmp_path / "raw", tmp_path)
    names = [(name, row["area"]) for _, name, row in found]
    assert names == [("dent", 200), ("dent", 100), ("scratch", 100), ("dent", 100), ("dent", 100)]
    both = pixels((slice(3, 13), slice(2, 12)), (slice(20, 30), slice(30, 40)))
    assert (decode_rle(found[0][2]["segmentation"]) == both).all()
    assert dropped(report) == {"mark that is no region": (1, 1)}


RING = np.ones((6, 8), np.uint8)
RING[2:4, 2:6] = 0


def painted(
    crop: np.ndarray = RING,
    first: tuple[float, float] = (50, 30),
    last: tuple[float, float] = (57, 35),
    **change: object,
) -> dict[str, Any]:
    """A shape of type mask, its picture as LabelMe stores it: a PNG of 0 and 1."""
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    return shape("mask", [first, last]) | {"mask": picture} | change


def test_a_mask_keeps_its_pixels(tmp_path: Path) -> None:
    put_image(tmp_path / "raw/a.png")
    put_json(
        tmp_path / "raw/a.json",
        painted(),
        painted(group_id=1, label="scratch"),
        shape(group=1, label="scratch"),
        painted(np.full((1, 1), 255, np.uint8), (0, 0), (0, 0), group_id=1, label="scratch"),
        painted(RING * 0),
        imageWidth=None,
    )

    report, found = convert(tmp_path / "raw", tmp_path)

    ring = np.zeros((40, 60), bool)
    ring[30:36, 50:58] = RING
    joined = ring | pixels((slice(3, 13), slice(2, 12)), (slice(0, 1), slice(0, 1)))
    assert [name for _, name, _ in found] == ["dent", "scratch"]
    assert (decode_rle(found[0][2]["segmentation"]) == ring).all()
    assert (found[0][2]["bbox"], found[0][2]["area"]) == ([50, 30, 8, 6], 40)
    assert (decode_rle(found[1][2]["segmentation"]) == joined).all()
    assert dropped(report) == {"region without a pixel of its image": (1, 1)}


@pytest.mark.parametrize(
    ("file", "path", "image"),
    [
        ("a.json", "a.png", "a.png"),
        ("ann/a.json", "../img/b.jpg", "img/b.jpg"),
        ("ann/a.json", "..\\img\\b.jpg", "img/b.jpg"),
        ("x/a.json", "moved away.png", "x/a.JPG"),
        ("x/a.json", None, "x/a.png"),
    ],
)
def test_which_image_a_file_belongs_to(tmp_path: Path, file: str, path: str | None, image: str) -> None:
    put_image(tmp_path / "raw" / image)
    put_json(tmp_path / "raw" / file, shape(), imagePath=path)
    assert [name for name, _, _ in convert(tmp_path / "raw", tmp_path)[1]] == [image]


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for name in ("a", "bare", "clean", "lines"):
        put_image(root / f"{name}.png")
    put_json(root / "a.json", shape(), shape("line", [[1, 1], [2, 2]]), shape("rectangle", [[2, 2], [2, 5]]))
    put_json(root / "clean.json")
    put_json(root / "lines.json", shape("linestrip"), shape("points"), imageWidth=None)
    put_json(root / "gone.json", shape(), shape())
    (root / "labels.txt").write_text("dent")
    report, _ = convert(root, tmp_path)
    assert dropped(report) == {
        "image without its annotation": (1, 0),
        "image without defects": (1, 0),
        "mark that is no region": (3, 3),
        "region without a pixel of its image": (1, 1),
        "annotation without its image": (1, 2),
        "file outside the layout": (1, 0),
    }
    assert report.instances_kept == {"dent": 1}


def change(*shapes: object, **content: object) -> Callable[[Path], object]:
    return lambda root: put_json(root / "x/a.json", *shapes, **content)


def text(content: str) -> Callable[[Path], object]:
    return lambda root: (root / "x/a.json").write_text(content)


def beside(root: Path) -> None:
    put_image(root / "x/a.jpg")
    put_json(root / "x/a.json", shape(), imagePath="c.png")


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "cut image",
        lambda root: (root / "x/a.png").write_bytes(b"\x89PNG\r\n"),
        r"a\.png: not a readable image",
    ),
    (
        "other size",
        lambda root: put_image(root / "x/a.png", (40, 60)),
        r"a\.png: the image is 40x60 but .* 60x40",
    ),
    ("bad json", text('{"shapes": ['), r"x/a\.json: not valid JSON"),
    ("other json", text('{"images": []}'), r"x/a\.json: no LabelMe annotation"),
    ("a list", text("[1]"), r"x/a\.json: no LabelMe annotation"),
    (
        "hostile path",
        change(shape(), imagePath="../../../etc/passwd"),
        r"x/a\.json: the path .* leaves the release",
    ),
    (
        "absolute path",
        change(shape(), imagePath="/etc/passwd"),
        r"x/a\.json: the path '/etc/passwd' in it leaves",
    ),
    ("drive", change(shape(), imagePath="C:\\a.png"), r"x/a\.json: the path .* leaves the release"),
    (
        "nan",
        change(shape(), shape(points=[[1, 1], [float("nan"), 2], [3, 3]])),
        r"a\.json: shape 2 .*nan is no finite",
    ),
    (
        "infinite",
        change(shape(points=[[1, 1], [float("inf"), 2], [3, 3]])),
        r"shape 1 .*inf is no finite number",
    ),
    ("word", change(shape(points=[[1, 1], ["x", 2], [3, 3]])), r"shape 1 .*'x' is no finite number"),
    ("truth", change(shape(points=[[1, 1], [True, 2], [3, 3]])), r"shape 1 .*True is no finite number"),
    ("no points", change({"label": "dent"}), r"a\.json: shape 1 .*'points'"),
    ("flat points", change(shape(points=[1, 2, 3, 4, 5, 6])), r"a\.json: shape 1 "),
    ("no dict", change([1]), r"a\.json: shape 1 "),
    ("two corners", change(shape(points=[[1, 1], [2, 2]])), r"shape 1 .*'dent' is a polygon of 2 points"),
    ("half circle", change(shape("circle", [[1, 1]])), r"shape 1 .*'dent' is a circle of 1 points"),
    ("no name", change(shape(label="")), r"shape 1 .*it has no name"),
    ("number as name", change(shape(label=3)), r"shape 1 .*3 is no name"),
    ("broken name", change(shape(label="a\ud800")), r"shape 1 .*'a\\ud800' is no name"),
    (
        "bad size",
        change(shape(), imageWidth="wide"),
        r"a\.json: imageWidth, imageHeight: 'wide' is no finite number",
    ),
    (
        "far away",
        change(shape(points=[[1, 1], [9e9, 2], [3, 3]])),
        r"a\.png: dent: polygon leaves its 60x40 image",
    ),
    ("no mask", change(shape("mask", [[1, 1], [2, 2]])), r"shape 1 .*'mask'"),
    ("mask of null", change(painted(mask=None)), r"a\.json: shape 1 "),
    ("mask without base64", change(painted(mask="iVBOR*")), r"a\.json: shape 1 "),
    ("mask without a picture", change(painted(mask="aaaa")), r"shape 1 .*its mask: not a readable image"),
    ("mask of 3 points", change(painted(points=[[1, 1], [2, 2], [3, 3]])), r"a\.json: shape 1 "),
    (
        "mask on a broken image",
        lambda root: (put_json(root / "x/a.json", painted()), (root / "x/a.png").write_bytes(b"x")),
        r"raw/x/a\.png: not a readable image",
    ),
    (
        "mask too large",
        change(painted(last=(56, 35))),
        r"shape 1 .*its mask is 8x6, its points say otherwise",
    ),
    ("mask outside", change(painted(first=(53, 30), last=(60, 35))), r"shape 1 .*its mask leaves the image"),
    ("mask before", change(painted(first=(-1, 0), last=(6, 5))), r"shape 1 .*its mask leaves the image"),
    (
        "group far away",
        change(painted(group_id=1), shape(points=[[1, 1], [9e9, 2], [3, 3]], group=1)),
        r"x/a\.json: shapes of one group: polygon leaves its 60x40 image",
    ),
    (
        "two annotations",
        lambda root: put_json(root / "x/b.json", imagePath="a.png"),
        r"x/b\.json: annotates x/a\.png",
    ),
    ("two images", beside, r"x/a\.json: may belong to x/a\.jpg or x/a\.png"),
]


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE]
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    put_image(tmp_path / "raw/x/a.png")
    put_json(tmp_path / "raw/x/a.json", shape())
    convert(tmp_path / "raw", tmp_path)
    damage(tmp_path / "raw")
    with pytest.raises(DataError, match=message) as caught:
        convert(tmp_path / "raw", tmp_path / "refused")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists() or not list((tmp_path / "refused").glob("own*"))
