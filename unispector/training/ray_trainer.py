"""Ray Train as an adapter: a training function runs in worker processes, the driver follows it.

The function knows nothing of Ray. It is called as `work(**arguments, group=..., report=...)` and
calls `report(step, metrics)` at its log steps, equally often in every worker. Rank 0's reports
also go into a progress file in the job's folder, which the driver follows while the job runs.
The folder outlives a killed run: checkpoints that `work` keeps there are found again. On several
machines it lies where all of them, and the driver, see it under the same path.
"""

import errno
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unispector.errors import TrainingError, UniSpectorError
from unispector.ops.json_text import parse_json

Report = Callable[[int, dict[str, float]], None]

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)  # what another try cannot mend
_PROGRESS_FILE = "progress.jsonl"
_TIMEOUT_FILE = "timeout"
_STORAGE = "ray-"
_ANSWER_SECONDS = 5.0
_OBJECT_STORE_BYTES = 128 * 1024**2
_POLL_SECONDS = 0.5
# glibc gives a step's large tensors back to the system and faults their pages in again at the next step:
# a third of a step's time on CPUs (docs/performance.md).
_ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 * 10**9)}


class WorkerLostError(TrainingError):
    """A training ended for a reason that may pass by itself: a process or its machine died."""


@dataclass(frozen=True)
class Machine:
    """The CPUs and GPUs of a machine of the cluster."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Reported:
    """One report of a job."""

    step: int
    time: float  # when, in seconds since 1970
    metrics: dict[str, float]


@dataclass(frozen=True)
class WorkerGroup:
    """A worker's place among the processes of one job."""

    rank: int = 0  # number of this process, from 0
    size: int = 1
    local_rank: int = 0  # number of this process on its machine: which of the visible GPUs is its own


@dataclass(frozen=True)
class Job:
    """One training."""

    name: str
    # Importable function (no lambda, no nested one); its result on rank 0 must be picklable.
    work: Callable[..., Any]
    # Its keyword arguments, all picklable; paths absolute, because a worker starts in a folder of Ray's.
    arguments: Mapping[str, Any]
    folder: Path  # absolute folder of the job's progress file
    processes: int = 1  # worker processes; more than one train in parallel, each on its slice of a batch
    threads: int = 1
    gpu: bool = False
    hours: float | None = None  # a process that has run so long is stopped, and the job with it; None = never


@contextmanager
def cluster(cpus: int) -> Iterator[None]:
    """Ray for as long as the block runs: the cluster at `RAY_ADDRESS`, or without it one of its own.

    Of a cluster on this machine nothing is left afterwards; one that was running goes on.

    Args:
        cpus: CPUs of this machine that jobs may occupy together; a running cluster has its own.

    Raises:
        TrainingError: nobody answers at `RAY_ADDRESS`.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": _OBJECT_STORE_BYTES}
    _refuse_silence(address)
    # The dashboard stays at its default: without it Ray Train complains once a second.
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": _ENVIRONMENT},
        **(own if address == "local" else {}),
    )
    try:
        yield
    finally:
        ray.shutdown()


def machines() -> tuple[Machine, ...]:
    """The machines of the running cluster, or none when there is no cluster."""
    import ray

    nodes = ray.nodes() if ray.is_initialized() else []  # type: ignore[no-untyped-call]
    return tuple(
        Machine(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in nodes
        if node["Alive"]
    )


def room(where: tuple[Machine, ...], processes: int, threads: int) -> int:
    """Return the number of jobs that can run at a time; where any machine has a GPU, each process takes one.

    Args:
        where: the machines; a process lies wholly on one of them, a job may lie on several.
    """
    gpu = any(machine.gpus for machine in where)
    places = (machine.cpus // max(threads, 1) for machine in where)
    if gpu:
        places = (min(place, machine.gpus) for place, machine in zip(places, where, strict=True))
    return sum(places) // processes


def run_job(job: Job, follow: Callable[[Reported], None]) -> Any:
    """Train one job on the running cluster and wait for it.

    Several threads may call this at once; a job waits for free CPUs.

    Args:
        follow: called in the calling thread with each of rank 0's reports, each step once and in
            rising order; a job that goes on from a checkpoint also replays its earlier reports.

    Returns:
        What `job.work` returned on rank 0.

    Raises:
        WorkerLostError: the work failed for a reason that may pass; called again, the job goes on.
        TrainingError: the work failed for one that will not, with the job's name and the cause; it took
            longer than `job.hours`; or there is no cluster.
    """
    import ray
    from ray.train import TrainingFailedError

    if not ray.is_initialized():  # Ray Train would start one that nobody stops
        raise TrainingError(f"{job.name}: no Ray to train on; it was stopped")
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / _TIMEOUT_FILE).unlink(missing_ok=True)
    for left_over in job.folder.glob(f"{_STORAGE}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    # A folder of its own for each call: given a name it knows, Ray returns the old result untrained.
    storage = tempfile.mkdtemp(prefix=_STORAGE, dir=job.folder)
    try:
        with ThreadPoolExecutor(1) as executor:
            running = executor.submit(_fit, job, storage)
            for reported in _reports(job.folder / _PROGRESS_FILE, running):
                follow(reported)
            return running.result()
    except TrainingFailedError as error:
        raise _explained(job, error) from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def past_reports(folder: Path) -> list[Reported]:
    """All reports of a job that runs no more, each step once; none where it never reported."""
    ended: Future[None] = Future()
    ended.set_result(None)
    return list(_reports(folder / _PROGRESS_FILE, ended))


def _refuse_silence(address: str) -> None:
    """Ask the port once: Ray itself would try for minutes, and end the process."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()) or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise TrainingError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error}); start it with "
            "`ray start --head`, or unset RAY_ADDRESS to work on this machine"
        ) from error


