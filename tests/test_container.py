"""The Dockerfile as far as it can be judged without building it: no daemon is needed."""

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import typer

from unispector.cli.main import app

ROOT = Path(__file__).parents[1]
INSTRUCTIONS = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


def stages():
    """Of each stage its instructions, as (name, arguments), continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    found = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            if name == "FROM":
                found.append([])
            found[-1].append((name, arguments.strip()))
    return found


def last(name):
    return [arguments for found, arguments in stages()[-1] if found == name][-1]


def sent(path):
    """Return whether `.dockerignore` lets a path into the build; its last rule that fits decides."""
    verdict = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2)]
        if any(fnmatch(parent, pattern) or fnmatch(f"./{parent}", pattern) for parent in parents):
            verdict = line.startswith("!")
    return verdict


def test_every_instruction_is_one():
    assert {name for stage in stages() for name, _ in stage} <= INSTRUCTIONS


def test_the_service_is_not_root():
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    names = [name for name, _ in stages()[-1]]
    assert "RUN" not in names[names.index("USER") :]


def test_what_is_copied_exists_and_is_sent():
    copied = [
        arguments.split()[:-1]
        for stage in stages()
        for name, arguments in stage
        if name == "COPY" and not arguments.startswith("--from")
    ]
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists()
        assert sent(path)
    assert sent("unispector/shipped/fast/model.safetensors")


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".dvc/config.local", "artifacts/mlflow/mlflow.db", "data/raw/a.png",
             "unispector/__pycache__/a.pyc", "tests/conftest.py", ".venv/bin/python"],
)  # fmt: skip
def test_nothing_private_is_sent(path):
    assert not sent(path)


def test_no_secret_is_baked_in():
    for stage in stages():
        for name, arguments in stage:
            if name in ("ARG", "ENV"):
                assert not re.search(r"(?i)token|key|secret|password", arguments)


def test_the_command_is_one_of_the_program():
    entry, words = json.loads(last("ENTRYPOINT")), json.loads(last("CMD"))
    assert entry == ["unispector"]
    commands = typer.main.get_command(app).commands
    command = commands[words[0]]
    command.make_context(words[0], words[1:])  # raises where an option is unknown


def test_the_health_check_asks_the_port_that_is_served():
    words = json.loads(last("CMD"))
    port = words[words.index("--port") + 1]
    assert last("EXPOSE") == port
    assert f"http://127.0.0.1:{port}/health" in last("HEALTHCHECK")
    code = json.loads(last("HEALTHCHECK").partition("CMD ")[2])[2]
    compile(code, "health check", "exec")


def install_step():
    return next(
        arguments for name, arguments in stages()[0] if name == "RUN" and "require-hashes" in arguments
    )


@pytest.mark.parametrize("torch", ["cpu", "locked", "gpu"])
def test_the_lock_is_installed_with_hashes_but_for_the_cpu_build(torch, tmp_path):
    """The step runs for real, but for `uv`, which only notes what it is asked for."""
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    (tmp_path / "uv").write_text('#!/bin/sh\necho "$@" >> asked\n')
    (tmp_path / "uv").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", install_step()],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TORCH": torch},
        capture_output=True,
        text=True,
        check=False,
    )
    if torch == "gpu":
        assert done.returncode == 1
        assert done.stderr == "TORCH=gpu: it must be cpu or locked\n"
        return
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    lock = (ROOT / "requirements.lock").read_text()
    hashed = (tmp_path / "hashed.lock").read_text()
    names = [re.findall(r"(?m)^([a-z0-9][^=\s]*)==", text) for text in (lock, hashed)]
    assert asked[0] == "pip install --require-hashes --no-deps -r hashed.lock"
    if torch == "locked":
        assert hashed == lock
        assert len(asked) == 1
        return
    gone = set(names[0]) - set(names[1])
    assert {"torch", "torchvision", "triton"} < gone
    assert all(name.startswith(("nvidia-", "cuda-")) for name in gone - {"torch", "torchvision", "triton"})
    assert hashed.count("--hash") < lock.count("--hash")
    assert all(
        " \\\n    --hash=sha256:" in entry for entry in re.split(r"(?m)^(?=[a-z0-9])", hashed) if entry
    )
    assert asked[1] == "pip install --no-deps --torch-backend cpu -r torch.txt"
    pinned = re.findall(r"(?m)^(?:torch|torchvision)==\S+", lock)
    assert (tmp_path / "torch.txt").read_text().split() == pinned
