"""What the doctor says: a table for the terminal, a page with charts and drawings, plain numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from unispector.errors import DataError
from unispector.ops.files import atomic_write_bytes, atomic_write_json, atomic_write_text
from unispector.project.columns import columns
from unispector.prompts.doctor import ClassDiagnosis, PromptDiagnosis
from unispector.prompts.tables import (
    DRAWINGS,
    advice_bullets,
    curve_chart,
    explanation,
    filled,
    gain_text,
    image_table,
    share_text,
    write_drawings,
)
from unispector.reporting.charts import png
from unispector.reporting.model import Charts, Figure, Report, Section, Span, Subheading, Text
from unispector.reporting.render import markdown

PAGE, RECORD = "doctor.md", "doctor.json"


def terminal_lines(diagnosis: PromptDiagnosis) -> Iterator[str]:
    """The diagnosis for a terminal: of each class a table, advice on images, advice on the class."""
    for one in diagnosis.classes:
        figures = one.figures
        found = sum(check.found for check in figures.checks)
        marks = sum(len(check.marks) for check in figures.checks)
        ap50 = "" if figures.ap50 is None else f", AP50 {figures.ap50:.1f}"
        yield f"{one.label}: {found} of {marks} marks are found by prompts from the other images{ap50}"
        heads = ("image", "found", "AP50 with, without", "alone", "shifted", "blurred", "cosine", "advice")
        rows: list[tuple[str, ...]] = [heads]
        for name, image in figures.images.items():
            rows.append(
                (
                    diagnosis.names.get(name, name),
                    f"{image.check.found} of {len(image.check.marks)}" if image.check else "",
                    gain_text(image.dropped),
                    *map(share_text, (image.alone, image.shifted, image.blurred)),
                    "" if image.cosine is None else f"{image.cosine:.2f}",
                    "; ".join(advice.text for advice in one.on_image(name)),
                )
            )
        yield from (f"  {line}" for line in columns(filled(rows)))
        if figures.curve:
            points = ", ".join(f"{p.images}: {p.mean:.0f} ± {p.deviation:.0f}" for p in figures.curve)
            yield f"  AP50 over the number of prompt images: {points}"
        if len(figures.images) > figures.weighed:
            yield f"  what single images are worth was tried on {figures.weighed} images, drawn at random"
        yield from (f"  -> {advice.text}" for advice in one.on_class)


def write_diagnosis(diagnosis: PromptDiagnosis, out: Path) -> None:
    """Write `doctor.md`, `doctor.json`, a chart of each class, and a drawing of each image to be mended.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn = _draw(diagnosis, out)
        for number, one in enumerate(diagnosis.classes, start=1):
            if one.figures.curve:
                atomic_write_bytes(out / f"curve-{number}.png", png(curve_chart(one.figures)))
        atomic_write_json(out / RECORD, diagnosis.as_dict())
        atomic_write_text(out / PAGE, markdown(doctor_report(diagnosis, drawn)))
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}); check permissions and space"
        ) from error


def doctor_report(diagnosis: PromptDiagnosis, drawn: Mapping[tuple[str, str], str]) -> Report:
    """The page.

    Args:
        drawn: (class, file name) -> drawing, relative to the page.
    """
    sections = [
        _section(
            _named(one, diagnosis.names),
            number,
            {
                diagnosis.names.get(name, name): file
                for (label, name), file in drawn.items()
                if label == one.label
            },
        )
        for number, one in enumerate(diagnosis.classes, start=1)
    ]
    facts = (("Model ", Span(diagnosis.model[:12], "code"), "."),)
    return Report(
        "The prompt doctor",
        "What each marked image is worth, and what to do.",
        facts,
        sections=tuple(sections),
    )


def _section(one: ClassDiagnosis, number: int, drawn: Mapping[str, str]) -> Section:
    figures = one.figures
    blocks = [
        Text(tuple(f"{advice.text}. " for advice in one.on_class)),
        advice_bullets(advice for advice in one.advice if advice.file_name),
        image_table(figures),
        *explanation(figures),
    ]
    if figures.curve:
        note = "Mean over random choices, each image looked at with others; band: one deviation."
        blocks.append(Charts({f"curve-{number}": curve_chart(figures)}, ".", note))
    if drawn:
        blocks.append(Subheading("Images to mend"))
        blocks += [Figure(file, name, (Span(name, "code"),)) for name, file in drawn.items()]
    ap50 = "" if figures.ap50 is None else f", AP50 {figures.ap50:.1f}"
    return Section(f"{one.label}{ap50}", tuple(blocks))


def _draw(diagnosis: PromptDiagnosis, out: Path) -> dict[tuple[str, str], str]:
    """Draw the images that have advice; (class, file name) -> file."""
    pairs = [
        (one, check)
        for one in diagnosis.classes
        for check in one.figures.checks
        if any(advice.kind != "fine" for advice in one.on_image(check.file_name))
    ]
    score = min((one.figures.score for one in diagnosis.classes), default=0)
    files = write_drawings(
        out / DRAWINGS, diagnosis.root, [check for _, check in pairs], diagnosis.names, score
    )
    return {
        (one.label, check.file_name): f"{DRAWINGS}/{file}"
        for (one, check), file in zip(pairs, files, strict=True)
    }


def _named(one: ClassDiagnosis, names: Mapping[str, str]) -> ClassDiagnosis:
    """The same with the names that people know."""
    images = {names.get(name, name): image for name, image in one.figures.images.items()}
    advice = (replace(a, file_name=names.get(a.file_name, a.file_name)) for a in one.advice)
    return ClassDiagnosis(replace(one.figures, images=images), tuple(advice))
