"""What a session remembers, and how it changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Union

from pydantic import Field

from unispector.errors import DataError
from unispector.inference.calibration import Calibration
from unispector.ops.rle import Rle
from unispector.prompts.marks import checked_label
from unispector.workbench.marks import ANY_CLASS, Box, Mark, Stroke, box_inside, moved, new_id, paint


class OutdatedError(DataError):
    """A change of a state that is not the newest: another window was faster."""


@dataclass(frozen=True)
class Chosen:
    """A threshold that good images proved."""

    calibration: Calibration
    model: str  # fingerprint of the model whose scores it is about
    holds: bool = True  # false from the first change of the class's marks on


@dataclass(frozen=True)
class SessionClass:
    """A class that is looked for."""

    name: str
    threshold: float | None = None  # lowest score that counts, 0 to 1; None = the prompts' own
    chosen: Chosen | None = None  # how the threshold was found, unless by hand


@dataclass(frozen=True)
class State:
    """All that a session remembers; never changed, only replaced."""

    classes: tuple[SessionClass, ...] = ()
    marks: tuple[Mark, ...] = ()
    reviewed: frozenset[str] = frozenset()  # names of images that a person is done with
    good: frozenset[str] = frozenset()  # names of images that show no defect

    def with_class(self, name: str) -> "State":
        """The state with this class, if it is not there yet."""
        if any(own.name == name for own in self.classes):
            return self
        return replace(self, classes=(*self.classes, SessionClass(checked_label(name))))

    def with_threshold(self, name: str, value: float | None, chosen: Chosen | None) -> "State":
        """The state with the threshold of a class, and how it was found."""
        state = self.with_class(name)
        classes = tuple(
            replace(own, threshold=value, chosen=chosen) if own.name == name else own for own in state.classes
        )
        return replace(state, classes=classes)

    def with_label(self, label: str, negative: bool) -> "State":
        """The state with the class of a mark; only a negative one may be of any class."""
        return self if negative and label == ANY_CLASS else self.with_class(label)

    def with_mark(self, mark: Mark) -> "State":
        """The state with one more mark, and its class; an image with a defect is not good any more."""
        good = self.good if mark.negative else self.good - {mark.image}
        return replace(self.with_label(mark.label, mark.negative), marks=(*self.marks, mark), good=good)

    def marks_about(self, name: str) -> tuple[Mark, ...]:
        """The marks that decide how a class is found."""
        return marks_about(self.marks, name)

    def mark(self, id_: str) -> Mark:
        """One of the marks.

        Raises:
            DataError: it is gone.
        """
        for mark in self.marks:
            if mark.id == id_:
                return mark
        raise DataError("that mark is gone; it was removed meanwhile")


def marks_about(marks: Sequence[Mark], name: str) -> tuple[Mark, ...]:
    """Of some marks, those of a class and of what it is not."""
    return tuple(mark for mark in marks if mark.label == name or (mark.label == ANY_CLASS and mark.negative))


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
        """The state with the mask; a mark of which nothing is left goes.

        Raises:
            DataError: nothing was painted, or the image is not the one that the mark was drawn on.
        """
        old = state.mark(self.mark) if self.mark is not None else None
        hw = around.size(self.image if old is None else old.image)
        if old is None:
            if (painted := paint(self.strokes, None, hw)) is None:
                raise DataError("nothing was painted inside the image; ignored")
            box, mask = painted
            return state.with_mark(Mark(new_id(), self.image, self.label, box, hw, mask, self.negative))
        if old.hw != hw:
            raise DataError(
                f"{old.image}: marked at {old.hw[1]}x{old.hw[0]} pixels, it has {hw[1]}x{hw[0]} now; "
                "remove the mark and draw it anew"
            )
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
        """The state with the changed mark; a mask moves with its box, and what leaves the image is cut off.

        Raises:
            DataError: the mark is gone, the box is none, or nothing is left inside the image.
        """
        old = new = state.mark(self.mark)
        if self.box is not None:
            if old.mask is None:
                new = replace(new, box=box_inside(self.box, old.hw))
            else:
                box, mask = moved(old.mask, old.box, self.box)
                new = replace(new, box=box, mask=mask)
        if self.label is not None:
            state, new = state.with_label(self.label, old.negative), replace(new, label=self.label)
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
class DropImage:
    """An image shall not be a prompt of a class any more."""

    image: str
    label: str
    kind: Literal["unprompt"] = "unprompt"

    def apply(self, state: State, _: Around) -> State:
        """The state without the image's marks of the class; those of what it is not stay."""
        kept = tuple(
            mark
            for mark in state.marks
            if mark.negative or (mark.image, mark.label) != (self.image, self.label)
        )
        if len(kept) == len(state.marks):
            raise DataError(f"{self.image}: no mark of {self.label!r}; it was removed meanwhile")
        return replace(state, marks=kept)


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
        return state.with_threshold(self.name, self.value, None)


@dataclass(frozen=True)
class ChooseThreshold:
    """Good images proved a threshold; made by the program, never sent by the page."""

    name: str
    value: float
    chosen: Chosen
    kind: Literal["chosen"] = "chosen"

    def apply(self, state: State, _: Around) -> State:
        """The state with the threshold and how it was found."""
        return state.with_threshold(self.name, self.value, self.chosen)


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


@dataclass(frozen=True)
class MarkGood:
    """Images show no defect, or a person is not sure of it any more."""

    images: list[str]
    good: bool
    kind: Literal["good"] = "good"

    def apply(self, state: State, _: Around) -> State:
        """The state with or without the images among the good ones."""
        change = frozenset(self.images)
        marked = sorted({mark.image for mark in state.marks if not mark.negative} & change)
        if self.good and marked:
            raise DataError(f"{marked[0]}: a defect is marked on it; remove the mark, or leave it as it is")
        return replace(state, good=state.good | change if self.good else state.good - change)


Change = Annotated[
    Union[  # noqa: UP007 - pydantic reads the alternatives of an annotation
        AddBox,
        Paint,
        ChangeMark,
        RemoveMark,
        DropImage,
        Judge,
        AddClass,
        RenameClass,
        RemoveClass,
        SetThreshold,
        Review,
        MarkGood,
    ],
    Field(discriminator="kind"),
]
