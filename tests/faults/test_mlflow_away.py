"""A real MLflow server that hangs and dies while a model trains, and comes back after it."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from mlflow import MlflowClient

from unispector.project.paths import CHECKPOINTS
from unispector.tracking.run import MODEL_TAG

pytestmark = [pytest.mark.slow, pytest.mark.integration]


class Server:
    def __init__(self, folder, until):
        self._folder, self._until = folder, until
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        self._folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._until("the server answers", self._answers, 180)

    def signal(self, number):
        if self.process is not None:
            os.killpg(self.process.pid, number)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait(10)

    def _answers(self):
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture
def server(tmp_path, until):
    server = Server(tmp_path / "server", until)
    yield server
    server.kill()


def test_a_server_that_goes_and_comes_back_misses_nothing(job, training_flow, steps_done, until, server):
    server.start()
    flow = training_flow.start(MLFLOW_TRACKING_URI=server.uri)
    until("eight steps", lambda: steps_done() >= 8, 300)
    server.signal(signal.SIGSTOP)  # it takes connections and never answers
    until("more steps", lambda: steps_done() >= 12, 120)
    server.kill()
    assert flow.wait(300) == 0
    said = training_flow.said()
    assert said.count("cannot be used now") == 1
    assert said.count("`unispector stage send-runs` sends it") == 1
    assert job.model_directory.is_dir()
    left = sorted(path.name for path in job.work_directory.iterdir())
    assert left in (["pictures", "progress.jsonl", "run.json"], ["progress.jsonl", "run.json"])

    server.start()
    for _ in range(2):
        sent = training_flow.start(
            sys.executable, "-m", "unispector.cli", "stage", "send-runs", MLFLOW_TRACKING_URI=server.uri
        )
        assert sent.wait(120) == 0
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("training")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags[MODEL_TAG] == "../models/unispector/seed42"
    history = client.get_metric_history(run.info.run_id, "loss/total")
    assert [point.step for point in history] == list(range(1, 31))
    assert history[-1].timestamp <= run.info.end_time
    assert "config.json" in [each.path for each in client.list_artifacts(run.info.run_id)]
    assert not list((training_flow.project / CHECKPOINTS).iterdir())
