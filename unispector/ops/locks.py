"""A file that one program holds at a time."""

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN_SECONDS = 0.02
"""Between two tries."""


@contextmanager
def held(path: Path, seconds: float) -> Iterator[None]:
    """Hold a file, which is made, while the block runs; the system lets it go when the program dies.

    Raises:
        TimeoutError: another program has held it for so long.
        OSError: the file cannot be made.
    """
    end = time.monotonic() + seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    why = f"held for {seconds:g} s by another program"
                    raise TimeoutError(errno.ETIMEDOUT, why, str(path)) from None
                time.sleep(AGAIN_SECONDS)
        yield
