from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.prompt_changes import (
    IOU_TOLERANCE,
    blurred,
    prompt_pool,
    shifted_box,
    with_shifted_boxes,
)
from unispector.errors import DataError

LEVELS = [level / 10 for level in range(1, 10)]


def picture(h=40, w=60, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)


def test_blur_of_zero_is_the_picture():
    image = picture()
    assert (blurred(image, 0) == image).all()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
def test_blur_is_scipys_gaussian(sigma):
    image = picture()
    radius = (round(6 * sigma + 1) | 1) // 2  # OpenCV's rule for 8 bits: three sigma either way
    expected = gaussian_filter(
        image.astype(float), (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0)
    )
    found = blurred(image, sigma)
    assert (found.shape, found.dtype) == (image.shape, np.uint8)
    assert np.abs(found - expected).max() < 2  # its kernel and its sums are rounded
    assert np.abs(found - expected).mean() < 0.5
    assert (found - expected).mean() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_blur_spreads_a_line_by_its_sigma(sigma):
    # A bright line: a single pixel spreads too thin for whole grey levels.
    image = np.zeros((41, 41, 3), dtype=np.uint8)
    image[:, 20] = 255
    profile = blurred(image, sigma)[20, :, 0].astype(float)
    offset = np.arange(41) - 20
    assert (profile * offset).sum() == pytest.approx(0)
    assert (profile * offset**2).sum() / profile.sum() == pytest.approx(sigma**2, rel=0.06)


