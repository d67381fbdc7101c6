"""Stage `train`, the driver's side: which models the benchmark needs, and each one's tracked job."""

import hashlib
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
from unispector.errors import ConfigError, TrainingError
from unispector.ops.files import atomic_write_text, sha256_of_tree
from unispector.stages.fingerprint import read_fingerprints
from unispector.stages.lineage import git_state
from unispector.stages.paths import CHECKPOINTS, MAPS, MODELS, SPLITS, TRAINING_CURVES, TRAINING_SUMMARY
from unispector.stages.train import (
    CHECKPOINT,
    MAPS_USED,
    TrainingJob,
    Variant,
    initial_model,
    save_job,
    train,
)
from unispector.stages.training_run import RUN_FILE, recorded
from unispector.training.ray_trainer import Job, Machine, machines, room, run_job

logger = logging.getLogger(__name__)

_CODE = ("config", "structures.py", "data", "losses", "modeling", "ops", "training")
_WITHOUT_EFFECT = {"seeds", "ablation", "ablation_seeds", "side_by_side", "retries", "timeout_hours"}


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

    One `unispector` and one `untrained` model for each of `train.seeds`, and one of each row of
    `train.ablation` for each of `train.ablation_seeds`.

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
    pairs += [(row, seed) for row in config.train.ablation for seed in ablation]
    pairs += [("untrained", seed) for seed in seeds]
    return tuple(_job(config, variant, seed, fingerprints[seed], code, root) for variant, seed in pairs)


def train_tracked(job: TrainingJob, root: Path = Path()) -> TrainingReport:
    """Run one job: on the running Ray cluster, followed line by line and recorded in MLflow.

    Args:
        job: of `plan`.
        root: the project's folder.

    Raises:
        WorkerLostError: the training failed for a reason that may pass; another call goes on with it.
        TrainingError: it failed for one that will not.
    """
    began = time.monotonic()
    if job.variant == "untrained":
        fingerprint = save_job(job, initial_model(job), run_id="")
        return TrainingReport(job.variant, job.seed, 0, None, time.monotonic() - began, fingerprint, "")
    with recorded(job, root) as follower:
        fingerprint = run_job(_ray_job(job, follower.run_id), follower)
        follower.write_curve(root / TRAINING_CURVES / f"{job.name}.csv")
    seconds = time.monotonic() - began
    logger.info("%s: trained, %.1f min", job.name, seconds / 60)
    steps, loss = job.config.train.steps, follower.loss
    return TrainingReport(job.variant, job.seed, steps, loss, seconds, fingerprint, follower.run_id)


def finish(jobs: Sequence[TrainingJob], reports: Sequence[TrainingReport], root: Path = Path()) -> None:
    """Write `reports/training.json` and drop the checkpoints, now that every model is saved.

    Of what is kept of backbones only that stays which one of these trainings used, so that another recipe
    may use it too; all of it if none did.

    What MLflow has not got yet stays; see `send_left`.
    """
    models = {job.name: asdict(report) for job, report in zip(jobs, reports, strict=True)}
    atomic_write_text(root / TRAINING_SUMMARY, json.dumps(models, indent=2) + "\n")
    used = {file.read_text() for job in jobs if (file := job.work_directory / MAPS_USED).exists()}
    for folder in (root / MAPS).glob("*") if used else ():
        if folder.name not in used:
            shutil.rmtree(folder)
    for job in jobs:
        if (job.work_directory / RUN_FILE).exists():
            (job.work_directory / CHECKPOINT).unlink(missing_ok=True)
        else:
            shutil.rmtree(job.work_directory, ignore_errors=True)


def own_cpus(config: Config) -> int:
    """CPUs of this machine that jobs share: all there are, or as many as a single job asks for."""
    return max(len(os.sched_getaffinity(0)), config.train.processes * max(config.train.threads, 1))


def side_by_side(config: Config, where: tuple[Machine, ...]) -> int:
    """How many jobs train at a time: as many as there is room for, `train.side_by_side` at most.

    Args:
        config: all parameters.
        where: the machines of the running cluster.

    Raises:
        TrainingError: there is no room for a single job.
    """
    train = config.train
    places = room(where, train.processes, train.threads)
    if places == 0:
        cpus, gpus = sum(each.cpus for each in where), sum(each.gpus for each in where)
        raise TrainingError(
            f"train.processes: {train.processes} of {max(train.threads, 1)} threads do not fit on "
            f"{len(where)} machines with {cpus} CPUs and {gpus} GPUs, one GPU a process where there are any; "
            "lower train.processes or train.threads"
        )
    return places if train.side_by_side == "auto" else min(train.side_by_side, places)


def _ray_job(job: TrainingJob, run_id: str) -> Job:
    return Job(
        name=job.name,
        work=train,
        arguments={"job": job, "run_id": run_id},
        folder=job.work_directory,
        processes=job.config.train.processes,
        threads=job.config.train.threads,
        gpu=any(machine.gpus for machine in machines()),
        hours=job.config.train.timeout_hours,
    )


def _job(config: Config, variant: Variant, seed: int, fingerprint: str, code: str, root: Path) -> TrainingJob:
    own = config.variant(variant)
    parameters = own.model_dump_json(
        include={"model", "loss", "augment", "prompt", "train"},
        exclude={"prompt": {"test_roi"}, "train": _WITHOUT_EFFECT},
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
        map_directory=root / MAPS,
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
