"""Judging a test: time against pycocotools on the same detections, and peak memory of a large one.

    python benchmarks/average_precision.py --images 500 --detections 100 --classes 10
    python benchmarks/average_precision.py --memory --images 2000

Instances are ellipses, detections the same ellipses moved a little, so that most of them overlap one.
Both sides judge boxes and masks at ten thresholds and in four ranges of size. Every round runs all
forms in turn; printed are medians of processor time, the ratios' medians and their range over the
rounds. `--memory` instead judges in a process of its own, with detections made image by image, and
prints its peak.
"""

import argparse
import copy
import io
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.evaluation.coco_metrics import SIZES, SetMetrics, evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth, Overlaps
from unispector.ops.rle import Rle, encode_crop

Row = tuple[int, tuple[int, int, int, int], Rle]
"""Class, box xywh and mask."""


def ellipse(left: int, top: int, width: int, height: int, side: int) -> Rle:
    """Mask of the ellipse in a box that lies within the image."""
    x, y = (np.arange(width) * 2 + 1) / width - 1, (np.arange(height) * 2 + 1) / height - 1
    return encode_crop(y[:, None] ** 2 + x**2 <= 1, left, top, side, side)


def draw(seed: int, options: argparse.Namespace) -> list[Row]:
    """One image's instances; the same for the same seed."""
    rng = np.random.default_rng(seed)
    side = options.side
    rows = []
    for class_ in rng.integers(0, options.classes, options.instances).tolist():
        width, height = rng.integers(side // 50, side // 5, 2).tolist()
        left, top = int(rng.integers(0, side - width)), int(rng.integers(0, side - height))
        rows.append((class_, (left, top, width, height), ellipse(left, top, width, height, side)))
    return rows


def detect(seed: int, options: argparse.Namespace) -> Detections:
    """One image's detections: its instances in turn, moved by about an eighth of their size."""
    rng = np.random.default_rng(seed)
    known, side = draw(seed, options), options.side
    boxes, masks, labels = [], [], []
    for number in range(options.detections):
        class_, (left, top, width, height), _ = known[number % len(known)]
        left = int(np.clip(left + rng.normal(0, width / 8), 0, side - width))
        top = int(np.clip(top + rng.normal(0, height / 8), 0, side - height))
        boxes.append((left, top, left + width, top + height))
        masks.append(ellipse(left, top, width, height, side))
        labels.append(class_)
    return Detections(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32),
        scores=torch.from_numpy(rng.random(len(boxes))).float(),
        labels=torch.tensor(labels),
        masks_rle=tuple(masks),
        class_names=tuple(f"class {number}" for number in range(options.classes)),
        image_hw=(side, side),
    )


def annotate(options: argparse.Namespace) -> Annotations:
    """Ground truth of all images."""
    instances: list[InstanceRecord] = []
    for image in range(options.images):
        for class_, (left, top, width, height), mask in draw(image, options):
            box = float(left), float(top), float(width), float(height)
            area = math.pi / 4 * width * height
            instances.append(InstanceRecord(len(instances) + 1, image, class_, box, area, mask))
    return Annotations(
        images=tuple(ImageRecord(i, f"{i}.png", options.side, options.side) for i in range(options.images)),
        instances=tuple(instances),
        categories=tuple(CategoryRecord(i, f"class {i}", "") for i in range(options.classes)),
    )


