"""What a session remembers, how it changes, and how changes are undone."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Union

from pydantic import Field

from unispector.errors import DataError
from unispector.ops.rle import Rle
from unispector.prompts.marks import checked_label
from unispector.workbench.marks import ANY_CLASS, Box, Mark, Stroke, box_inside, new_id, paint

UNDONE = 200
"""Changes that can be undone."""


class OutdatedError(DataError):
    """A change of a state that is not the newest: another window was faster."""


@dataclass(frozen=True)
class SessionClass:
    """A class that is looked for."""

    name: str
    threshold: float | None = None  # lowest score that counts, 0 to 1; None = the prompts' own


@dataclass(frozen=True)
class State:
    """All that a session remembers; never changed, only replaced."""

    classes: tuple[SessionClass, ...] = ()
    marks: tuple[Mark, ...] = ()
    reviewed: frozenset[str] = frozenset()  # names of images that a person is done with

    def with_class(self, name: str) -> "State":
        """The state with this class, if it is not there yet."""
        if name == ANY_CLASS or any(own.name == name for own in self.classes):
            return self
        return replace(self, classes=(*self.classes, SessionClass(checked_label(name))))

    def with_mark(self, mark: Mark) -> "State":
        """The state with one more mark, and its class."""
        return replace(self.with_class(mark.label), marks=(*self.marks, mark))

    def mark(self, id_: str) -> Mark:
        """One of the marks.

        Raises:
            DataError: it is gone.
        """
        for mark in self.marks:
            if mark.id == id_:
                return mark
        raise DataError("that mark is gone; it was removed meanwhile")


@dataclass(frozen=True)
class Found:
    """A finding that a change is about."""

    image: str
    label: str
    box: Box  # left, top, width, height in pixels
    mask: Rle
    hw: tuple[int, int]


@dataclass(frozen=True)
class Around:
    """What a change needs to know beside the state."""

    size: Callable[[str], tuple[int, int]]  # height and width of an image of the folder
    finding: Callable[[str, str], Found]  # by image and id


@dataclass(frozen=True)
class AddBox:
    """A box was drawn."""

    image: str
    label: str
    box: list[float]  # left, top, width, height in pixels; corners in any order
    negative: bool = False
    kind: Literal["box"] = "box"

    def apply(self, state: State, around: Around) -> State:
        """The state with the box, cut at the image's edge."""
        hw = around.size(self.image)
        box = box_inside(self.box, hw)
        return state.with_mark(Mark(new_id(), self.image, self.label, box, hw, negative=self.negative))


@dataclass(frozen=True)
class Paint:
    """Strokes of brush and eraser, on a mark or for a new one."""

    image: str
    label: str
    strokes: list[Stroke]
    mark: str | None = None  # a mark that they change; a box becomes a mask
    negative: bool = False
    kind: Literal["paint"] = "paint"

    def apply(self, state: State, around: Around) -> State:
        """The state with the mask; a mark of which nothing is left goes."""
        hw = around.size(self.image)
        if self.mark is None:
            if (painted := paint(self.strokes, None, hw)) is None:
                raise DataError("nothing was painted inside the image; ignored")
            box, mask = painted
            return state.with_mark(Mark(new_id(), self.image, self.label, box, hw, mask, self.negative))
        old = state.mark(self.mark)
        painted = paint(self.strokes, old.mask, hw)
        kept = tuple(mark for mark in state.marks if mark.id != old.id or painted)
        if painted is None:
            return replace(state, marks=kept)
        new = replace(old, box=painted[0], mask=painted[1])
        return replace(state, marks=tuple(new if mark.id == old.id else mark for mark in kept))


@dataclass(frozen=True)
class ChangeMark:
    """A mark was moved, or given another class; what is None stays."""

    mark: str
    box: list[float] | None = None
    label: str | None = None
    kind: Literal["change"] = "change"

    def apply(self, state: State, _: Around) -> State:
        """The state with the changed mark; a mask that is moved becomes its box."""
        old = new = state.mark(self.mark)
        if self.box is not None:
            new = replace(new, box=box_inside(self.box, old.hw), mask=None)
        if self.label is not None:
            state, new = state.with_class(self.label), replace(new, label=self.label)
        return replace(state, marks=tuple(new if mark.id == old.id else mark for mark in state.marks))


