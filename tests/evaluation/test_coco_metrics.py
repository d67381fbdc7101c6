"""AP in hand-made cases, and the traps of COCO's rules."""

import json
import math

import pytest

from made_up_evaluation import code_of, evaluate_detections, filled, make_detections
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.evaluation.coco_metrics import SizeAP, evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth

SIZE = 64
NAMES = ("crack", "hole", "stain")


def rle(box):
    return code_of(filled(box, SIZE, SIZE))


def truth(rows, *, images=1, names=NAMES, with_masks=True, crowd=()):
    """Ground truth of (image id, class name, xyxy) rows; category ids are 10, 20, ... in shuffled order."""
    ids = {name: 10 * (number + 1) for number, name in enumerate(names)}
    instances = tuple(
        InstanceRecord(
            id=number,
            image_id=image_id,
            category_id=ids[name],
            bbox=(box[0], box[1], box[2] - box[0], box[3] - box[1]),
            area=float((box[2] - box[0]) * (box[3] - box[1])),
            segmentation=rle(box) if with_masks else None,
            iscrowd=int(number in crowd),
        )
        for number, (image_id, name, box) in enumerate(rows, start=1)
    )
    return Annotations(
        images=tuple(ImageRecord(id_, f"{id_}.png", SIZE, SIZE) for id_ in range(1, images + 1)),
        instances=instances,
        categories=tuple(CategoryRecord(ids[name], name, "part") for name in reversed(names)),
    )


def found(rows, names=NAMES, size=SIZE):
    """Detections of one image from (class name, xyxy, score) rows."""
    return make_detections([(*row, filled(row[1], SIZE, SIZE)) for row in rows], names, (size, size))


def test_perfect_detections_reach_100_percent():
    boxes = [(2, 2, 22, 22), (30, 30, 50, 44)]
    annotations = truth([(1, "crack", boxes[0]), (1, "hole", boxes[1])])
    metrics = evaluate_detections(
        annotations, {1: found([("crack", boxes[0], 0.9), ("hole", boxes[1], 0.4)])}
    )
    for judged in (metrics.bbox, metrics.segm):
        assert pytest.approx((100, 100, 100)) == (judged.AP, judged.AP50, judged.AP75)
        assert judged.per_class["stain"] is None
        assert judged.per_class["crack"].instances == 1
    assert (metrics.images, metrics.instances) == (1, 2)


def test_shifted_detection_counts_up_to_its_overlap():
    # 20 x 20 shifted by 5 pixels: IoU = 15 * 20 / (2 * 400 - 300) = 0.6, so thresholds .50, .55, .60 hold.
    annotations = truth([(1, "crack", (10, 10, 30, 30))])
    metrics = evaluate_detections(annotations, {1: found([("crack", (15, 10, 35, 30), 0.9)])})
    for judged in (metrics.bbox, metrics.segm):
        assert pytest.approx(100) == judged.AP50
        assert judged.AP75 == 0
        assert pytest.approx(30) == judged.AP


def test_boxes_and_masks_are_judged_apart():
    annotations = truth([(1, "crack", (10, 10, 30, 30))])
    detections = found([("crack", (10, 10, 30, 30), 0.9)])
    wrong_mask = Detections(**{**vars(detections), "masks_rle": (rle((40, 40, 60, 60)),)})
    metrics = evaluate_detections(annotations, {1: wrong_mask})
    assert pytest.approx(100) == metrics.bbox.AP50
    assert metrics.segm.AP50 == 0


def test_wrong_class_is_a_miss_and_absent_classes_leave_the_mean():
    annotations = truth([(1, "crack", (10, 10, 30, 30)), (1, "hole", (40, 40, 60, 60))])
    detections = {1: found([("hole", (10, 10, 30, 30), 0.9), ("hole", (40, 40, 60, 60), 0.8)])}
    metrics = evaluate_detections(annotations, detections)
    assert metrics.bbox.per_class["crack"].AP50 == 0
    assert pytest.approx(50) == metrics.bbox.per_class["hole"].AP50  # the false alarm comes first
    assert metrics.bbox.per_class["stain"] is None
    assert pytest.approx(25) == metrics.bbox.AP50


def test_labels_are_mapped_by_name_not_by_position():
    annotations = truth([(1, "crack", (10, 10, 30, 30)), (1, "stain", (40, 40, 60, 60))])
    order = ("stain", "hole", "crack")
    rows = [("crack", (10, 10, 30, 30), 0.9), ("stain", (40, 40, 60, 60), 0.8)]
    assert pytest.approx(100) == evaluate_detections(annotations, {1: found(rows, order)}).bbox.AP50


