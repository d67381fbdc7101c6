"""Advice on made-up figures: nothing is advised that is not surer than its noise."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unispector.detections import Detections
from unispector.evaluation.intervals import Interval
from unispector.prompts.advice import LEAST_GAIN, advice_on, better_roi, expected, outliers
from unispector.prompts.figures import (
    ClassFigures,
    CurvePoint,
    Gain,
    ImageCheck,
    ImageFigures,
    MarkCheck,
    Share,
)

NOTHING = Detections(
    torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), (), ("hole",), (9, 9)
)
NO_GAIN = Gain(50.0, 40.0, Interval(-20.0, 0.0))


def image(score: float = 0.5, *, alone: int = 6, back: int = 1, **changes) -> ImageFigures:
    """One mark; found by the others with `score`, its prompts find `alone` of 8 marks."""
    mark = MarkCheck(1, (1, 2, 9, 9), score, changes.pop("other", ""), changes.pop("other_score", 0.0))
    mark = replace(mark, inner_score=changes.pop("inner_score", 0.0))
    check = ImageCheck("", (mark,), NOTHING)
    own = {"dropped": NO_GAIN, "alone": Share(alone, 8), "given_back": Share(back, 1), "cosine": 0.95}
    return ImageFigures(check=check, **{**own, **changes})


def figures(*images: ImageFigures, **changes) -> ClassFigures:
    named = {f"{number}.png": own for number, own in enumerate(images)}
    return replace(ClassFigures("hole", "box", named, 0.05, 50.0, (), None, len(named)), **changes)


def kinds(found: ClassFigures, name: str) -> list[str]:
    return [advice.kind for advice in advice_on(found) if advice.file_name == name]


GOOD = (image(),) * 5

finite = st.floats(-100, 100)
shares = st.integers(0, 8).map(lambda found: Share(found, 8))
gains = st.builds(
    lambda before, after, low, width: Gain(before, after, Interval(low, low + width)),
    st.floats(0, 100),
    st.floats(0, 100),
    finite,
    st.floats(0, 50),
)
images = st.builds(
    lambda score, other, inner, alone, back, cosine, dropped: replace(
        image(score, other="dent" * (other > 0), other_score=other, inner_score=inner),
        alone=alone,
        given_back=Share(back, 1),
        cosine=cosine,
        dropped=dropped,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.none() | shares,
    st.integers(0, 1),
    st.none() | st.floats(-1, 1),
    st.none() | gains,
)


@given(st.lists(images, min_size=1, max_size=8), st.none() | gains)
def test_nothing_is_dropped_or_changed_by_chance(own, other_roi):
    found = figures(*own, other_roi=other_roi)
    said = advice_on(found)
    for name, one in found.images.items():
        own_kinds = kinds(found, name)
        assert own_kinds
        assert ("fine" in own_kinds) == (len(own_kinds) == 1 and own_kinds[0] == "fine")
        if "drop" in own_kinds:
            assert one.dropped.interval.low > 0
            assert one.dropped.after - one.dropped.before >= LEAST_GAIN
            others = sorted(each.alone.found for each in found.images.values() if each.alone is not None)
            assert one.alone.found <= others[len(others) // 2] / 2
        if {"look", "more"} & set(own_kinds):
            assert one.check.found == 0
    boxes = [advice.text for advice in advice_on(replace(found, roi="mask")) if advice.kind == "marks"]
    if boxes:
        assert boxes[0].startswith("prompt with boxes: AP50")
        assert other_roi.interval.low > 0
        assert other_roi.after - other_roi.before >= LEAST_GAIN
    masks = any(advice.kind == "marks" for advice in said)
    assert masks == (better_roi(found) == "mask")
    if other_roi is not None and not masks:
        assert other_roi.interval.high < 0
        assert other_roi.before - other_roi.after >= LEAST_GAIN


def test_what_harms_is_dropped():
    harmful = image(alone=1, dropped=Gain(33.0, 41.0, Interval(0.5, 14.0)))
    (advice,) = [one for one in advice_on(figures(*GOOD, harmful)) if one.file_name == "5.png"]
    assert (advice.kind, advice.text) == ("drop", "drop it: without it AP50 41 in place of 33 elsewhere")
    unsure = replace(harmful, dropped=Gain(33.0, 41.0, Interval(0.0, 14.0)))
    small = replace(harmful, dropped=Gain(33.0, 34.0, Interval(0.5, 1.5)))
    useful = replace(harmful, alone=Share(6, 8))
    for other in (unsure, small, useful):
        assert kinds(figures(*GOOD, other), "5.png") == ["fine"]


def test_masks_prompt_where_there_are_any_and_boxes_are_not_surely_better():
    def said(gain: Gain | None) -> list[str]:
        return [one.text for one in advice_on(figures(*GOOD, other_roi=gain)) if one.kind == "marks"]

    assert said(None) == []  # the images have boxes only
    assert said(Gain(40.0, 50.0, Interval(1.0, 20.0))) == ["prompt with masks: AP50 50 in place of 40"]
    (line,) = said(Gain(40.0, 39.0, Interval(-9.0, 8.0)))
    assert line == "prompt with masks, which mostly find more: here AP50 39 in place of 40, within chance"
    assert said(Gain(50.0, 40.0, Interval(-20.0, -1.0))) == []


def test_a_missed_mark_is_wrong_or_rare():
    assert kinds(figures(*GOOD, image(0.04)), "5.png") == ["more"]
    assert kinds(figures(*GOOD, image(0.0, back=0)), "5.png") == ["look"]
    lost = (image(0.5, back=0),) * 3
    assert kinds(figures(*lost, *GOOD[:2], image(0.0, back=0)), "5.png") == ["more"]  # none is given back
    assert kinds(figures(*lost, *GOOD[:2], image(0.0, back=0, alone=2)), "5.png") == ["look"]
    assert kinds(figures(*GOOD, image(0.0, alone=3, cosine=0.2)), "5.png") == ["look"]
    assert kinds(figures(*GOOD, image(0.0, alone=3)), "5.png") == ["more"]
    assert kinds(figures(*GOOD, image(0.5, alone=0, back=0)), "5.png") == ["fine"]


def test_another_class_and_a_part_of_a_mark():
    confused = figures(*GOOD, image(0.2, other="dent", other_score=0.45))
    assert kinds(confused, "5.png") == ["confused"]
    assert "looks like dent (0.45, own 0.20)" in [a.text for a in advice_on(confused)][5]
    assert kinds(figures(*GOOD, image(0.3, other="dent", other_score=0.45)), "5.png") == ["fine"]
    assert kinds(figures(*GOOD, image(0.2, inner_score=0.4)), "5.png") == ["loose"]
    assert kinds(figures(*GOOD, image(0.5, inner_score=0.4)), "5.png") == ["fine"]
    assert kinds(figures(*GOOD, image(0.2, inner_score=0.25)), "5.png") == ["fine"]


def test_outliers_are_far_from_most():
    def of(*cosines: float | None) -> frozenset[str]:
        return outliers(figures(*(image(cosine=cosine) for cosine in cosines)))

    assert of(0.9, 0.92, 0.91, 0.93, 0.3) == {"4.png"}
    assert of(0.9, 0.91, 0.3) == frozenset()  # too few to tell
    assert of(0.99, 0.99, 0.99, 0.98) == frozenset()
    assert of(None, 0.9, 0.92, None) == frozenset()


@given(st.floats(10, 90), st.floats(0, 60), st.integers(1, 40))
def test_what_more_images_bring_is_read_from_the_curve(limit, slope, count):
    curve = [CurvePoint(n, limit - slope / n, 1.0) for n in (1, 2, 3, 5, 8)]
    truth = min(max(limit - slope / count, 0.0), 100.0)
    assert expected(curve, count) == pytest.approx(truth, abs=1e-6)
    falling = [CurvePoint(n, 50 + 10 / n, 1.0) for n in (1, 2, 5)]
    assert expected(falling, count) == pytest.approx(50 + 10 * (1 + 0.5 + 0.2) / 3)
    assert expected(curve[:1], count) is None


def test_enough_or_two_more():
    def said(*means: float, count: int = 7) -> str:
        curve = tuple(CurvePoint(n, mean, 1.0) for n, mean in zip((1, 2, 3, 5), means, strict=True))
        (advice,) = [one for one in advice_on(figures(*(image(),) * count, curve=curve)) if not one.file_name]
        return advice.text

    assert said(40.0, 44.0, 45.0, 45.2).startswith("enough: 2 of the 7 images reach AP50 44 of 45, two more")
    steep = said(0.0, 45.0, 60.0, 72.0)
    gain = 90 * (1 / 7 - 1 / 9)  # a - 60 / n, about
    assert math.isclose(float(steep.split("about ")[1].split()[0]), gain, abs_tol=1)
    assert "mark two more" in [a.text for a in advice_on(figures(image()))][-1]
    for count in (2, 3, 6):  # a flat curve of so few images proves nothing
        assert said(40.0, 44.0, 45.0, 45.2, count=count).startswith("mark two more, as different as")


def test_a_class_that_does_not_find_itself_is_not_judged_by_its_images():
    lost = figures(*(image(0.0),) * 7)
    assert [a.kind for a in advice_on(lost) if not a.file_name] == ["weak"]
