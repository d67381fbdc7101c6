"""One function over many items in several processes, in order and in bounded memory."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from unispector.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 64  # items a worker is given at once; joblib by itself would draw them all ahead of a slow reader


def worker_count(workers: int, items: int) -> int:
    """Processes to use: as many as asked for (0 = all cores), but one where starting more would not pay."""
    if items < 200:  # two workers take about as long to start as one needs for these
        return 1
    return workers or os.cpu_count() or 1


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Results in the order of `items`, of which at most `AHEAD` for each worker are drawn ahead.

    `function` is defined at the top level of a module, or a partial of such a function; `items` are drawn in
    this process; 1 worker is this process.

    Raises:
        DataError: a worker was killed; besides, whatever `function` raises.
    """
    if workers == 1:
        yield from map(function, items)
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    remaining = iter(items)
    with parallel_config("loky", n_jobs=workers, inner_max_num_threads=1), Parallel() as jobs:
        try:
            while share := list(islice(remaining, AHEAD * workers)):
                yield from jobs(delayed(function)(item) for item in share)
        except TerminatedWorkerError as error:
            raise DataError(
                "a worker process was killed, for want of memory perhaps; use fewer workers"
            ) from error