@pytest.mark.parametrize("detections", [{}, {1: found([])}, {1: found([]), 2: found([])}])
def test_nothing_found_is_zero_not_an_error(detections):
    annotations = truth([(1, "crack", (10, 10, 30, 30))], images=2)
    metrics = evaluate_detections(annotations, detections)
    assert (metrics.bbox.AP, metrics.segm.AP, metrics.bbox.AP50) == (0, 0, 0)
    assert metrics.bbox.per_class == {"crack": metrics.bbox.per_class["crack"], "hole": None, "stain": None}


def test_false_alarm_on_an_image_without_instances_costs_precision():
    annotations = truth([(1, "crack", (10, 10, 30, 30))], images=2)
    right = found([("crack", (10, 10, 30, 30), 0.5)])
    alarm = found([("crack", (10, 10, 30, 30), 0.9)])
    assert pytest.approx(50) == evaluate_detections(annotations, {1: right, 2: alarm}).bbox.AP50


def test_equal_scores_do_not_depend_on_order():
    annotations = truth([(1, "crack", (10, 10, 30, 30))])
    rows = [
        ("crack", (10, 10, 30, 30), 0.5),
        ("crack", (40, 40, 60, 60), 0.5),
        ("crack", (2, 40, 9, 60), 0.5),
    ]
    values = {
        evaluate_detections(annotations, {1: found([rows[i] for i in order])}).bbox.AP50
        for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0])
    }
    assert len(values) == 1


def test_equal_scores_across_images_do_not_depend_on_mapping_order():
    annotations = truth([(2, "crack", (10, 10, 30, 30))], images=2)
    one, two = found([("crack", (40, 40, 60, 60), 0.5)]), found([("crack", (10, 10, 30, 30), 0.5)])
    forward = evaluate_detections(annotations, {1: one, 2: two})
    assert forward == evaluate_detections(annotations, {2: two, 1: one})
    assert pytest.approx(50) == forward.bbox.AP50