def overlap(a, b):
    """IoU of two xywh boxes, corner by corner."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inner = max(across, 0) * max(down, 0)
    return inner / (a[2] * a[3] + b[2] * b[3] - inner)


def check_shifted(box, iou, hw, seed=0):
    shifted = shifted_box(box, iou, hw, np.random.default_rng(seed))
    assert all(type(value) is float for value in shifted)
    assert abs(overlap(box, shifted) - iou) < IOU_TOLERANCE + 1e-9
    x, y, width, height = shifted
    assert x >= 0
    assert y >= 0
    assert x + width <= hw[1] + 1e-9
    assert y + height <= hw[0] + 1e-9
    assert width >= min(1, box[2]) - 1e-9
    assert height >= min(1, box[3]) - 1e-9
    return shifted


@pytest.mark.parametrize("iou", LEVELS)
@pytest.mark.parametrize(
    ("box", "hw"),
    [
        ((100, 80, 50, 30), (300, 400)),
        ((0, 0, 400, 300), (300, 400)),  # fills the image
        ((7, 9, 1, 1), (300, 400)),
        ((399, 299, 1, 1), (300, 400)),
        ((0, 50, 400, 1), (300, 400)),  # a band across the image
        ((80, 0, 1, 300), (300, 400)),
        ((0, 0, 2000, 1), (1, 2000)),  # an image of one row
        ((380, 285, 20, 15), (300, 400)),
        ((0.5, 0.5, 398, 298), (300, 400)),
        ((3.25, 3.5, 0.1, 0.4), (10, 10)),
        ((0, 0, 1, 1), (1, 2)),
        ((0, 0, 4, 3), (3, 4)),
    ],
)
def test_shifted_box_reaches_its_iou(box, hw, iou):
    for seed in range(5):
        check_shifted(box, iou, hw, seed)


@given(data=st.data(), iou=st.floats(0.1, 0.9), seed=st.integers(0, 2**32))
def test_shifted_box_reaches_its_iou_anywhere(data, iou, seed):
    height, width = (data.draw(st.integers(4, 3000)) for _ in range(2))
    w, h = (data.draw(st.floats(0.1, 1)) * side for side in (width, height))
    w, h = (data.draw(st.sampled_from([length, 1.0, 2.0])) for length in (w, h))
    x, y = data.draw(st.floats(0, 1)) * (width - w), data.draw(st.floats(0, 1)) * (height - h)
    check_shifted((x, y, w, h), iou, (height, width), seed)


def test_shifted_box_counts_the_part_inside_the_image():
    shifted = shifted_box((-1, 4, 11, 5), 0.9, (20, 20), np.random.default_rng(0))
    assert abs(overlap((0, 4, 10, 5), shifted) - 0.9) < IOU_TOLERANCE


def test_shifted_boxes_go_every_way():
    box, rng = (100, 100, 50, 50), np.random.default_rng(0)
    boxes = np.array([shifted_box(box, 0.5, (300, 300), rng) for _ in range(200)])
    centres = boxes[:, :2] + boxes[:, 2:] / 2 - 125
    assert (np.abs(centres.mean(axis=0)) < 4).all()
    assert (centres.std(axis=0) > 5).all()
    larger = (boxes[:, 2:].prod(axis=1) > 2500).mean()
    assert 0.2 < larger < 0.8


def test_a_box_without_room_is_named():
    with pytest.raises(DataError, match=r"box \[0, 0, 1, 1\] of a 1x1 image cannot be shifted to IoU 0.5"):
        shifted_box((0, 0, 1, 1), 0.5, (1, 1), np.random.default_rng(0))


def annotations(files, names, first_id=1, size=100):
    """Images by file name with the classes they show, an instance each; ids count from `first_id`."""
    images, instances = [], []
    for image_id, (file_name, labels) in enumerate(files.items(), start=first_id):
        images.append(ImageRecord(image_id, file_name, size, size))
        for label in labels:
            number = first_id + len(instances)
            box = (10.0 + number % 50, 20.0, 30.0, 10.0)
            category = names.index(label) + first_id
            code = [[box[0], 20, box[0] + 30, 20, box[0], 30]]
            instances.append(InstanceRecord(number, image_id, category, box, 150.0, code))
    categories = [CategoryRecord(first_id + i, name, "part") for i, name in enumerate(names)]
    return Annotations(tuple(images), tuple(instances), tuple(categories))


def test_all_boxes_are_shifted_and_masks_dropped():
    prompts = annotations({"a.png": "xy", "b.png": "x"}, ["x", "y"])
    shifted = with_shifted_boxes(prompts, 0.4, seed=42, trial=3)
    assert (shifted.images, shifted.categories) == (prompts.images, prompts.categories)
    for before, after in zip(prompts.instances, shifted.instances, strict=True):
        assert abs(overlap(before.bbox, after.bbox) - 0.4) < IOU_TOLERANCE + 1e-9
        assert after.segmentation is None
        assert after.area == after.bbox[2] * after.bbox[3]
        assert replace(before, bbox=after.bbox, area=after.area, segmentation=None) == after


def test_a_shift_depends_on_seed_trial_and_instance_only():
    prompts = annotations({f"{n}.png": "x" for n in range(6)}, ["x"])
    first = with_shifted_boxes(prompts, 0.5, 42, 0)
    turned = replace(prompts, instances=prompts.instances[::-1])
    assert with_shifted_boxes(turned, 0.5, 42, 0).instances == first.instances[::-1]
    assert with_shifted_boxes(prompts.keep_images([3]), 0.5, 42, 0).instances == first.instances[2:3]
    others = [with_shifted_boxes(prompts, 0.5, *key) for key in ((43, 0), (42, 1))]
    shifts = {
        tuple(np.round(np.subtract(after.bbox, before.bbox), 6))
        for part in (first, *others)
        for before, after in zip(prompts.instances, part.instances, strict=True)
    }
    assert len(shifts) == 18


def test_an_impossible_shift_names_image_and_annotation():
    prompts = annotations({"tiny.png": "x"}, ["x"])
    tiny = replace(prompts.images[0], width=1, height=1)
    instance = replace(prompts.instances[0], bbox=(0.0, 0.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"^tiny\.png: annotation 1: box"):
        with_shifted_boxes(replace(prompts, images=(tiny,), instances=(instance,)), 0.5, 42, 0)


def names_of(pool, class_name):
    files = {image.id: image.file_name for image in pool.annotations.images}
    return [files[id_] for id_ in pool.order[class_name]]


PROMPTS = {"p1": "x", "p2": "x", "p3": "y"}
TARGETS = {
    **{f"x{n}": "x" for n in range(12)},
    **{f"xy{n}": "xy" for n in range(4)},
    **{f"y{n}": "y" for n in range(2)},
    **{f"z{n}": "z" for n in range(3)},
    "good": "",
}


@pytest.mark.parametrize("first_id", [1, 501])  # the files number alike, or each its own way
def test_pool_takes_prompts_first_then_pure_targets(first_id):
    prompts = annotations(PROMPTS, ["x", "y"])
    targets = annotations(TARGETS, ["y", "z", "x"], first_id)
    pool = prompt_pool(prompts, targets, 10, seed=42)
    x, y = names_of(pool, "x"), names_of(pool, "y")
    assert sorted(x[:2]) == ["p1", "p2"]
    assert len(x) == len(set(x)) == 10  # two prompts, and 8 of the 16 targets with x
    assert set(x[2:]) < {f"x{n}" for n in range(12)}
    assert y[0] == "p3"
    assert set(y[1:]) == {"y0", "y1"}  # at most 3 of 6, and no more than these are pure
    assert pool.order.keys() == {"x", "y"}
    assert pool.taken == set(x[2:]) | set(y[1:])


@pytest.mark.parametrize("first_id", [1, 501])
def test_pool_keeps_each_images_instances(first_id):
    prompts = annotations(PROMPTS, ["x", "y"])
    targets = annotations(TARGETS, ["y", "z", "x"], first_id)
    pool = prompt_pool(prompts, targets, 10, seed=42).annotations
    assert pool._problem() is None
    assert pool.categories == prompts.categories
    for image in pool.images:
        source = prompts if image.file_name in PROMPTS else targets
        record = next(each for each in source.images if each.file_name == image.file_name)
        wanted = [
            (source.class_names[source.class_index[item.category_id]], item.bbox, item.segmentation)
            for item in source.instances_of(record.id)
        ]
        found = [
            (pool.class_names[pool.class_index[item.category_id]], item.bbox, item.segmentation)
            for item in pool.instances_of(image.id)
        ]
        assert found == wanted
        assert found


def test_pool_leaves_half_of_a_classs_targets():
    prompts = annotations({"p": "x"}, ["x"])
    for count in range(8):
        targets = annotations({"other": "w"} | {f"t{n}": "x" for n in range(count)}, ["x", "w"])
        assert len(prompt_pool(prompts, targets, 10, 42).taken) == count // 2


def test_pool_never_grows_beyond_its_size_and_smaller_ones_are_its_beginning():
    prompts, targets = annotations(PROMPTS, ["x", "y"]), annotations(TARGETS, ["x", "y", "z"])
    large = names_of(prompt_pool(prompts, targets, 10, 42), "x")
    for size in range(1, 10):
        assert names_of(prompt_pool(prompts, targets, size, 42), "x") == large[:size]


def test_pool_does_not_take_images_that_prompt_already():
    # The official script scores on the prompts themselves.
    prompts = annotations({f"p{n}": "x" for n in range(6)}, ["x"])
    pool = prompt_pool(prompts, prompts, 10, 42)
    assert sorted(names_of(pool, "x")) == [f"p{n}" for n in range(6)]
    assert pool.taken == frozenset()


def test_pool_serves_prompt_images_of_two_classes():
    prompts = annotations({"both": "xy", "x": "x"}, ["x", "y"])
    targets = annotations({"t": "y"}, ["x", "y"])
    pool = prompt_pool(prompts, targets, 10, 42)
    assert sorted(names_of(pool, "x")) == ["both", "x"]
    assert names_of(pool, "y") == ["both"]
    assert len(pool.annotations.instances) == 3


def test_pool_needs_an_instance_that_is_no_crowd():
    prompts = annotations({"p": "x"}, ["x"])
    targets = annotations({f"t{n}": "x" for n in range(4)}, ["x"])
    crowds = tuple(replace(item, iscrowd=int(item.id > 2)) for item in targets.instances)
    assert prompt_pool(prompts, replace(targets, instances=crowds), 10, 42).taken < {"t0", "t1"}


def test_pool_is_drawn_by_seed_and_class():
    prompts, targets = annotations(PROMPTS, ["x", "y"]), annotations(TARGETS, ["x", "y", "z"])
    pool = prompt_pool(prompts, targets, 10, 42)
    assert prompt_pool(prompts, targets, 10, 42) == pool
    draws = {tuple(names_of(prompt_pool(prompts, targets, 10, seed), "x")) for seed in range(10)}
    assert len(draws) == 10
    without_y = prompts.keep_categories([1])
    assert names_of(prompt_pool(without_y, targets, 10, 42), "x") == names_of(pool, "x")
