"""Nothing outlives a flow: a guard process clears up once the flow's process is gone, however it went.

A process that gets SIGKILL stops none of its children: Prefect's server would live on for good, and some
of Ray's for minutes. So every child carries a mark in its environment, and the guard, a small process of
its own, ends all that carry it, and their children, as soon as the flow's process is gone.

This file runs as a program too, and so imports nothing of the project at its top.
"""

import fcntl
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import psutil

MARK = "UNISPECTOR_TRAINING"
LOCK = Path("artifacts/training.lock")

_PATIENCE = 60.0  # seconds until what an earlier training left behind must be gone
_TERM_SECONDS, _KILL_SECONDS = 3.0, 10.0
_LOOK_SECONDS = 2.0  # between looks at who is there

logger = logging.getLogger("unispector.flows")


def guard_this_process(lock: Path = LOCK, patience: float = _PATIENCE) -> None:
    """Hold the project's training lock, and have what this process starts from now on ended after it.

    The guard holds the lock as well, so that the next training starts only when nothing of a killed one
    can write any more.

    Args:
        lock: the file, made when new.
        patience: seconds to wait for a lock that is held.

    Raises:
        TrainingError: the lock is still held then; whatever it is named after runs already.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    # Bare descriptors: both stay open until this process ends, and nobody inherits them unasked.
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    _take(held, lock, patience)
    mark = f"{os.getpid()}-{token_hex(8)}"
    listening, _open_while_alive = os.pipe()
    command = [sys.executable, "-I", str(Path(__file__).resolve()), mark]
    subprocess.Popen(  # noqa: S603
        command,
        stdin=listening,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(held,),
        start_new_session=True,
    )
    os.close(listening)
    os.environ[MARK] = mark


def stop_with_dvc(stop: Callable[[], None]) -> None:
    """Call `stop` in a thread when the DVC that runs this stage is gone, however it went.

    A process that DVC did not start is left alone, whatever becomes of the shell it came from.

    Args:
        stop: ends this process.
    """
    dvc = _dvc()
    if dvc is None:
        return
    gone = os.pidfd_open(dvc)

    def wait() -> None:
        select.select([gone], [], [])
        stop()

    threading.Thread(target=wait, daemon=True).start()


def clear_away(mark: str, seen: Collection[psutil.Process] = ()) -> None:
    """End all processes that carry `mark`, and their descendants; first with a request, then by force.

    Args:
        mark: in the environment of the processes.
        seen: descendants of earlier on, which may have lost their parent since.
    """
    for end, seconds in ((psutil.Process.terminate, _TERM_SECONDS), (psutil.Process.kill, _KILL_SECONDS)):
        doomed = _marked(mark) | set(seen)
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                end(process)
        until = time.monotonic() + seconds
        while any(map(_is_alive, doomed)) and time.monotonic() < until:
            time.sleep(0.1)


def _take(descriptor: int, lock: Path, patience: float) -> None:
    until, said = time.monotonic() + patience, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                from unispector.errors import TrainingError

                raise TrainingError(
                    f"{lock}: another {lock.stem} runs in this project; wait for its end or stop it"
                ) from None
            if not said:
                logger.info("waiting for another %s of this project to end", lock.stem)
            said = True
            time.sleep(0.2)
        else:
            return


def _dvc() -> int | None:
    """The DVC process this one works for; None without one, and where processes have no descriptors."""
    if "DVC_STAGE" not in os.environ or not hasattr(os, "pidfd_open"):
        return None
    # Between DVC and this process there may be shells; they are part of the stage and carry its name.
    process = psutil.Process().parent()
    with suppress(psutil.Error):
        while process and "DVC_STAGE" in process.environ():
            process = process.parent()
    return process.pid if process else None


def _marked(mark: str) -> set[psutil.Process]:
    """Find the processes that carry a mark, and their descendants, whose environment may be overwritten."""
    everyone = list(psutil.process_iter(["environ", "ppid"]))
    found = {process for process in everyone if (process.info["environ"] or {}).get(MARK) == mark}
    pids = {process.pid for process in found}
    while more := {each for each in everyone if each.info["ppid"] in pids and each.pid not in pids}:
        found |= more
        pids |= {process.pid for process in more}
    return found - {psutil.Process()}


def _is_alive(process: psutil.Process) -> bool:
    """Return whether it still runs: a zombie only waits for its parent to ask how it ended."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    # A Ctrl-C in the terminal, or its end, is not for the guard.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: set[psutil.Process] = set()
    # Readable when the process at its other end is gone.
    while not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
        seen = _marked(sys.argv[1]) | set(filter(_is_alive, seen))
    clear_away(sys.argv[1], seen)
