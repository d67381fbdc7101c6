"""AP against hand-made cases, COCOeval called directly, and the traps of the referee."""

import io
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.evaluation.coco_metrics import SetMetrics, evaluate_detections
from unispector.structures import Detections

SIZE = 64
NAMES = ("crack", "hole", "stain")


def rle(box, size=SIZE):
    x0, y0, x1, y1 = (round(value) for value in box)
    mask = np.zeros((size, size), dtype=np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    code = coco_mask.encode(mask)
    return {"size": [size, size], "counts": code["counts"].decode()}


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
    return Detections(
        boxes_xyxy=torch.tensor([row[1] for row in rows], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([row[2] for row in rows], dtype=torch.float32),
        labels=torch.tensor([names.index(row[0]) for row in rows], dtype=torch.int64),
        masks_rle=tuple(rle(row[1]) for row in rows),
        class_names=tuple(names),
        image_hw=(size, size),
    )


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


def test_dictionary_round_trip_and_layout():
    annotations = truth([(1, "crack", (10, 10, 30, 30))])
    metrics = evaluate_detections(annotations, {1: found([("crack", (12, 10, 32, 30), 0.9)])})
    content = metrics.as_dict()
    assert content["bbox"]["AP50"] == pytest.approx(100)
    assert content["segm"]["per_class"]["crack"]["AP50"] == pytest.approx(100)
    assert content["bbox"]["per_class"]["hole"] is None
    assert SetMetrics.from_dict(content) == metrics


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


def random_case(seed):
    rng = np.random.default_rng(seed)

    def box():
        left, top = rng.integers(0, 40, 2)
        width, height = rng.integers(4, 24, 2)
        return tuple(int(value) for value in (left, top, left + width, top + height))

    rows = [
        (image_id, str(rng.choice(NAMES[: rng.integers(1, 4)])), box())
        for image_id in range(1, 6)
        for _ in range(rng.integers(0, 5))
    ] or [(1, "crack", box())]
    detections = {}
    for image_id in range(1, 6):
        near = [
            (str(rng.choice([name, str(rng.choice(NAMES))], p=[0.8, 0.2])), jittered, float(rng.random()))
            for own, name, truth_box in rows
            if own == image_id
            and (jittered := tuple(float(np.clip(v + rng.normal(0, 2), 0, SIZE)) for v in truth_box))
            and jittered[2] > jittered[0] + 1
            and jittered[3] > jittered[1] + 1
        ]
        far = [(str(rng.choice(NAMES)), box(), float(rng.random())) for _ in range(rng.integers(0, 6))]
        detections[image_id] = found(near + far)
    return truth(rows, images=5), detections


def coco_says(annotations, detections, kind):
    """Twelve statistics of COCOeval, fed by hand from plain dictionaries."""
    ids = {category.name: category.id for category in annotations.categories}
    results = []
    for image_id, judged in detections.items():
        for i in range(len(judged)):
            x0, y0, x1, y1 = judged.boxes_xyxy[i].tolist()
            row = {
                "image_id": image_id,
                "category_id": ids[judged.class_names[int(judged.labels[i])]],
                "score": float(judged.scores[i]),
            }
            if kind == "bbox":
                row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            else:
                row["segmentation"] = dict(judged.masks_rle[i])
            results.append(row)
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i.id, "width": i.width, "height": i.height} for i in annotations.images],
        "categories": [{"id": c.id, "name": c.name} for c in annotations.categories],
        "annotations": [vars(i) | {"bbox": list(i.bbox)} for i in annotations.instances],
    }
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


@pytest.mark.parametrize("seed", range(12))
def test_figures_equal_cocoeval_on_random_cases(seed):
    annotations, detections = random_case(seed)
    metrics = evaluate_detections(annotations, detections)
    for kind in ("bbox", "segm"):
        judged = getattr(metrics, kind)
        expected = 100 * coco_says(annotations, detections, kind)[:3]
        assert np.allclose([judged.AP, judged.AP50, judged.AP75], expected, atol=1e-9)
