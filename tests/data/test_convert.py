"""Raw rows to annotations: pixel-exact masks, boxes and areas, the size rule, the report."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations
from unispector.data.convert import convert_set, tight_boxes_xywh
from unispector.data.sources.rows import Dropped, SourceImage, SourceSet
from unispector.errors import DataError


def image(
    name: str, *masks: tuple[str, npt.NDArray[np.bool_]], size: tuple[int, int] = (20, 30)
) -> SourceImage:
    stack = np.stack([mask for _, mask in masks]) if masks else np.zeros((0, *size), dtype=bool)
    return SourceImage(name, size[1], size[0], tuple(defect for defect, _ in masks), stack)


def source(*images: SourceImage, dropped: tuple[Dropped, ...] = ()) -> SourceSet:
    return SourceSet("tile", dropped, iter(images))


def block(
    top: int, left: int, height: int, width: int, size: tuple[int, int] = (20, 30)
) -> npt.NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_numbers_names_and_measures() -> None:
    ring = block(2, 3, 6, 8)
    ring[3:7, 4:10] = False
    annotations, report = convert_set(
        "Set",
        source(
            image("x/b.jpg", ("scratch", ring)),
            image("x/a.jpg", ("dent", block(0, 29, 20, 1)), ("scratch", ring)),
        ),
        0.01,
    )

    assert [(record.id, record.file_name) for record in annotations.images] == [
        (1, "x/b.jpg"),
        (2, "x/a.jpg"),
    ]
    assert [(c.id, c.name, c.supercategory) for c in annotations.categories] == [
        (1, "tile_dent", "tile"),
        (2, "tile_scratch", "tile"),
    ]
    assert [(i.id, i.image_id, i.category_id) for i in annotations.instances] == [
        (1, 1, 2),
        (2, 2, 1),
        (3, 2, 2),
    ]
    assert annotations.instances[0].bbox == (3.0, 2.0, 8.0, 6.0)
    assert annotations.instances[0].area == 6 * 8 - 4 * 6
    assert annotations.instances[1].bbox == (29.0, 0.0, 1.0, 20.0)
    assert (report.images_read, report.images_kept) == (2, 2)
    assert report.instances_kept == {"tile_dent": 1, "tile_scratch": 2}


@given(arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12))))
def test_measures_agree_with_pycocotools(masks: npt.NDArray[np.bool_]) -> None:
    masks[:, 0, 0] |= ~masks.any(axis=(1, 2))
    size = masks.shape[1:]
    row = SourceImage("a.jpg", size[1], size[0], ("d",) * len(masks), masks)
    annotations, _ = convert_set("Set", source(row), 0.0)

    codes = [instance.segmentation for instance in annotations.instances]
    assert coco_mask.area(codes).tolist() == [instance.area for instance in annotations.instances]
    assert coco_mask.toBbox(codes).tolist() == [list(instance.bbox) for instance in annotations.instances]
    assert (coco_mask.decode(codes).transpose(2, 0, 1).astype(bool) == masks).all()
    assert tight_boxes_xywh(masks).tolist() == coco_mask.toBbox(codes).tolist()


@pytest.mark.parametrize(("side", "share"), [(700, 0.01), (100, 0.07), (1000, 0.007)])
def test_a_side_of_exactly_the_share_stays(side: int, share: float) -> None:
    """A share of 0.07 of 100 pixels is 7; in floating point 0.07 * 100 is above it."""
    size = (side, side)
    masks = [block(1, 1, height, width, size) for height in (6, 7) for width in (6, 7)]
    row = image("a.jpg", *(("d", mask) for mask in masks), size=size)

    annotations, report = convert_set("Set", source(row), share)

    assert [instance.bbox[2:] for instance in annotations.instances] == [(7.0, 7.0)]
    assert [(item.reason, item.instances, item.files) for item in report.dropped] == [
        ("component too small", 3, ("a.jpg",))
    ]


def test_report_accounts_for_every_image_and_instance(tmp_path: Path) -> None:
    thin = block(3, 3, 1, 20, (200, 200))
    large = block(5, 5, 20, 20, (200, 200))
    rows = [
        image("keep.jpg", ("d", large), ("d", thin), size=(200, 200)),
        image("thin.jpg", ("d", thin), ("e", thin), size=(200, 200)),
        image("black.jpg", size=(200, 200)),
    ]
    aside = Dropped("image without defects", "good.jpg")
    annotations, report = convert_set("Set", source(*rows, dropped=(aside,)), 0.01)
    report.write(tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text())

    assert told["instances_read"] == {"tile_d": 3, "tile_e": 1}
    assert told["instances_kept"] == {"tile_d": 1, "tile_e": 0}
    assert {item["reason"]: (item["instances"], item["files"]) for item in told["dropped"]} == {
        "component too small": (1, ["keep.jpg"]),
        "every component too small": (2, ["thin.jpg"]),
        "image without defects": (0, ["good.jpg"]),
        "mask marks nothing": (0, ["black.jpg"]),
    }
    lost = sum(item["instances"] for item in told["dropped"])
    assert sum(told["instances_read"].values()) == sum(told["instances_kept"].values()) + lost
    assert annotations.class_names == ("tile_d",)


def test_refuses_a_set_of_which_nothing_is_left() -> None:
    with pytest.raises(DataError, match="Set: no instance left of 1 images"):
        convert_set("Set", source(image("black.jpg")), 0.01)
    with pytest.raises(DataError, match="Set: no instance left of 0 images"):
        convert_set("Set", source(), 0.01)


def test_a_broken_file_stops_the_conversion() -> None:
    def broken() -> Iterator[SourceImage]:
        yield image("a.jpg", ("d", block(1, 1, 5, 5)))
        raise DataError("b.jpg: not a readable image")

    with pytest.raises(DataError, match=r"b.jpg"):
        convert_set("Set", SourceSet("tile", (), broken()), 0.01)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    annotations, _ = convert_set("Set", source(image("ä/b.jpg", ("d", block(1, 1, 5, 5)))), 0.01)
    annotations.write(tmp_path / "set.json")
    assert Annotations.read(tmp_path / "set.json") == annotations
