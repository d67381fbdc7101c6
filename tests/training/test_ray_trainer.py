import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from unispector.errors import DataError, TrainingError
from unispector.training.ray_trainer import Job, WorkerGroup, _drop_torn_line, _reports, run_job


def line(step):
    return json.dumps({"step": step, "metrics": {"total": step / 2}}) + "\n"


def finished():
    future: Future[None] = Future()
    future.set_result(None)
    return future


def test_each_step_is_reported_once_and_in_order(tmp_path):
    # A worker that restarts from step 2 writes step 3 again.
    progress = tmp_path / "progress.jsonl"
    progress.write_text(line(1) + line(2) + line(3) + line(3) + line(4))
    assert list(_reports(progress, finished())) == [(step, {"total": step / 2}) for step in (1, 2, 3, 4)]


def test_lines_are_read_as_they_are_completed(tmp_path):
    progress = tmp_path / "progress.jsonl"
    running: Future[None] = Future()
    progress.write_text(line(1) + line(2)[:7])
    reports = _reports(progress, running)
    assert next(reports)[0] == 1
    with progress.open("a") as file:
        file.write(line(2)[7:])
    assert next(reports)[0] == 2
    running.set_result(None)
    assert list(reports) == []


def test_a_torn_last_line_is_cut(tmp_path):
    progress = tmp_path / "progress.jsonl"
    progress.write_text(line(1) + line(2)[:7])
    _drop_torn_line(progress)
    assert progress.read_text() == line(1)
    progress.write_text(line(2)[:7])
    _drop_torn_line(progress)
    assert progress.read_text() == ""


def count_to_five(state: str, die: bool, group: WorkerGroup, report) -> dict[str, int]:
    """A training that keeps its step in a file and is killed once at step 3, when asked to."""
    done, died = Path(state) / f"done-{group.rank}", Path(state) / "died"
    start = int(done.read_text()) if done.exists() else 0
    for step in range(start + 1, 6):
        report(step, {"total": 1.0 / step})
        done.write_text(str(step))
        if die and step == 3 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return {"start": start, "rank": group.rank, "size": group.size}


def always_wrong(group: WorkerGroup, report) -> None:
    report(1, {"total": 1.0})
    raise DataError("a.png: no such image")


@pytest.fixture
def sent_by_value() -> Iterator[None]:
    """Workers cannot import a test module, so what it defines travels as code."""
    from ray import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.slow
@pytest.mark.integration
def test_jobs_side_by_side(tmp_path, ray_cluster, sent_by_value):
    """One is killed and goes on; one always fails: neither disturbs the other."""
    killed_folder, wrong_folder = tmp_path / "killed", tmp_path / "wrong"
    killed_steps, wrong_steps = [], []
    killed_folder.mkdir()
    arguments = {"state": str(killed_folder), "die": True}
    with ThreadPoolExecutor(2) as threads:
        killed = threads.submit(
            run_job,
            Job("killed", count_to_five, arguments, killed_folder),
            lambda step, metrics: killed_steps.append(step),
        )
        wrong = threads.submit(
            run_job,
            Job("wrong", always_wrong, {}, wrong_folder),
            lambda step, metrics: wrong_steps.append(step),
        )
        assert killed.result() == {"start": 3, "rank": 0, "size": 1}
        with pytest.raises(TrainingError, match=r"^wrong: .*a\.png: no such image"):
            wrong.result()
    assert killed_steps == [1, 2, 3, 4, 5]
    assert wrong_steps == [1]


@pytest.mark.slow
@pytest.mark.integration
def test_a_job_of_two_processes_reports_once_per_step(tmp_path, ray_cluster, sent_by_value):
    steps = []
    job = Job("pair", count_to_five, {"state": str(tmp_path), "die": False}, tmp_path, processes=2)
    result = run_job(job, lambda step, metrics: steps.append(step))
    assert result == {"start": 0, "rank": 0, "size": 2}
    assert steps == [1, 2, 3, 4, 5]
    assert (tmp_path / "done-1").read_text() == "5"
