"""What negatives are worth: false alarms at equal recall with 0, 1, 3 and 10 of them, on real images.

    python benchmarks/negatives.py DATA --out reports/negatives.md

DATA is the folder of the real sets (docs/benchmark.md). Of each class five images are marked by boxes, all
other images are split in two. On the first half somebody looks through the surest findings and rejects the
false ones that are shown (a score of 0.05 or more), at most two an image: those that share less than a tenth
of their box with any defect of the class. The second half is judged, with the first 0, 1, 3 and 10 rejected
findings (their masks) as negatives.

False alarms are findings that overlap no defect by an IoU of 0.5, per image, at the score where as many
defects are found as 50 % (80 %) of those found without negatives.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from unispector.benchmark.judge import share_bar
from unispector.benchmark.one_class import ClassDraw, MarkedSet, OneClassSettings, draw_classes, read_raw_set
from unispector.benchmark.real_sets import SETS
from unispector.data.coco import Annotations, ImageRecord
from unispector.detections import Detections
from unispector.evaluation.coco_metrics import evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import Matches, match
from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling.saved_model import SHIPPED_MODELS
from unispector.ops.files import atomic_write_text
from unispector.ops.rle import decode_rle
from unispector.scores import DEFAULT_SCORE

COUNTS = (0, 1, 3, 10)
RECALLS = (0.5, 0.8)
LEAST_SHARED = 0.1  # of a finding's box; one that shares less with every defect is rejected
A_FEW = 2  # findings rejected on one image, at most


@dataclass(frozen=True)
class Figures:
    """A class and draw with one number of negatives."""

    boxes: float  # AP50, percent
    masks: float
    alarms: tuple[float, ...]  # false alarms an image, at each of `RECALLS`; nan where it is not reached


@dataclass(frozen=True)
class Halves:
    """The images of a set that are no prompts of a class: one half to reject on, the other to judge."""

    looked: Annotations
    judged: Annotations


def halves(marked: MarkedSet, draw: ClassDraw, most: int) -> Halves:
    """At most `most` images that show the class and as many that do not, in each half."""
    prompts = {image.id for image in draw.prompts.images}
    shown = [image.id for image in draw.targets.images]
    others = [image.id for image in marked.annotations.images if image.id not in {*prompts, *shown}]
    draws = np.random.default_rng([draw.prompt_seed, 3, *draw.class_name.encode()])
    parts: tuple[set[int], set[int]] = set(), set()
    for ids in (shown, others):
        order = [ids[i] for i in draws.permutation(len(ids))]
        middle = len(order) // 2
        parts[0].update(order[:middle][:most])
        parts[1].update(order[middle:][:most])
    (category,) = draw.targets.categories
    own = replace(
        marked.annotations,
        instances=tuple(m for m in marked.annotations.instances if m.category_id == category.id),
        categories=(category,),
    )
    return Halves(own.keep_images(parts[0]), own.keep_images(parts[1]))


def rejected(detector: UniSpector, bank: PromptBank, looked: Annotations, root: Path) -> list[Prompt]:
    """The surest false findings, as negatives."""
    false = []
    found = detector.stream([root / image.file_name for image in looked.images], bank)
    for image, detections in zip(looked.images, found, strict=True):
        shared, shown = shared_part(detections, looked, image), detections.scores.numpy() >= DEFAULT_SCORE
        false += [
            (-float(detections.scores[row]), image.file_name, detections.masks_rle[row])
            for row in np.flatnonzero((shared < LEAST_SHARED) & shown)[:A_FEW]
        ]
    return [
        Prompt(root / name, masks=decode_rle(code), label=bank.class_names[0])
        for _, name, code in sorted(false, key=lambda each: each[:2])[: max(COUNTS)]
    ]


def shared_part(found: Detections, truth: Annotations, image: ImageRecord) -> npt.NDArray[np.float64]:
    """[n] largest share of each finding's box that a defect covers."""
    left, top, right, bottom = found.boxes_xyxy.double().numpy().T
    share = np.zeros(len(found))
    for mark in truth.instances_of(image.id):
        x, y, w, h = mark.bbox
        wide = (np.minimum(right, x + w) - np.maximum(left, x)).clip(0)
        high = (np.minimum(bottom, y + h) - np.maximum(top, y)).clip(0)
        share = np.maximum(share, wide * high / ((right - left) * (bottom - top)).clip(1e-6))
    return share


