import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from unispector.errors import DataError, TrainingError
from unispector.training.ray_trainer import (
    Job,
    Machine,
    Reported,
    WorkerGroup,
    WorkerLostError,
    _drop_torn_line,
    _reports,
    cluster,
    past_reports,
    room,
    run_job,
)


def line(step):
    return json.dumps({"step": step, "time": 10.0 + step, "metrics": {"total": step / 2}}) + "\n"


def finished():
    future: Future[None] = Future()
    future.set_result(None)
    return future


def test_each_step_is_reported_once_and_in_order(tmp_path):
    # A worker that restarts from step 2 writes step 3 again.
    progress = tmp_path / "progress.jsonl"
    progress.write_text(line(1) + line(2) + line(3) + line(3) + line(4))
    expected = [Reported(step, 10.0 + step, {"total": step / 2}) for step in (1, 2, 3, 4)]
    assert list(_reports(progress, finished())) == expected
    assert past_reports(tmp_path) == expected
    assert past_reports(tmp_path / "absent") == []


def test_lines_are_read_as_they_are_completed(tmp_path):
    progress = tmp_path / "progress.jsonl"
    running: Future[None] = Future()
    progress.write_text(line(1) + line(2)[:7])
    reports = _reports(progress, running)
    assert next(reports).step == 1
    with progress.open("a") as file:
        file.write(line(2)[7:])
    assert next(reports).step == 2
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


def told_environment(group: WorkerGroup, report) -> str | None:
    report(1, {"total": 1.0})
    return os.environ.get("MALLOC_MMAP_MAX_")


def without_room(group, report):
    raise OSError(errno.ENOSPC, "No space left on device", "work/maps.txt")


def always_wrong(state: str, group: WorkerGroup, report) -> None:
    with (Path(state) / "tries").open("a") as tries:
        tries.write("x")
    report(1, {"total": 1.0})
    raise DataError("a.png: no such image")


def hang(group: WorkerGroup, report) -> None:
    report(1, {"total": 1.0})
    time.sleep(600)


@pytest.fixture
def sent_by_value() -> Iterator[None]:
    """Workers cannot import a test module, so what it defines travels as code."""
    from ray import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize(
    ("where", "processes", "threads", "expected"),
    [
        ([(8, 0)], 1, 1, 8),
        ([(8, 0)], 2, 3, 1),
        ([(8, 0)], 1, 0, 8),  # torch's own choice of threads counts as one CPU
        ([(3, 0), (3, 0)], 1, 2, 2),  # a process does not lie on two machines
        ([(3, 0), (3, 0)], 2, 2, 1),  # a job may
        ([(64, 8)], 1, 4, 8),
        ([(64, 8)], 8, 4, 1),
        ([(16, 8)], 1, 4, 4),
        ([(64, 4), (64, 4)], 8, 4, 1),
        ([(64, 4), (96, 0)], 1, 4, 4),  # with GPUs about, no process trains without
        ([(2, 0)], 4, 1, 0),
        ([], 1, 1, 0),
    ],
)
def test_room_for_jobs(where, processes, threads, expected):
    assert room(tuple(Machine(*each) for each in where), processes, threads) == expected


def test_a_cluster_that_does_not_answer_is_told_of_at_once(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(TrainingError, match=f"^RAY_ADDRESS={address}: no Ray cluster answers there"),
        cluster(1),
    ):
        pytest.fail("connected")


@pytest.mark.slow
@pytest.mark.integration
def test_jobs_side_by_side(tmp_path, ray_cluster, sent_by_value):
    """One is killed, and goes on when called again; one is wrong: neither disturbs the other."""
    killed_folder, wrong_folder = tmp_path / "killed", tmp_path / "wrong"
    killed_steps, wrong_steps = [], []
    killed_folder.mkdir()
    wrong_folder.mkdir()
    job = Job("killed", count_to_five, {"state": str(killed_folder), "die": True}, killed_folder)
    with ThreadPoolExecutor(2) as threads:
        killed = threads.submit(run_job, job, lambda reported: killed_steps.append(reported.step))
        wrong = threads.submit(
            run_job,
            Job("wrong", always_wrong, {"state": str(wrong_folder)}, wrong_folder),
            lambda reported: wrong_steps.append(reported.step),
        )
        with pytest.raises(WorkerLostError, match=r"^killed: a training process was lost \(") as lost:
            killed.result()
        assert "\n" not in str(lost.value)
        with pytest.raises(TrainingError, match=r"^wrong: a\.png: no such image$") as mistake:
            wrong.result()
        assert not isinstance(mistake.value, WorkerLostError)
    assert (wrong_folder / "tries").read_text() == "x"
    assert wrong_steps == [1]
    again = []
    assert run_job(job, lambda reported: again.append(reported.step)) == {"start": 3, "rank": 0, "size": 1}
    assert (killed_steps, again) == ([1, 2, 3], [1, 2, 3, 4, 5])
    assert not list(killed_folder.glob("ray-*"))


@pytest.mark.slow
@pytest.mark.integration
def test_a_full_disk_is_named_and_not_tried_again(tmp_path, ray_cluster, sent_by_value):
    with pytest.raises(TrainingError, match=r"^full: .*No space left.*maps\.txt'; make room") as full:
        run_job(Job("full", without_room, {}, tmp_path), lambda reported: None)
    assert not isinstance(full.value, WorkerLostError)


@pytest.mark.slow
@pytest.mark.integration
def test_a_job_that_hangs_is_stopped(tmp_path, ray_cluster, sent_by_value):
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"^stuck: stopped after 0\.001 hours") as stopped:
        run_job(Job("stuck", hang, {}, tmp_path, hours=0.001), lambda reported: None)
    assert not isinstance(stopped.value, WorkerLostError)
    assert 3.6 < time.monotonic() - began < 300


@pytest.mark.slow
@pytest.mark.integration
def test_a_job_of_two_processes_reports_once_per_step(tmp_path, ray_cluster, sent_by_value):
    steps = []
    job = Job("pair", count_to_five, {"state": str(tmp_path), "die": False}, tmp_path, processes=2)
    result = run_job(job, lambda reported: steps.append(reported.step))
    assert result == {"start": 0, "rank": 0, "size": 2}
    assert steps == [1, 2, 3, 4, 5]
    assert (tmp_path / "done-1").read_text() == "5"


@pytest.mark.slow
@pytest.mark.integration
def test_a_training_process_keeps_the_memory_it_frees(tmp_path, ray_cluster, sent_by_value):
    assert run_job(Job("told", told_environment, {}, tmp_path), lambda reported: None) == "0"
