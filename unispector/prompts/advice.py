"""What the figures of marked images mean for the one who marked them; figures in, sentences out.

A difference counts only if it is larger than its noise: an image is called harmful, and a kind of marks
better, where the paired bootstrap over the images says so. Of many images one looks harmful by chance, so
the more are tried, the surer it has to be (`checks.DOUBT`), and its prompts must find little by themselves,
too. All limits were chosen on training classes (reports/doctor.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np

from unispector.config import Roi
from unispector.prompts.figures import ClassFigures, CurvePoint, Gain, ImageFigures

LEAST_GAIN = 2.0
"""Points of AP50 that a change must bring to be advised, and under which more images bring nothing."""

OUTLYING = 4.0
"""An image is an outlier if its cosine is this many times the median deviation below the median."""

FEWEST = 4
"""Images under which neither their worth nor outliers can be told."""

ENOUGH_FROM = 7
"""Images from which the curve may say "enough": it hardly tells of fewer, and AP50 rose up to seven."""

CONFUSED, LOOSE, WEAK, MOSTLY = 2.0, 0.3, 0.2, 0.7
"""Another class's score over the own, score of a part of a mark, shares of marks and images: limits."""

Kind = Literal["drop", "loose", "confused", "look", "more", "marks", "weak", "add", "enough", "fine"]


@dataclass(frozen=True)
class Advice:
    """What to do with an image, or with a class."""

    kind: Kind
    text: str  # a sentence for the one who marked the images
    file_name: str = ""  # empty: it concerns the class


def advice_on(figures: ClassFigures) -> tuple[Advice, ...]:
    """All advice: on each image in their order, its most urgent first, then on the class.

    An image has one `fine` where there is nothing else to say.
    """
    of_images = (one for name in figures.images for one in _on_image(name, figures))
    return (*of_images, *_on_strength(figures), *_on_marks(figures), *_on_number(figures))


def outliers(figures: ClassFigures) -> frozenset[str]:
    """Images whose marks look unlike the others'.

    The cosine of such an image lies more than `OUTLYING` median absolute deviations below the median of
    its class; of fewer than `FEWEST` images none is called so.
    """
    cosines = {name: image.cosine for name, image in figures.images.items() if image.cosine is not None}
    if len(cosines) < FEWEST:
        return frozenset()
    middle = median(cosines.values())
    deviation = median(abs(cosine - middle) for cosine in cosines.values())
    limit = middle - OUTLYING * max(deviation, 0.005)
    return frozenset(name for name, cosine in cosines.items() if cosine < limit)


def worthwhile(gain: Gain | None) -> bool:
    """Return whether AP50 rises by more than noise, and enough to act on."""
    return gain is not None and gain.sure and gain.after - gain.before >= LEAST_GAIN


def better_roi(figures: ClassFigures) -> Roi:
    """The kind of marks to prompt with.

    Masks, where the marks have them and boxes are not surely better: on training sets masks raised AP50 in
    three of four draws, by more than these few images can tell (reports/doctor.md).
    """
    gain = figures.other_roi
    if gain is None:
        return figures.roi
    if figures.roi == "mask":
        return "box" if worthwhile(gain) else "mask"
    surely_worse = gain.interval.high < 0 and gain.before - gain.after >= LEAST_GAIN
    return "box" if surely_worse else "mask"


def finds_little(image: ImageFigures, figures: ClassFigures) -> bool:
    """Return whether its prompts alone find at most half of what those of the median image find."""
    shares = [other.alone.percent for other in figures.images.values() if other.alone is not None]
    typical = median(shares) if shares else 0
    return image.alone is not None and typical > 0 and image.alone.percent <= typical / 2


def expected(curve: Sequence[CurvePoint], images: int) -> float | None:
    """AP50 in percent with so many prompt images, a - b / images fitted to the curve; None of one point."""
    if len(curve) < 2:
        return None
    counts = np.array([point.images for point in curve], dtype=np.float64)
    slope, limit = np.polyfit(1 / counts, [point.mean for point in curve], 1)
    return float(
        np.clip(limit + min(slope, 0) / images if slope < 0 else np.mean([p.mean for p in curve]), 0, 100)
    )