def alarms_at(matches: Matches, found: float) -> float:
    """False alarms an image at the highest score where so many instances are found; nan = they never are."""
    order = np.argsort(-matches.scores, kind="stable")
    right = np.cumsum(matches.instance[order] >= 0)
    enough = np.flatnonzero(right >= found)
    if not len(enough):
        return float("nan")
    return float((enough[0] + 1 - right[enough[0]]) / len(matches.images))


def judge(detector: UniSpector, marked: MarkedSet, draw: ClassDraw, most: int) -> dict[int, Figures]:
    """The figures of one draw by number of negatives; those that there are not enough for are left out."""
    parts, root = halves(marked, draw, most), marked.images
    bank = detector.encode_annotations(draw.prompts, root)
    negatives = rejected(detector, bank, parts.looked, root)
    counts = [count for count in COUNTS if count <= len(negatives)]
    banks = [detector.with_negatives(bank, negatives[:count]) for count in counts]
    truth = GroundTruth(parts.judged)
    overlaps = [dict[int, object]() for _ in banks]
    found = detector.stream_banks([root / image.file_name for image in parts.judged.images], banks)
    for image, by_bank in zip(parts.judged.images, found, strict=True):
        for own, detections in zip(overlaps, by_bank, strict=True):
            own[image.id] = truth.overlaps(image.id, detections)
    boxes = [match(truth, own, "bbox") for own in overlaps]
    before = np.count_nonzero(boxes[0].truth_score > -np.inf)
    metrics = [evaluate_overlaps(truth, own) for own in overlaps]
    return {
        count: Figures(
            metric.bbox.AP50, metric.segm.AP50, tuple(alarms_at(own, share * before) for share in RECALLS)
        )
        for count, metric, own in zip(counts, metrics, boxes, strict=True)
    }


def table(rows: dict[tuple[str, str], list[dict[int, Figures]]]) -> str:
    """A line a class, the mean over its draws, and the mean of all."""
    head = "| set | class | negatives | AP50 boxes | AP50 masks | "
    head += " | ".join(f"false alarms an image at {share:.0%} of the finds" for share in RECALLS)
    lines = [head + " |", "|" + "---|" * (5 + len(RECALLS))]
    everything: dict[int, list[npt.NDArray[np.float64]]] = {count: [] for count in COUNTS}
    for (name, label), draws in rows.items():
        for count in COUNTS:
            own = [
                (each[count].boxes, each[count].masks, *each[count].alarms) for each in draws if count in each
            ]
            if own:
                mean = np.nanmean(np.array(own), axis=0)
                everything[count].append(mean)
                lines.append(f"| {name} | {label} | {count} | " + " | ".join(as_text(mean)) + " |")
    for count, means in everything.items():
        mean = np.nanmean(np.array(means), axis=0)
        lines.append(
            f"| **all** | mean of {len(means)} classes | {count} | " + " | ".join(as_text(mean)) + " |"
        )
    return "\n".join(lines)


def as_text(mean: Sequence[float]) -> list[str]:
    """AP50 with one digit, alarms with two."""
    return [f"{value:.1f}" if place < 2 else f"{value:.2f}" for place, value in enumerate(mean)]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("negatives.md"))
    parser.add_argument("--model", default=SHIPPED_MODELS[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 82, 777])
    parser.add_argument("--most", type=int, default=24, help="images of a kind in each half, at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = UniSpector.load(options.model)
    rows: dict[tuple[str, str], list[dict[int, Figures]]] = {}
    for name, source in SETS.items():
        if not (options.data / name).is_dir():
            continue
        marked = read_raw_set(options.data / name, source)
        draws, _ = draw_classes(marked, OneClassSettings(tuple(options.seeds), targets=10**6))
        with share_bar(len(draws)) as bar:
            for draw in draws:
                bar.set_description(f"{name}: {draw.class_name}, seed {draw.prompt_seed}")
                rows.setdefault((name, draw.class_name), []).append(
                    judge(detector, marked, draw, options.most)
                )
                bar.update(1)
                atomic_write_text(options.out, table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
