"""Small defects on large images: looked at as a whole, in tiles, and as the small images that they are of.

    python benchmarks/tiling.py mosaics annotations.json --images photos/ --classes scratch --tiles 0 auto
    python benchmarks/tiling.py hole --width 12000 --height 9000

`mosaics` puts real images of one class side by side, as cells of a large one. Five of them, as often as it
takes to fill one, are the prompts; others are the targets. Printed is the AP50 of boxes and of masks, and the
share of defects that is found (IoU 0.5) at a false alarm a cell or fewer; `alone` looks at each target as the
image that it is. `hole` draws a rough surface with one dark hole, marks it, and looks for it on another one;
printed are the score of the best detection of the hole, the best of all others, seconds, and the peak of the
memory of the process. Both append their rows to --out, where it is given.
"""

import argparse
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.inference.detector import Prompt, UniSpector
from unispector.ops.files import read_image
from unispector.ops.rle import segmentation_to_mask

PROMPT_IMAGES = 5
FOUND_IOU = 0.5
PER_CELL = 30  # detections kept of each cell

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An image with the marks of one class."""

    pixels: Pixels
    masks: Sequence[npt.NDArray[np.bool_]]  # of the image's size; a box's is filled
    boxes: Sequence[tuple[float, ...]]  # XYWH


def pictures(annotations: Annotations, images: Path, name: str, cell: tuple[int, int]) -> Iterator[Picture]:
    """The images of a class, at the size of a cell."""
    category = next(record.id for record in annotations.categories if record.name == name)
    for record in annotations.images:
        own = [mark for mark in annotations.instances_of(record.id) if mark.category_id == category]
        if not own:
            continue
        pixels = cv2.resize(read_image(images / record.file_name), cell[::-1], interpolation=cv2.INTER_AREA)
        masks, boxes = [], []
        across, down = cell[1] / record.width, cell[0] / record.height
        for mark in own:
            x, y, w, h = mark.bbox
            boxes.append((x * across, y * down, w * across, h * down))
            mask = np.zeros((record.height, record.width), dtype=np.bool_)
            mask[round(y) : round(y + h), round(x) : round(x + w)] = True
            if mark.segmentation:
                mask = segmentation_to_mask(mark.segmentation, record.height, record.width)
            small = cv2.resize(mask.astype(np.uint8), cell[::-1], interpolation=cv2.INTER_NEAREST)
            masks.append(small.astype(np.bool_))
        yield Picture(np.asarray(pixels, dtype=np.uint8), masks, boxes)


def mosaic(cells: Sequence[Picture], side: int) -> Picture:
    """`side` x `side` cells in one image, from the first on as often as it takes."""
    height, width = cells[0].pixels.shape[:2]
    pixels = np.zeros((side * height, side * width, 3), dtype=np.uint8)
    masks, boxes = [], []
    for place in range(side * side):
        one = cells[place % len(cells)]
        top, left = place // side * height, place % side * width
        pixels[top : top + height, left : left + width] = one.pixels
        for mask, (x, y, w, h) in zip(one.masks, one.boxes, strict=True):
            whole = np.zeros(pixels.shape[:2], dtype=np.bool_)
            whole[top : top + height, left : left + width] = mask
            masks.append(whole)
            boxes.append((x + left, y + top, w, h))
    return Picture(pixels, masks, boxes)


def judged(truths: Sequence[Picture], found: Sequence[Detections], cells: int) -> tuple[float, float, float]:
    """AP50 of boxes and masks, and recall of boxes at a false alarm a cell, in percent."""
    figures, recall = [], 0.0
    for kind in ("box", "mask"):
        scores, right = [], []
        for truth, detections in zip(truths, found, strict=True):
            boxes = detections.boxes_xyxy.numpy().astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            if kind == "box":
                overlaps = coco_mask.iou(boxes, np.array(truth.boxes), [0] * len(truth.boxes))
            else:
                codes = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in truth.masks]
                overlaps = coco_mask.iou(list(detections.masks_rle), codes, [0] * len(codes))
            free = np.ones(len(truth.boxes), dtype=np.bool_)
            for row, score in enumerate(detections.scores.tolist()):
                best = int(np.argmax(overlaps[row] * free))
                hit = bool(free[best] and overlaps[row, best] >= FOUND_IOU)
                free[best] &= not hit
                scores.append(score)
                right.append(hit)
        order = np.argsort(-np.array(scores), kind="stable")
        hits = np.array(right)[order].cumsum()
        wrong = np.arange(1, len(hits) + 1) - hits
        total = sum(len(truth.boxes) for truth in truths)
        precision = np.maximum.accumulate((hits / (hits + wrong))[::-1])[::-1]
        places = np.searchsorted(hits / total, np.linspace(0, 1, 101))
        figures.append(100 * float(np.append(precision, 0)[places].mean()))
        if kind == "box":
            allowed = np.flatnonzero(wrong <= cells)
            recall = 100 * float(hits[allowed[-1]] / total) if len(allowed) else 0.0
    return figures[0], figures[1], recall


def run_mosaics(options: argparse.Namespace) -> None:
    """One row a class, draw and way."""
    annotations, detector = Annotations.read(options.annotations), UniSpector.load(options.model)
    cell = (options.cell[1], options.cell[0])
    tell(
        options.out, "| class | draw | marks px | looked at | tile, input | AP50 boxes / masks | recall | s |"
    )
    tell(options.out, "|---|---|---|---|---|---|---|---|")
    for name in options.classes or [record.name for record in annotations.categories]:
        every = list(pictures(annotations, options.images, name, cell))
        for seed in options.seeds:
            order = np.random.default_rng(seed).permutation(len(every))
            prompts = [every[i] for i in order[:PROMPT_IMAGES]]
            targets = [every[i] for i in order[PROMPT_IMAGES:][: options.grid**2]]
            sides = [(w * h) ** 0.5 for one in targets for _, _, w, h in one.boxes]
            prompt, target = mosaic(prompts, options.grid), mosaic(targets, options.grid)
            for way in options.tiles:
                began = time.perf_counter()
                shown, truths = ([prompt], [target]) if way != "alone" else (prompts, targets)
                marks = [Prompt(one.pixels, one.boxes, label=name) for one in shown]
                tile = way if way == "auto" else 0 if way == "alone" else int(way)
                bank = detector.encode(marks, tile=tile)
                limit = PER_CELL * (len(targets) if way != "alone" else 1)
                found = detector.detect([one.pixels for one in truths], bank, limit=limit)
                boxes, masks, recall = judged(truths, found, len(targets))
                view = f"{bank.tiles[0]}, {bank.image_sizes[0]}"
                seconds = time.perf_counter() - began
                tell(
                    options.out,
                    f"| {name} | {seed} | {np.median(sides):.0f} | {way} | {view} "
                    f"| {boxes:.1f} / {masks:.1f} | {recall:.0f} | {seconds:.0f} |",
                )


def surface(height: int, width: int, seed: int, hole: tuple[int, int], side: int) -> Pixels:
    """A rough grey surface with a dark round hole around a point x, y."""
    rng = np.random.default_rng(seed)
    grey = np.empty((height, width), dtype=np.uint8)
    for top in range(0, height, 1000):  # in strips, so that drawing takes less memory than looking
        rough = rng.normal(0, 40, (min(1000, height - top), width)).astype(np.float32)
        grey[top : top + 1000] = (128 + 4 * cv2.GaussianBlur(rough, (0, 0), 2)).clip(0, 255)
    cv2.circle(grey, hole, side // 2, 15, -1, cv2.LINE_AA)
    return np.repeat(grey[:, :, None], 3, axis=2)


def run_hole(options: argparse.Namespace) -> None:
    """One row a way."""
    detector = UniSpector.load(options.model)
    height, width, side = options.height, options.width, options.side
    tell(options.out, "| model | looked at | tile, input | the hole | best other | s | peak MB |")
    tell(options.out, "|---|---|---|---|---|---|---|")
    for way in options.tiles:
        x, y = width // 4, height // 3
        marked = surface(height, width, 1, (x, y), side)
        box = (x - side // 2 - 1, y - side // 2 - 1, side + 2, side + 2)
        bank = detector.encode([Prompt(marked, [box])], tile="auto" if way == "auto" else int(way))
        del marked
        x, y = 2 * width // 3, 3 * height // 5
        target = surface(height, width, 2, (x, y), side)
        began = time.perf_counter()
        (found,) = detector.detect([target], bank)
        seconds = time.perf_counter() - began
        truth = np.array([[x - side / 2, y - side / 2, side, side]])
        boxes = found.boxes_xyxy.numpy().astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        right = coco_mask.iou(boxes, truth, [0])[:, 0] >= FOUND_IOU if len(found) else np.zeros(0, np.bool_)
        scores = found.scores.numpy()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        tell(
            options.out,
            f"| {options.model} | {way} | {bank.tiles[0]}, {bank.image_sizes[0]} | "
            f"{max(scores[right], default=0):.2f} | {max(scores[~right], default=0):.2f} | {seconds:.0f} | "
            f"{peak:.0f} |",
        )


def tell(out: Path | None, line: str) -> None:
    """Print a line, and append it to a file."""
    print(line, flush=True)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    mosaics = verbs.add_parser("mosaics")
    mosaics.add_argument("annotations", type=Path)
    mosaics.add_argument("--images", type=Path, required=True)
    mosaics.add_argument("--classes", nargs="*")
    mosaics.add_argument("--cell", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), default=(256, 256))
    mosaics.add_argument("--grid", type=int, default=6)
    mosaics.add_argument("--seeds", type=int, nargs="*", default=(42,))
    mosaics.set_defaults(run=run_mosaics)
    hole = verbs.add_parser("hole")
    hole.add_argument("--width", type=int, default=12000)
    hole.add_argument("--height", type=int, default=9000)
    hole.add_argument("--side", type=int, default=25)
    hole.set_defaults(run=run_hole)
    for verb, tiles in ((mosaics, ["0", "auto", "alone"]), (hole, ["0", "auto"])):
        verb.add_argument("--tiles", nargs="*", default=tiles, help="sides, 0, auto; of mosaics alone, too")
        verb.add_argument("--model", default="fast")
        verb.add_argument("--out", type=Path, help="file to append the rows to")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
