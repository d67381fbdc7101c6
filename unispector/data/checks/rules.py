"""The rules of `expectations` in words: what must hold in each column of `set_tables` and `split_tables`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

EDGES = ("left", "top", "right", "bottom")
HASH = "^[0-9a-f]{64}$"
MOST_COVERED = 0.95
"""Share of an image that masks may cover unasked; more is often a mask turned inside out."""


@dataclass(frozen=True)
class Rule:
    """One rule."""

    table: str  # the table it is about
    text: str  # the rule in words
    expectation: str  # its class in Great Expectations
    columns: Mapping[str, str]  # argument of the class -> column of the table
    arguments: Mapping[str, Any]  # the other arguments
    asks: bool = False  # what breaks it may be right all the same: it is told, and the set passes


@dataclass(frozen=True)
class LeftOut:
    """A rule that was not tried, and why."""

    rule: str
    reason: str


def set_rules(
    images: int, instances: int, min_side: float, categories: bool
) -> tuple[list[Rule], list[LeftOut]]:
    """The rules of one annotation file and its survey to try, and those left out.

    A `min_side` of 0 allows boxes of any size; `categories`: the release has a list of its categories.
    """
    listed = _always("category", "category is on the release's list", "listed", 1)
    sizes = [
        _between("instance", f"box {side} is at least {min_side:g} of its image's", f"{side}_share", min_side)
        for side in ("width", "height")
    ]
    rules = [*_image_rules(images), *_instance_rules(instances)]
    left_out = []
    if min_side:
        rules += sizes
    else:
        reason = "min_side is 0: instances of any size are kept"
        left_out.append(LeftOut("box is no smaller than the size rule allows", reason))
    if categories:
        rules.append(listed)
    else:
        left_out.append(LeftOut(listed.text, "the release has no list of categories"))
    return rules, left_out


def split_rules(
    naive: bool, official: bool, scored_on_prompts: bool, all_train: bool
) -> tuple[list[Rule], list[LeftOut]]:
    """The rules of the split files to try, and those left out; arguments as of `expectations.check_splits`.

    `all_train`: no set holds out a class.
    """
    train = "the training rule is naive: images that show unseen classes train without those instances"
    same = "the files are scored on the prompt images themselves"
    reasons: dict[str, str] = {}
    if naive:
        reasons |= {NO_UNSEEN_SHOWN.text: train, NO_UNSEEN_TEST_TRAINS.text: train}
    if official:
        reasons |= {ALL_IMAGES_TEST.text: "the official files choose their targets"}
    if scored_on_prompts:
        reasons |= {NOT_PROMPT_AND_TARGET.text: same}
    if all_train:
        reasons |= {NOT_SEEN_AND_UNSEEN.text: "all classes of all sets train"}
    rules = [rule for rule in SPLIT_RULES if rule.text not in reasons]
    return rules, [LeftOut(text, reason) for text, reason in reasons.items()]


def _between(table: str, text: str, column: str, low: float, high: float | None = None) -> Rule:
    arguments = {"min_value": low, "max_value": high}
    return Rule(table, text, "ExpectColumnValuesToBeBetween", {"column": column}, arguments)


def _positive(table: str, text: str, column: str) -> Rule:
    arguments = {"min_value": 0, "strict_min": True}
    return Rule(table, text, "ExpectColumnValuesToBeBetween", {"column": column}, arguments)


def _always(table: str, text: str, column: str, value: object) -> Rule:
    return Rule(table, text, "ExpectColumnValuesToBeInSet", {"column": column}, {"value_set": [value]})


def _matches(table: str, text: str, column: str, regex: str) -> Rule:
    return Rule(table, text, "ExpectColumnValuesToMatchRegex", {"column": column}, {"regex": regex})


def _unique(table: str, text: str, column: str) -> Rule:
    return Rule(table, text, "ExpectColumnValuesToBeUnique", {"column": column}, {})


def _equal(table: str, text: str, first: str, second: str) -> Rule:
    columns = {"column_A": first, "column_B": second}
    return Rule(table, text, "ExpectColumnPairValuesToBeEqual", columns, {})


def _at_most(table: str, text: str, small: str, large: str) -> Rule:
    columns = {"column_A": large, "column_B": small}
    return Rule(table, text, "ExpectColumnPairValuesAToBeGreaterThanB", columns, {"or_equal": True})


def _image_rules(count: int) -> list[Rule]:
    covered = f"masks cover at most {MOST_COVERED:.0%} of their image (are they inverted?)"
    return [
        _between("image", f"image ids run from 1 to {count}", "id", 1, count),
        _unique("image", "image ids are unique", "id"),
        _unique("image", "no image is listed twice", "file"),
        _always("image", "image was surveyed once", "surveys", 1),
        _always("survey", "surveyed image is an image of the set", "listed", 1),
        _always("image", "image and masks decode", "problem", ""),
        _equal("image", "image has its stated width", "width", "file_width"),
        _equal("image", "image has its stated height", "height", "file_height"),
        _matches("image", "image has a hash of 64 hex digits", "dhash", HASH),
        _positive("image", "image has an instance", "instances"),
        _always("image", "masks equal the release's, pixel by pixel", "mask_difference", 0),
        replace(_between("image", covered, "mask_share", 0, MOST_COVERED), asks=True),
    ]


def _instance_rules(count: int) -> list[Rule]:
    return [
        _between("instance", f"annotation ids run from 1 to {count}", "id", 1, count),
        _unique("instance", "annotation ids are unique", "id"),
        _between("instance", "box starts right of its image's left edge", "left", 0),
        _between("instance", "box starts below its image's top edge", "top", 0),
        _at_most("instance", "box ends left of its image's right edge", "right", "image_width"),
        _at_most("instance", "box ends above its image's bottom edge", "bottom", "image_height"),
        _positive("instance", "area is positive", "area"),
        _always("instance", "mask decodes and marks a pixel", "problem", ""),
        _equal("instance", "area is the mask's", "area", "mask_area"),
        *(_equal("instance", f"box's {edge} edge is the mask's", edge, f"mask_{edge}") for edge in EDGES),
    ]


NO_UNSEEN_SHOWN = _always("training", "training image shows no unseen class", "unseen_classes", 0)
NOT_PROMPT_AND_TARGET = _always("test", "no image is both prompt and target", "in_other", 0)
NO_UNSEEN_TEST_TRAINS = _always("test", "test image of unseen classes does not train", "unseen_trains", 0)
NOT_SEEN_AND_UNSEEN = _always("unseen", "no class is both seen and unseen", "trained", 0)
ALL_IMAGES_TEST = _always("class", "all images of an unseen class are prompts or targets", "unused_images", 0)
SPLIT_RULES = (
    _always("training", "training image is an image of its set", "known", 1),
    NO_UNSEEN_SHOWN,
    _always("training", "training image keeps its instances, class and box", "wrong_instances", 0),
    _unique("training", "no training image is listed twice", "file"),
    _always("test", "test image is an image of its set", "known", 1),
    _always("test", "prompt image shows one class only", "prompt_classes", 1),
    NOT_PROMPT_AND_TARGET,
    NO_UNSEEN_TEST_TRAINS,
    _always("test", "test image of seen classes or of a cross-domain set does not train", "trains", 0),
    _positive("test", "test image shows a prompted class", "prompted_classes"),
    _always(
        "test", "test image keeps its instances of the prompted classes, class and box", "wrong_instances", 0
    ),
    NOT_SEEN_AND_UNSEEN,
    _positive("class", "class has a prompt image", "prompt_images"),
    _positive("class", "class has a target image", "target_images"),
    ALL_IMAGES_TEST,
)
