"""`unispector ui` as a program: it says where the page is, and ends at once when it is told to."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image


@pytest.mark.slow
@pytest.mark.integration
def test_the_program_prints_its_address_and_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name in "abcdefghijkl":
        Image.new("RGB", (400, 300)).save(tmp_path / f"parts/{name}.png")
    command = [sys.executable, "-m", "unispector.cli", "ui", "parts", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as program:
        assert program.stdout is not None
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", program.stdout.readline())
        with httpx.Client(base_url=address, timeout=60) as client:
            assert "<title>UniSpector</title>" in client.get("/").text
            assert client.get("/bench/images").json()["names"][0] == "a.png"
            end = time.monotonic() + 90
            change = {"kind": "box", "image": "a.png", "label": "spot", "box": [5, 5, 20, 10]}
            client.post("/bench/session", json={"version": 0, "change": change}).raise_for_status()
            while client.get("/bench/news?after=-1&version=1").json()["run"]["state"] != "detecting":
                assert time.monotonic() < end  # then it ends in the middle of its work
                time.sleep(0.05)
            began = time.monotonic()
            program.send_signal(signal.SIGTERM)
            assert program.wait(30) == 0
            assert time.monotonic() - began < 20
    assert (tmp_path / "parts/.unispector").is_dir()
