"""Run a program so that nothing of it is left when it ends, however it ends.

    python -m flows.keep mlflow -- mlflow server ...

Servers start processes of their own, which a SIGKILL of the server leaves behind, its port in their hands:
whoever starts it again would fail for ever. The next start waits until they are gone.
"""

import signal
import subprocess
import sys
from pathlib import Path

from flows.guard import guard_this_process
from unispector.errors import TrainingError
from unispector.project.paths import OPERATION

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def keep(lock: Path, command: list[str]) -> int:
    """Run a program to its end, and pass on what asks it to stop.

    Args:
        lock: held for as long as anything of the program lives.
        command: the program and its arguments.

    Returns:
        Its exit code; 128 and the signal's number when it was killed.

    Raises:
        TrainingError: the lock is held by an earlier one that does not end.
    """
    guard_this_process(lock)
    asked: list[int] = []  # what came while the program was being started
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _frame: asked.append(number))
    child = subprocess.Popen(command)  # noqa: S603
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _frame: child.send_signal(number))
    for early in asked:
        child.send_signal(early)
    code = child.wait()
    return code if code >= 0 else 128 - code


def main() -> None:
    """`NAME -- COMMAND`, from the command line."""
    name, dashes, *command = sys.argv[1:]
    if dashes != "--" or not command:
        sys.exit("error: usage: python -m flows.keep NAME -- COMMAND")
    try:
        sys.exit(keep(OPERATION / f"{name}.lock", command))
    except TrainingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
