"""Progress of long stages: a bar on a terminal, a line a minute in a log."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int | None], None]
"""Gets the bar's label, what is done, and in all; what it raises ends the work."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener told, by every bar of this thread, whatever the bar shows."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


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
            if (listener := _LISTENER.get()) is not None:
                listener(label, done, total)
            bar.total = total
            bar.update(done - bar.n)

        yield show
