"""The worker: waits for Prefect's server, brings it the deployments of prefect.yaml, runs what is due."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from unispector.environment import show_messages, work_offline
from unispector.project.alerts import HOOK

POOL = "unispector"

_PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")
_PATIENCE = 300.0  # seconds for the server to start
_LONG = 180.0  # seconds for one answer of the command line

logger = logging.getLogger("unispector.flows")


def wait_for_server(address: str, patience: float = _PATIENCE) -> None:
    """Until the server at `address` answers; the process ends in one line if it does not.

    Args:
        address: of its API, such as `http://127.0.0.1:4200/api`.
        patience: seconds.
    """
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            if httpx.get(f"{address}/health", timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    sys.exit(f"error: {address}: no Prefect server answers; `make serve-flows` starts one")


def deploy() -> None:
    """Make the work pool, if it is not there, and the deployments as prefect.yaml has them now."""
    _run("work-pool", "create", POOL, "--type", "process", "--overwrite")
    _run("deploy", "--all")


def _run(*arguments: str) -> None:
    done = subprocess.run(  # noqa: S603
        [*_PREFECT, *arguments], capture_output=True, text=True, timeout=_LONG, check=False
    )
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        sys.exit(f"error: prefect {' '.join(arguments)}: {reason[-400:]}")


def main() -> None:
    """Take the place of this process by Prefect's worker, one run at a time."""
    work_offline(Path.cwd())
    show_messages()
    wait_for_server(os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api"))
    deploy()
    if HOOK not in os.environ:
        logger.info("%s is not set: refused data and decisions are not announced", HOOK)
    logger.info("deployed prefect.yaml; waiting for what is due")
    # One at a time: runs missed in a downtime all come at once; all but the first find nothing new.
    work = ("worker", "start", "--pool", POOL, "--type", "process", "--limit", "1", "--name", "unispector")
    os.execv(sys.executable, [*_PREFECT, *work])  # noqa: S606


if __name__ == "__main__":
    main()
