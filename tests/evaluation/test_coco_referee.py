"""AP against pycocotools' COCOeval on plainly written COCO dictionaries, random and degenerate."""

import io
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from made_up_evaluation import code_of, evaluate_detections
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections

NAMES = ("crack", "hole", "stain")
H, W = 36, 48  # of the images of random cases
SHARES = {"small": (0, (1 - 1e-12) / 300), "medium": (1 / 300, 0.03 * (1 - 1e-12)), "large": (0.03, 1e10)}


def box_pixels(x, y, w, h):
    columns, rows = np.arange(W), np.arange(H)
    return np.outer((rows < y + h) & (rows + 1 > y), (columns < x + w) & (columns + 1 > x))


def blob(rng, box):
    """Pixels of about a box, some of them missing; now and then none or one."""
    kind = rng.random()
    if kind < 0.1:
        return box_pixels(5, 5, int(kind < 0.05), 1)
    return box_pixels(*box) & (rng.random((H, W)) < rng.choice([0.7, 1]))


def random_case(rng, images=4, known=3, alarms=4, classes=3, crowd=0.2, scores=4, copies=1):
    """Annotations and detections: near, far, doubled, empty and outside the image; few distinct scores."""
    names = NAMES[:classes]
    records = tuple(ImageRecord(id_, f"{id_}.png", W, H) for id_ in range(images))
    instances, detections = [], {}
    for image in records:
        rows = []
        for _ in range(rng.integers(0, known + 1)):
            class_ = int(rng.integers(0, max(1, classes - 1)))  # the last class never has an instance
            box = (*rng.uniform(0, 30, 2), *rng.choice([1.0, 3.0, 8.0, 17.5], 2))
            mask = [None, code_of(blob(rng, box) | box_pixels(*np.floor(box[:2]), 1, 1))][rng.integers(0, 2)]
            number = len(instances) + 1
            is_crowd = int(number > 1 and rng.random() < crowd)
            box = tuple(map(float, box))
            instances.append(InstanceRecord(number, image.id, class_, box, 1.0, mask, is_crowd))
            for _ in range(rng.integers(0, copies + 1)):
                own = np.array(box) + rng.choice([0, 1]) * rng.normal(0, 1, 4)
                rows.append((class_, own, blob(rng, np.round(own))))
        for _ in range(rng.integers(0, alarms + 1)):
            own = np.array((*rng.uniform(-4, 44, 2), *rng.choice([0.0, 4.0, 20.0], 2)))
            rows.append((int(rng.integers(0, classes)), own, blob(rng, own)))
        order = rng.permutation(classes)
        detections[image.id] = Detections(
            boxes_xyxy=torch.tensor([(x, y, x + max(w, 0), y + max(h, 0)) for _, (x, y, w, h), _ in rows])
            .reshape(-1, 4)
            .float(),
            scores=torch.tensor(rng.integers(1, scores + 1, len(rows)) / (scores + 1)).float(),
            labels=torch.tensor([int(np.argsort(order)[row[0]]) for row in rows], dtype=torch.int64),
            masks_rle=tuple(code_of(row[2]) for row in rows),
            class_names=tuple(names[i] for i in order),
            image_hw=(H, W),
        )
    if not instances:
        instances = [InstanceRecord(1, 0, 0, (3.0, 3.0, 9.0, 9.0), 1.0, None)]
    categories = tuple(CategoryRecord(number, name, "") for number, name in enumerate(names))
    return Annotations(records, tuple(instances), categories), detections


def plain_results(annotations, detections):
    """COCO results with box and mask, ranked as documented."""
    ids = {category.name: category.id for category in annotations.categories}
    rows = []
    for image_id, judged in detections.items():
        for i in range(len(judged)):
            name = judged.class_names[int(judged.labels[i])]
            mask = judged.masks_rle[i]
            x0, y0, x1, y1 = judged.boxes_xyxy[i].tolist()
            key = (image_id, -float(judged.scores[i]), name, (x0, y0, x1, y1), mask["counts"])
            row = {"image_id": image_id, "category_id": ids[name], "score": -key[1]}
            rows.append((key, row, [x0, y0, x1 - x0, y1 - y0], mask))
    return sorted(rows, key=lambda row: row[0])


