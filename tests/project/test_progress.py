"""Bars that are listened to."""

import threading

import pytest

from unispector.project.progress import listening, progress_bar


def work(label: str) -> None:
    with progress_bar(label) as show:
        show(1, None)
        show(2, 2)


def test_a_listener_hears_the_bars_of_its_thread_while_it_listens() -> None:
    heard: list[tuple[str, int, int | None]] = []
    with listening(lambda *told: heard.append(told)):
        work("inside")
        other = threading.Thread(target=work, args=("elsewhere",))
        other.start()
        other.join()
    work("after")
    assert heard == [("inside", 1, None), ("inside", 2, 2)]


def test_what_a_listener_raises_ends_the_work() -> None:
    def stop(*_: object) -> None:
        raise KeyError("enough")

    with listening(stop), pytest.raises(KeyError):
        work("inside")
