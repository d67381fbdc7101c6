"""Continuous operation of MLflow, Prefect and the service on one machine, kept alive by supervisord."""

import os
import shlex
import socket
import sys
from collections.abc import Sequence
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path

from unispector.errors import ConfigError
from unispector.ops.files import atomic_path
from unispector.project.paths import OPERATION, PROMPT_STORE, TRACKING

_HOST = "127.0.0.1"
_PORTS = {"mlflow": 5000, "prefect": 4200, "service": 8000}


@dataclass(frozen=True)
class Program:
    """One long-running program."""

    name: str
    command: tuple[str, ...]
    purpose: str
    address: str = ""  # where it can be reached; empty if nowhere
    stop_seconds: int = 15  # until it is killed after being asked to stop


def port(name: str) -> int:
    """The port of a program: `UNISPECTOR_<NAME>_PORT`, or its usual one.

    Raises:
        ConfigError: the variable holds no port.
    """
    text = os.environ.get(f"UNISPECTOR_{name.upper()}_PORT", str(_PORTS[name]))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(f"UNISPECTOR_{name.upper()}_PORT={text}: no port; give a number from 1 to 65535")
    return int(text)


def programs() -> tuple[Program, ...]:
    """All programs, those that others wait for first.

    Raises:
        ConfigError: a port is none.
    """
    python = sys.executable
    address = {name: f"http://{_HOST}:{port(name)}" for name in _PORTS}
    store = ("--backend-store-uri", f"sqlite:///{(TRACKING / 'mlflow.db').resolve()}")
    mlflow = (python, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port("mlflow")), *store)
    prefect = (python, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(port("prefect")))
    serve = (python, "-m", "unispector.cli", "serve", "--port", str(port("service")))
    return (
        Program(
            "mlflow", (*mlflow, "--workers", "1"), "runs and the registry in a browser", address["mlflow"]
        ),
        Program("prefect", prefect, "schedule and run pages in a browser", address["prefect"]),
        Program(
            "worker",
            (python, "-m", "flows.worker"),
            "deploys prefect.yaml, runs what is due",
            stop_seconds=60,
        ),
        Program(
            "service",
            (*serve, "--bank", str(PROMPT_STORE)),
            "the champion behind HTTP",
            f"{address['service']}/health",
            stop_seconds=60,
        ),
    )


def write_configuration(wanted: Sequence[Program], folder: Path) -> Path:
    """Write supervisord's file.

    Args:
        folder: of the file, the logs and the socket that `supervisorctl` talks to.
    """
    folder = folder.resolve()
    socket, file = folder / "supervisor.sock", folder / "supervisord.conf"
    parser = RawConfigParser()
    parser["supervisord"] = {
        "nodaemon": "true",
        "logfile": str(folder / "supervisord.log"),
        "pidfile": str(folder / "supervisord.pid"),
        "childlogdir": str(folder),
        # Not as root: whoever starts it is whom everything runs as.
        "identifier": "unispector",
    }
    parser["unix_http_server"] = {"file": str(socket), "chmod": "0700"}
    parser["supervisorctl"] = {"serverurl": f"unix://{socket}"}
    parser["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for rank, each in enumerate(wanted):
        # `keep` sees to it that a SIGKILL leaves no process behind.
        command = (sys.executable, "-m", "flows.keep", each.name, "--", *each.command)
        parser[f"program:{each.name}"] = {
            "command": shlex.join(command).replace("%", "%%"),  # supervisord expands % itself
            "priority": str(rank),
            "autorestart": "true",
            "startretries": "1000000",
            "startsecs": "5",
            "stopwaitsecs": str(each.stop_seconds),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(folder / f"{each.name}.log"),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "3",
        }
    with atomic_path(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        parser.write(stream)
    return file


def operate(names: Sequence[str], root: Path = Path()) -> None:
    """Take the place of this process by supervisord, which ends all programs when it is asked to end.

    Args:
        root: the project's folder; logs and state lie below it in `artifacts/operate`.

    Raises:
        ConfigError: a port is none, or in use.
    """
    known = {each.name: each for each in programs()}
    for name in set(names) & set(_PORTS):
        _check_free(name)
    (root / TRACKING).mkdir(parents=True, exist_ok=True)
    file = write_configuration([known[name] for name in names], root / OPERATION)
    os.environ.setdefault("PREFECT_API_URL", f"http://{_HOST}:{port('prefect')}/api")
    # The server's and the worker's logs are what people look into.
    os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(file)])  # noqa: S606


def _check_free(name: str) -> None:
    """Better known now than from a program that is started again and again."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port(name)))
        except OSError as error:
            variable = f"UNISPECTOR_{name.upper()}_PORT"
            raise ConfigError(
                f"{name}: port {port(name)} cannot be listened on ({error.strerror}); stop what uses it, or "
                f"choose another with {variable}"
            ) from error