def coco_says(annotations, detections, kind):
    """COCOeval's precision [10, 101, classes, all and 3 sizes], fed by hand from plain dictionaries."""
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i.id, "width": W, "height": H} for i in annotations.images],
        "categories": [{"id": c.id, "name": c.name} for c in annotations.categories],
        "annotations": [],
    }
    for known in annotations.instances:
        mask = known.segmentation or code_of(box_pixels(*known.bbox))
        area = known.bbox[2] * known.bbox[3] if kind == "bbox" else float(coco_mask.area(mask))
        row = vars(known) | {"bbox": list(known.bbox), "segmentation": mask, "area": area / (W * H)}
        coco.dataset["annotations"].append(row)
    ranked = plain_results(annotations, detections)
    results = [
        row | ({"bbox": list(box)} if kind == "bbox" else {"segmentation": dict(mask)})
        for _, row, box, mask in ranked
    ]
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        if results:
            reply = coco.loadRes(results)
        else:
            reply = COCO()
            reply.dataset = coco.dataset | {"annotations": []}
            reply.createIndex()
        for row in reply.dataset["annotations"]:
            row["area"] = float(row["area"]) / (W * H)
        judge = COCOeval(coco, reply, kind)
        judge.params.areaRng = [[0, 1e10], *map(list, SHARES.values())]
        judge.params.areaRngLbl = ["all", *SHARES]
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][..., -1]


def assert_as_coco_says(annotations, detections):
    metrics = evaluate_detections(annotations, detections)
    for kind in ("bbox", "segm"):
        judged, precision = getattr(metrics, kind), coco_says(annotations, detections, kind)
        values = 100 * precision.mean(axis=1)
        whole = values[:, values[0, :, 0] >= 0, 0].mean(axis=1)
        expected = (whole.mean(), whole[0], whole[5])
        assert pytest.approx(expected, abs=1e-9) == (judged.AP, judged.AP50, judged.AP75)
        for column, score in enumerate(judged.per_class.values()):
            own = values[:, column, 0]
            if score is None:
                assert (own < 0).all()
            else:
                figures = (score.AP, score.AP50, score.AP75)
                assert pytest.approx((own.mean(), own[0], own[5]), abs=1e-9) == figures
        for number, size in enumerate(SHARES, start=1):
            own = values[0, values[0, :, number] >= 0, number]
            score = judged.by_size[size]
            assert (score is None) == (len(own) == 0)
            assert score is None or pytest.approx(own.mean(), abs=1e-9) == score.AP50


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    case=st.fixed_dictionaries(
        {
            "images": st.integers(1, 4),
            "known": st.integers(0, 5),
            "alarms": st.integers(0, 6),
            "classes": st.integers(1, 3),
            "crowd": st.sampled_from([0, 0.5]),
            "scores": st.sampled_from([1, 3, 10**6]),
            "copies": st.integers(0, 3),
        }
    ),
)
def test_figures_equal_cocoeval(seed, case):
    assert_as_coco_says(*random_case(np.random.default_rng(seed), **case))


@pytest.mark.parametrize(
    "case",
    [
        {"alarms": 0, "copies": 0},
        {"scores": 1, "copies": 3},
        {"crowd": 0.9, "known": 6, "alarms": 12},
        {"images": 1, "known": 2, "alarms": 300, "classes": 1},
        {"images": 1, "known": 150, "copies": 2, "classes": 2, "alarms": 0},
        {"images": 40, "known": 1, "alarms": 1, "scores": 2},
    ],
    ids=[
        "nothing found",
        "one score",
        "crowds",
        "alarms beyond the cap",
        "hits beyond the cap",
        "many images",
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_cocoeval_in_the_extreme(seed, case):
    assert_as_coco_says(*random_case(np.random.default_rng(seed), **case))
