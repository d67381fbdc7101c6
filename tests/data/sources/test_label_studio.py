"""Own Label Studio sets: per cent, turned shapes, brushes, which annotation counts, where images lie."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from releases import convert, filled, put, put_image, refused
from unispector.ops.rle import segmentation_to_mask
from unispector.ops.tool_rle import encode_brush

BOX = {"x": 10, "y": 20, "width": 30, "height": 25, "rotation": 0}  # 6, 8, 18, 10 of 60 x 40


def mark(kind: str = "rectanglelabels", label: str = "dent", /, **value: object) -> dict[str, Any]:
    value = value or dict(BOX)
    own = {kind: [label]} if kind.endswith("labels") else {}
    sides = {"original_width": 60, "original_height": 40, "image_rotation": 0}
    return {"id": "m", "type": kind, "from_name": "f", "to_name": "i", **sides, "value": {**value, **own}}


def task(*marks: dict[str, Any], image: str = "/data/upload/3/a.png", **more: object) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": [{"id": 5, "result": list(marks)}], **more}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A release of one image of 60 x 40, pictures/a.png."""
    put_image(tmp_path / "raw/pictures/a.png")
    return tmp_path / "raw"


def inside(raw: Path, tmp_path: Path, *marks: dict[str, Any]) -> list[Any]:
    put(raw / "export.json", [task(*marks)])
    found = convert("label_studio", raw, tmp_path)
    return [
        segmentation_to_mask(instance.segmentation, 40, 60) for _, instance in found.marks["pictures/a.png"]
    ]


def test_boxes_and_polygons_are_per_cent(raw: Path, tmp_path: Path) -> None:
    corners = [[10, 20], [40, 20], [40, 45], [10, 45]]
    box, polygon = inside(raw, tmp_path, mark(), mark("polygonlabels", points=corners))
    assert (box == filled((slice(8, 18), slice(6, 24)))).all()
    assert (polygon == box).all()


def test_a_box_is_turned_clockwise_around_its_first_corner(raw: Path, tmp_path: Path) -> None:
    """A quarter turn of a box w x h at (x, y) covers columns x - h to x and rows y to y + w."""
    (turned,) = inside(raw, tmp_path, mark(x=50, y=20, width=20, height=25, rotation=90))
    assert (turned == filled((slice(8, 20), slice(20, 30)))).all()


def test_an_ellipse_has_a_centre_and_is_turned_around_it(raw: Path, tmp_path: Path) -> None:
    upright, turned = inside(
        raw,
        tmp_path,
        mark("ellipselabels", x=50, y=50, radiusX=20, radiusY=15),
        mark("ellipselabels", x=50, y=50, radiusX=20, radiusY=15, rotation=30),
    )
    y, x = np.mgrid[:40, :60] + 0.5
    for mask, degrees in ((upright, 0), (turned, 30)):
        angle = np.radians(degrees)
        along = (x - 30) * np.cos(angle) + (y - 20) * np.sin(angle)
        across = -(x - 30) * np.sin(angle) + (y - 20) * np.cos(angle)
        distance = np.hypot(along / 12, across / 6)
        assert mask[distance < 0.9].all()
        assert not mask[distance > 1.1].any()


def test_a_brush(raw: Path, tmp_path: Path) -> None:
    painted = filled((slice(3, 9), slice(2, 50)), (slice(20, 21), slice(59, 60)))
    (found,) = inside(raw, tmp_path, mark("brushlabels", format="rle", rle=encode_brush(painted)))
    assert (found == painted).all()


def test_labels_apart_from_shapes_and_several_labels(raw: Path, tmp_path: Path) -> None:
    both = mark()
    both["value"]["rectanglelabels"] = ["dent", "scratch"]
    apart = [
        mark("rectangle", **BOX),
        mark("labels", "crack", **BOX),
        mark("choices", "bad", choices=["bad"]),
    ]
    for one in apart[:2]:
        one["id"] = "n"
    put(raw / "export.json", [task(both, *apart)])
    found = convert("label_studio", raw, tmp_path)
    assert [name for name, _ in found.marks["pictures/a.png"]] == ["dent", "scratch", "crack"]
    assert found.dropped == {}


def test_what_is_left_out_is_counted(raw: Path, tmp_path: Path) -> None:
    away = mark()
    away["image_rotation"] = 90
    nameless = mark("rectangle", **BOX) | {"id": "x"}
    point = mark("keypointlabels", x=1, y=2, width=1)
    put_image(raw / "pictures/b.png")
    put_image(raw / "pictures/c.png")
    put_image(raw / "pictures/d.png")
    put(
        raw / "export.json",
        [
            task(mark(), away, nameless, point),
            task(image="b.png"),
            {"data": {"image": "c.png"}, "annotations": [], "predictions": [{"result": [mark(), mark()]}]},
            task(mark(), mark(), image="gone.png"),
        ],
    )
    put(raw / "other.json", {"version": 1})
    found = convert("label_studio", raw, tmp_path)
    assert found.told == sorted(
        [
            ("mark drawn on a turned view of the image", "pictures/a.png", 1),
            ("mark without a class", "pictures/a.png", 1),
            ("mark that is no region: keypointlabels", "pictures/a.png", 1),
            ("image without defects", "pictures/b.png", 0),
            ("prediction, which nobody has accepted", "pictures/c.png", 2),
            ("image without its annotation", "pictures/c.png", 0),
            ("image without its annotation", "pictures/d.png", 0),
            ("annotation without its image", "gone.png", 2),
            ("JSON that is no Label Studio export", "other.json", 0),
        ]
    )