def results(detections: dict[int, Detections]) -> list[dict[str, Any]]:
    """The detections as pycocotools reads them."""
    rows = []
    for image_id, found in detections.items():
        corners = found.boxes_xyxy.tolist()
        columns = zip(corners, found.scores.tolist(), found.labels.tolist(), found.masks_rle, strict=True)
        for (x0, y0, x1, y1), score, label, mask in columns:
            row = {"image_id": image_id, "category_id": label, "score": score}
            rows.append(row | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": mask})
    return rows


def pycocotools(annotations: Annotations, rows: list[dict[str, Any]], side: int) -> list[float]:
    """AP50 of boxes and masks in percent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    figures = []
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations.as_coco()
        truth.createIndex()
        for kind, key in (("bbox", "bbox"), ("segm", "segmentation")):
            names = ("image_id", "category_id", "score", key)
            found = truth.loadRes([{name: copy.copy(row[name]) for name in names} for row in rows])
            judge = COCOeval(truth, found, kind)
            judge.params.areaRng = [[low * side**2, high * side**2] for low, high in SIZES.values()]
            judge.params.areaRng.insert(0, [0.0, 1e10])
            judge.params.areaRngLbl, judge.params.maxDets = ["all", *SIZES], [100]
            judge.evaluate()
            judge.accumulate()
            figures.append(100 * float(judge.eval["precision"][0, :, :, 0, 0].mean()))
    return figures


def seconds(action: Callable[[], object]) -> float:
    """Processor time of one call, all threads together; other work on the machine does not count."""
    start = time.process_time()
    action()
    return time.process_time() - start


def speed(options: argparse.Namespace) -> None:
    """Time all forms and print milliseconds per image and ratios."""
    annotations = annotate(options)
    detections = {image: detect(image, options) for image in range(options.images)}
    truth, rows = GroundTruth(annotations), results(detections)

    def overlaps(truth: GroundTruth) -> dict[int, Overlaps]:
        return {image: truth.overlaps(image, found) for image, found in detections.items()}

    def from_annotations() -> SetMetrics:
        fresh = GroundTruth(annotations)
        return evaluate_overlaps(fresh, overlaps(fresh))

    kept = overlaps(truth)
    forms: dict[str, Callable[[], object]] = {
        "from annotations on": from_annotations,
        "from kept overlaps on": lambda: evaluate_overlaps(truth, kept),
        "pycocotools": lambda: pycocotools(annotations, rows, options.side),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(options.rounds):
        for name, form in forms.items():
            times[name].append(seconds(form))
    report(options, times)
    agree(evaluate_overlaps(truth, kept), pycocotools(annotations, rows, options.side))


def report(options: argparse.Namespace, times: dict[str, list[float]]) -> None:
    """Medians and ratios with their range."""
    print(f"{describe(options)}, boxes and masks, {options.rounds} rounds")
    print(f"{'':28}{'ms/image':>10}   faster than pycocotools by")
    for name, took in times.items():
        ratios = [other / own for other, own in zip(times["pycocotools"], took, strict=True)]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(f"{name:28}{1000 * statistics.median(took) / options.images:10.2f}   {spread}")


def describe(options: argparse.Namespace) -> str:
    """Sizes in words."""
    return (
        f"{options.images} images of {options.side} x {options.side}, {options.instances} instances and "
        f"{options.detections} detections each, {options.classes} classes"
    )


def agree(metrics: SetMetrics, theirs: list[float]) -> None:
    """Both sides' AP50."""
    for name, own, other in zip(
        ("boxes", "masks"), (metrics.bbox.AP50, metrics.segm.AP50), theirs, strict=True
    ):
        print(f"AP50 of {name}: {own:.6f}, pycocotools {other:.6f}")


def peak(options: argparse.Namespace) -> None:
    """Judge a large test in this process and print its own peak memory."""
    start = time.perf_counter()
    truth = GroundTruth(annotate(options))
    overlaps = {image: truth.overlaps(image, detect(image, options)) for image in range(options.images)}
    metrics = evaluate_overlaps(truth, overlaps)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    took = time.perf_counter() - start
    print(
        f"{describe(options)}: peak {used:.2f} GiB, {took:.0f} s with drawing, AP50 {metrics.segm.AP50:.2f}"
    )


def main() -> None:
    """Measure speed, or memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detections", type=int, default=100, help="of an image")
    parser.add_argument("--instances", type=int, default=100, help="of an image")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--side", type=int, default=256, help="of an image in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of speed")
    parser.add_argument("--peak-of-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of_this_process:
        peak(options)
    elif options.memory:
        command = [sys.executable, __file__, *sys.argv[1:], "--peak-of-this-process"]
        subprocess.run(command, check=True)  # noqa: S603
    else:
        speed(options)


if __name__ == "__main__":
    main()
