"""How far apart trainings of one recipe end that differ by their luck alone: `promote.seed_spread`.

    make repro                                          # or dvc repro fingerprint
    python benchmarks/training_spread.py 1 2 3 4 --out spread

Trains the recipe of `params.yaml` on the split of the first of `train.seeds`, once for each given seed of all
that is random in a training, and judges every model on unseen classes. Printed are AP50 of boxes and masks,
the mean of the sets, and the standard deviation of one training and of the difference of two. A model that
is there is not trained again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from unispector.benchmark.evaluate import evaluate_models
from unispector.benchmark.plan import evaluations_of
from unispector.config import Config, load_config
from unispector.evaluation.results import MAIN_VARIANT, figure_of
from unispector.pipeline.train import plan
from unispector.training.job import TrainingJob, train
from unispector.training.ray_trainer import WorkerGroup

FIGURES = ("bbox.AP50", "segm.AP50")


def main() -> None:
    """Train, judge, print a line for each seed and the spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = load_config()
    base, means = plan(config)[0], []
    for seed in given.seeds:
        folder = (given.out / f"seed{seed}").resolve()
        if not folder.exists():
            train(_job(base, seed, folder), "", WorkerGroup(), lambda *_: None)
        means.append(_reached(config, base.seed, folder, given.out))
        print(f"seed {seed}: boxes {means[-1][0]:.2f}, masks {means[-1][1]:.2f}", flush=True)
    for name, spread in zip(("boxes", "masks"), np.std(means, axis=0, ddof=1), strict=True):
        print(f"{name}: one training {spread:.2f}, difference of two {np.sqrt(2) * spread:.2f}")


def _job(base: TrainingJob, seed: int, folder: Path) -> TrainingJob:
    work = folder.with_name(f"{folder.name}-work")
    work.mkdir(parents=True, exist_ok=True)
    return replace(base, seed=seed, key=f"{base.key}-{seed}", model_directory=folder, work_directory=work)


def _reached(config: Config, split_seed: int, model: Path, out: Path) -> list[float]:
    """AP50 of boxes and masks in percent, the means over rows, one a set and draw of prompts."""
    quick = {"pictures": 0, "failures": 0, "resamples": 0}
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update=quick)})
    todo = evaluations_of(config, Path(), [(MAIN_VARIANT, split_seed, model)])
    report, _ = evaluate_models([each for each in todo if each.subset == "unseen"], config, out)
    return [float(np.mean([figure_of(row.metrics, name) for row in report.rows])) for name in FIGURES]


if __name__ == "__main__":
    main()
