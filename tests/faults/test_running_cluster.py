"""The flow on a Ray cluster that runs already: it is used, and left running."""

import json
import socket
import sys
from pathlib import Path

import pytest

from unispector.modeling.saved_model import load_model
from unispector.project.paths import TRAINING_SUMMARY

pytestmark = [pytest.mark.slow, pytest.mark.integration]


def test_the_flow_on_a_running_cluster(job, training_flow, until):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = str(Path(sys.executable).with_name("ray"))
    head = training_flow.start(
        *(ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"),
        *("--num-cpus=1", "--object-store-memory=134217728", "--disable-usage-stats"),
    )
    until("the cluster is up", lambda: "Ray runtime started" in training_flow.said(), 120)
    before = {process.pid for process in training_flow.alive()}
    flow = training_flow.start(RAY_ADDRESS=f"127.0.0.1:{port}")
    assert flow.wait(300) == 0
    assert "1 at a time" in training_flow.said()
    report = json.loads((training_flow.project / TRAINING_SUMMARY).read_text())[job.name]
    assert load_model(job.model_directory).fingerprint == report["fingerprint"]
    until("only the cluster lives", lambda: owned(training_flow, flow.pid) == set(), 20)
    assert head.poll() is None
    assert before <= {process.pid for process in training_flow.alive()}
    head.terminate()
    head.wait(60)


def owned(training_flow, session):
    import os

    return {process.pid for process in training_flow.alive() if os.getsid(process.pid) == session}
