"""`unispector ui` as a program: it says where the page is, and ends at once when it is told to."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image


def program(folder: Path, port: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "unispector.cli", "ui", "parts", "--no-browser", "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for name in "abcdefghijkl":
        Image.new("RGB", (400, 300)).save(tmp_path / f"parts/{name}.png")
    return tmp_path


@pytest.mark.integration
def test_a_port_that_is_taken_ends_it_in_a_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, program(folder, taken.getsockname()[1]) as run:
        said, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "choose another --host or --port" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("state", ["encoding", "detecting"])
def test_the_program_prints_its_address_and_ends_at_once(folder: Path, state: str) -> None:
    with program(folder) as run:
        assert run.stdout is not None
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", run.stdout.readline())
        with httpx.Client(base_url=address, timeout=60) as client:
            assert "<title>UniSpector</title>" in client.get("/").text
            assert client.get("/bench/images").json()["names"][0] == "a.png"
            end = time.monotonic() + 90
            change = {"kind": "box", "image": "a.png", "label": "spot", "box": [5, 5, 20, 10]}
            client.post("/bench/session", json={"version": 0, "change": change}).raise_for_status()
            while client.get("/bench/news?after=-1&version=1").json()["run"]["state"] != state:
                assert time.monotonic() < end  # then it ends in the middle of its work
                time.sleep(0.02)
            began = time.monotonic()
            run.send_signal(signal.SIGTERM)
            said, _ = run.communicate(timeout=30)
            assert run.returncode == 0
            assert time.monotonic() - began < 20
    assert said.splitlines()[-1] == f"ending; marks are kept in {folder}/parts/.unispector"
    assert "Traceback" not in said
