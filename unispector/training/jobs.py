"""Trainings on a Ray cluster, followed and recorded in MLflow."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from unispector.config import Config
from unispector.errors import TrainingError
from unispector.project.paths import TRAINING_CURVES
from unispector.training.job import TrainingJob, Variant, initial_model, save_job, train
from unispector.training.ray_trainer import Job, Machine, machines, room, run_job
from unispector.training.runs import recorded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingReport:
    """The result of one training."""

    variant: Variant
    seed: int
    steps: int
    loss: float | None  # mean total loss of the last report; None for an untrained model
    seconds: float  # wall time, of the last attempt when the job went on from a checkpoint
    fingerprint: str
    run_id: str  # its MLflow run; empty for an untrained model


def train_tracked(job: TrainingJob, root: Path = Path()) -> TrainingReport:
    """Run one job: on the running Ray cluster, followed line by line and recorded in MLflow.

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


def own_cpus(config: Config) -> int:
    """CPUs of this machine that jobs share: all there are, or as many as a single job asks for."""
    return max(len(os.sched_getaffinity(0)), config.train.processes * max(config.train.threads, 1))


def side_by_side(config: Config, where: tuple[Machine, ...]) -> int:
    """Return the number of jobs that train at a time: those there is room for, `train.side_by_side` at most.

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
