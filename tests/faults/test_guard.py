"""The guard, on small processes: whoever is killed, nothing it started lives on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import guard

ROOT = Path(__file__).parents[2]

# A driver that starts a child which clears its environment's place and itself has a child, as raylet does.
DRIVER = """
import subprocess, sys, time
from pathlib import Path
from flows.guard import guard_this_process
guard_this_process(Path("training.lock"), patience=float(sys.argv[1]))
inner = "import time; time.sleep(600)"
outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], env={{}})"
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
children = [subprocess.Popen([sys.executable, "-c", outer], start_new_session=True)]
children.append(subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE))
children[1].stdout.readline()
print(*(child.pid for child in children), flush=True)
sys.stdin.readline()  # as long as the test needs to see them all
"""


def driver(folder: Path, patience: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(patience)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    assert process.stdout is not None
    direct = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    end = time.monotonic() + 10
    while not direct[0].children() and time.monotonic() < end:
        time.sleep(0.05)
    return [*direct, *direct[0].children()]


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(lives(each) for each in processes):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def lives(process: psutil.Process) -> bool:
    """A zombie does not: it waits for somebody to ask how it ended."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("ends", ["killed", "by itself"])
def test_all_that_a_process_started_ends_with_it(ends, tmp_path):
    process = driver(tmp_path, 0)
    children = children_of(process)
    assert len(children) == 3
    if ends == "killed":
        process.kill()
    process.communicate("\n", timeout=10)
    assert gone(children, 10)


def test_a_second_training_waits_until_the_first_is_cleared_away(tmp_path):
    first = driver(tmp_path, 0)
    children = children_of(first)
    refused = driver(tmp_path, 0)
    assert "another training runs in this project" in refused.communicate(timeout=20)[1].splitlines()[-1]
    assert all(child.is_running() for child in children)
    second = driver(tmp_path, 30)
    time.sleep(0.5)
    first.kill()
    others = children_of(second)  # it has the lock now
    assert gone(children, 0)
    second.kill()
    assert gone(others, 10)
    for process in (first, second):
        process.communicate()


# What DVC does: a shell in between, and the stage's name in the environment.
STARTER = """
import os, subprocess, sys, time
stage = {"DVC_STAGE": "train"} if sys.argv[1] == "dvc" else {}
os.environ.pop("DVC_STAGE", None)
shell = subprocess.Popen(["sh", "-c", f"{sys.executable} -c '{sys.argv[2]}'; true"], env=os.environ | stage)
time.sleep(600)
"""
STAGE = """
import os, time
from flows.guard import stop_with_dvc
stop_with_dvc(lambda: os._exit(3))
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("by", ["dvc", "a shell"])
def test_a_stage_stops_with_dvc_and_only_with_dvc(by, tmp_path):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, by, STAGE],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    stage = psutil.Process(int(starter.stdout.readline()))
    starter.send_signal(signal.SIGKILL)
    starter.wait(10)
    assert gone([stage], 5 if by == "dvc" else 1) is (by == "dvc")
    if by != "dvc":
        parents = stage.parents()
        stage.kill()
        gone(parents[:1], 5)


def test_of_other_trainings_nothing_is_ended(tmp_path):
    marks = [f"{os.getpid()}-{number}" for number in range(2)]
    ours, other = (subprocess.Popen(["sleep", "600"], env=os.environ | {guard.MARK: mark}) for mark in marks)
    guard.clear_away(marks[0])
    assert ours.wait(5) == -signal.SIGTERM
    assert other.poll() is None
    other.kill()
    other.wait(5)
