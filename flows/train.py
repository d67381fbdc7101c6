"""The training flow: one Ray job per model of the benchmark, as many side by side as the machine holds."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.server.api.server import SubprocessASGIServer
from prefect.task_runners import ThreadPoolTaskRunner

from flows.guard import guard_this_process, stop_with_dvc
from unispector.config import load_config
from unispector.environment import show_messages
from unispector.errors import UniSpectorError
from unispector.pipeline.train import finish, plan
from unispector.project.timings import timed
from unispector.training.job import TrainingJob
from unispector.training.jobs import TrainingReport, own_cpus, side_by_side, train_tracked
from unispector.training.ray_trainer import WorkerLostError, cluster, machines
from unispector.training.runs import send_left

logger = logging.getLogger("unispector.flows")


def worth_a_retry(_task: Any, run: Any, state: Any) -> bool:
    """Return whether a failed job is tried again: not when the user must mend something first."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, UniSpectorError) and not isinstance(error, WorkerLostError):
        return False
    logger.warning("%s: failed (%s)", run.name, error)
    return True


# No cache: whether a training is up to date is for DVC to say, which looks at the files.
@task(name="train", task_run_name="{job.name}", retry_condition_fn=worth_a_retry, cache_policy=NO_CACHE)
def train_model(job: TrainingJob) -> TrainingReport:
    """Train one model; see `unispector.training.jobs.train_tracked`."""
    return train_tracked(job)


@flow(name="train", validate_parameters=False)
def train_flow(params: Path = Path("params.yaml")) -> list[TrainingReport]:
    """Train every model that `params` asks for and write `reports/training.json`.

    Raises:
        UniSpectorError: the parameters, the data or a training are at fault.
    """
    config = load_config(params)
    jobs = plan(config)
    send_left(going_on=[job.work_directory for job in jobs])
    logger.info("%d models; starting Ray", len(jobs))
    one = train_model.with_options(retries=config.train.retries)
    with cluster(own_cpus(config)):
        slots = side_by_side(config, machines())
        logger.info("%d at a time", min(slots, len(jobs)))
        threads: ThreadPoolTaskRunner[TrainingReport] = ThreadPoolTaskRunner(max_workers=slots)
        with threads as runner:
            futures: list[PrefectFuture[TrainingReport]] = [runner.submit(one, {"job": job}) for job in jobs]
            wait(futures)  # all of them: one that fails is no reason to stop the others
    outcomes = [future.result(raise_on_failure=False) for future in futures]
    create_markdown_artifact(page(jobs, outcomes), key="training")
    reports = [future.result() for future in futures]
    finish(jobs, reports)
    return reports


def page(jobs: Sequence[TrainingJob], outcomes: Sequence[TrainingReport | Exception]) -> str:
    """Write Prefect's page of the run: a line for each model, and why one failed."""
    rows = ["| model | steps | last loss | minutes | MLflow run |", "|---|---|---|---|---|"]
    for job, outcome in zip(jobs, outcomes, strict=True):
        if isinstance(outcome, TrainingReport):
            loss = "" if outcome.loss is None else f"{outcome.loss:.3f}"
            cells = [str(outcome.steps), loss, f"{outcome.seconds / 60:.1f}", outcome.run_id]
        else:
            cells = [f"failed: {outcome}", "", "", ""]
        rows.append(f"| {' | '.join([job.name, *cells])} |")
    return "\n".join(rows) + "\n"


def stop_at_once(reason: str, code: int) -> None:
    """End this process now: Python would first wait for its threads, thus for the trainings, to end.

    The guard ends Ray's processes and Prefect's.
    """
    logger.warning("%s; `make repro` goes on from the last checkpoints", reason)
    SubprocessASGIServer().stop()
    os._exit(code)


def main() -> None:
    """Run the flow on `params.yaml`; a user's mistake ends as one line."""
    show_messages()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: stop_at_once("interrupted", 128 + number))
    stop_with_dvc(lambda: stop_at_once("DVC is gone", 1))
    try:
        guard_this_process()
        with timed("train"):
            train_flow()
    except UniSpectorError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