def _fit(job: Job, storage: str) -> Any:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _run_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=job.processes,
            use_gpu=job.gpu,
            resources_per_worker={"CPU": float(max(job.threads, 1))},
        ),
        run_config=RunConfig(name=job.name, storage_path=storage),
    )
    result: Any = trainer.fit()  # its declared type is that of Ray Train's first version
    return result.return_value


def _run_worker(config: dict[str, Any]) -> Any:
    """The body of every worker process."""
    import ray.train

    job: Job = config["job"]
    context = ray.train.get_context()
    group = WorkerGroup(context.get_world_rank(), context.get_world_size(), context.get_local_rank())
    progress = job.folder / _PROGRESS_FILE
    if group.rank == 0:
        _drop_torn_line(progress)

    def report(step: int, metrics: dict[str, float]) -> None:
        if group.rank == 0:
            line = json.dumps({"step": step, "time": round(time.time(), 3), "metrics": metrics})
            with progress.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        ray.train.report({"step": step, **metrics})

    with _limited(job):
        return job.work(**job.arguments, group=group, report=report)


@contextmanager
def _limited(job: Job) -> Iterator[None]:
    """Kill this process when the block takes too long: work that hangs answers to nothing else."""
    if job.hours is None:
        yield
        return

    def stop() -> None:
        (job.folder / _TIMEOUT_FILE).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    timer = threading.Timer(job.hours * 3600, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _drop_torn_line(progress: Path) -> None:
    """Cut what a killed worker wrote of its last line, so that the next one starts afresh."""
    if progress.exists():
        with progress.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _reports(progress: Path, running: Future[Any]) -> Iterator[Reported]:
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
                reported = Reported(**parse_json(line))
                if reported.step > last_step:
                    last_step = reported.step
                    yield reported
        if ended:
            return
        wait([running], timeout=_POLL_SECONDS)


def _explained(job: Job, error: Exception) -> TrainingError:
    """Return the reason why a job failed, in one line, and whether that may pass."""
    if (job.folder / _TIMEOUT_FILE).exists():
        return TrainingError(
            f"{job.name}: stopped after {job.hours:g} hours (train.timeout_hours); a higher limit lets it "
            "go on from its checkpoint"
        )
    failures = [_raised(failure) for _, failure in sorted(getattr(error, "worker_failures", {}).items())]
    if mistake := next((each for each in failures if isinstance(each, UniSpectorError)), None):
        return TrainingError(f"{job.name}: {mistake}")
    if full := next((each for each in failures if isinstance(each, OSError) and each.errno in _DISK), None):
        return TrainingError(f"{job.name}: {full}; make room or give access, then start it again: it goes on")
    said = str(next(iter(failures), error)).strip().splitlines() or [type(error).__name__]
    reason = said[-1].partition(". ")[0].removesuffix(".")  # Ray goes on with general advice
    return WorkerLostError(
        f"{job.name}: a training process was lost ({reason}); started again it goes on from its checkpoint"
    )


def _raised(failure: Exception) -> BaseException:
    """Return the exception a worker raised; Ray wraps it together with its traceback."""
    inner = getattr(failure, "_base_exc", failure)
    return inner if isinstance(inner, BaseException) else failure
