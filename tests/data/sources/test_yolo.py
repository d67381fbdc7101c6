"""Own YOLO sets: class names, labels, boxes and polygons in shares of the image, and their damage."""

import numpy as np
import pytest

from releases import convert, filled, put, put_image, refused
from unispector.ops.rle import decode_rle


def test_boxes_and_polygons_scale_with_the_image(tmp_path, raw):
    put(raw / "data.yaml", "path: ../../elsewhere\ntrain: ../train/images\nnames: [dent, scratch]\n")
    put_image(raw / "images/train/a.png")
    put_image(raw / "images/val/a.png", (100, 200))
    label = "0 0.5 0.5 1 1\n\n1 0.5 0.25 0.1 0.1\r\n1.0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"
    put(raw / "labels/train/a.txt", label)
    put(raw / "labels/val/a.txt", "0 .5 .5 .002 .002 \n0 .5 .5 .02 .005 \n1 1.005 1.0 0.1 0.1")

    found = convert("yolo", raw, tmp_path)

    boxes = found.class_boxes
    assert boxes["images/train/a.png", "dent"] == [(0, 0, 60, 40)]
    box, polygon = found.by_class["images/train/a.png", "scratch"]
    assert box.bbox == pytest.approx((27, 8, 6, 4))
    # The polygon covers x 6 to 30 and y 4 to 20 of the 60 x 40 pixels.
    pixels = filled((slice(4, 20), slice(6, 30)))
    assert (decode_rle(polygon.segmentation) == pixels).all()
    assert polygon.bbox == (6, 4, 24, 16)
    assert polygon.area == np.count_nonzero(pixels)
    (dent,) = boxes["images/val/a.png", "dent"]  # the other fills no pixel
    assert dent == pytest.approx((49, 99.5, 2, 1))
    assert boxes["images/val/a.png", "scratch"][0] == pytest.approx((95.5, 190, 4.5, 10))
    assert found.dropped == {"region without a pixel of its image": (1, 1)}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.jpg", "labels/a.txt"),
        ("train/images/a.b.jpg", "train/labels/a.b.txt"),
        ("images/x/images/a.jpg", "images/x/labels/a.txt"),
        ("images/x/y/a.jpg", "labels/x/y/a.txt"),
        ("images/a.jpg", "images/a.txt"),
        ("a.JPG", "a.txt"),
    ],
)
@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("data.yaml", "nc: 2\nnames:\n  3: dent\n  7: scratch\n"),
        ("data.yml", "{names: [a, b, c, dent, d, e, f, scratch]}"),
        ("classes.txt", "a\nb\nc\n dent \nd\ne\nf\nscratch\n\n"),
        ("classes.txt", "a\r\nb\r\nc\r\ndent\r\nd\r\ne\r\nf\r\nscratch\r\n"),
        ("classes.txt", "a\rb\rc\rdent\rd\re\rf\rscratch"),
        ("labels/classes.txt", "a\nb\nc\ndent\nd\ne\nf\nscratch"),
    ],
)
def test_layouts_and_lists_of_names(tmp_path, image, label, file, names, raw):
    put_image(raw / image)
    put(raw / label, "7 .5 .5 .5 .5\n3 .5 .5 .5 .5")
    put(raw / file, names)
    found = convert("yolo", raw, tmp_path)
    assert set(found.by_class) == {(image, "scratch"), (image, "dent")}
    assert found.told == []


def test_names_that_yaml_reads_as_numbers(tmp_path, raw):
    put_image(raw / "a.png")
    put(raw / "a.txt", "0 .5 .5 .5 .5\n1 .5 .5 .5 .5")
    put(raw / "data.yaml", "names: [0, 'no']")
    assert convert("yolo", raw, tmp_path).report.instances_kept == {"0": 1, "no": 1}


