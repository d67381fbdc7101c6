"""What calibrated thresholds and scores hold on images they were not calibrated on, of real sets.

    python benchmarks/thresholds.py DATA --out reports/thresholds.md

DATA is the folder of the real sets (docs/benchmark.md); of them Magnetic Tile has images without a defect.
Of each class ten images are marked by boxes; they and half of the good images calibrate, other images of the
class and the other half of the good ones test. The good images are split anew ten times. Scores are judged on
the findings of 0.01 and more on all test images: mean square error (Brier), and how far the share of right
findings is from the score, weighted by findings, in ten bins of equal width (calibration error).
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from unispector.benchmark.judge import share_bar
from unispector.benchmark.one_class import ClassDraw, MarkedSet, read_raw_set
from unispector.benchmark.real_sets import SETS
from unispector.data.coco import Annotations
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import match
from unispector.inference.calibration import Calibration
from unispector.inference.detector import UniSpector
from unispector.modeling.saved_model import SHIPPED_MODELS
from unispector.ops.files import atomic_write_text
from unispector.prompts.calibrate import COUNTED, Budget, Findings, Marked, calibration_of, collect
from unispector.scores import DEFAULT_SCORE

MARKED, SPLITS, BINS = 10, 10, 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One class and draw; shares between 0 and 1."""

    class_name: str
    alarms: float  # share of held-out good images with a finding from the chosen threshold on, mean of splits
    exceeded: float  # share of splits in which it is more than the budget
    found: float  # share of the test images' defects that are found from the threshold on
    alarms_default: float  # the same two from `DEFAULT_SCORE` on
    found_default: float
    error: float  # calibration error of the scores as the model gives them
    error_calibrated: float
    brier: float
    brier_calibrated: float


def drawn(marked: MarkedSet, seed: int, most: int) -> Iterator[ClassDraw]:
    """Of each class `MARKED` marked images and at most `most` others that show it."""
    for category in marked.annotations.categories:
        own = marked.annotations.keep_categories({category.id})
        own = own.keep_images({mark.image_id for mark in own.instances})
        order = np.random.default_rng([seed, *category.name.encode()]).permutation(len(own.images))
        ids = [own.images[place].id for place in order]
        if len(ids) >= MARKED + 5:
            prompts, rest = own.keep_images(ids[:MARKED]), own.keep_images(ids[MARKED:][:most])
            yield ClassDraw(category.name, seed, prompts, rest, len(ids) - MARKED)


def tested(
    detector: UniSpector, draw: ClassDraw, marked: MarkedSet
) -> tuple[Findings, npt.NDArray[np.float64], npt.NDArray[np.bool_], Floats]:
    """What calibrates; and scores, rightness and instances' scores on the test images, all uncalibrated."""
    bank = detector.encode_annotations(draw.prompts, marked.images)
    calibrating = Marked(_renamed(draw.prompts, bank.class_names[0]), marked.images, "box")
    found = collect(detector, bank, calibrating, marked.good)[bank.class_names[0]]
    truth = GroundTruth(draw.targets)
    stream = detector.stream([marked.images / image.file_name for image in draw.targets.images], bank)
    overlaps = {
        image.id: truth.overlaps(image.id, detections)
        for image, detections in zip(draw.targets.images, stream, strict=True)
    }
    matches = match(truth, overlaps, "bbox")
    counted = matches.scores >= COUNTED
    return found, matches.scores[counted], matches.instance[counted] >= 0, matches.truth_score.clip(min=0)