@dataclass(frozen=True)
class RemoveMark:
    """A mark was removed."""

    mark: str
    kind: Literal["remove"] = "remove"

    def apply(self, state: State, _: Around) -> State:
        """The state without the mark."""
        gone = state.mark(self.mark)
        return replace(state, marks=tuple(mark for mark in state.marks if mark is not gone))


@dataclass(frozen=True)
class Judge:
    """A finding was accepted as a defect, or rejected."""

    image: str
    finding: str
    accept: bool
    kind: Literal["judge"] = "judge"

    def apply(self, state: State, around: Around) -> State:
        """The state with the finding's mask as a mark of its class, or of what its class is not."""
        found = around.finding(self.image, self.finding)
        origin: Literal["accepted", "rejected"] = "accepted" if self.accept else "rejected"
        new = Mark(
            new_id(), found.image, found.label, found.box, found.hw, found.mask, not self.accept, origin
        )
        return state.with_mark(new)


@dataclass(frozen=True)
class AddClass:
    """A class was named before it was marked."""

    name: str
    kind: Literal["class"] = "class"

    def apply(self, state: State, _: Around) -> State:
        """The state with the class."""
        return state.with_class(self.name)


@dataclass(frozen=True)
class RenameClass:
    """A class got another name."""

    name: str
    to: str
    kind: Literal["rename"] = "rename"

    def apply(self, state: State, _: Around) -> State:
        """The state with the new name on class and marks; one that is there already takes the marks over."""
        to = checked_label(self.to.strip())
        there = any(own.name == to for own in state.classes)
        classes = tuple(
            replace(own, name=to) if own.name == self.name else own
            for own in state.classes
            if own.name != self.name or not there
        )
        marks = tuple(replace(mark, label=to) if mark.label == self.name else mark for mark in state.marks)
        return replace(state, classes=classes, marks=marks)


@dataclass(frozen=True)
class RemoveClass:
    """A class was removed with its marks."""

    name: str
    kind: Literal["drop"] = "drop"

    def apply(self, state: State, _: Around) -> State:
        """The state without the class."""
        return replace(
            state,
            classes=tuple(own for own in state.classes if own.name != self.name),
            marks=tuple(mark for mark in state.marks if mark.label != self.name),
        )


@dataclass(frozen=True)
class SetThreshold:
    """The slider of a class was moved."""

    name: str
    value: Annotated[float, Field(ge=0, le=1)] | None  # None = back to the prompts' own
    kind: Literal["threshold"] = "threshold"

    def apply(self, state: State, _: Around) -> State:
        """The state with the threshold."""
        state = state.with_class(self.name)
        classes = tuple(
            replace(own, threshold=self.value) if own.name == self.name else own for own in state.classes
        )
        return replace(state, classes=classes)


@dataclass(frozen=True)
class Review:
    """A person is done with an image, or not any more."""

    image: str
    done: bool
    kind: Literal["review"] = "review"

    def apply(self, state: State, _: Around) -> State:
        """The state with or without the image among those that are done."""
        change = frozenset((self.image,))
        return replace(state, reviewed=state.reviewed | change if self.done else state.reviewed - change)


Change = Annotated[
    Union[  # noqa: UP007 - pydantic reads the alternatives of an annotation
        AddBox,
        Paint,
        ChangeMark,
        RemoveMark,
        Judge,
        AddClass,
        RenameClass,
        RemoveClass,
        SetThreshold,
        Review,
    ],
    Field(discriminator="kind"),
]


@dataclass
class History:
    """The states of a session, of which one is now."""

    now: State = field(default_factory=State)
    version: int = 0  # grows with every change, undone and redone ones too
    past: list[State] = field(default_factory=list)
    future: list[State] = field(default_factory=list)
    _last: object = None  # what the newest change was about, if more of the same join it

    def apply(self, change: Change, around: Around) -> bool:
        """Take in a change; return whether it made a difference.

        Raises:
            DataError: it cannot be made.
        """
        new = change.apply(self.now, around)
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