def given_back(image: ImageFigures) -> bool | None:
    """Return whether its own prompt finds a mark of it; None where it was not tried."""
    return None if image.given_back is None else image.given_back.found > 0


def _on_image(name: str, figures: ClassFigures) -> Iterator[Advice]:
    image = figures.images[name]
    said = list(_said(image, figures))
    if image.check is not None and not image.check.found and not said:
        said = [_missed(name, image, figures)]
    yield from (Advice(kind, text, name) for kind, text in said or [("fine", "fine")])


def _said(image: ImageFigures, figures: ClassFigures) -> Iterator[tuple[Kind, str]]:
    check, gain = image.check, image.dropped
    if gain is not None and worthwhile(gain) and finds_little(image, figures):
        yield "drop", f"drop it: without it AP50 {gain.after:.0f} in place of {gain.before:.0f} elsewhere"
    if check is None:
        return
    taken = [mark for mark in check.marks if mark.other_score > CONFUSED * mark.score]
    if 2 * len(taken) > len(check.marks):
        best = max(taken, key=lambda mark: mark.other_score)
        yield (
            "confused",
            f"looks like {best.other} ({best.other_score:.2f}, own {best.score:.2f}): is it one?",
        )
    for mark in check.marks:
        if mark.inner_score >= LOOSE and mark.inner_score > mark.score:
            place = f"{mark.box_xyxy[0]:.0f},{mark.box_xyxy[1]:.0f}"
            yield "loose", f"mark tighter: less than half of the mark at {place} is found in its place"


def _missed(name: str, image: ImageFigures, figures: ClassFigures) -> tuple[Kind, str]:
    """None of its marks is found by the others: either the mark is wrong, or the others lack its kind."""
    lost, little = given_back(image) is False, finds_little(image, figures)
    known = [given_back(other) for other in figures.images.values()]
    if lost and known.count(True) >= MOSTLY * len(known):
        return "look", f"look at the mark: neither the others nor its own prompt find it; {_ELSE}"
    if little and (lost or name in outliers(figures)):
        return "look", f"look at the mark: the others do not find it and it finds little on them; {_ELSE}"
    return "more", "mark two more like it: none of the others finds it"


_ELSE = "if it is right, mark two more like it"


def _on_marks(figures: ClassFigures) -> Iterator[Advice]:
    gain, better = figures.other_roi, better_roi(figures)
    if gain is None or better == figures.roi:
        return
    here = f"AP50 {gain.after:.0f} in place of {gain.before:.0f}"
    if better == "box":
        yield Advice("marks", f"prompt with boxes: {here}")
    elif worthwhile(gain):
        yield Advice("marks", f"prompt with masks: {here}")
    else:
        yield Advice("marks", f"prompt with masks, which mostly find more: here {here}, within chance")


def _on_strength(figures: ClassFigures) -> Iterator[Advice]:
    found = sum(check.found for check in figures.checks)
    marks = sum(len(check.marks) for check in figures.checks)
    if marks and found < WEAK * marks:
        yield Advice(
            "weak",
            f"the images hardly find one another ({found} of {marks} marks), so single ones cannot be "
            "judged: mark more of one kind, or take a larger model",
        )


def _on_number(figures: ClassFigures) -> Iterator[Advice]:
    count = len(figures.images)
    if count == 1:
        yield Advice("add", "one image only, so nothing can be left out: mark two more")
        return
    now, later = (expected(figures.curve, images) for images in (count, count + 2))
    if now is not None and later is not None and later - now >= LEAST_GAIN:
        yield Advice("add", f"mark more: two more images bring about {later - now:.0f} points of AP50")
        return
    if count < ENOUGH_FROM:
        few = f"{count} images say little of one another, and up to {ENOUGH_FROM} often help"
        yield Advice("add", f"mark two more, as different as the defect gets: {few}")
        return
    if now is None or later is None:
        return
    best = figures.curve[-1].mean
    enough = next(point for point in figures.curve if point.mean >= best - LEAST_GAIN)
    yield Advice(
        "enough",
        f"enough: {enough.images} of the {count} images reach AP50 {enough.mean:.0f} of {best:.0f}, two more "
        f"bring {max(later - now, 0):.1f}",
    )
