"""The report of an enrolment: what was checked, what was found on every image, what to mend."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from unispector.config import EnrollConfig
from unispector.errors import DataError
from unispector.ops.files import atomic_write_json, atomic_write_text
from unispector.prompts.advice import Advice
from unispector.prompts.doctor import ClassDiagnosis
from unispector.prompts.figures import ImageCheck
from unispector.prompts.folder import MarkedFolder
from unispector.prompts.tables import DRAWINGS, advice_bullets, explanation, image_table, write_drawings
from unispector.reporting.model import Block, Figure, Report, Section, Span, Table, Text, Words
from unispector.reporting.render import markdown

PAGE, RECORD = "report.md", "report.json"


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
    diagnosis: ClassDiagnosis | None = None  # None where nothing was checked
    limits: EnrollConfig = field(default_factory=EnrollConfig)
    model: str = ""  # fingerprint of the model that checked
    output: Path = Path()  # folder of the report; nothing is written where nothing was checked

    @property
    def checks(self) -> tuple[ImageCheck, ...]:
        """The checks of all images that were looked at."""
        return () if self.diagnosis is None else self.diagnosis.figures.checks

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
    def advice(self) -> tuple[Advice, ...]:
        """What to drop, to mend and to add; a class may pass in spite of some."""
        return () if self.diagnosis is None else self.diagnosis.advice

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
            "limits": self.limits.model_dump(),
            "marks": self.marks,
            "found": self.found,
            "confused": self.confused,
            "diagnosis": self.diagnosis.as_dict() if self.diagnosis else None,
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
        sections = [] if self.diagnosis is None else [*self._sections(self.diagnosis)]
        names = [check.file_name for check in self.checks]
        drawn = (Figure(file, name, "") for name, file in zip(names, pictures, strict=False))
        report = Report(
            title=("Enrolment of ", Span(self.label, "code")),
            lead=(Span(self.verdict, "strong"),),
            facts=tuple(self._remarks()),
            sections=(*sections, Section("", tuple(drawn))),
        )
        return markdown(report)

    def _sections(self, diagnosis: ClassDiagnosis) -> Iterator[Section]:
        yield Section("", self._figures())
        if any(advice.kind != "fine" for advice in diagnosis.advice):
            yield Section("What to do", (advice_bullets(diagnosis.advice),))
        figures = diagnosis.figures
        yield Section("Images", (image_table(figures), *explanation(figures)))

    def _figures(self) -> tuple[Block, ...]:
        limits = self.limits
        kind = "masks" if self.diagnosis is not None and self.diagnosis.figures.roi == "mask" else "boxes"
        found = f"marks found by the prompts of the other images, IoU 0.5 and score {limits.score:g} at least"
        confused = "marks on which a class already enrolled scores higher"
        rows = [
            (found, _share(self.found, self.marks), f"at least {limits.found:.0%}"),
            (confused, _share(self.confused, self.marks), f"at most {limits.confused:.0%}"),
        ]
        model, folder = (Span(digest[:12], "code") for digest in (self.model, self.marked.digest))
        origin = Text(
            ("Model ", model, ", folder SHA-256 ", folder, f"; {self._result}. Prompts are {kind}.")
        )
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
    root, score = report.marked.root, report.limits.score
    try:
        names = write_drawings(report.output / DRAWINGS, root, report.checks, {}, score)
        atomic_write_json(report.output / RECORD, report.as_dict())
        atomic_write_text(report.output / PAGE, report.markdown([f"{DRAWINGS}/{name}" for name in names]))
    except OSError as error:
        raise DataError(
            f"{report.output}: the report cannot be written ({error.strerror}); check permissions and space "
            f"({report.summary()})"
        ) from error


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})"
