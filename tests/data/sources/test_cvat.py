"""Own CVAT sets: boxes, turned shapes, masks, what is no region, where images lie."""

from pathlib import Path

import numpy as np
import pytest

from releases import convert, filled, put, put_image, refused
from unispector.ops.rle import segmentation_to_mask


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A release of one image of 60 x 40, images/a.png."""
    put_image(tmp_path / "raw/images/a.png")
    return tmp_path / "raw"


def put_xml(raw: Path, shapes: str, name: str = "a.png", file: str = "annotations.xml") -> None:
    image = f'<image id="0" name="{name}" subset="default" width="60" height="40">{shapes}</image>'
    meta = "<meta><job><id>3</id><mode>annotation</mode></job></meta>"
    put(raw / file, f'<?xml version="1.0"?><annotations><version>1.1</version>{meta}{image}</annotations>')


def masks(raw: Path, tmp_path: Path, shapes: str) -> list[np.ndarray]:
    put_xml(raw, shapes)
    found = convert("cvat", raw, tmp_path)
    return [
        segmentation_to_mask(instance.segmentation, 40, 60) for _, instance in found.marks["images/a.png"]
    ]


def test_boxes_polygons_and_masks(raw: Path, tmp_path: Path) -> None:
    box, polygon, painted = masks(
        raw,
        tmp_path,
        '<box label="dent" xtl="6" ytl="8" xbr="24" ybr="18" z_order="3">'
        '<attribute name="x">1</attribute></box>'
        '<polygon label="dent" points="6.0,8.0;24.0,8.0;24.0,18.0;6.0,18.0" z_order="0"/>'
        '<mask label="dent" rle="0, 1, 10, 1" left="50" top="30" width="4" height="3" z_order="1"/>',
    )
    assert (box == filled((slice(8, 18), slice(6, 24)))).all()
    assert (polygon == box).all()
    assert np.argwhere(painted).tolist() == [[30, 50], [32, 53]]


def test_a_box_is_turned_around_its_centre(raw: Path, tmp_path: Path) -> None:
    """A quarter turn of 18 x 10 around (15, 13) covers columns 10 to 20 and rows 4 to 22."""
    (turned,) = masks(raw, tmp_path, '<box label="d" xtl="6" ytl="8" xbr="24" ybr="18" rotation="90.00"/>')
    assert (turned == filled((slice(4, 22), slice(10, 20)))).all()
    (tilted,) = masks(raw, tmp_path, '<box label="d" xtl="10" ytl="15" xbr="50" ybr="25" rotation="20"/>')
    y, x = np.mgrid[:40, :60] + 0.5
    angle = np.radians(20)  # clockwise as one sees it: its right end lies lower
    along = (x - 30) * np.cos(angle) + (y - 20) * np.sin(angle)
    across = -(x - 30) * np.sin(angle) + (y - 20) * np.cos(angle)
    assert tilted[(abs(along) < 19) & (abs(across) < 4)].all()
    assert not tilted[(abs(along) > 21) | (abs(across) > 6)].any()


def test_an_ellipse(raw: Path, tmp_path: Path) -> None:
    (mask,) = masks(
        raw, tmp_path, '<ellipse label="d" cx="30.0" cy="20.0" rx="12.0" ry="6.0" rotation="30"/>'
    )
    y, x = np.mgrid[:40, :60] + 0.5
    angle = np.radians(30)
    along = (x - 30) * np.cos(angle) + (y - 20) * np.sin(angle)
    across = -(x - 30) * np.sin(angle) + (y - 20) * np.cos(angle)
    distance = np.hypot(along / 12, across / 6)
    assert mask[distance < 0.9].all()
    assert not mask[distance > 1.1].any()


def test_what_is_left_out_is_counted(raw: Path, tmp_path: Path) -> None:
    put_image(raw / "images/b.png")
    put_image(raw / "images/c.png")
    put_xml(
        raw,
        '<box label="dent" xtl="6" ytl="8" xbr="24" ybr="18"/>'
        '<box label="dent" xtl="6" ytl="8" xbr="24" ybr="18" outside="1"/>'
        '<polyline label="dent" points="1,2;3,4"/><points label="dent" points="1,2"/><tag label="good"/>'
        '<mask label="dent" rle="12" left="0" top="0" width="4" height="3"/>',
    )
    put_xml(raw, '<tag label="good"/>', "b.png", "two.xml")
    put_xml(raw, '<box label="dent" xtl="6" ytl="8" xbr="24" ybr="18"/>', "gone.png", "three.xml")
    found = convert("cvat", raw, tmp_path)
    assert len(found.marks["images/a.png"]) == 1
    assert found.told == sorted(
        [
            ("mark that has left the image (outside)", "images/a.png", 1),
            ("mark that is no region: polyline", "images/a.png", 1),
            ("mark that is no region: points", "images/a.png", 1),
            ("mask that marks nothing", "images/a.png", 1),
            ("image without defects", "images/b.png", 0),
            ("image without its annotation", "images/c.png", 0),
            ("annotation without its image", "gone.png", 1),
        ]
    )


def test_where_images_lie(raw: Path, tmp_path: Path) -> None:
    """Each file of a project's tasks goes with the images nearest to it; the whole name must be theirs."""
    box = '<box label="dent" xtl="6" ytl="8" xbr="24" ybr="18"/>'
    put_image(raw / "task_1/images/line/x.png")
    put_image(raw / "task_2/images/line/x.png")
    put_xml(raw, box, "line/x.png", "task_1/annotations.xml")
    put_xml(raw, box, "line\\x.png", "task_2/annotations.xml")
    put_xml(raw, box, "other/a.png", "three.xml")
    found = convert("cvat", raw, tmp_path)
    assert sorted(found.marks) == ["task_1/images/line/x.png", "task_2/images/line/x.png"]
    assert ("annotation without its image", "other/a.png", 1) in found.told
    put_xml(raw, box, "line/x.png", "three.xml")
    refused("cvat", raw, r"three\.xml: 'line/x\.png' may be task_1/.* or task_2/.*; remove or rename one")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<mask label="d" rle="11" left="0" top="0" width="4" height="3"/>', "does not fill its 4x3 pixels"),
        ('<mask label="d" rle="" left="0" top="0" width="4" height="3"/>', "invalid literal"),
        (
            '<mask label="d" rle="12" left="58" top="0" width="4" height="3"/>',
            "the mask of 'd' leaves the image",
        ),
        ('<mask label="d" rle="12" left="-1" top="0" width="4" height="3"/>', "leaves the image"),
        ('<mask label="d" rle="12" left="0.5" top="0" width="4" height="3"/>', "lies between pixels"),
        ('<polygon label="d" points="1,2;3,4"/>', "is a polygon of 2 points"),
        ('<polygon label="d" points="1,2;3;5,6"/>', "'' is no finite number"),
        ('<polygon label="d"/>', "'' is no finite number"),
        ('<ellipse label="d" cx="1" cy="2" rx="3"/>', "a number is missing"),
    ],
)
def test_what_is_wrong_is_refused(raw: Path, shape: str, message: str) -> None:
    put_xml(raw, shape)
    refused("cvat", raw, rf"annotations\.xml: image 1 \('a\.png'\): .*{message}.*; correct it or export")


def test_a_mask_of_an_image_of_another_size_is_refused_before_it_is_made(raw: Path) -> None:
    put_xml(raw, '<mask label="d" rle="0, 12" left="0" top="0" width="4" height="3"/>')
    file = raw / "annotations.xml"
    file.write_text(file.read_text().replace('width="60" height="40"', f'width="{10**9}" height="{10**9}"'))
    refused(
        "cvat", raw, r"image 1 .*: images/a\.png is 60x40, its masks are of 1000000000x1000000000; correct"
    )
    file.write_text(file.read_text().replace(f'width="{10**9}" height="{10**9}"', 'width="40" height="60"'))
    refused("cvat", raw, r"a\.png is 60x40, its masks are of 40x60, as an EXIF orientation does it; save")


def test_two_files_for_one_image_are_refused(raw: Path) -> None:
    put_xml(raw, "")
    put_xml(raw, "", file="two.xml")
    refused(
        "cvat", raw, r"two\.xml: image 0 annotates images/a\.png, as does image 0 of annotations\.xml; remove"
    )
