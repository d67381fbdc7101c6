"""What was found, written for other tools: whoever reads a format gets the same boxes and masks."""

import contextlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from defusedxml.ElementTree import fromstring
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from releases import Converted, convert, put
from unispector.detections import Detections, cvat_file, label_studio_config
from unispector.errors import DataError
from unispector.ops.rle import decode_rle, encode_rle, segmentation_to_mask

NAMES = ("crack", "hole", "dent")
HEIGHT, WIDTH = 40, 60


def ring() -> npt.NDArray[np.bool_]:
    """A ring with an island in it, and a single pixel elsewhere."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[5:25, 10:40] = True
    mask[9:20, 14:30] = False
    mask[12:15, 18:22] = True
    mask[39, 59] = True
    return mask


def found(masks: npt.NDArray[np.bool_], labels: list[int], scores: list[float]) -> Detections:
    """Detections with boxes tight around their masks; of an empty one the box is that of some pixels."""
    boxes = []
    for mask in masks:
        rows, columns = np.nonzero(mask) if mask.any() else (np.array([2, 4]), np.array([3, 8]))
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return Detections(
        torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)),
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.int64),
        tuple(encode_rle(masks)),
        NAMES,
        masks.shape[1:],
    )


@pytest.fixture
def three() -> Detections:
    masks = np.zeros((3, HEIGHT, WIDTH), np.bool_)
    masks[0] = ring()
    masks[1, 3:4, 2:50] = True  # a line
    masks[2, 30:40, 0:7] = True
    return found(masks, [2, 0, 2], [0.9, 0.5, 0.25])


def masks_of(converted: Converted, image: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[tuple]:
    """Class, box and mask of an image's instances."""
    return [
        (name, mark.bbox, segmentation_to_mask(mark.segmentation, *size))
        for name, mark in converted.marks[image]
    ]


