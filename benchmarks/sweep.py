"""The prompt sweep against one evaluation and against repeating the evaluation for every condition.

    python benchmarks/sweep.py --set mini-MVTec --rounds 3

Runs in a project after `make repro`, on the main model's unseen classes of one set. The sweep is the
paper's: seven blur levels and nine box overlaps with ten trials each. Every round runs one evaluation
and the sweep; at the end every condition runs on its own, as an evaluation from the files. Printed are
the ratios of wall time with their range over the rounds, and the largest difference between any figure
of the sweep and of the repetition.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from unispector.benchmark.judge import Trial, judge, read_pair
from unispector.benchmark.plan import plan
from unispector.benchmark.sweep import SweepTask, sweep_prompts
from unispector.benchmark.sweep_files import PAPER
from unispector.config import load_config
from unispector.data.coco import Annotations
from unispector.data.prompt_changes import blurred, with_shifted_boxes
from unispector.evaluation.coco_metrics import SetMetrics, evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.results import FIGURES, MAIN_VARIANT, figure_of
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank


def ignore(_share: float) -> None:
    """No bar: the printed lines are progress enough."""


def task_of(set_name: str, split_seed: int) -> Callable[[], SweepTask]:
    """What is to be swept, read from the files anew at each call, the model loaded once."""
    config = load_config()
    evaluation = next(
        evaluation
        for evaluation in plan(config, Path())
        if (evaluation.variant, evaluation.set_name, evaluation.subset, evaluation.split_seed)
        == (MAIN_VARIANT, set_name, "unseen", split_seed)
    )
    detector, test = UniSpector.load(evaluation.model), evaluation.tests[0]

    def read() -> SweepTask:
        prompts, targets = read_pair(test.prompt, test.target)
        return SweepTask(
            detector, prompts, targets, evaluation.images, test.prompt_seed, PAPER, config.evaluate
        )

    return read


def evaluated(task: SweepTask, bank: PromptBank) -> SetMetrics:
    """One evaluation from its prompts on."""
    truth = GroundTruth(task.targets)
    (found,) = judge(task.detector, [Trial(bank, truth)], task.images.joinpath, task.settings, ignore)
    return evaluate_overlaps(truth, found)


def encoded(task: SweepTask, prompts: Annotations) -> PromptBank:
    """Prompts on sharp images."""
    return task.detector.encode_annotations(prompts, task.images, "box", task.settings.batch_size)


def one_evaluation(read: Callable[[], SweepTask]) -> SetMetrics:
    """The prompts as drawn, files and all."""
    task = read()
    return evaluated(task, encoded(task, task.prompts))


def the_sweep(read: Callable[[], SweepTask]) -> dict[tuple[str, float, int], SetMetrics]:
    """All conditions in one pass over the targets."""
    return {
        (measured.sweep, measured.level, measured.trial): measured.metrics
        for measured in sweep_prompts(read(), ignore)
        if measured.sweep in ("prompt_blur", "prompt_box_iou")
    }


def the_repetition(read: Callable[[], SweepTask]) -> dict[tuple[str, float, int], SetMetrics]:
    """Every condition as an evaluation of its own."""
    results = {}
    for sigma in PAPER.blur:
        task = read()
        instances = task.detector.encode_instances(
            task.prompts, task.images, "box", task.settings.batch_size, partial(blurred, sigma=sigma)
        )
        results["prompt_blur", sigma, 0] = evaluated(task, instances.bank())
    for iou in PAPER.box_iou:
        for trial in range(PAPER.box_trials):
            task = read()
            bank = encoded(task, with_shifted_boxes(task.prompts, iou, task.seed, trial))
            results["prompt_box_iou", iou, trial] = evaluated(task, bank)
    return results


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds of wall time, and the result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", default="mini-MVTec", help="a key of data.sets")
    parser.add_argument("--seed", type=int, default=42, help="split seed of the model")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    read = task_of(arguments.set, arguments.seed)
    one_evaluation(read)  # compiles and warms up
    ratios = []
    for number in range(arguments.rounds):
        single = statistics.median(timed(partial(one_evaluation, read))[0] for _ in range(3))
        swept, figures = timed(partial(the_sweep, read))
        ratios.append(swept / single)
        print(
            f"round {number + 1}: evaluation {single:.2f} s, sweep of {len(figures)} conditions {swept:.2f} s"
        )
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"sweep / one evaluation: {middle:.2f} ({low:.2f} to {high:.2f})")
    repeated, expected = timed(partial(the_repetition, read))
    print(f"repetition {repeated:.1f} s; repetition / sweep: {repeated / swept:.1f}")
    differences = [
        abs(figure_of(figures[key], figure) - figure_of(expected[key], figure))
        for key in expected
        for figure in FIGURES
    ]
    print(f"{len(differences)} figures compared; largest difference {max(differences):.2e} percentage points")


if __name__ == "__main__":
    main()
