"""`unispector serve`: what it starts with, what it refuses, how it stops."""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from unispector.cli import main
from unispector.errors import CheckpointError, PromptBankError, ServiceError
from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.serving.limits import Limits
from unispector.serving.prompts import FixedPrompts, StoredPrompts
from unispector.serving.serve import TOKEN, fixed_model, followed_model, open_prompts, serve, token_for
from unispector.serving.server import listening


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def bank_file(tiny_model: Path, picture: Path, tmp_path: Path) -> Path:
    bank = UniSpector.load(tiny_model).encode([Prompt(picture, [(5, 5, 20, 10)], label="spot")])
    bank.save(tmp_path / "bank.safetensors")
    return tmp_path / "bank.safetensors"


def test_a_bank_of_another_bit_depth_is_refused(bank_file: Path) -> None:
    replace(PromptBank.load(bank_file), bit_depth=12).save(bank_file)
    with pytest.raises(PromptBankError, match=r"bank\.safetensors: made of 12-bit images"):
        open_prompts(bank_file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "line3.example"])
def test_others_are_answered_only_with_a_token(host, monkeypatch):
    for value in (None, "", "  "):
        monkeypatch.delenv(TOKEN, raising=False) if value is None else monkeypatch.setenv(TOKEN, value)
        with pytest.raises(ServiceError, match="UNISPECTOR_TOKEN"):
            token_for(host)
    monkeypatch.setenv(TOKEN, "secret")
    assert token_for(host) == "secret"


