"""The training flow: one Ray job per model of the benchmark, as many side by side as the machine holds."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.server.api.server import SubprocessASGIServer
from prefect.task_runners import ThreadPoolTaskRunner

from unispector.config import load_config
from unispector.environment import show_messages
from unispector.errors import UniSpectorError
from unispector.stages.timings import timed
from unispector.stages.train import TrainingJob
from unispector.stages.train_all import TrainingReport, finish, parallel_slots, plan, train_tracked
from unispector.training.ray_trainer import cluster

logger = logging.getLogger("unispector.flows")


def worth_a_retry(_task: Any, run: Any, state: Any) -> bool:
    """Whether a failed job is tried again: not when the user must mend something first."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, UniSpectorError):
        return False
    logger.warning("%s: failed (%s); it goes on from its checkpoint if a try is left", run.name, error)
    return True


# No cache: whether a training is up to date is for DVC to say, which looks at the files.
@task(
    name="train",
    task_run_name="{job.name}",
    retries=1,
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
)
def train_model(job: TrainingJob) -> TrainingReport:
    """Train one model; see `unispector.stages.train_all.train_tracked`."""
    return train_tracked(job)


@flow(name="train", validate_parameters=False)
def train_flow(params: Path = Path("params.yaml")) -> list[TrainingReport]:
    """Train every model that `params` asks for and write `reports/training.json`.

    Args:
        params: the parameters' file; its folder is the project's.

    Raises:
        UniSpectorError: the parameters, the data or a training are at fault.
    """
    config = load_config(params)
    jobs = plan(config)
    slots, cpus = parallel_slots(config)
    logger.info("%d models, %d at a time; starting Ray", len(jobs), slots)
    threads: ThreadPoolTaskRunner[TrainingReport] = ThreadPoolTaskRunner(max_workers=slots)
    with cluster(cpus), threads as runner:
        futures: list[PrefectFuture[TrainingReport]] = [
            runner.submit(train_model, {"job": job}) for job in jobs
        ]
        wait(futures)  # all of them: one that fails is no reason to stop the others
        reports = [future.result() for future in futures]
    finish(jobs, reports)
    return reports


def stop_at_once(number: int, _frame: Any) -> None:
    """Answer to Ctrl-C: Python would first wait for the threads, thus for the trainings, to end.

    Ray's processes leave by themselves when this one is gone.
    """
    logger.warning("interrupted; `make repro` goes on from the last checkpoints")
    SubprocessASGIServer().stop()
    os._exit(128 + number)


def main() -> None:
    """Run the flow on `params.yaml`; a user's mistake ends as one line."""
    show_messages()
    signal.signal(signal.SIGINT, stop_at_once)
    try:
        with timed("train"):
            train_flow()
    except UniSpectorError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