def test_the_latest_annotation_counts_that_was_not_cancelled(raw: Path, tmp_path: Path) -> None:
    def of(label: str, time: str, *, cancelled: bool = False) -> dict[str, Any]:
        marks = [mark("rectanglelabels", label)]
        return {"id": 1, "result": marks, "updated_at": time, "was_cancelled": cancelled}

    annotations = [
        of("second", "2026-03-02T09:00:00Z"),
        of("last", "2026-03-02T10:00:00Z"),
        of("first", "2026-03-01T11:00:00Z"),
        of("cancelled", "2026-03-09T10:00:00Z", cancelled=True),
    ]
    put(raw / "export.json", [{"data": {"image": "a.png"}, "annotations": annotations}])
    found = convert("label_studio", raw, tmp_path)
    assert [name for name, _ in found.marks["pictures/a.png"]] == ["last"]
    assert found.told == [
        ("annotation that was cancelled", "pictures/a.png", 1),
        ("annotation with a later one of the same task", "pictures/a.png", 2),
    ]


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/3/a.png",
        "/data/upload/3/0e1f2a3b-a.png",
        "/data/local-files/?d=pictures/a.png",
        "/data/local-files/?d=elsewhere%2Fpictures%2Fa.png",
        "s3://bucket/line3/pictures/a.png",
        "https://host.example/pictures/a.png?token=1&x=2#z",
        "..\\..\\label-studio\\media\\upload\\4\\a.png",
        "../../../a.png",
    ],
)
def test_addresses_of_images(raw: Path, tmp_path: Path, address: str) -> None:
    put(raw / "export.json", [task(mark(), image=address)])
    found = convert("label_studio", raw, tmp_path)
    assert list(found.marks) == ["pictures/a.png"]
    assert found.told == []


@pytest.mark.parametrize("address", ["/data/local-files/?d=line1/a.png", "s3://bucket/line1/a.png"])
def test_an_image_in_another_folder_than_its_address_says_is_told(
    raw: Path, tmp_path: Path, address: str
) -> None:
    put(raw / "export.json", [task(mark(), image=address)])
    found = convert("label_studio", raw, tmp_path)
    assert list(found.marks) == ["pictures/a.png"]
    told = "image found by its name, its path in the annotations leads elsewhere"
    assert found.told == [(told, "pictures/a.png", 0)]


def test_the_folder_decides_between_images_of_one_name(raw: Path, tmp_path: Path) -> None:
    put_image(raw / "line2/a.png")
    put(raw / "export.json", [task(mark(), image="/data/local-files/?d=x/line2/a.png")])
    assert list(convert("label_studio", raw, tmp_path).marks) == ["line2/a.png"]
    put(raw / "export.json", [task(mark(), image="/data/upload/1/a.png")])
    refused("label_studio", raw, r"export\.json: .*may be line2/a\.png or pictures/a\.png; remove or rename")


def test_another_key_than_image(raw: Path, tmp_path: Path) -> None:
    one = task(mark()) | {"data": {"photo": "/data/upload/1/a.png", "note": "part 7"}}
    put(raw / "export.json", [one])
    assert list(convert("label_studio", raw, tmp_path).marks) == ["pictures/a.png"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            mark("brushlabels", rle=encode_brush(np.ones((3, 3), np.bool_))),
            "has 36 values, not those of 60x40",
        ),
        (mark("brushlabels", rle=[0, 0, 37]), "its brush is cut off"),
        (mark("brushlabels", rle=[1], format="png"), "a brush of the format 'png'"),
        (mark("brushlabels", format="rle"), r"\('rle'\)"),
        (mark("brushlabels", rle=[]) | {"original_width": 90000}, "is 60x40, its brush is of 90000x40"),
        (
            mark("brushlabels", rle=[]) | {"original_width": 40, "original_height": 60},
            "is 60x40, its brush is of 40x60, as an EXIF orientation does it; save the image without",
        ),
        (mark("polygonlabels", points=[[1, 2], [3, 4]]), "'dent' is a polygon of 2 points"),
        (mark("polygonlabels", points=[[1, 2, 3]]), "too many values"),
        (mark() | {"value": 7}, "has no attribute 'get'"),
        (mark() | {"value": {**BOX, "rectanglelabels": "dent"}}, "the labels of a mark are no list"),
    ],
)
def test_what_is_wrong_is_refused(raw: Path, bad: dict[str, Any], message: str) -> None:
    put(raw / "export.json", [task(bad)])
    refused(
        "label_studio", raw, rf"export\.json: task 1 is not as Label Studio writes it.*{message}.*; export"
    )


def test_two_sizes_are_refused(raw: Path) -> None:
    put(raw / "export.json", [task(mark(), mark() | {"original_width": 61})])
    refused("label_studio", raw, "its marks state different sizes of the image")
