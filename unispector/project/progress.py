"""Progress of long stages: a bar on a terminal, a line a minute in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, unit: str = "image") -> Iterator[Callable[[int, int | None], None]]:
    """A bar that appears when the work turns out to take long.

    Yields:
        A function of (done, in all; None = unknown).
    """
    from tqdm import tqdm

    pause, delay = (0.2, 1) if sys.stderr.isatty() else (60, 30)
    with tqdm(
        desc=label, unit=f" {unit}s", mininterval=pause, maxinterval=60, delay=delay, leave=False
    ) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