def judge(detector: UniSpector, draw: ClassDraw, marked: MarkedSet, budget: Budget) -> Row:
    """All figures of one class and draw."""
    found, scores, right, instances = tested(detector, draw, marked)
    highest = np.array([own.max(initial=0) for own in found.good])
    splits = []
    for split in range(SPLITS):
        order = np.random.default_rng([draw.prompt_seed, split]).permutation(len(found.good))
        held = highest[order[len(order) // 2 :]]
        part = replace(found, good=tuple(found.good[place] for place in order[: len(order) // 2]))
        told = calibration_of(part, budget)
        moved = [_apply(told, each) for each in (held, instances, scores)]
        alarms = float(np.mean((moved[0] >= told.threshold) & (held > 0)))
        hits = float(np.mean((moved[1] >= told.threshold) & (instances > 0)))
        splits.append((alarms, alarms > budget.rate, hits, *errors(moved[2], right)))
    mean = np.mean(np.array(splits, dtype=float), axis=0)
    return Row(
        class_name=draw.class_name,
        alarms=mean[0],
        exceeded=mean[1],
        found=mean[2],
        alarms_default=float(np.mean(highest >= DEFAULT_SCORE)),
        found_default=float(np.mean(instances >= DEFAULT_SCORE)),
        error=errors(scores, right)[0],
        error_calibrated=mean[3],
        brier=errors(scores, right)[1],
        brier_calibrated=mean[4],
    )


def errors(scores: Floats, right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Calibration error and Brier score of n findings."""
    place = (scores * BINS).astype(int).clip(0, BINS - 1)
    gaps = [
        np.count_nonzero(place == b) * abs(right[place == b].mean() - scores[place == b].mean())
        for b in range(BINS)
        if (place == b).any()
    ]
    return float(sum(gaps) / len(scores)), float(np.mean((scores - right) ** 2))


def table(rows: Sequence[Row], budget: Budget) -> str:
    """A line a class, the mean over its draws, and the mean of all."""
    lines = [
        f"| class | false alarms on held-out good images (allowed {budget.rate:.1%}) | splits above it "
        f"| defects found | from {DEFAULT_SCORE:g} on: false alarms | defects found "
        "| calibration error, before / after | Brier, before / after |",
        "|" + "---|" * 8,
    ]
    names = sorted({row.class_name for row in rows})
    for name in (*names, "**mean**"):
        own = [row for row in rows if name in (row.class_name, "**mean**")]
        fields = [field for field in vars(own[0]) if field != "class_name"]
        value = {field: float(np.mean([getattr(row, field) for row in own])) for field in fields}
        lines.append(
            f"| {name} | {value['alarms']:.1%} | {value['exceeded']:.0%} | {value['found']:.0%} | "
            f"{value['alarms_default']:.0%} | {value['found_default']:.0%} | "
            f"{value['error']:.3f} / {value['error_calibrated']:.3f} | "
            f"{value['brier']:.3f} / {value['brier_calibrated']:.3f} |"
        )
    return "\n".join(lines)


def _apply(calibration: Calibration, scores: Floats) -> Floats:
    return calibration.apply(torch.tensor(scores).float()).double().numpy()


def _renamed(annotations: Annotations, name: str) -> Annotations:
    (category,) = annotations.categories
    return replace(annotations, categories=(replace(category, name=name),))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("thresholds.md"))
    parser.add_argument("--model", default=SHIPPED_MODELS[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 82, 777])
    parser.add_argument("--most", type=int, default=24, help="test images a class, at most")
    parser.add_argument("--rate", type=float, default=1 / 8, help="false-alarm budget")
    options = parser.parse_args()
    detector, budget, rows = UniSpector.load(options.model), Budget(options.rate), list[Row]()
    for name, source in SETS.items():
        if not (options.data / name).is_dir():
            continue
        marked = read_raw_set(options.data / name, source)
        if len(marked.good) < 2 * 20:
            continue
        draws = [draw for seed in options.seeds for draw in drawn(marked, seed, options.most)]
        with share_bar(len(draws)) as bar:
            for draw in draws:
                bar.set_description(f"{name}: {draw.class_name}, seed {draw.prompt_seed}")
                rows.append(judge(detector, draw, marked, budget))
                bar.update(1)
                atomic_write_text(options.out, table(rows, budget) + "\n")
    print(table(rows, budget))


if __name__ == "__main__":
    main()