def test_a_token_that_no_header_carries_is_refused(monkeypatch):
    monkeypatch.setenv(TOKEN, "\udcffabc")
    with pytest.raises(ServiceError, match="other characters than headers carry"):
        token_for("127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_a_token_is_used_if_it_is_there(host, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    assert token_for(host) == ""
    monkeypatch.setenv(TOKEN, "secret")
    assert token_for(host) == "secret"


def test_the_command_refuses_in_one_line(tmp_path, bank_file, other_tiny_model, capsys, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    with closing(listening("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        cases = {
            ("--host", "0.0.0.0"): "set UNISPECTOR_TOKEN",
            ("--model", str(tmp_path / "nothing")): "no such model folder",
            ("--model", "fast", "--bank", "none.safetensors"): "no such prompt bank",
            ("--model", str(other_tiny_model), "--bank", str(bank_file)): "was made by model",
            ("--model", "fast", "--bank", str(tmp_path / "new"), "--port", port): "cannot listen there",
            ("--queue", "1"): "raise --queue",
            ("--memory-mib", "1"): "raise --memory-mib",
        }
        for arguments, message in cases.items():
            assert main(["serve", *arguments]) == 1, arguments
            told = capsys.readouterr().err
            assert told.startswith("error: ")
            assert told.count("\n") == 1
            assert message in told


def test_a_folder_of_other_files_is_no_folder_of_prompts(picture, tmp_path):
    with pytest.raises(PromptBankError, match="holds other files, no prompts"):
        open_prompts(picture.parent)
    assert sorted(tmp_path.iterdir()) == [picture]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".gitignore").touch()
    assert isinstance(open_prompts(tmp_path / "new"), StoredPrompts)


def test_a_bank_is_a_file_or_a_folder(bank_file, tmp_path):
    assert isinstance(open_prompts(bank_file), FixedPrompts)
    assert isinstance(open_prompts(tmp_path / "prompts"), StoredPrompts)
    assert not (tmp_path / "prompts").exists()  # the first prompt makes it
    (tmp_path / "text").write_text("no bank")
    with pytest.raises(PromptBankError):
        open_prompts(tmp_path / "text")


def test_references_of_models(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert followed_model(str(tiny_model)) is None
    assert followed_model("models:/unispector/3") is None
    wanted = fixed_model(str(tiny_model))()
    assert (wanted.reference, wanted.version, wanted.folder()) == (tiny_model.name, "", tiny_model)
    with pytest.raises(CheckpointError):
        fixed_model("nothing")
    followed = followed_model("models:/unispector@champion")
    assert followed is not None
    with pytest.raises(Exception, match="champion"):
        followed()
    assert list(tmp_path.iterdir()) == []  # to look for a champion makes no store


def test_the_champion_is_followed(store, tiny_model, tmp_path, monkeypatch):
    # What the registry keeps of a version is its own business; here only where its alias points to counts.
    from unispector.tracking.registry import ModelRegistry

    (tmp_path / "project" / "artifacts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    shutil.move(store.root, "artifacts/mlflow")
    from unispector.tracking.run import TrackingStore

    registry = ModelRegistry(TrackingStore(Path("artifacts/mlflow")))
    package = tmp_path / "package"
    shutil.copytree(tiny_model, package / "artifacts" / "package")
    (package / "MLmodel").write_text("flavors: {}\n")
    for key in ("one", "two"):
        registry.register(package, "", {"key": key})
    wanted = followed_model("models:/unispector@champion")
    assert wanted is not None
    for number in (1, 2):
        registry.set_alias("champion", number)
        found = wanted()
        assert (found.reference, found.version) == ("models:/unispector@champion", str(number))
        assert (found.folder() / "model.safetensors").read_bytes() == (
            tiny_model / "model.safetensors"
        ).read_bytes()


# As in a terminal, also where these tests run under `nohup`.
COMMAND = ("env", "--default-signal=HUP,INT", sys.executable, "-m", "unispector.cli", "serve")


@contextmanager
def command(*arguments: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    environment = {**os.environ, TOKEN: ""}
    with log.open("w") as out:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments],
            stdout=out, stderr=out, env=environment,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"answering on http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 120
    while httpx.get(f"http://127.0.0.1:{port}/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.integration
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_whoever_asks_while_the_model_loads_is_answered_and_a_signal_ends_it_well(
    tiny_model, tmp_path, number, code
):
    slow = tmp_path / "sitecustomize.py"  # a model that takes its time
    slow.write_text(
        "import safetensors, time\nopen_ = safetensors.safe_open\n"
        "safetensors.safe_open = lambda *a, **k: (time.sleep(90), open_(*a, **k))[1]\n"
    )
    log, path = tmp_path / "log", os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{tmp_path}:{path}"
    try:
        with command("--model", str(tiny_model), "--bank", str(tmp_path / "new"), log=log) as (process, port):
            answer = httpx.post(f"http://127.0.0.1:{port}/detect", files={"images": b"x"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "still being loaded" in answer.json()["error"]
            process.send_signal(number)
            assert process.wait(timeout=30) == code  # does not wait for the model
    finally:
        os.environ["PYTHONPATH"] = path
    assert "Traceback" not in log.read_text()
    assert "cannot be used" not in log.read_text()


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_it_answers_ends_it_well(tiny_model, number, tmp_path):
    """Long before the libraries are imported."""
    marker = tmp_path / "begun"
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, pathlib, sys\nset_ = signal.signal\n"
        "def both(number, handler):\n    before = set_(number, handler)\n"
        f"    number == signal.SIGHUP and pathlib.Path({str(marker)!r}).touch()\n    return before\n"
        "signal.signal = both\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--model", str(tiny_model)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=tmp_path,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not marker.exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)
        assert (process.returncode, told) == (0, b"")
    finally:
        process.kill()


@pytest.mark.integration
def test_without_open_files_it_waits_and_says_so_once(tiny_model, bank_file, tmp_path):
    log = tmp_path / "log"
    with command("--model", str(tiny_model), "--bank", str(bank_file), log=log) as (process, port):
        wait_until_ready(port)
        used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        socks = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(60)]
        time.sleep(3)
        for sock in socks:
            sock.close()
        answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=20)
        assert answer.json()["ready"]
    lines = log.read_text().splitlines()
    assert [line for line in lines if "no open files left" in line] == lines[-1:]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 0), (signal.SIGHUP, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_requests_in_flight_are_answered_before_it_stops(
    tiny_model, bank_file, picture, tmp_path, number, code
):
    log = tmp_path / "log"
    body = (
        b'--x\r\nContent-Disposition: form-data; name="images"; filename="p.png"\r\n\r\n'
        + picture.read_bytes()
        + b"\r\n--x--\r\n"
    )
    head = (
        "POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with command("--model", str(tiny_model), "--bank", str(bank_file), log=log) as (process, port):
        wait_until_ready(port)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
            sock.sendall(head + body[:500])
            time.sleep(0.2)
            process.send_signal(number)
            refused, deadline = False, time.monotonic() + 30
            while not refused:
                assert process.poll() is None
                assert time.monotonic() < deadline
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    time.sleep(0.02)
                except ConnectionError:  # refused, or reset as the server closed its socket
                    refused = True
            sock.sendall(body[500:])
            received = b""
            while piece := sock.recv(65536):
                received += piece
        assert process.wait(timeout=30) == code
    status, _, answer = received.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 200")
    assert json.loads(answer)["pictures"][0]["name"] == "p.png"
    assert "Traceback" not in log.read_text()


def test_limits_that_contradict_one_another():
    with pytest.raises(ServiceError, match="--queue"):
        Limits(pictures=10, queue=9)
    with pytest.raises(ServiceError, match="--memory-mib"):
        Limits(megapixels=1000)


def test_larger_pictures_than_pillow_opens_are_not_promised(capsys):
    assert main(["serve", "--megapixels", "179"]) == 2
    assert "178" in capsys.readouterr().err
    from unispector.cli.serve import MOST_MEGAPIXELS

    assert Image.MAX_IMAGE_PIXELS is not None
    assert MOST_MEGAPIXELS == 2 * Image.MAX_IMAGE_PIXELS // 10**6


def test_an_address_of_another_machine(tiny_model, bank_file, monkeypatch):
    monkeypatch.setenv(TOKEN, "secret")
    with pytest.raises(ServiceError, match="cannot listen there"):
        serve(str(tiny_model), bank_file, "192.0.2.1", 0, Limits())
