"""Tables and drawings of checked images, shared by the reports of the doctor and of an enrolment."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unispector.ops.drawing import (
    WARNING_COLOUR,
    Image,
    Panel,
    Region,
    class_colour,
    draw_regions,
    side_by_side,
    write_image,
)
from unispector.ops.files import read_image, replaced_folder
from unispector.prompts.advice import Advice, outliers
from unispector.prompts.checks import BLUR, BOX_IOU, WEIGHED
from unispector.prompts.figures import ClassFigures, Gain, ImageCheck, Share
from unispector.reporting.charts import Line, LineChart
from unispector.reporting.model import Block, Bullets, Span, Table, Text, Words

DRAWINGS = "pictures"


def image_table(figures: ClassFigures) -> Table:
    """Of each image, how its marks were found and what its prompts are worth."""
    far = outliers(figures)
    rows = []
    for name, image in figures.images.items():
        check = image.check
        marks = check.marks if check else ()
        rows.append(
            (
                Span(name, "code"),
                f"{check.found} of {len(marks)}" if check else None,
                ", ".join(
                    f"{mark.score:.2f}" if mark.found else f"missed ({mark.score:.2f})" for mark in marks
                ),
                gain_text(image.dropped),
                *(
                    share_text(share)
                    for share in (image.alone, image.shifted, image.blurred, image.given_back)
                ),
                _cosine_text(image.cosine, name in far),
                ", ".join(f"{mark.other} {mark.other_score:.2f}" for mark in marks if mark.confused),
                len(check.detections) if check else None,
            )
        )
    heads = (
        "image",
        "found by the others",
        "scores",
        "AP50 of the others with it, without",
        "finds alone",
        "boxes shifted",
        "blurred",
        "its own marks",
        "cosine",
        "another class scores higher",
        "detections",
    )
    heads, *rows = filled([heads, *rows])
    return Table.of(heads, (), rows)


def filled(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows without the columns that are empty under their head, the first row."""
    kept = [
        number for number in range(len(rows[0])) if any(row[number] not in ("", None) for row in rows[1:])
    ]
    return [tuple(row[number] for number in kept) for row in rows]


def explanation(figures: ClassFigures) -> tuple[Block, ...]:
    """How the table is to be read."""
    lines = [
        f"Found: a detection at IoU 0.5 with a score of at least {figures.score:g}, from which on "
        "detect draws it.",
        "AP50 with it, without: of all other images, each looked at with the others' prompts; in brackets "
        "the interval of the difference, a paired bootstrap over the images, the wider the more are tried.",
        f"Alone: marks of other images that are found with this one's prompts only; the same with its boxes "
        f"shifted and scaled to an IoU of {BOX_IOU:g}, and with it blurred (sigma {BLUR:g}).",
        "Cosine: of its embedding with the mean of the others'; an outlier lies four median deviations below "
        "the median of the class.",
    ]
    if len(figures.images) > figures.weighed:
        lines.append(
            f"What single images are worth was tried on {WEIGHED} of the {len(figures.images)} images, drawn "
            "at random."
        )
    return tuple(Text(line, muted=True) for line in lines)


def advice_bullets(advice: Iterable[Advice]) -> Bullets:
    """What to do, a line each; images that are fine are left out."""
    return Bullets(tuple(_advice_words(one) for one in advice if one.kind != "fine"))


def curve_chart(figures: ClassFigures) -> LineChart:
    """AP50 over the number of prompt images."""
    columns = zip(*((p.images, p.mean, p.deviation) for p in figures.curve), strict=True)
    counts, means, deviations = (tuple(map(float, column)) for column in columns)
    line = Line(figures.label, counts, means, deviations)
    return LineChart(f"{figures.label}: AP50 to expect", "prompt images", counts[-1], (line,))


def gain_text(gain: Gain | None) -> str:
    """`33.1, 41.0 (+1.2 to +14.0)`; empty for None."""
    if gain is None:
        return ""
    interval = f"{gain.interval.low:+.1f} to {gain.interval.high:+.1f}"
    return f"{gain.before:.1f}, {gain.after:.1f} ({interval})"


def share_text(share: Share | None) -> str:
    """`3 of 8`; empty for None."""
    return "" if share is None else f"{share.found} of {share.marks}"


def write_drawings(
    folder: Path, root: Path, checks: Sequence[ImageCheck], names: Mapping[str, str], score: float
) -> list[str]:
    """Draw each checked image, its marks beside what was found; replaces what was in the folder.

    Args:
        names: file name -> what it is called; itself where it is not among them.
        score: of the lowest detection that is drawn.

    Returns:
        The files' names in `folder`.
    """
    files = []
    with replaced_folder(folder) as new:
        for number, check in enumerate(checks, start=1):
            called = names.get(check.file_name, check.file_name)
            stem = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(called).stem)
            files.append(f"{number:03d}-{stem}.png")
            write_image(new / files[-1], _drawing(read_image(root / check.file_name), check, called, score))
    return files


def _drawing(image: Image, check: ImageCheck, called: str, score: float) -> Image:
    own = [
        Region(mark.box_xyxy, None, f"found {mark.score:.2f}", class_colour(0))
        if mark.found
        else Region(mark.box_xyxy, None, "missed", WARNING_COLOUR)
        for mark in check.marks
    ]
    found = f"{check.found} of {len(check.marks)} marks found"
    counted = f"{len(check.detections)} of score {score:g} or more"
    panels = [
        Panel(draw_regions(image, own), "marked", found),
        Panel(check.detections.plot(image), "detected", counted),
    ]
    return side_by_side(panels, f"{called}, looked at with prompts from the other images")


def _cosine_text(cosine: float | None, far: bool) -> str:
    return "" if cosine is None else f"{cosine:.2f}{', outlier' if far else ''}"


def _advice_words(advice: Advice) -> Words:
    return (Span(advice.file_name, "code"), f": {advice.text}") if advice.file_name else (advice.text,)
