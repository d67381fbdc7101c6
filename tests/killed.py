"""A kill before any one write, simulated in the test's process."""

from collections.abc import Iterable

import pytest


class KilledError(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def kill_at(patch: pytest.MonkeyPatch, writes: Iterable[tuple[object, str]], step: int) -> list[str]:
    """Die before the write of this number, the first is 0; the list has the names of those that began."""
    done: list[str] = []

    def wrap(owner, name):
        write = getattr(owner, name)

        def counted(*args, **kwargs):
            if len(done) == step:
                raise KilledError
            done.append(name)
            return write(*args, **kwargs)

        patch.setattr(owner, name, counted)

    for owner, name in writes:
        wrap(owner, name)
    return done
