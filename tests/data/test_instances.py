"""One row to instances: components, class values, boxes, polygons, codes, the size rule, every loss."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from unispector.data.instances import ImageInstances, read_instances
from unispector.data.sources.rows import BinaryMask, Box, ClassMask, Code, Entry, Mark, Polygon
from unispector.errors import DataError
from unispector.ops.rle import segmentation_to_mask

EIGHT = np.ones((3, 3))
HEIGHT, WIDTH = 20, 30


def save(root: Path, name: str, pixels: npt.NDArray[np.uint8]) -> str:
    Image.fromarray(pixels).save(root / name)
    return name


def read(
    root: Path,
    *marks: Mark,
    min_side: float = 0.0,
    product: str = "tile",
    size: tuple[int, int] | None = None,
) -> ImageInstances:
    if not (root / "a.png").exists():
        save(root, "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    return read_instances(Entry("a.png", product, marks, size), root, min_side)


def losses(image: ImageInstances) -> dict[str, int]:
    assert {item.file_name for item in image.dropped} <= {image.file_name}
    return {item.reason: item.instances for item in image.dropped}


@given(pixels=arrays(np.uint8, (HEIGHT, WIDTH), elements=st.sampled_from([0, 127, 128, 255])))
def test_a_mask_gives_pixel_exact_instances(tmp_path_factory, pixels):
    root = tmp_path_factory.mktemp("set")
    image = read(root, BinaryMask(save(root, "m.png", pixels), "crack", threshold=127))

    labels, count = ndimage.label(pixels > 127, structure=EIGHT)
    assert (image.width, image.height, image.product) == (WIDTH, HEIGHT, "tile")
    assert image.found == ({"tile_crack": count} if count else {})
    assert losses(image) == ({} if count else {"mask marks nothing": 0})
    assert len(image.instances) == count
    for label, instance in enumerate(image.instances, start=1):
        component = labels == label
        rows, columns = np.nonzero(component)
        assert instance.bbox == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert instance.area == component.sum()
        assert (coco_mask.decode(instance.segmentation) == component).all()
        assert instance.category == "tile_crack"


@pytest.mark.parametrize(("side", "share"), [(700, 0.01), (100, 0.07), (1000, 0.007)])
def test_a_side_of_exactly_the_share_stays(tmp_path, side, share):
    """A share of 0.07 of 100 pixels is 7; in floating point 0.07 * 100 is above it."""
    save(tmp_path, "a.png", np.zeros((side, side), np.uint8))
    mask = np.zeros((side, side), np.uint8)
    for number, (height, width) in enumerate([(6, 6), (6, 7), (7, 6), (7, 7)]):
        mask[10 : 10 + height, 20 * number : 20 * number + width] = 255
    image = read(tmp_path, BinaryMask(save(tmp_path, "m.png", mask), "d"), min_side=share)
    assert [instance.bbox for instance in image.instances] == [(60, 10, 7, 7)]
    assert image.found == {"tile_d": 4}
    assert losses(image) == {"component too small": 3}


def test_an_image_of_specks_only_is_told_apart(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5, 5:20] = mask[10, 3] = 255
    image = read(tmp_path, BinaryMask(save(tmp_path, "m.png", mask), "d"), min_side=0.1)
    assert image.instances == ()
    assert losses(image) == {"every component too small": 2}


def test_class_masks_are_cut_value_by_value(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[2:6, 2:6] = 1
    values[2:6, 6:9] = 2  # touches the one before
    values[10:12, 0:3] = values[10:12, 5:8] = 1
    values[15:17, 1:4] = values[15:17, 20:23] = 8
    values[18, [0, 3, 6]] = 77
    mark = ClassMask(save(tmp_path, "m.png", values), {1: "bent", 2: "melt"}, {8: "OTHER"})

    image = read(tmp_path, mark)

    assert [(instance.category, instance.bbox) for instance in image.instances] == [
        ("tile_bent", (2, 2, 4, 4)),
        ("tile_bent", (0, 10, 3, 2)),
        ("tile_bent", (5, 10, 3, 2)),
        ("tile_melt", (6, 2, 3, 4)),
    ]
    assert image.found == {"tile_bent": 3, "tile_melt": 1}
    assert losses(image) == {"class the benchmark leaves out: OTHER": 2, "unknown class: value 77": 3}


def test_class_masks_with_a_palette_are_read_by_index(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[2:6, 2:6] = 3
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([10, 20, 30] * 256)
    picture.save(tmp_path / "m.png")
    image = read(tmp_path, ClassMask("m.png", {3: "bent"}, {}))
    assert [(instance.category, instance.area) for instance in image.instances] == [("tile_bent", 16)]


def test_a_class_mask_of_left_out_classes_only_is_not_empty(tmp_path):
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[2:6, 2:6] = 8
    image = read(tmp_path, ClassMask(save(tmp_path, "m.png", values), {1: "bent"}, {8: "OTHER"}))
    assert losses(image) == {"class the benchmark leaves out: OTHER": 1}


@given(
    st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.floats(0, 60, width=32), st.floats(0, 60, width=32))
)
def test_boxes_are_clipped_to_the_image(tmp_path_factory, xywh):
    root = tmp_path_factory.getbasetemp()
    image = read(root, Box("spot", xywh), product="")
    left, right = np.clip([xywh[0], xywh[0] + xywh[2]], 0, WIDTH).tolist()
    top, bottom = np.clip([xywh[1], xywh[1] + xywh[3]], 0, HEIGHT).tolist()
    assert image.found == {"spot": 1}
    corners = [left, top, right, top, right, bottom, left, bottom]
    drawn = right > left and bottom > top
    if drawn:
        code = coco_mask.frPyObjects([corners], HEIGHT, WIDTH)
        drawn = coco_mask.area(code)[0] > 0
    if not drawn:
        assert image.instances == ()
        assert losses(image) == {"region without a pixel of its image": 1}
        return
    (instance,) = image.instances
    assert losses(image) == {}
    assert instance.bbox == (left, top, right - left, bottom - top)
    assert instance.area == pytest.approx((right - left) * (bottom - top))
    assert instance.segmentation == [corners]


def test_a_box_falls_under_the_size_rule_as_clipped(tmp_path):
    image = read(tmp_path, Box("d", (28, 5, 10, 10)), Box("d", (27, 5, 10, 10)), min_side=0.1)
    assert [instance.bbox for instance in image.instances] == [(27, 5, 3, 10)]
    assert losses(image) == {"component too small": 1}


def test_a_box_of_a_fraction_of_a_pixel_that_fills_none_is_no_region(tmp_path):
    image = read(tmp_path, Box("d", (3.1, 5, 0.2, 10)), Box("d", (3, 5, 1, 10)))
    assert [instance.bbox for instance in image.instances] == [(3, 5, 1, 10)]
    assert losses(image) == {"region without a pixel of its image": 1}


def test_a_box_of_not_a_number_is_no_region(tmp_path):
    image = read(tmp_path, Box("d", (float("nan"), 5, 10, 10)))
    assert losses(image) == {"region without a pixel of its image": 1}


def test_polygons_are_measured_by_their_pixels(tmp_path):
    parts = ((2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0), (20.0, 5.0, 40.0, 5.0, 40.0, 30.0, 20.0, 30.0))
    (instance,) = read(tmp_path, Polygon("d", parts)).instances
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[3:9, 2:12] = expected[5:, 20:] = True
    assert (segmentation_to_mask(instance.segmentation, HEIGHT, WIDTH) == expected).all()
    assert instance.bbox == (2, 3, 28, 17)
    assert instance.area == expected.sum()


def test_a_polygon_keeps_being_one_instance_though_it_falls_apart(tmp_path):
    apart = ((0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0), (10.0, 10.0, 14.0, 10.0, 14.0, 14.0, 10.0, 14.0))
    assert len(read(tmp_path, Polygon("d", apart)).instances) == 1


def test_polygons_off_the_image_or_without_a_pixel_are_counted(tmp_path):
    off = Polygon("d", ((31.0, 2.0, 40.0, 2.0, 40.0, 9.0),))
    thin = Polygon("d", ((5.0, 5.0, 5.0, 5.0, 5.0, 5.0),))
    image = read(tmp_path, off, thin)
    assert image.found == {"tile_d": 2}
    assert losses(image) == {"region without a pixel of its image": 2}


def test_codes_compressed_or_not(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:9, 7:20] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    plain = {"size": [HEIGHT, WIDTH], "counts": [7 * HEIGHT + 4, *[5, 15] * 12, 5, 10 * HEIGHT + 11]}
    text = plain | {"counts": compressed["counts"].decode()}
    image = read(tmp_path, Code("d", text), Code("e", plain))
    assert [instance.bbox for instance in image.instances] == [(7, 4, 13, 5)] * 2
    assert image.instances[0].segmentation == image.instances[1].segmentation


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (Polygon("d", ((1.0, 1.0, 2.0, 2.0),)), "a.png: d: polygon without at least three"),
        (Polygon("d", ((1.0, 1.0, 2.0, 2.0, 1e6, 3.0),)), "a.png: d: polygon leaves its 30x20 image"),
        (Code("d", {"size": [5, 5], "counts": [25]}), "a.png: d: mask is 5x5 but the image is 30x20"),
        (Code("d", {"size": [HEIGHT, WIDTH], "counts": [3]}), "a.png: d: mask code does not fill"),
        (BinaryMask("none.png", "d"), "none.png: no such image"),
        (ClassMask("none.png", {}, {}), "none.png: no such image"),
    ],
)
def test_damage_is_named(tmp_path, mark, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, mark)


@pytest.mark.parametrize("kind", [lambda file: BinaryMask(file, "d"), lambda file: ClassMask(file, {}, {})])
def test_a_mask_of_another_size_or_cut_off_is_refused(tmp_path, kind):
    save(tmp_path, "m.png", np.zeros((HEIGHT + 1, WIDTH), np.uint8))
    with pytest.raises(DataError, match=r"m\.png: mask is 30x21 but its image is 30x20"):
        read(tmp_path, kind("m.png"))
    data = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"m\.png: not a readable image"):
        read(tmp_path, kind("m.png"))


def test_the_size_that_is_stated_must_be_the_files(tmp_path):
    assert read(tmp_path, Box("d", (1, 1, 5, 5)), size=(WIDTH, HEIGHT)).instances
    with pytest.raises(DataError, match=r"a\.png: the image is 30x20 but its annotation says 20x30"):
        read(tmp_path, Box("d", (1, 1, 5, 5)), size=(HEIGHT, WIDTH))


def put_turned(root: Path, orientation: int) -> None:
    """A photo stored as 30 x 20."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (WIDTH, HEIGHT)).save(root / "a.jpg", exif=exif)


