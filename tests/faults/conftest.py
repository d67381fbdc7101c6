"""Projects that train one small model, and training flows to kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from unispector.config import load_config
from unispector.pipeline.train import plan
from unispector.training.job import TrainingJob


@pytest.fixture
def one_model(tiny_project: Path) -> Path:
    """A project with a single training, long enough to be killed in."""
    file = tiny_project / "params.yaml"
    parameters = yaml.safe_load(file.read_text())
    parameters["train"] |= {
        "seeds": [42],
        "ablation_seeds": [],
        "steps": 30,
        "log_every": 1,
        "checkpoint_every": 3,
    }
    file.write_text(yaml.safe_dump(parameters))
    return tiny_project


@pytest.fixture
def job(one_model: Path) -> TrainingJob:
    return plan(load_config(one_model / "params.yaml"), one_model)[0]


def wait_until(what: str, condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def until() -> Callable[[str, Callable[[], object], float], None]:
    """`until(what, condition, seconds)`: wait for a condition, which must come true."""
    return wait_until


@dataclass
class Flow:
    """`python -m flows.train` in a session of its own; a failed test leaves none of it."""

    project: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start it, or another command that does."""
        with (self.project / "flow.log").open("a") as log:
            process = subprocess.Popen(
                command or (sys.executable, "-m", "flows.train"),
                cwd=self.project,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def said(self) -> str:
        return (self.project / "flow.log").read_text()

    def alive(self) -> list[psutil.Process]:
        """All live processes of the sessions started here."""
        sessions = {process.pid for process in self.processes}
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def worker(self) -> psutil.Process:
        """The process that trains."""
        (found,) = [each for each in self.alive() if "RayTrainWorker" in "".join(each.cmdline())]
        return found


@pytest.fixture
def training_flow(one_model: Path) -> Iterator[Flow]:
    flow = Flow(one_model)
    yield flow
    for process in flow.alive():
        process.send_signal(signal.SIGKILL)


@pytest.fixture
def steps_done(job: TrainingJob) -> Callable[[], int]:
    """How many reports lie in the job's progress file."""

    def count() -> int:
        file = job.work_directory / "progress.jsonl"
        return file.read_text().count("\n") if file.exists() else 0

    return count