def test_at_most_100_detections_of_a_class_in_an_image_count():
    box = (10, 10, 30, 30)
    alarms = [("crack", (40 + i % 10, 40 + i // 10, 60, 60), 0.9 - i / 1000) for i in range(100)]
    annotations = truth([(1, "crack", box), (1, "hole", box)])
    late = found([*alarms[:99], ("crack", box, 0.1)])
    assert pytest.approx(1) == evaluate_detections(annotations, {1: late}).bbox.per_class["crack"].AP50
    too_late = found([*alarms, ("crack", box, 0.1), ("hole", box, 0.05)])
    judged = evaluate_detections(annotations, {1: too_late}).bbox
    assert judged.per_class["crack"].AP50 == 0
    assert pytest.approx(100) == judged.per_class["hole"].AP50  # the cap is per class, not per image


def test_crowds_are_neither_right_nor_wrong_and_not_counted():
    annotations = truth([(1, "crack", (0, 0, 20, 20)), (1, "crack", (30, 30, 60, 60))], crowd=(2,))
    rows = [("crack", (32, 32, 50, 50), 0.9), ("crack", (0, 0, 20, 20), 0.5)]
    metrics = evaluate_detections(annotations, {1: found(rows)})
    assert pytest.approx(100) == metrics.bbox.AP50
    assert metrics.instances == 1
    assert metrics.bbox.per_class["crack"].instances == 1
    missed = evaluate_detections(annotations, {1: found(rows[1:])})
    assert pytest.approx((100, 100)) == (missed.bbox.AP50, missed.segm.AP50)


def test_instance_without_segmentation_counts_as_its_filled_box():
    annotations = truth([(1, "crack", (10, 12, 30, 40))], with_masks=False)
    metrics = evaluate_detections(annotations, {1: found([("crack", (10, 12, 30, 40), 0.9)])})
    assert pytest.approx(100) == metrics.segm.AP


def test_polygons_are_rasterised():
    annotations = truth([(1, "crack", (10, 10, 30, 30))])
    polygon = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    instance = InstanceRecord(**{**vars(annotations.instances[0]), "segmentation": polygon})
    annotations = Annotations(annotations.images, (instance,), annotations.categories)
    metrics = evaluate_detections(annotations, {1: found([("crack", (10, 10, 30, 30), 0.9)])})
    assert pytest.approx(100) == metrics.segm.AP


def test_nothing_is_printed(capfd):
    evaluate_detections(truth([(1, "crack", (10, 10, 30, 30))]), {})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ({1: found([("crack", (1, 1, 5, 5), 0.5)], ("crack", "dent"))}, "'dent'"),
        ({7: found([("crack", (1, 1, 5, 5), 0.5)])}, "7"),
        ({1: found([("crack", (1, 1, 5, 5), math.nan)])}, "finite"),
        ({1: found([], size=32)}, "1.png"),
    ],
)
def test_unusable_detections_are_refused_in_one_line(detections, message):
    with pytest.raises(DataError, match=message) as caught:
        evaluate_detections(truth([(1, "crack", (10, 10, 30, 30))]), detections)
    assert "\n" not in str(caught.value)


def test_no_ground_truth_is_refused():
    with pytest.raises(DataError, match="no instances"):
        evaluate_detections(truth([(1, "crack", (1, 1, 9, 9))], crowd=(1,)), {})


def read(tmp_path, instances, **parts):
    """Annotations read from a file of one 64 x 64 image with raw instance records."""
    content = {
        "images": [{"id": 0, "file_name": "0.png", "width": SIZE, "height": SIZE}],
        "annotations": instances,
        "categories": [{"id": 0, "name": "crack"}, {"id": 1, "name": "hole"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content | parts))
    return Annotations.read(tmp_path / "truth.json")


def test_trap_ids_from_0_are_no_miss():
    instance = InstanceRecord(0, 0, 0, (10.0, 10.0, 20.0, 20.0), 400.0, None)
    annotations = Annotations(
        (ImageRecord(0, "0.png", SIZE, SIZE),), (instance,), (CategoryRecord(0, "crack", ""),)
    )
    metrics = evaluate_detections(annotations, {0: found([("crack", (10, 10, 30, 30), 0.9)], ("crack",))})
    assert pytest.approx((100, 100)) == (metrics.bbox.AP, metrics.segm.AP)


def test_trap_ids_beyond_a_float_are_told_apart():
    # The engine holds ids as floats, where these two images would be one.
    large = 2**60
    annotations = Annotations(
        tuple(ImageRecord(large + i, f"{i}.png", SIZE, SIZE) for i in range(2)),
        (InstanceRecord(2**62, large, 2**61, (10.0, 10.0, 20.0, 20.0), 400.0, None),),
        (CategoryRecord(2**61, "crack", ""), CategoryRecord(2**61 + 1, "hole", "")),
    )
    hit = found([("crack", (10, 10, 30, 30), 0.9)], NAMES[:2])
    assert pytest.approx(100) == evaluate_detections(annotations, {large: hit}).bbox.AP
    assert evaluate_detections(annotations, {large + 1: hit}).bbox.AP == 0


def test_trap_ignore_is_not_iscrowd_and_missing_iscrowd_is_none(tmp_path):
    first = {"id": 1, "image_id": 0, "category_id": 0, "bbox": [2, 2, 10, 10]}
    second = first | {"id": 2, "bbox": [30, 30, 10, 10], "ignore": 1}
    metrics = evaluate_detections(
        read(tmp_path, [first, second]), {0: found([("crack", (2, 2, 12, 12), 0.9)], ("crack",))}
    )
    assert metrics.instances == 2
    assert pytest.approx(100 * 51 / 101) == metrics.bbox.AP50  # one of two is missed: recalls 0 to .50


def test_trap_crowd_absorbs_any_number_of_false_alarms():
    boxes = [(1, "crack", (0, 0, 20, 20)), (1, "crack", (30, 30, 60, 60))]
    alarms = [("crack", (30 + i, 30 + i, 40 + i, 40 + i), 0.9 - i / 100) for i in range(9)]
    detections = {1: found([*alarms, ("crack", (0, 0, 20, 20), 0.1)])}
    absorbed = evaluate_detections(truth(boxes, crowd=(2,)), detections)
    counted = evaluate_detections(truth(boxes[:1]), detections)
    for kind in ("bbox", "segm"):
        assert pytest.approx(100) == getattr(absorbed, kind).AP50
        assert pytest.approx(10) == getattr(counted, kind).AP50


def test_trap_of_150_found_defects_only_100_count():
    boxes = [(x, y, x + 3, y + 3) for x in range(0, 60, 4) for y in range(0, 40, 4)]
    rows = [("crack", box, 0.9 - i / 1000) for i, box in enumerate(boxes)]
    metrics = evaluate_detections(truth([(1, "crack", box) for box in boxes]), {1: found(rows)})
    assert metrics.instances == 150
    assert pytest.approx(100 * 67 / 101) == metrics.bbox.AP50 == metrics.segm.AP50  # recalls 0 to .66


def test_trap_false_alarms_of_a_class_without_instances_cost_nothing():
    annotations = truth([(1, "crack", (10, 10, 30, 30))])
    right = ("crack", (10, 10, 30, 30), 0.5)
    alarms = [("hole", (10, 10, 30, 30), 0.9), ("stain", (40, 40, 50, 50), 0.8)]
    metrics = evaluate_detections(annotations, {1: found([right, *alarms])})
    assert metrics == evaluate_detections(annotations, {1: found([right])})
    assert pytest.approx(100) == metrics.bbox.AP
    assert metrics.bbox.per_class["hole"] is None


def test_trap_a_class_of_crowds_only_has_no_ground_truth():
    rows = [(1, "crack", (10, 10, 30, 30)), (1, "hole", (40, 40, 60, 60))]
    metrics = evaluate_detections(truth(rows, crowd=(2,)), {1: found([("crack", (10, 10, 30, 30), 0.5)])})
    assert metrics.bbox.per_class["hole"] is None
    assert pytest.approx(100) == metrics.bbox.AP


def test_trap_scratch_thinner_than_a_pixel_does_not_vanish(tmp_path):
    scratch = {
        "id": 1, "image_id": 0, "category_id": 0, "iscrowd": 0, "bbox": [10, 5.1, 20, 0.3], "area": 6,
        "segmentation": [[10, 5.1, 30, 5.1, 30, 5.4, 10, 5.4]],
    }  # fmt: skip
    row = ("crack", (10, 5, 30, 6), 0.9)
    metrics = evaluate_detections(read(tmp_path, [scratch]), {0: found([row], ("crack",))})
    assert metrics.instances == 1
    assert pytest.approx(100) == metrics.segm.AP
    assert metrics.segm.by_size["medium"] == SizeAP(pytest.approx(100), 1)  # 20 pixels of 4096


def test_trap_sizes_are_of_the_mask_for_masks_and_of_the_box_for_boxes():
    annotations = truth([(1, "crack", (10, 10, 30, 30))])
    thin = rle((10, 10, 11, 30))  # 20 of 4096 pixels; the box has 400
    instance = InstanceRecord(**{**vars(annotations.instances[0]), "segmentation": thin, "area": 1e6})
    annotations = Annotations(annotations.images, (instance,), annotations.categories)
    detections = Detections(**{**vars(found([("crack", (10, 10, 30, 30), 0.9)])), "masks_rle": (thin,)})
    metrics = evaluate_detections(annotations, {1: detections})
    hit = SizeAP(pytest.approx(100), 1)
    assert metrics.bbox.by_size == {"small": None, "medium": None, "large": hit}
    assert metrics.segm.by_size == {"small": None, "medium": hit, "large": None}


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(31, 33, "small"), (32, 32, "medium"), (33, 32, "medium"), (95, 97, "medium"), (96, 96, "large")],
)
@pytest.mark.parametrize("scale", [1, 3])
def test_trap_size_bins_are_disjoint_shares_of_the_image(width, height, size, scale):
    image = ImageRecord(1, "1.png", 640 * scale, 480 * scale)
    box = (0.0, 0.0, float(width * scale), float(height * scale))
    instance = InstanceRecord(1, 1, 1, box, 1.0, None)
    metrics = evaluate_detections(Annotations((image,), (instance,), (CategoryRecord(1, "crack", ""),)), {})
    for judged in (metrics.bbox, metrics.segm):
        filled = {name: value for name, value in judged.by_size.items() if value is not None}
        assert filled == {size: SizeAP(0, 1)}


def test_overlaps_that_are_kept_give_the_same_figures():
    annotations = truth([(1, "crack", (10, 10, 30, 30)), (3, "hole", (5, 5, 20, 20))], images=3)
    detections = {i: found([("crack", (12, 10, 30, 30), 0.5), ("hole", (5, 5, 20, 20), 0.5)]) for i in (1, 3)}
    judge = GroundTruth(annotations)
    overlaps = {i: judge.overlaps(i, detections[i]) for i in (3, 1)}
    assert evaluate_overlaps(judge, overlaps) == evaluate_detections(annotations, detections)
    with pytest.raises(DataError, match="image id 4"):
        evaluate_overlaps(judge, {4: overlaps[1]})
