"""Own LabelMe sets: shapes, groups, which image a file belongs to, and damage that only they can have."""

import base64
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from releases import convert, filled, put, put_image, refused
from unispector.ops.rle import decode_rle

SQUARE = [[2, 3], [12, 3], [12, 13], [2, 13]]
AREA = filled((slice(3, 13), slice(2, 12)))
RING = np.ones((6, 8), np.uint8)
RING[2:4, 2:6] = 0


def shape(
    kind: str | None = "polygon", points: object = SQUARE, label: object = "dent", group: object = None
) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}


def painted(
    crop: np.ndarray = RING,
    first: tuple[float, float] = (50, 30),
    last: tuple[float, float] = (57, 35),
    **change: object,
) -> dict[str, Any]:
    """A shape of type mask, its image as LabelMe stores it: a PNG of 0 and 1."""
    stream = io.BytesIO()
    Image.fromarray(crop).save(stream, "PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    return shape("mask", [first, last]) | {"mask": picture} | change


def put_json(path: Path, *shapes: object, **change: object) -> None:
    content: dict[str, object] = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imageData": None}
    content |= {"imagePath": f"{path.stem}.png", "imageHeight": 40, "imageWidth": 60}
    put(path, content | change)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A release of one image of 60 x 40, a.png."""
    put_image(tmp_path / "raw/a.png")
    return tmp_path / "raw"


def test_polygons_and_rectangles(raw: Path, tmp_path: Path) -> None:
    old = shape(label="scratch")
    del old["shape_type"], old["group_id"]
    put_json(
        raw / "a.json",
        shape(),
        shape("rectangle", [[9.5, 3], [4, 8]]),
        shape("rectangle", [[4, 8], [4.1, 8.1]]),
        shape("rectangle", [[4, 8], [4.6, 8.6]]),
        shape("rectangle", [[50, 30], [70, 30], [70, 50], [50, 50]]),
        old,
        shape(None, label="untyped"),
    )

    found = convert("labelme", raw, tmp_path)

    names, marks = zip(*found.marks["a.png"], strict=True)
    assert names == ("dent",) * 4 + ("scratch", "untyped")
    for place in (0, 4, 5):
        assert (decode_rle(marks[place].segmentation) == AREA).all()
        assert (marks[place].bbox, marks[place].area) == ((2, 3, 10, 10), 100)
    assert marks[1].bbox == (4, 3, 5.5, 5)
    # Smaller than a mask's component could be, yet it fills a pixel; the one before fills none.
    assert marks[2].bbox == pytest.approx((4, 8, 0.6, 0.6))
    assert marks[3].bbox == (50, 30, 10, 10)
    assert found.dropped == {"region without a pixel of its image": (1, 1)}


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation", "quadrilateral"])
def test_a_turned_rectangle_is_the_polygon_of_its_corners(raw: Path, tmp_path: Path, kind: str) -> None:
    put_json(raw / "a.json", shape(kind), shape(kind, [[30, 10], [40, 20], [30, 30], [20, 20]]))
    upright, turned = convert("labelme", raw, tmp_path).by_class["a.png", "dent"]
    assert (decode_rle(upright.segmentation) == AREA).all()
    y, x = np.mgrid[:40, :60] + 0.5
    distance = np.abs(x - 30) + np.abs(y - 20)
    mask = decode_rle(turned.segmentation)
    assert mask[distance < 9].all()
    assert not mask[distance > 11].any()


def test_a_circle_is_a_centre_and_a_point_on_it(raw: Path, tmp_path: Path) -> None:
    put_json(raw / "a.json", shape("circle", [[30, 20], [33, 16]]), shape("circle", [[30, 20], [42, 20]]))
    y, x = np.mgrid[:40, :60] + 0.5
    distance = np.hypot(x - 30, y - 20)
    marks = convert("labelme", raw, tmp_path).by_class["a.png", "dent"]
    for mark, radius in zip(marks, (5, 12), strict=True):
        mask = decode_rle(mark.segmentation)
        assert mask[distance < radius - 0.8].all()
        assert not mask[distance > radius + 0.8].any()
        assert mark.area == pytest.approx(math.pi * radius**2, rel=0.03)


def test_shapes_of_one_group_and_label_are_one_instance(raw: Path, tmp_path: Path) -> None:
    apart = [[30, 20], [40, 20], [40, 30], [30, 30]]
    put_json(
        raw / "a.json",
        shape(group=1),
        shape(group=2),
        shape("rectangle", [[40, 30], [30, 20]], group=1),
        shape(label="scratch", points=apart, group=1),
        shape(points=apart),
        shape(points=apart),
        shape("point", [[1, 1]], group=1),
    )
    found = convert("labelme", raw, tmp_path)
    marks = found.marks["a.png"]
    assert [(name, mark.area) for name, mark in marks] == [
        ("dent", 200),
        ("dent", 100),
        ("scratch", 100),
        ("dent", 100),
        ("dent", 100),
    ]
    both = AREA | filled((slice(20, 30), slice(30, 40)))
    assert (decode_rle(marks[0][1].segmentation) == both).all()
    assert found.dropped == {"mark that is no region: point": (1, 1)}


def test_a_mask_keeps_its_pixels(raw: Path, tmp_path: Path) -> None:
    put_json(
        raw / "a.json",
        painted(),
        painted(group_id=1, label="scratch"),
        shape(group=1, label="scratch"),
        painted(np.full((1, 1), 255, np.uint8), (0, 0), (0, 0), group_id=1, label="scratch"),
        painted(RING * 0),
        imageWidth=None,
    )

    found = convert("labelme", raw, tmp_path)

    ring = np.zeros((40, 60), bool)
    ring[30:36, 50:58] = RING
    (first, dent), (second, scratch) = found.marks["a.png"]
    assert (first, second) == ("dent", "scratch")
    assert (decode_rle(dent.segmentation) == ring).all()
    assert (dent.bbox, dent.area) == ((50, 30, 8, 6), 40)
    joined = ring | AREA | filled((slice(0, 1), slice(0, 1)))
    assert (decode_rle(scratch.segmentation) == joined).all()
    assert found.dropped == {"region without a pixel of its image": (1, 1)}


@pytest.mark.parametrize(
    ("file", "path", "image"),
    [
        ("a.json", "a.png", "a.png"),
        ("ann/a.json", "../img/b.jpg", "img/b.jpg"),
        ("ann/a.json", "..\\img\\b.jpg", "img/b.jpg"),
        ("x/a.json", "moved away.png", "x/a.JPG"),
        ("x/a.json", None, "x/a.png"),
        ("c.json", "C:\\Users\\me\\b.png", "b.png"),
        ("x/a.json", "\\\\server\\share\\b.png", "x/b.png"),
        ("x/a.json", "/srv/pictures/b.png", "x/b.png"),
        ("x/a.json", "../../b.png", "x/b.png"),
    ],
)
def test_which_image_a_file_belongs_to(tmp_path, file, path, image, raw):
    put_image(raw / image)
    put_json(raw / file, shape(), imagePath=path)
    assert list(convert("labelme", raw, tmp_path).marks) == [image]


def test_a_path_that_is_there_wins(raw: Path, tmp_path: Path) -> None:
    put_image(raw / "b.png")
    put_json(raw / "a.json", shape(), imagePath="b.png")
    assert list(convert("labelme", raw, tmp_path).marks) == ["b.png"]


def test_sets_aside_by_reason(raw: Path, tmp_path: Path) -> None:
    for name in ("bare", "clean", "lines"):
        put_image(raw / f"{name}.png")
    put_json(raw / "a.json", shape(), shape("line", [[1, 1], [2, 2]]), shape("rectangle", [[2, 2], [2, 5]]))
    put_json(raw / "clean.json")
    put_json(raw / "lines.json", shape("linestrip"), shape("points"), imageWidth=None)
    put_json(raw / "gone.json", shape(), shape())
    put(raw / "labels.txt", "dent")
    found = convert("labelme", raw, tmp_path)
    assert found.dropped == {
        "image without its annotation": (1, 0),
        "image without defects": (1, 0),
        "mark that is no region: line": (1, 1),
        "mark that is no region: linestrip": (1, 1),
        "mark that is no region: points": (1, 1),
        "region without a pixel of its image": (1, 1),
        "annotation without its image": (1, 2),
        "file outside the layout": (1, 0),
    }
    assert found.report.instances_kept == {"dent": 1}


def change(*shapes: object, **content: object) -> Callable[[Path], object]:
    return lambda root: put_json(root / "a.json", *shapes, **content)


def two_images(root: Path) -> None:
    put_image(root / "a.jpg")
    put_json(root / "a.json", shape(), imagePath="c.png")


def named_and_beside(root: Path) -> None:
    put_image(root / "b.png")
    put_json(root / "a.json", shape(), imagePath="C:\\b.png")


NAN = [[1, 1], [math.nan, 2], [3, 3]]
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nan": (change(shape(), shape(points=NAN)), r"a\.json: shape 2 .*nan is no finite"),
    "infinite": (change(shape(points=[[1, 1], [math.inf, 2], [3, 3]])), "shape 1 .*inf is no finite number"),
    "truth": (change(shape(points=[[1, 1], [True, 2], [3, 3]])), "shape 1 .*True is no finite number"),
    "no points": (change({"label": "dent"}), r"a\.json: shape 1 .*'points'"),
    "flat points": (change(shape(points=[1, 2, 3, 4, 5, 6])), r"a\.json: shape 1 "),
    "no dict": (change([1]), r"a\.json: shape 1 "),
    "two corners": (change(shape(points=[[1, 1], [2, 2]])), "shape 1 .*'dent' is a polygon of 2 points"),
    "turned, three corners": (
        change(shape("oriented_rectangle", [[1, 1], [9, 1], [9, 9]])),
        "shape 1 .*'dent' is a oriented_rectangle of 3 points",
    ),
    "half circle": (change(shape("circle", [[1, 1]])), "shape 1 .*'dent' is a circle of 1 points"),
    "no name": (change(shape(label="")), "shape 1 .*it has no name"),
    "number as name": (change(shape(label=3)), "shape 1 .*3 is no name"),
    "broken name": (change(shape(label="a\ud800")), r"shape 1 .*'a\\ud800' is no name"),
    "far away": (change(shape(points=[[1, 1], [9e9, 2], [3, 3]])), r"a\.png: dent: polygon leaves its 60x40"),
    "no mask": (change(shape("mask", [[1, 1], [2, 2]])), "shape 1 .*'mask'"),
    "mask of null": (change(painted(mask=None)), r"a\.json: shape 1 "),
    "mask without base64": (change(painted(mask="iVBOR*")), r"a\.json: shape 1 "),
    "mask without an image": (change(painted(mask="aaaa")), "shape 1 .*its mask: not a readable image"),
    "mask of 3 points": (change(painted(points=[[1, 1], [2, 2], [3, 3]])), r"a\.json: shape 1 "),
    "mask on a broken image": (
        lambda root: (put_json(root / "a.json", painted()), put(root / "a.png", b"x")),
        r"raw/a\.png: not a readable image",
    ),
    "mask too large": (change(painted(last=(56, 35))), "shape 1 .*its mask is 8x6, its points say otherwise"),
    "mask outside": (change(painted(first=(53, 30), last=(60, 35))), "shape 1 .*its mask leaves the image"),
    "mask before": (change(painted(first=(-1, 0), last=(6, 5))), "shape 1 .*its mask leaves the image"),
    "group far away": (
        change(painted(group_id=1), shape(points=[[1, 1], [9e9, 2], [3, 3]], group=1)),
        r"a\.json: shapes of one group: polygon leaves its 60x40 image",
    ),
    "two annotations": (lambda root: put_json(root / "b.json", imagePath="a.png"), "b.json: annotates a.png"),
    "two images": (two_images, r"a\.json: may belong to a\.jpg or a\.png"),
    "named and beside": (named_and_beside, r"a\.json: may belong to b\.png or a\.png"),
    "number as type": (change(shape(3)), r"a\.json: shape 1 .*3 is no name"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(raw: Path, damage: str) -> None:
    spoil, message = DAMAGE[damage]
    put_json(raw / "a.json", shape())
    spoil(raw)
    refused("labelme", raw, message)
