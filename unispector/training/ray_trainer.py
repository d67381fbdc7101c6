"""Ray Train as an adapter: a training function runs in worker processes, the driver follows it.

The function knows nothing of Ray. It is called as `work(**arguments, group=..., report=...)` and
calls `report(step, metrics)` at its log steps, equally often in every worker. Rank 0's reports
also go into a progress file in the job's folder, which the driver follows while the job runs.
The folder outlives a killed run: checkpoints that `work` keeps there are found again.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unispector.errors import TrainingError

Report = Callable[[int, dict[str, float]], None]

_PROGRESS_FILE = "progress.jsonl"
_OBJECT_STORE_BYTES = 128 * 1024**2
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class WorkerGroup:
    """A worker's place among the processes of one job.

    Attributes:
        rank: number of this process, from 0.
        size: processes of the job.
        local_rank: number of this process on its machine: which of the visible GPUs is its own.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: tells the job from every other one.
        work: importable function (no lambda, no nested one); its result on rank 0 must be picklable.
        arguments: its keyword arguments, all picklable; paths absolute, because a worker starts in
            a folder of Ray's.
        folder: absolute folder of the job's progress file.
        processes: worker processes; more than one train in parallel, each on its slice of a batch.
        threads: CPUs each process occupies.
        gpu: each process occupies a GPU as well.
    """

    name: str
    work: Callable[..., Any]
    arguments: Mapping[str, Any]
    folder: Path
    processes: int = 1
    threads: int = 1
    gpu: bool = False


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Ray on this machine for as long as the block runs; nothing of it is left afterwards.

    Args:
        cpus: CPUs that jobs may occupy together.
    """
    import ray

    # The dashboard stays at its default: without it Ray Train complains once a second.
    ray.init(
        num_cpus=cpus,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def run_job(job: Job, follow: Report) -> Any:
    """Train one job on the running cluster and wait for it.

    Several threads may call this at once; a job waits for free CPUs. A group of workers that fails
    is started again once.

    Args:
        job: what to run.
        follow: called in the calling thread with each of rank 0's reports, each step once and in
            rising order; a job that goes on from a checkpoint also replays its earlier reports.

    Returns:
        What `job.work` returned on rank 0.

    Raises:
        TrainingError: the work failed twice, with the job's name and the cause; or there is no cluster.
    """
    import ray
    from ray.train import TrainingFailedError

    if not ray.is_initialized():  # Ray Train would start one that nobody stops
        raise TrainingError(f"{job.name}: no Ray to train on; it was stopped")
    job.folder.mkdir(parents=True, exist_ok=True)
    progress = job.folder / _PROGRESS_FILE
    # A folder of its own for each call: given a name it knows, Ray returns the old result untrained.
    storage = tempfile.mkdtemp(prefix="unispector-ray-")
    try:
        with ThreadPoolExecutor(1) as executor:
            running = executor.submit(_fit, job, storage, progress)
            for step, metrics in _reports(progress, running):
                follow(step, metrics)
            return running.result()
    except TrainingFailedError as error:
        raise TrainingError(f"{job.name}: training failed twice; {_cause(error)}") from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _fit(job: Job, storage: str, progress: Path) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _run_worker,
        train_loop_config={"work": job.work, "arguments": dict(job.arguments), "progress": progress},
        scaling_config=ScalingConfig(
            num_workers=job.processes,
            use_gpu=job.gpu,
            resources_per_worker={"CPU": float(max(job.threads, 1))},
        ),
        run_config=RunConfig(
            name=job.name, storage_path=storage, failure_config=FailureConfig(max_failures=1)
        ),
    )
    result: Any = trainer.fit()  # its declared type is that of Ray Train's first version
    return result.return_value


def _run_worker(config: dict[str, Any]) -> Any:
    """The body of every worker process."""
    import ray.train

    context = ray.train.get_context()
    group = WorkerGroup(context.get_world_rank(), context.get_world_size(), context.get_local_rank())
    progress: Path = config["progress"]
    if group.rank == 0:
        _drop_torn_line(progress)

    def report(step: int, metrics: dict[str, float]) -> None:
        if group.rank == 0:
            with progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "metrics": metrics}) + "\n")
        ray.train.report({"step": step, **metrics})

    return config["work"](**config["arguments"], group=group, report=report)


def _drop_torn_line(progress: Path) -> None:
    """Cut what a killed worker wrote of its last line, so that the next one starts afresh."""
    if progress.exists():
        with progress.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _reports(progress: Path, running: Future[Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """Reports as they appear in the file, until the job has ended and all are read."""
    last_step, offset = -1, 0
    while True:
        ended = running.done()
        if progress.exists():
            with progress.open("rb") as file:
                file.seek(offset)
                complete = file.read().rpartition(b"\n")[0]
            offset += len(complete) + bool(complete)
            for line in complete.splitlines():
                record = json.loads(line)
                if record["step"] > last_step:
                    last_step = record["step"]
                    yield last_step, record["metrics"]
        if ended:
            return
        wait([running], timeout=_POLL_SECONDS)


def _cause(error: Exception) -> str:
    """The last line of what the first failed worker, or else Ray, said."""
    failures = getattr(error, "worker_failures", {})
    text = str(next(iter(failures.values()), error)).strip()
    return text.splitlines()[-1] if text else type(error).__name__
