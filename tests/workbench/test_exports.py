"""What exports say of marks and of findings."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.ops import drawing
from unispector.ops.rle import encode_rle
from unispector.workbench import exports
from unispector.workbench.exports import ImageRegions, Region
from unispector.workbench.project import Project

HW = (40, 60)


@pytest.fixture
def regions() -> ImageRegions:
    """A drawn box, an accepted finding and one that nobody judged."""
    pixels = np.zeros((2, *HW), np.bool_)
    pixels[0, 10:20, 5:15] = pixels[1, 22:30, 30:44] = True
    accepted, found = encode_rle(pixels)
    return ImageRegions(
        "a.png",
        HW,
        [
            Region("dent", None, (1, 2, 8, 6), None, "drawn"),
            Region("dent", None, (5, 10, 10, 10), accepted, "accepted"),
            Region("scratch", 0.42, (30, 22, 14, 8), found, "found"),
        ],
    )


def test_only_a_finding_has_a_score_and_a_drawn_box_no_outline(regions: ImageRegions) -> None:
    names = ("dent", "scratch")
    box, mark, finding = exports._as_coco([regions], names)["annotations"]
    assert [own.get("score") for own in (box, mark, finding)] == [None, None, pytest.approx(0.42)]
    assert (box["segmentation"], box["bbox"]) == ([], [1, 2, 8, 6])
    assert [mark["segmentation"], finding["segmentation"]] == [own.mask for own in regions.regions[1:]]

    shapes = exports._as_labelme(regions, names)["shapes"]
    assert [own["shape_type"] for own in shapes] == ["rectangle", "mask", "mask"]
    assert [own["description"] for own in shapes] == ["marked", "marked", "score 0.420"]
    assert ["score" in own for own in shapes] == [False, False, True]
    assert shapes[0]["points"] == [[1, 2], [9, 8]]


def test_a_mark_is_called_so_in_the_picture(
    regions: ImageRegions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []

    def draw(image: drawing.Image, shapes: Iterable[drawing.Region]) -> drawing.Image:
        drawn = list(shapes)
        captions.extend(shape.caption for shape in drawn)
        return drawing.draw_regions(image, drawn)

    monkeypatch.setattr(exports, "draw_regions", draw)
    Image.new("RGB", HW[::-1]).save(tmp_path / "a.png")
    jpeg = exports._drawn(regions, ("dent", "scratch"), tmp_path / "a.png", 16)
    assert jpeg.startswith(b"\xff\xd8")
    assert captions == ["scratch 0.42", "dent marked", "dent marked"]  # the best is drawn last


def test_an_image_that_is_another_now_is_not_drawn(regions: ImageRegions, tmp_path: Path) -> None:
    Image.new("RGB", (61, 40)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: has changed meanwhile; export again"):
        exports._drawn(regions, ("dent", "scratch"), tmp_path / "a.png", 16)


@pytest.mark.parametrize("kind", ["labelme", "yolo", "images"])
def test_every_image_has_an_entry_of_its_own(tmp_path: Path, kind: exports.Kind) -> None:
    for name in ("a.png", "a.jpg", "a.png.jpg", "b.png"):
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    project = Project(tmp_path)
    entries = [name for name, _ in exports._entries(project, kind, lambda *_: None) if name != "classes.txt"]
    project.end()
    assert len(set(entries)) == 4
    assert any(name.rpartition("/")[2].startswith("b.") and "png" not in name for name in entries)
