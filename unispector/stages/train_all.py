"""Stage `train`, the driver's side: which models the benchmark needs, and each one's tracked job."""

import csv
import hashlib
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unispector.config import Config
from unispector.data.protocol.split_tree import SplitTree
from unispector.errors import ConfigError
from unispector.ops.files import atomic_write_text, sha256_of_tree
from unispector.stages.fingerprint import read_fingerprints
from unispector.stages.lineage import git_state
from unispector.stages.paths import CHECKPOINTS, MODELS, SPLITS, TRACKING, TRAINING_CURVES, TRAINING_SUMMARY
from unispector.stages.train import TrainingJob, Variant, initial_model, save_job, train
from unispector.tracking.run import JOB_TAG, TrackedRun, TrackingStore, flat
from unispector.training.ray_trainer import Job, run_job

logger = logging.getLogger(__name__)

EXPERIMENT = "training"

_CODE = ("config", "structures.py", "data", "losses", "modeling", "ops", "training")
_SECONDS_BETWEEN_LINES = 15.0


@dataclass(frozen=True)
class TrainingReport:
    """How one training went.

    Attributes:
        variant, seed: of the job.
        steps: optimiser steps of the model.
        loss: mean total loss of the last report; None for an untrained model.
        seconds: wall time, of the last attempt when the job went on from a checkpoint.
        fingerprint: of the saved model.
        run_id: its MLflow run; empty for an untrained model.
    """

    variant: Variant
    seed: int
    steps: int
    loss: float | None
    seconds: float
    fingerprint: str
    run_id: str


def plan(config: Config, root: Path = Path()) -> tuple[TrainingJob, ...]:
    """All trainings of the benchmark, long ones first.

    One `unispector` and one `untrained` model for each of `train.seeds`, and a `base` for each seed of
    `train.ablation_seeds`.

    Args:
        config: all parameters.
        root: the project's folder.

    Raises:
        ConfigError: a seed is no split seed, or an ablation seed is not trained.
        DataError: the stage `fingerprint` has not run.
    """
    root = root.resolve()
    seeds, ablation = config.train.seeds, config.train.ablation_seeds
    if strangers := set(seeds) - set(config.split.seeds):
        raise ConfigError(
            f"train.seeds: {min(strangers)} is not among split.seeds {list(config.split.seeds)}"
        )
    if strangers := set(ablation) - set(seeds):
        raise ConfigError(f"train.ablation_seeds: {min(strangers)} is not among train.seeds {list(seeds)}")
    fingerprints, code = read_fingerprints(root), _code_hash()
    pairs: list[tuple[Variant, int]] = [("unispector", seed) for seed in seeds]
    pairs += [("base", seed) for seed in ablation]
    pairs += [("untrained", seed) for seed in seeds]
    return tuple(_job(config, variant, seed, fingerprints[seed], code, root) for variant, seed in pairs)


def train_tracked(job: TrainingJob, root: Path = Path()) -> TrainingReport:
    """Run one job: on the running Ray cluster, followed line by line and recorded in MLflow.

    Args:
        job: of `plan`.
        root: the project's folder.

    Raises:
        TrainingError: the training failed twice.
    """
    began = time.monotonic()
    if job.variant == "untrained":
        fingerprint = save_job(job, initial_model(job), run_id="")
        return TrainingReport(job.variant, job.seed, 0, None, time.monotonic() - began, fingerprint, "")
    tags = {JOB_TAG: job.key, "variant": job.variant, "split_seed": str(job.seed), **job.provenance}
    with TrackingStore(root / TRACKING).run(EXPERIMENT, job.name, tags) as run:
        run.params(flat(job.config.model_dump(mode="json")))
        follower = _Follower(job, run)
        fingerprint = run_job(_ray_job(job, run.run_id), follower)
        run.model_directory(job.model_directory)
        run.artifact(job.model_directory / "config.json")
        follower.write_curve(root / TRAINING_CURVES / f"{job.name}.csv")
    seconds = time.monotonic() - began
    logger.info("%s: trained, %.1f min", job.name, seconds / 60)
    steps = job.config.train.steps
    return TrainingReport(job.variant, job.seed, steps, follower.loss, seconds, fingerprint, run.run_id)


