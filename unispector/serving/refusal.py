"""Requests that are not answered as asked, and how much of everything is held at a time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from unispector.errors import ServiceError, UniSpectorError

RETRY_SECONDS = 2
"""After which a client may try again."""


class RefusedError(ServiceError):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.allow = allow  # the methods of a path that was asked with another, as HTTP states them


def without_folders(error: Exception) -> str:
    """Return a message in one line that names files without their folders."""
    text = " ".join(str(error).split())[:500]
    known = text if isinstance(error, UniSpectorError) else f"{type(error).__name__}: {text}"
    return re.sub(r"(?<![\w:/@])(?:/[^\s/:;,'\"]+)+/(?=[^\s/])", "", known)


def shown(text: str) -> str:
    """A client's text as it is echoed: odd characters replaced, at most 100."""
    return re.sub(r"[^\w ./()+-]", "_", text)[:100]


class Share:
    """The part of a room that one request holds."""

    def __init__(self, room: "Room") -> None:
        self.amount = 0
        self._room = room

    def take(self, amount: int) -> None:
        """Hold so much more.

        Raises:
            RefusedError: 413 for more than there ever is, 503 for more than is left now.
        """
        room = self._room
        if self.amount + amount > room.size:
            raise RefusedError(413, f"more than {room.size} {room.unit}; send less at a time")
        if room.used + amount > room.size:
            raise RefusedError(503, "too busy; try again in a moment")
        room.used += amount
        self.amount += amount

    def give_back(self, amount: int | None = None) -> None:
        """Hold so much less; None = nothing any more."""
        given = self.amount if amount is None else min(amount, self.amount)  # nothing once an answer began
        self._room.used -= given
        self.amount -= given


class Room:
    """A bounded amount of something, shared by the requests in flight; used by the event loop only."""

    def __init__(self, size: int, unit: str) -> None:
        self.size = size
        self.unit = unit
        self.used = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """An empty share; what it has taken is given back when the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            share.give_back()
