"""Progress of long stages: a bar on a terminal, a line a minute in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, unit: str = "image") -> Iterator[Callable[[int, int], None]]:
    """A bar that appears with the first call.

    Args:
        label: what is going on.
        unit: what is counted.

    Yields:
        A function of (done, in all).
    """
    from tqdm import tqdm

    patient = 0.2 if sys.stderr.isatty() else 60
    with tqdm(desc=label, unit=f" {unit}s", mininterval=patient, maxinterval=patient, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
