"""MLflow, Prefect, its worker, the flow's run and the service killed at random while retrainings go on.

`unispector operate` for real, with a schedule of every minute, on a small project. After twenty kills every
new folder has led to exactly one registered version and one decision, and nothing is left over.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from unispector.project.paths import OPERATION, RETRAINING, TRACKING
from unispector.project.retrain import LastRetraining
from unispector.registry.decisions import approve
from unispector.registry.promote import BY_RULES
from unispector.tracking.registry import CHAMPION, ModelRegistry
from unispector.tracking.run import TrackingStore

pytestmark = [pytest.mark.slow, pytest.mark.integration]

KILLS, A_ROUND = 20, 5
VICTIMS = ("mlflow", "prefect", "worker", "run", "service")
DECIDED_WITHIN = 1200.0  # seconds, of one folder, kills and a busy machine included


class Operation:
    """`unispector operate` on free ports, and what it does."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.ports = {name: _free_port() for name in ("mlflow", "prefect", "service")}
        schedule = (project / "prefect.yaml").read_text()
        (project / "prefect.yaml").write_text(schedule.replace('"0 * * * *"', '"* * * * *"'))
        ports = {f"UNISPECTOR_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        self.log = (project / "operate.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unispector.cli", "operate"],
            cwd=project,
            env=os.environ | ports,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def processes(self) -> list[psutil.Process]:
        """All live processes that work in the project."""
        found = []
        for process in psutil.process_iter():
            try:
                inside = Path(process.cwd()).is_relative_to(self.project)
                if inside and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def victim(self, name: str) -> psutil.Process | None:
        """The process of a program; of `run`, the one that runs the flow."""
        marks = {
            "mlflow": "mlflow server",
            "prefect": "prefect server start",
            "worker": "worker start",
            "service": "unispector.cli serve",
            "run": "prefect.flow_engine",
        }
        for process in self.processes():
            try:
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if marks[name] in command or (name == "run" and "prefect.engine" in command):
                return process
        return None

    def last(self) -> LastRetraining:
        return LastRetraining.read(self.project)

    def answers(self, url: str) -> bool:
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)
        self.log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def operation(factory: Path) -> Iterator[Operation]:
    running = Operation(factory)
    yield running
    for process in (running.process, *running.processes()):
        process.send_signal(signal.SIGKILL)


def decided(operation: Operation, versions: int) -> bool:
    """Return whether the newest retraining has ended with this many versions in all."""
    registry = ModelRegistry(TrackingStore(operation.project / TRACKING))
    return operation.last().outcome == "decided" and len(registry.versions()) == versions


def wait_for(what: str, condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)


def test_twenty_kills(operation, new_batch):
    lot = random.Random(0)
    wait_for("the first version", lambda: decided(operation, 1), DECIDED_WITHIN)
    registry = ModelRegistry(TrackingStore(operation.project / TRACKING))
    if registry.find(CHAMPION) is None:  # four steps need not make it better than the untrained one
        approve(registry, 1, "ada", "the first")
    killed: list[str] = []
    rounds = 1
    while len(killed) < KILLS:
        rounds += 1
        new_batch(operation.project / f"data/raw/line/batch{rounds}", rounds)
        former = operation.last().time
        # Kill from the moment on at which the run has begun, until this folder has had its share.
        wait_for("a run begins", lambda former=former: operation.last().time != former, DECIDED_WITHIN)
        share = lot.sample(VICTIMS, A_ROUND)
        while share and not decided(operation, rounds):
            time.sleep(lot.uniform(2, 20))
            victim = operation.victim(share[0])
            if victim is not None:
                victim.kill()
                killed.append(share.pop(0))
                operation.log.write(f"--- {len(killed)}: killed {killed[-1]} in round {rounds}\n")
                operation.log.flush()
        wait_for(f"version {rounds}", lambda rounds=rounds: decided(operation, rounds), DECIDED_WITHIN)

    versions = registry.versions()
    events = [event for event in registry.history() if event.by == BY_RULES]
    assert [each.number for each in versions] == list(range(rounds, 0, -1))
    assert len({each.tags["key"] for each in versions}) == rounds
    assert sorted(event.version for event in events) == list(range(1, rounds + 1))
    champions = [each for each in versions if CHAMPION in each.aliases]
    assert len(champions) == 1

    # Everything is alive again, and the service serves the champion.
    service = f"http://127.0.0.1:{operation.ports['service']}/health"
    wait_for("the service answers", lambda: operation.answers(service), 120)
    for name, path in (("mlflow", "/health"), ("prefect", "/api/health")):
        address = f"http://127.0.0.1:{operation.ports[name]}{path}"
        wait_for(f"{name} answers", lambda address=address: operation.answers(address), 120)
    wait_for(
        "the service has the champion",
        lambda: (
            f'"{champions[0].number}"' in json.dumps(httpx.get(service).json()).replace(": ", ":")
            or champions[0].tags["fingerprint"][:12] in httpx.get(service).text
        ),
        120,
    )

    operation.stop()
    wait_for("nothing is left over", lambda: not operation.processes(), 60)
    assert not (operation.project / RETRAINING).with_name(".retraining.json").exists()
    assert (operation.project / OPERATION / "worker.log").exists()