def assert_same(converted: Converted, image: str, detections: Detections) -> None:
    read = masks_of(converted, image)
    assert len(read) == len(detections)
    rows = zip(detections.labels.tolist(), detections.boxes_xyxy.tolist(), detections.masks_rle, strict=True)
    for (name, box, mask), (label, (x0, y0, x1, y1), rle) in zip(read, rows, strict=True):
        assert name == NAMES[label]
        assert box == pytest.approx((x0, y0, x1 - x0, y1 - y0), abs=0.01)
        assert (mask == decode_rle(rle)).all()


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    put(tmp_path / "raw" / "a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return tmp_path / "raw"


def test_coco_is_read_back(three: Detections, raw: Path, tmp_path: Path) -> None:
    put(raw / "a.json", three.to_coco(file_name="a.png"))
    assert_same(convert("coco", raw, tmp_path), "a.png", three)


def test_pycocotools_reads_coco(three: Detections, tmp_path: Path) -> None:
    file = put(tmp_path / "a.json", three.to_coco(7, "a.png", 11))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
        result = coco.loadRes([dict(each) for each in coco.loadAnns(coco.getAnnIds())])
    assert coco.getImgIds() == [7]
    assert coco.getAnnIds() == [11, 12, 13]
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(NAMES)
    for row, annotation in enumerate(result.loadAnns(result.getAnnIds())):
        assert (coco.annToMask(coco.loadAnns([11 + row])[0]) == decode_rle(three.masks_rle[row])).all()
        assert annotation["score"] == pytest.approx(float(three.scores[row]))
        assert annotation["category_id"] == int(three.labels[row]) + 1


def test_labelme_is_read_back(three: Detections, raw: Path, tmp_path: Path) -> None:
    written = three.to_labelme("a.png")
    put(raw / "a.json", written)
    assert_same(convert("labelme", raw, tmp_path), "a.png", three)
    assert [shape["score"] for shape in written["shapes"]] == [0.9, 0.5, 0.25]
    assert (written["imageHeight"], written["imageWidth"]) == (HEIGHT, WIDTH)


def test_an_empty_mask_is_a_box_for_labelme_and_yolo(raw: Path, tmp_path: Path) -> None:
    empty = found(np.zeros((1, HEIGHT, WIDTH), np.bool_), [1], [0.5])
    put(raw / "a.json", empty.to_labelme("a.png"))
    ((name, box, _),) = masks_of(convert("labelme", raw, tmp_path / "one"), "a.png")
    assert (name, box) == ("hole", (3, 2, 6, 3))
    (raw / "a.json").unlink()
    put(raw / "a.txt", empty.to_yolo())
    put(raw / "classes.txt", "\n".join(NAMES))
    ((name, box, _),) = masks_of(convert("yolo", raw, tmp_path / "two"), "a.png")
    assert (name, box) == ("hole", (3, 2, 6, 3))


def test_segments_of_yolo_are_read_back(three: Detections, raw: Path, tmp_path: Path) -> None:
    put(raw / "a.txt", three.to_yolo())
    put(raw / "classes.txt", "\n".join(NAMES))
    assert_same(convert("yolo", raw, tmp_path), "a.png", three)


def test_boxes_of_yolo_are_read_back(three: Detections, raw: Path, tmp_path: Path) -> None:
    put(raw / "a.txt", three.to_yolo(segments=False))
    put(raw / "classes.txt", "\n".join(NAMES))
    read = masks_of(convert("yolo", raw, tmp_path), "a.png")
    boxes = three.boxes_xyxy.tolist()
    assert [name for name, *_ in read] == ["dent", "crack", "dent"]
    for (_, box, _), (x0, y0, x1, y1) in zip(read, boxes, strict=True):
        assert box == pytest.approx((x0, y0, x1 - x0, y1 - y0), abs=1e-3)


def accepted(task: dict) -> list[dict]:
    """Label Studio's export of a task whose prediction somebody submitted as it is."""
    (prediction,) = task["predictions"]
    return [{"data": task["data"], "annotations": [{"id": 1, "result": prediction["result"]}]}]


@pytest.mark.parametrize("shape", ["mask", "polygon"])
def test_label_studio_is_read_back(three: Detections, raw: Path, tmp_path: Path, shape) -> None:
    task = three.to_label_studio("/data/local-files/?d=a.png", shape)
    put(raw / "export.json", accepted(task))
    read = masks_of(convert("label_studio", raw, tmp_path), "a.png")
    assert [name for name, *_ in read] == ["dent", "crack", "dent"]
    for (*_, mask), rle in zip(read, three.masks_rle, strict=True):
        assert (mask == decode_rle(rle)).all()
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.9
    assert [mark["score"] for mark in prediction["result"]] == [0.9, 0.5, 0.25]


@pytest.mark.parametrize("shape", ["mask", "polygon"])
def test_cvat_is_read_back(three: Detections, raw: Path, tmp_path: Path, shape) -> None:
    put(raw / "annotations.xml", cvat_file([three.to_cvat("a.png", shape)]))
    read = masks_of(convert("cvat", raw, tmp_path), "a.png")
    assert [name for name, *_ in read] == ["dent", "crack", "dent"]
    for (*_, mask), rle in zip(read, three.masks_rle, strict=True):
        assert (mask == decode_rle(rle)).all()


def test_boxes_of_both_tools_are_read_back(three: Detections, raw: Path, tmp_path: Path) -> None:
    put(raw / "annotations.xml", cvat_file([three.to_cvat("a.png", "box")]))
    put(raw / "export.json", accepted(three.to_label_studio("a.png", "box")))
    for source in ("cvat", "label_studio"):
        read = masks_of(convert(source, raw, tmp_path / source), "a.png")
        assert [name for name, *_ in read] == ["dent", "crack", "dent"]
        for (_, box, _), (x0, y0, x1, y1) in zip(read, three.boxes_xyxy.tolist(), strict=True):
            assert box == pytest.approx((x0, y0, x1 - x0, y1 - y0), abs=0.01)


@pytest.mark.parametrize("shape", ["mask", "polygon", "box"])
def test_an_empty_mask_is_its_box_for_both_tools(raw: Path, tmp_path: Path, shape) -> None:
    empty = found(np.zeros((1, HEIGHT, WIDTH), np.bool_), [1], [0.5])
    put(raw / "annotations.xml", cvat_file([empty.to_cvat("a.png", shape)]))
    put(raw / "export.json", accepted(empty.to_label_studio("a.png", shape)))
    for source in ("cvat", "label_studio"):
        ((name, box, _),) = masks_of(convert(source, raw, tmp_path / source), "a.png")
        assert (name, box) == ("hole", pytest.approx((3, 2, 6, 3)))


def test_names_are_escaped_for_both_tools(three: Detections) -> None:
    odd = replace(three, class_names=('<a & "b">', "hole", "dent"))
    (image,) = fromstring(cvat_file([odd.to_cvat('x "1" & 2.png')])).findall("image")
    assert image.get("name") == 'x "1" & 2.png'
    assert image.findall("mask")[1].get("label") == '<a & "b">'
    view = fromstring(label_studio_config(odd.class_names, "polygon", "found"))
    assert [each.get("value") for each in view.findall("PolygonLabels/Label")] == list(odd.class_names)
    tag, pictured = view.find("PolygonLabels"), view.find("Image")
    task = odd.to_label_studio("a.png", "polygon", from_name="found")
    for mark in task["predictions"][0]["result"]:
        assert mark["type"] == tag.tag.lower()
        assert (mark["from_name"], mark["to_name"]) == (tag.get("name"), tag.get("toName"))
    assert pictured.get("value") == "$" + next(iter(task["data"]))


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@example(ring())
@example(np.eye(8, dtype=np.bool_))
def test_the_outline_of_any_mask_fills_it(mask: npt.NDArray[np.bool_]) -> None:
    if not mask.any():
        return
    (line,) = found(mask[None], [0], [0.5]).to_yolo().splitlines()
    shares = np.array([float(number) for number in line.split()[1:]]).reshape(-1, 2)
    assert ((shares > 0) & (shares < 1)).all()
    height, width = mask.shape
    polygon = (shares * (width, height)).ravel().tolist()
    codes = coco_mask.frPyObjects([polygon], height, width)
    assert (coco_mask.decode(codes)[..., 0].astype(bool) == mask).all()


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_any_mask_is_labelmes(mask: npt.NDArray[np.bool_]) -> None:
    import base64

    (shape,) = found(mask[None], [0], [0.5]).to_labelme("a.png")["shapes"]
    if not mask.any():
        assert shape["shape_type"] == "rectangle"
        return
    crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in shape["points"])
    painted = np.zeros_like(mask)
    painted[top : bottom + 1, left : right + 1] = crop > 0
    assert (painted == mask).all()