BOTH = Box("d", (2, 3, 5, 6))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize(
    ("mark", "box"),
    [
        (Box("d", (2, 13, 5, 16)), (2, 13, 5, 16)),
        (Polygon("d", ((2, 13, 7, 13, 7, 29, 2, 29),)), (2, 13, 5, 16)),
        (Code("d", {"size": [WIDTH, HEIGHT], "counts": [2 * WIDTH + 3, 4, 18 * WIDTH - 7]}), (2, 3, 1, 4)),
    ],
)
def test_a_turned_photo_may_state_its_stored_size(tmp_path, orientation, mark, box):
    put_turned(tmp_path, orientation)
    found = read_instances(Entry("a.jpg", "", (BOTH, mark), (WIDTH, HEIGHT)), tmp_path, 0)
    assert (found.width, found.height) == (HEIGHT, WIDTH)
    assert [instance.bbox for instance in found.instances] == [(2, 3, 5, 6), box]
    (told,) = found.dropped
    assert (told.reason, told.instances) == (
        "image turned by its EXIF orientation, stated as stored, marked upright",
        0,
    )


@pytest.mark.parametrize(
    "marks",
    [
        (BOTH,),
        (Box("d", (13, 2, 16, 5)),),
        (Box("d", (2, 13, 5, 16)), Box("d", (13, 2, 16, 5))),
        (Code("d", {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}),),
    ],
    ids=["both", "stored", "some of each", "code of the stored"],
)
def test_a_turned_photo_whose_marks_may_lie_either_way_is_refused(tmp_path, marks):
    put_turned(tmp_path, 6)
    with pytest.raises(
        DataError, match=r"a\.jpg: its EXIF orientation turns it to 20x30, .* 30x20; swap width"
    ):
        read_instances(Entry("a.jpg", "", marks, (WIDTH, HEIGHT)), tmp_path, 0)
    put_turned(tmp_path, 3)
    with pytest.raises(DataError, match=r"a\.jpg: the image is 30x20 but its annotation says 20x30; restore"):
        read_instances(Entry("a.jpg", "", marks, (HEIGHT, WIDTH)), tmp_path, 0)


def test_marks_of_every_kind_on_one_image(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[1:4, 1:4] = 255
    image = read(
        tmp_path,
        BinaryMask(save(tmp_path, "m.png", mask), "a"),
        Box("b", (5.0, 5.0, 3.0, 3.0)),
        Polygon("c", ((10.0, 10.0, 15.0, 10.0, 15.0, 15.0),)),
    )
    assert [instance.category for instance in image.instances] == ["tile_a", "tile_b", "tile_c"]