def test_sets_aside_by_reason(tmp_path, raw):
    put(raw / "classes.txt", "dent")
    put(raw / "data.yaml", "names: {0: dent}")
    for name in ("a", "bare", "clean", "blank"):
        put_image(raw / f"images/{name}.png")
    put(raw / "labels/a.txt", "0 .5 .5 .5 .5\n0 .5 .5 0 .5")
    put(raw / "labels/clean.txt", "")
    put(raw / "labels/blank.txt", "\n \n")
    put(raw / "labels/gone.txt", "0 .5 .5 .5 .5\n\n0 .5 .5 .5 .5")
    put(raw / "images/a.txt", "0 .5 .5 .5 .5")
    put(raw / "train.txt", "../../etc/passwd")
    found = convert("yolo", raw, tmp_path)
    assert found.dropped == {
        "image without its annotation": (1, 0),
        "image without defects": (2, 0),
        "annotation without its image": (1, 2),
        "region without a pixel of its image": (1, 1),
        "file outside the layout": (2, 0),
    }
    assert found.report.instances_kept == {"dent": 1}


LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labels/a.txt", "0 .5 .5 .5 .5\n2 .5 .5 .5 .5", "line 2: class 2 has no name"),
        ("labels/a.txt", "0.5 .5 .5 .5 .5", r"line 1: class 0\.5 has no name"),
        ("labels/a.txt", "0 .5 inf .5 .5", "line 1: 'inf' is no finite number"),
        ("labels/a.txt", "0 1.02 .5 .1 .1", "line 1: coordinates must be shares"),
        ("labels/a.txt", "0 .5 -.5 .1 .1", "line 1: coordinates must be shares"),
        ("labels/a.txt", "0 .5 .5 .1 .1 .9", "line 1: 5 numbers after the class are neither"),
        ("labels/a.txt", "0 .1 .1 .2 .2 .3 .3 .4", "line 1: 7 numbers after the class are neither"),
        ("data.yaml", "", "no `names` of classes; add them"),
        ("data.yaml", "[dent]", "no `names`"),
        ("data.yaml", "names:", "no `names`"),
        ("data.yaml", "names: [a\nb: {", "not valid YAML"),
        ("data.yaml", "\0", "not valid YAML"),
        ("data.yaml", "names: !!bool x", "not valid YAML"),
        ("data.yaml", "names: !!timestamp x", "not valid YAML"),
        ("data.yaml", "names: !!int ''", "not valid YAML"),
        ("data.yaml", "names: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("data.yaml", "names: [dent, ' dent']", "two classes share a name; rename one"),
        ("data.yaml", "names: {a: dent}", "class a: 'a' is no finite number"),
        ("data.yaml", "names: ['', dent]", "class 0: it has no name"),
        ("data.yaml", "names: [yes, no]", "class 0: True is no name; put names in quotes"),
        ("data.yaml", f"{LAUGHS}names: [*a11]", "class 0: a list is no name; put names in quotes"),
        ("data.yaml", "names: [dent]\nkpt_shape: [17, 3]", "its labels are keypoints"),
        ("data.yaml", "names: {0: dent, 00: hole}", "not valid YAML .*key '00' twice, in lines 1 and 1"),
        ("data.yaml", "names: {0: dent, 0x0: hole}", "not valid YAML .*key '0x0' twice"),
        ("data.yaml", "names: {0: dent, '0': hole}", "two ids are one number, written differently; remove"),
        ("classes.txt", "scratch\x85y\ndent", r"class 0: 'scratch\\x85y' is no name: .*; correct it"),
        ("classes.txt", "scratch\x0bdeep\ndent", r"class 0: 'scratch\\x0bdeep' is no name"),
        ("classes.txt", "scratch\x1cdeep\ndent", r"class 0: 'scratch\\x1cdeep' is no name"),
        ("classes.txt", "scratch\u2028deep\ndent", r"class 0: 'scratch\\u2028deep' is no name"),
        ("classes.txt", "scratch\n\ndent", "class 1: it has no name; correct it"),
        ("labels/classes.txt", "scratch", r"its class names differ .* data\.yaml"),
    ],
)
def test_wrong_labels_and_names_are_refused(file, text, message, raw):
    put(raw / "data.yaml", "names: [dent]")
    put_image(raw / "images/a.png")
    put(raw / "labels/a.txt", "0 .5 .5 .5 .5")
    put(raw / file, text)
    refused("yolo", raw, rf"{file}: {message}")
