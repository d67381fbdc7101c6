"""Nothing outlives a flow: a guard process clears up once the flow's process is gone, however it went.

A process that gets SIGKILL stops none of its children: Prefect's server would live on for good, and some
of Ray's for minutes. So every child carries a mark in its environment, and the guard, a small process of
its own, ends all that carry it, and their children, as soon as the flow's process is gone. It needs
Linux (`/proc`); elsewhere a killed training leaves Prefect's server to be stopped by hand.

This file runs as a program too, and so imports nothing but the standard library at its top.
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

MARK = "UNISPECTOR_TRAINING"
LOCK = Path("artifacts/training.lock")

_PROC = Path("/proc")
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
    # Isolated and without site-packages: it starts in a moment and stays small.
    command = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), mark]
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


def clear_away(mark: str, seen: Collection[tuple[int, str]] = ()) -> None:
    """End all processes that carry `mark`, and their descendants; first with a request, then by force.

    Args:
        mark: in the environment of the processes.
        seen: descendants of earlier on, number and start, that may have lost their parent since.
    """
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        # Children of a marked process may have overwritten their environment (with a title for `ps`).
        doomed = _with_descendants(_marked(mark)) | {pid for pid, _ in _still(seen)}
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + seconds
        while any(_is_alive(pid) for pid in doomed) and time.monotonic() < until:
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
    """The DVC process this one works for; None without one, and where there is no /proc."""
    if "DVC_STAGE" not in os.environ or not _PROC.is_dir():
        return None
    # Between DVC and this process there may be shells; they are part of the stage and carry its name.
    pid = os.getppid()
    while pid > 1 and b"DVC_STAGE=" in _read(pid, "environ"):
        pid = _parent(pid)
    return pid if pid > 0 else None


def _marked(mark: str) -> set[int]:
    wanted = f"{MARK}={mark}\0".encode()
    return {pid for pid in _processes() if wanted in _read(pid, "environ")}


def _with_descendants(pids: set[int]) -> set[int]:
    parents = {pid: _parent(pid) for pid in _processes()}
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _processes() -> list[int]:
    return [int(entry.name) for entry in _PROC.glob("[0-9]*")]


def _parent(pid: int) -> int:
    return int(fields[1]) if (fields := _stat(pid)) else 0


def _is_alive(pid: int) -> bool:
    """Whether it still runs: a zombie only waits for its parent to ask how it ended."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def _stat(pid: int) -> list[str]:
    """State, parent and more, behind the program's name, which may hold anything."""
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def _started(pid: int) -> str:
    """When it started, which tells it from a later process of the same number."""
    return fields[19] if (fields := _stat(pid)) else ""


def _still(seen: Collection[tuple[int, str]]) -> set[tuple[int, str]]:
    return {(pid, started) for pid, started in seen if started and _started(pid) == started}


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty when it is gone or somebody else's."""
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    # A Ctrl-C in the terminal, or its end, is not for the guard.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: set[tuple[int, str]] = set()
    # Readable when the process at its other end is gone.
    while not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
        seen = {(pid, _started(pid)) for pid in _with_descendants(_marked(sys.argv[1]))} | _still(seen)
    clear_away(sys.argv[1], seen)
