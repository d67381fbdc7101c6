"""The report of an enrolment: what was checked, what was found on every image, what to mend."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from unispector.config import EnrollConfig
from unispector.errors import DataError
from unispector.ops.drawing import (
    WARNING_COLOUR,
    Panel,
    Region,
    class_colour,
    draw_regions,
    side_by_side,
    write_image,
)
from unispector.ops.files import atomic_write_json, atomic_write_text, read_image, replaced_folder
from unispector.prompts.checks import WEIGHED, ImageCheck, Worth, worth_of
from unispector.prompts.folder import MarkedFolder
from unispector.reporting.model import Block, Bullets, Figure, Report, Section, Span, Table, Text, Words
from unispector.reporting.render import markdown

PAGE, RECORD, DRAWINGS = "report.md", "report.json", "pictures"


@dataclass(frozen=True)
class EnrollReport:
    """The result of an enrolment."""

    label: str
    # `passed` and enrolled; `refused`, then nothing was written to the store; `unchanged`, all images were
    # enrolled before, so nothing was checked.
    outcome: Literal["passed", "refused", "unchanged"]
    version: int
    marked: MarkedFolder
    known: tuple[str, ...] = ()
    checks: tuple[ImageCheck, ...] = ()
    limits: EnrollConfig = field(default_factory=EnrollConfig)
    model: str = ""  # fingerprint of the model that checked
    output: Path = Path()  # folder of the report; nothing is written where nothing was checked

    @property
    def marks(self) -> int:
        """Marks that were looked for."""
        return sum(len(check.marks) for check in self.checks)

    @property
    def found(self) -> int:
        """Marks that prompts from the other images found."""
        return sum(check.found for check in self.checks)

    @property
    def confused(self) -> int:
        """Marks on which a class already enrolled scored higher."""
        return sum(mark.confused for check in self.checks for mark in check.marks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the refusal, a line each; none if it was not refused."""
        return refusals(self.checks, self.limits)

    @property
    def weak(self) -> dict[str, str]:
        """Images to replace or to mark better, and why; a class may pass in spite of some."""
        weak: dict[str, list[str]] = {check.file_name: [] for check in self.checks}
        for check in self.checks:
            if not check.found:
                weak[check.file_name].append("none of its marks is found by the others")
            if others := sorted({mark.other for mark in check.marks if mark.confused}):
                weak[check.file_name].append(f"looks more like {', '.join(others)}")
        for worth in worth_of(self.checks):
            if worth.without - worth.found > 1:  # a single mark may be chance
                more = f"without its prompts {worth.without} of {worth.marks} marks elsewhere are found"
                weak[worth.file_name].append(f"{more}, with them {worth.found}")
        return {name: "; ".join(why) for name, why in weak.items() if why}

    @property
    def verdict(self) -> str:
        """Return the result of the checks, in a line."""
        if self.outcome == "unchanged":
            return "all images are enrolled already, nothing was checked"
        if self.outcome == "refused":
            return f"refused: {'; '.join(self.reasons)}"
        return f"passed: {_share(self.found, self.marks)} marks are found by prompts from the other images"

    def summary(self) -> str:
        """One line for a terminal or a log."""
        return f"{self.label}: {self.verdict}; {self._result}"

    @property
    def _result(self) -> str:
        done = "enrolled as" if self.outcome == "passed" else "the prompts stay at"
        return f"{done} version {self.version}"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the detections, as plain lists and dicts."""
        return {
            "label": self.label,
            "outcome": self.outcome,
            "version": self.version,
            "reasons": list(self.reasons),
            "replace": self.weak,
            "limits": self.limits.model_dump(),
            "marks": self.marks,
            "found": self.found,
            "confused": self.confused,
            "pictures": [
                {"file_name": check.file_name, "marks": [asdict(mark) for mark in check.marks]}
                for check in self.checks
            ],
            "worth": [asdict(worth) for worth in worth_of(self.checks)],
            "alike": [list(pair) for pair in self.marked.alike],
            "known": list(self.known),
            "left": self.marked.left,
            "dropped": [asdict(drop) for drop in self.marked.dropped],
            "folder_sha256": self.marked.digest,
            "model": self.model,
        }

    def markdown(self, pictures: Sequence[str] = ()) -> str:
        """The report for people.

        Args:
            images: the drawings, a file for each check; empty = none are shown.
        """
        sections = []
        if self.checks:
            sections = [Section("", self._figures()), Section("Images", (_image_table(self.checks),))]
        if self.weak:
            weak = Bullets(tuple((Span(name, "code"), f": {why}") for name, why in self.weak.items()))
            sections.append(Section("Images to replace or to mark better", (weak,)))
        if len(self.checks) > WEIGHED:
            limit = f"What single images are worth is tried for at most {WEIGHED} images."
            sections.append(Section("", (Text(limit),)))
        if worth := worth_of(self.checks):
            title = "What the prompts of an image are worth to the others"
            sections.append(Section(title, (_worth_table(worth),)))
        names = [check.file_name for check in self.checks]
        drawn = (Figure(file, name, "") for name, file in zip(names, pictures, strict=False))
        report = Report(
            title=("Enrolment of ", Span(self.label, "code")),
            lead=(Span(self.verdict, "strong"),),
            facts=tuple(self._remarks()),
            sections=(*sections, Section("", tuple(drawn))),
        )
        return markdown(report)

    def _figures(self) -> tuple[Block, ...]:
        limits = self.limits
        found = f"marks found by the prompts of the other images, IoU 0.5 and score {limits.score:g} at least"
        confused = "marks on which a class already enrolled scores higher"
        rows = [
            (found, _share(self.found, self.marks), f"at least {limits.found:.0%}"),
            (confused, _share(self.confused, self.marks), f"at most {limits.confused:.0%}"),
        ]
        model, folder = (Span(digest[:12], "code") for digest in (self.model, self.marked.digest))
        origin = Text(("Model ", model, ", folder SHA-256 ", folder, f"; {self._result}."))
        return (Table.of(("check", "measured", "needed"), (), rows), origin)

    def _remarks(self) -> Iterator[Words]:
        marked = self.marked
        for one, other in marked.alike:
            pair = (Span(one, "code"), " and ", Span(other, "code"))
            yield (*pair, " look alike: each finds the other, which says little of other images.")
        for name in self.known:
            yield (Span(name, "code"), " was enrolled before.")
        for name, count in marked.left.items():
            yield (f"{count} marks of ", Span(name, "code"), " were left out.")
        for drop in marked.dropped:
            more = ", ..." if drop.files > len(drop.examples) else ""
            examples = f"{', '.join(drop.examples)}{more}"
            yield f"Left out, {drop.reason}: {drop.files} files, {drop.instances} marks ({examples})."


def refusals(checks: Sequence[ImageCheck], limits: EnrollConfig) -> tuple[str, ...]:
    """List the reasons why a class may not join the prompts in production; none if it may.

    Args:
        checks: at least one, or none where nothing was checked.
    """
    marks = [mark for check in checks for mark in check.marks]
    found, confused = sum(mark.found for mark in marks), sum(mark.confused for mark in marks)
    why = []
    if marks and found / len(marks) < limits.found:
        why.append(
            f"only {_share(found, len(marks))} marks are found by prompts from the other images, "
            f"{limits.found:.0%} are needed"
        )
    if marks and confused / len(marks) > limits.confused:
        others = sorted({mark.other for mark in marks if mark.confused})
        why.append(
            f"on {_share(confused, len(marks))} marks a class already enrolled scores higher "
            f"({', '.join(others)}), {limits.confused:.0%} are allowed"
        )
    return tuple(why)


def write_report(report: EnrollReport) -> None:
    """Write `report.md`, `report.json` and a drawing for each image that was checked, and no other.

    Raises:
        DataError: the folder cannot be written; the message says whether the images were enrolled.
    """
    names = [
        f"{number:03d}-{re.sub(r'[^A-Za-z0-9._-]', '_', PurePosixPath(check.file_name).stem)}.png"
        for number, check in enumerate(report.checks, start=1)
    ]
    try:
        with replaced_folder(report.output / DRAWINGS) as folder:
            for check, name in zip(report.checks, names, strict=True):
                write_image(folder / name, _drawing(check, report))
        atomic_write_json(report.output / RECORD, report.as_dict())
        atomic_write_text(report.output / PAGE, report.markdown([f"{DRAWINGS}/{name}" for name in names]))
    except OSError as error:
        raise DataError(
            f"{report.output}: the report cannot be written ({error.strerror}); check permissions and space "
            f"({report.summary()})"
        ) from error


def _drawing(check: ImageCheck, report: EnrollReport) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = read_image(report.marked.root / check.file_name)
    own = [
        Region(mark.box_xyxy, None, f"found {mark.score:.2f}", class_colour(0))
        if mark.found
        else Region(mark.box_xyxy, None, "missed", WARNING_COLOUR)
        for mark in check.marks
    ]
    found = f"{check.found} of {len(check.marks)} marks found"
    counted = f"{len(check.detections)} of score {report.limits.score:g} or more"
    panels = [
        Panel(draw_regions(image, own), "marked", found),
        Panel(check.detections.plot(image), "detected", counted),
    ]
    return side_by_side(panels, f"{check.file_name}, looked at with prompts from the other images")


def _image_table(checks: Iterable[ImageCheck]) -> Table:
    rows = [
        (
            Span(check.file_name, "code"),
            f"{check.found} of {len(check.marks)}",
            ", ".join(f"{mark.score:.2f}" if mark.found else "missed" for mark in check.marks),
            ", ".join(f"{mark.other} {mark.other_score:.2f}" for mark in check.marks if mark.confused),
            str(len(check.detections)),
        )
        for check in checks
    ]
    heads = ("image", "found", "scores", "another class scores higher", "detections in all")
    return Table.of(heads, (), rows)


def _worth_table(worth: Iterable[Worth]) -> Table:
    rows = []
    for each in worth:
        shares = f"{each.found} of {each.marks}", f"{each.without} of {each.marks}"
        rows.append((Span(each.file_name, "code"), *shares, "hurts" if each.hurts else ""))
    return Table.of(("image", "found with its prompts", "without", ""), (), rows)


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})"