def test_nothing_found_is_written_too() -> None:
    nothing = found(np.zeros((0, HEIGHT, WIDTH), np.bool_), [], [])
    assert nothing.to_coco()["annotations"] == []
    assert nothing.to_labelme("a.png")["shapes"] == []
    assert nothing.to_yolo() == ""
    assert nothing.to_label_studio("a.png")["predictions"][0]["result"] == []
    assert fromstring(cvat_file([nothing.to_cvat("a.png")])).find("image/mask") is None
    assert nothing.plot(np.zeros((HEIGHT, WIDTH), np.uint8)).shape == (512, 768, 3)
    assert len(nothing.above([0.1, 0.2, 0.3])) == 0
    assert len(nothing.to_supervision()) == 0


def test_written_formats_are_json(three: Detections) -> None:
    for content in (three.to_coco(), three.to_labelme("a.png"), three.to_label_studio("a.png")):
        assert json.loads(json.dumps(content)) == content


def test_supervision_gets_the_same(three: Detections) -> None:
    supervision = pytest.importorskip("supervision")
    same = three.to_supervision()
    assert isinstance(same, supervision.Detections)
    assert np.array_equal(same.xyxy, three.boxes_xyxy.numpy())
    assert np.array_equal(same.confidence, three.scores.numpy())
    assert same.class_id.tolist() == [2, 0, 2]
    assert same.data["class_name"].tolist() == ["dent", "crack", "dent"]
    assert np.array_equal(same.mask, np.stack([decode_rle(rle) for rle in three.masks_rle]))
    assert np.array_equal(same.area, same.mask.sum((1, 2)))
    assert len(same[same.confidence > 0.4]) == 2


def test_without_supervision_the_extra_is_named(three: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unispector\[supervision\]'"):
        three.to_supervision()


def test_above_takes_a_score_for_all_or_for_each_class(three: Detections) -> None:
    assert three.above(0.5).scores.tolist() == [pytest.approx(0.9), 0.5]
    assert three.above((0.6, 0.0, 0.2)).labels.tolist() == [2, 2]
    assert three.above(torch.tensor([0.0, 0.0, 0.95])).labels.tolist() == [0]  # type: ignore[arg-type]
    assert three.above(np.float64(0.6)).labels.tolist() == [2]
    kept = three.above([0.4, 0.4, 0.4])
    assert kept.masks_rle == three.masks_rle[:2]
    # A score is a float32, and so is what it is compared with.
    odd = found(np.ones((1, 4, 4), np.bool_), [0], [0.1])
    assert len(odd.above(float(odd.scores[0]))) == len(odd.above([float(odd.scores[0]), 1, 1])) == 1
    for scores in ([0.1], [0.1] * 4):
        with pytest.raises(DataError, match="for 3 classes; give one for each"):
            three.above(scores)


def test_plot_takes_any_image(three: Detections, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    drawn = three.plot(pixels)
    for same in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels)):
        assert (three.plot(same) == drawn).all()
    with pytest.raises(DataError, match="pass the image they were made on"):
        three.plot(pixels[1:])