def finish(jobs: Sequence[TrainingJob], reports: Sequence[TrainingReport], root: Path = Path()) -> None:
    """Write `reports/training.json` and drop the checkpoints, now that every model is saved."""
    models = {job.name: asdict(report) for job, report in zip(jobs, reports, strict=True)}
    atomic_write_text(root / TRAINING_SUMMARY, json.dumps(models, indent=2) + "\n")
    for job in jobs:
        shutil.rmtree(job.work_directory, ignore_errors=True)


def parallel_slots(config: Config) -> tuple[int, int]:
    """How many jobs run side by side, and the CPUs they share."""
    import torch

    cpus = len(os.sched_getaffinity(0))
    needed = config.train.processes * max(config.train.threads, 1)
    slots = max(cpus // needed, 1)
    if gpus := torch.cuda.device_count():
        slots = max(min(slots, gpus // config.train.processes), 1)
    return slots, max(cpus, needed)


class _Follower:
    """Turns a job's reports into MLflow metrics and, now and then, a line for the reader."""

    def __init__(self, job: TrainingJob, run: TrackedRun) -> None:
        self.loss: float | None = None
        self._curve: list[dict[str, float]] = []
        self._job = job
        self._run = run
        self._began = self._said = time.monotonic()
        self._first: int | None = None

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self._run.metrics(metrics, step)
        self.loss = metrics["total"]
        self._curve.append({"step": step, **metrics})
        now, steps = time.monotonic(), self._job.config.train.steps
        if self._first is None:
            self._began, self._first = now, step
        if now - self._said < _SECONDS_BETWEEN_LINES and step < steps:
            return
        self._said = now
        pace = (now - self._began) / max(step - self._first, 1)
        left = f", about {pace * (steps - step) / 60:.0f} min left" if self._first < step < steps else ""
        logger.info("%s: step %d of %d, loss %.2f%s", self._job.name, step, steps, self.loss, left)

    def write_curve(self, path: Path) -> None:
        """Write all reports as CSV, which DVC draws and a spreadsheet opens."""
        text = io.StringIO()
        writer = csv.DictWriter(
            text, ["step", *sorted(self._curve[-1].keys() - {"step"})], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(self._curve)
        atomic_write_text(path, text.getvalue())


def _ray_job(job: TrainingJob, run_id: str) -> Job:
    import torch

    return Job(
        name=f"{job.name}-{job.key[:12]}",
        work=train,
        arguments={"job": job, "run_id": run_id},
        folder=job.work_directory,
        processes=job.config.train.processes,
        threads=job.config.train.threads,
        gpu=torch.cuda.is_available(),
    )


def _job(config: Config, variant: Variant, seed: int, fingerprint: str, code: str, root: Path) -> TrainingJob:
    own = config.ablation_base() if variant == "base" else config
    parameters = own.model_dump_json(
        include={"model", "loss", "augment", "prompt", "train"},
        exclude={"prompt": {"test_roi"}, "train": {"seeds", "ablation_seeds"}},
    )
    start = root / own.train.start if own.train.start else None
    start_hash = sha256_of_tree([start]) if start else ""
    parts = [variant, str(seed), parameters, fingerprint, start_hash, code]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    train_file = SplitTree(root / SPLITS).training(seed)
    return TrainingJob(
        variant=variant,
        seed=seed,
        config=own,
        key=key,
        train_file=train_file,
        image_root=root / config.data.root,
        start=start,
        model_directory=root / MODELS / variant / f"seed{seed}",
        work_directory=root / CHECKPOINTS / f"{variant}-seed{seed}-{key[:12]}",
        provenance={
            "data_sha256": fingerprint,
            "train_file_sha256": hashlib.sha256(train_file.read_bytes()).hexdigest(),
            **{f"git_{key}": value for key, value in git_state(root).items()},
        },
    )


def _code_hash() -> str:
    """Hash of the code that decides what a model becomes."""
    package = Path(__file__).parents[1]
    parts = [package / name for name in _CODE]
    return sha256_of_tree(
        file for part in parts for file in ([part] if part.is_file() else part.rglob("*.py"))
    )
