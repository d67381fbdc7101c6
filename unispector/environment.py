"""The process's surroundings: tools quiet and offline, our own messages shown."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from unispector.names import shown

_SETTINGS = {
    # No tool reports usage or looks for updates.
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Loopback only, hence no token file in the user's home.
    "RAY_AUTH_MODE": "disabled",
    # A worker's print would appear twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray would kill our workers when other programs fill the memory; the kernel picks the right one.
    "RAY_memory_monitor_refresh_ms": "0",
    # A busy machine needs longer than the default minute to start a worker or a server.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # Prefect repeats a traceback for each level of a flow; Python prints it once anyway.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def work_offline(root: Path) -> None:
    """Set the tools' variables for this process and its children; what the user has set stays.

    Call it before ray, prefect or mlflow is imported: they read their settings then.

    Args:
        root: the project's root, under which Prefect keeps its state (`.prefect`).
    """
    for name, value in {**_SETTINGS, "PREFECT_HOME": str(root.resolve() / ".prefect")}.items():
        os.environ.setdefault(name, value)


def end_on_signals(end: Callable[[int], object] = os._exit) -> None:
    """End with code 0 on SIGTERM and when the terminal closes; under `nohup` the latter is ignored.

    While libraries are imported it must be at once: some catch whatever is raised.
    """
    signal.signal(signal.SIGTERM, lambda *_: end(0))
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


class _Shown(logging.Formatter):
    """A message as a terminal can show it, line by line."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(shown, super().format(record).expandtabs().split("\n")))


def show_messages() -> None:
    """Print this package's messages (INFO and above) on standard output.

    What no terminal can show, such as a file's name that is no UTF-8, is escaped there from now on.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("unispector")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_Shown("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
