"""The states of a session, and how changes are undone."""

from dataclasses import dataclass, field, replace

from unispector.errors import DataError
from unispector.workbench.session import Around, Change, ChooseThreshold, SetThreshold, State

UNDONE = 200
"""Changes that can be undone."""


@dataclass
class History:
    """The states of a session, of which one is now."""

    now: State = field(default_factory=State)
    version: int = 0  # grows with every change, undone and redone ones too
    past: list[State] = field(default_factory=list)
    future: list[State] = field(default_factory=list)
    _last: object = None  # what the newest change was about, if more of the same join it

    def apply(self, change: Change | ChooseThreshold, around: Around) -> bool:
        """Take in a change; return whether it made a difference.

        Raises:
            DataError: it cannot be made.
        """
        new = _lapsed(self.now, change.apply(self.now, around))
        if new == self.now:
            return False
        about = (change.kind, change.name) if isinstance(change, SetThreshold) else None
        if about is None or about != self._last:
            self.past = [*self.past[-UNDONE + 1 :], self.now]
        self._last, self.future = about, []
        self._become(new)
        return True

    def undo(self) -> None:
        """Go back one change.

        Raises:
            DataError: there is none.
        """
        if not self.past:
            raise DataError("nothing to undo")
        self.future.append(self.now)
        self._become(self.past.pop())

    def redo(self) -> None:
        """Take back an undo.

        Raises:
            DataError: there is none.
        """
        if not self.future:
            raise DataError("nothing to redo")
        self.past.append(self.now)
        self._become(self.future.pop())

    def _become(self, state: State) -> None:
        self.now = state
        self.version += 1


def _lapsed(before: State, now: State) -> State:
    """The state in which thresholds that were proved with other marks do not hold."""
    if before.marks == now.marks:
        return now
    classes = tuple(
        replace(own, chosen=replace(own.chosen, holds=False))
        if own.chosen is not None and before.marks_about(own.name) != now.marks_about(own.name)
        else own
        for own in now.classes
    )
    return replace(now, classes=classes)
