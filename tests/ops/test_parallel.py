"""Work in several processes: order, little drawn ahead, and what happens when one fails."""

import os
import signal
import time
from functools import partial

import pytest

from unispector.errors import DataError
from unispector.ops.parallel import AHEAD, map_in_order, worker_count


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))  # later ones finish first
    return number * number


def process_of(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def fail_at(bad: int, error: type[Exception], number: int) -> int:
    if number == bad:
        raise error(f"item {number}")
    return number


def die_at(bad: int, number: int) -> int:
    if number == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(map_in_order(square, range(50), workers)) == [number**2 for number in range(50)]
    assert list(map_in_order(square, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_only_a_few_items_are_drawn_ahead(workers):
    drawn = 0

    def items():
        nonlocal drawn
        for number in range(500):
            drawn += 1
            yield number

    results = map_in_order(square, items(), workers)
    assert drawn == 0
    ahead = []
    for done, _ in enumerate(results, start=1):
        time.sleep(0.001)  # a slow reader does not make them come faster
        ahead.append(drawn - done)
    assert len(ahead) == 500
    assert max(ahead) < AHEAD * workers


def test_a_reader_may_stop_early(recwarn):
    results = map_in_order(square, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    results.close()
    assert list(map_in_order(square, range(5), 2)) == [0, 1, 4, 9, 16]
    assert len(recwarn) == 0


def test_several_processes_do_the_work():
    processes = set(map_in_order(process_of, range(20), 2))
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert set(map_in_order(process_of, range(2), 1)) == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", [DataError, ZeroDivisionError])
def test_an_error_keeps_its_type_and_words(workers, error):
    with pytest.raises(error) as caught:
        list(map_in_order(partial(fail_at, 7, error), range(20), workers))
    assert type(caught.value) is error
    assert str(caught.value) == "item 7"


def test_a_killed_worker_is_one_error():
    with pytest.raises(DataError, match=r"a worker process was killed.*use fewer workers"):
        list(map_in_order(partial(die_at, 7), range(20), 2))
    assert list(map_in_order(square, range(5), 2)) == [0, 1, 4, 9, 16]


def test_workers_are_started_only_where_it_pays():
    assert worker_count(8, 199) == 1
    assert worker_count(8, 200) == 8
    assert worker_count(1, 10_000) == 1
    assert worker_count(0, 10_000) == os.cpu_count()
