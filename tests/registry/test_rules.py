"""The rules of promotion one by one, and how often equal and better models pass all of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from unispector.config import PromoteConfig
from unispector.evaluation.intervals import Interval
from unispector.evaluation.matching import Matches
from unispector.evaluation.paired import JudgedDraw, plain_figure, resampled_figures
from unispector.registry.comparison import MeasuredSet, ModelFigures, summarised
from unispector.registry.rules import (
    DECISION,
    Comparison,
    Decision,
    Pair,
    SeedComparison,
    SetComparison,
    compared_rules,
    data_rule,
    first_rules,
    working_rule,
)

LIMITS = PromoteConfig()


def make_set(name="tile", **changes):
    """A set on which the challenger is four points better and loses nothing."""
    figures = {
        "trained": (),
        "boxes": Pair(44.0, 40.0),
        "masks": Pair(30.0, 30.0),
        "interval": Interval(1.0, 7.0),
        "blurred": Pair(35.0, 35.0),
        "shifted": Pair(20.0, 20.0),
        "alarms": Pair(0.5, 0.5),
    }
    return SetComparison(name=name, classes=("crack",), **(figures | changes))


def decided(comparison, data=(), working="", champion=3, automatic=True, reached=39.0, untrained=34.0):
    rules = (data_rule(data), working_rule(working))
    if champion is not None:
        rules += compared_rules(comparison, LIMITS, 0.15)
    else:
        rules += first_rules(reached, untrained, LIMITS.first_ap)
    return Decision(
        4, champion, "f" * 64, "k" * 64, "2026-01-02T03:04:05+00:00", automatic, rules, comparison
    )


CLEAR = Interval(0.5, 6.0)


def comparison_of(*sets, interval=CLEAR, left_out=()):
    return Comparison(tuple(sets), interval, left_out)


GOOD = comparison_of(make_set(), make_set("steel", alarms=None))

CHANGES = {
    "gain": replace(GOOD, interval=Interval(0.0, 6.0)),
    # Two sets: the mean over them is what falls by 1.1, 2.1 and 0.06.
    "masks": comparison_of(make_set(masks=Pair(27.8, 30.0)), make_set("steel")),
    "every set": comparison_of(make_set(boxes=Pair(34.9, 40.0)), make_set("steel", boxes=Pair(60.0, 40.0))),
    "blurred prompts": comparison_of(make_set(blurred=Pair(30.8, 35.0)), make_set("steel")),
    "inexact boxes": comparison_of(make_set(shifted=Pair(15.8, 20.0)), make_set("steel")),
    "false alarms": comparison_of(make_set(alarms=Pair(0.62, 0.5)), make_set("steel")),
}


def test_a_challenger_that_meets_every_rule_becomes_champion():
    decision = decided(GOOD)
    assert decision.passed
    assert decision.promoted
    assert decision.broken == ()
    assert decision.summary == "Version 4 becomes champion in place of version 3: all 8 rules are met."


@pytest.mark.parametrize("name", CHANGES)
def test_each_rule_alone_turns_yes_to_no(name):
    decision = decided(CHANGES[name])
    assert [rule.name for rule in decision.broken] == [name]
    assert not decision.promoted
    verdict = f"Version 4 is refused and version 3 stays champion: 1 of 8 rules not met ({name})."
    assert decision.summary == verdict


def test_broken_data_or_a_broken_model_alone_turn_yes_to_no():
    assert [rule.name for rule in decided(GOOD, data=["tile: rule broken"]).broken] == ["data checks"]
    assert [rule.name for rule in decided(GOOD, working="m: damaged").broken] == ["working model"]


@pytest.mark.parametrize(
    ("name", "just"),
    [
        ("gain", replace(GOOD, interval=Interval(0.001, 6.0))),
        ("masks", comparison_of(make_set(masks=Pair(28.0, 30.0)), make_set("steel"))),
        ("every set", comparison_of(make_set(boxes=Pair(35.0, 40.0), masks=Pair(30.1, 30.0)))),
        ("every set", comparison_of(make_set(), make_set("a", masks=Pair(25.0, 30.0)), *[make_set()] * 3)),
        ("blurred prompts", comparison_of(make_set(blurred=Pair(31.0, 35.0)), make_set("steel"))),
        ("inexact boxes", comparison_of(make_set(shifted=Pair(16.0, 20.0)), make_set("steel"))),
        ("false alarms", comparison_of(make_set(alarms=Pair(0.6, 0.5)), make_set("steel"))),
        ("false alarms", comparison_of(make_set(alarms=None), make_set("steel", alarms=None))),
        ("false alarms", comparison_of(make_set(alarms=Pair(6.3, 6.0)))),
    ],
)
def test_what_lies_on_the_limit_is_within_it(name, just):
    (rule,) = (rule for rule in decided(just).rules if rule.name == name)
    assert rule.passed


def test_more_than_its_share_of_many_alarms_is_refused():
    assert [r.name for r in decided(comparison_of(make_set(alarms=Pair(6.31, 6.0)))).broken] == [
        "false alarms"
    ]


def test_a_set_may_lose_by_its_masks_alone():
    lost = comparison_of(make_set(masks=Pair(24.9, 30.0)), *[make_set(str(n)) for n in range(9)])
    (rule,) = decided(lost).broken
    assert (rule.name, rule.figure) == ("every set", "at worst -5.10 points (30.00 to 24.90): tile, masks")


def test_figures_that_were_not_taken_break_every_rule_that_needs_them():
    broken = decided(None, data=["tile: rule broken"]).broken
    assert [rule.name for rule in broken] == ["data checks", *CHANGES]
    assert {rule.figure for rule in broken[1:]} == {"not measured"}


def test_without_a_set_left_the_answer_is_no():
    decision = decided(comparison_of(interval=Interval(0.0, 0.0), left_out=("tile", "steel")))
    assert not decision.passed
    assert {rule.figure for rule in decision.broken} == {
        "no set has a class that neither model was trained on"
    }
    assert "steel: left out, all its classes were trained on" in decision.markdown()


def test_robustness_that_no_set_could_show_is_no_reason_to_promote():
    decision = decided(comparison_of(make_set(blurred=None, shifted=None)))
    assert [rule.name for rule in decision.broken] == ["blurred prompts", "inexact boxes"]


def test_the_first_champion_needs_data_in_order_to_work_and_to_be_worth_a_training():
    decision = decided(None, champion=None)
    assert decision.promoted
    assert decision.summary == (
        "Version 4 becomes champion: there is no champion to compare it with, and all 4 rules are met."
    )
    refused = decided(None, champion=None, working="m: damaged")
    assert refused.summary == (
        "Version 4 is refused and there is still no champion: 1 of 4 rules not met (working model)."
    )


@pytest.mark.parametrize(
    ("reached", "untrained", "broken"),
    [
        (34.0, 34.0, ["more than untrained"]),  # what no training would have reached too
        (34.01, 34.0, []),
        (LIMITS.first_ap, 10.0, []),
        (LIMITS.first_ap - 0.01, 10.0, ["first AP"]),
        (5.0, 34.0, ["more than untrained", "first AP"]),
        (39.0, None, ["more than untrained"]),
        (None, 34.0, ["more than untrained", "first AP"]),
    ],
)
def test_the_first_champion_beats_the_untrained_detector_and_a_floor(reached, untrained, broken):
    decision = decided(None, champion=None, reached=reached, untrained=untrained)
    assert [rule.name for rule in decision.broken] == broken
    if untrained is None:
        assert decision.broken[0].figure == "39.00, untrained not measured"


def test_where_a_person_has_the_last_word_a_challenger_that_passes_waits():
    decision = decided(GOOD, automatic=False)
    assert decision.passed
    assert not decision.promoted
    assert decision.summary == (
        "Version 4 may become champion, all 8 rules are met; it waits for `unispector registry approve 4`."
    )


def test_the_page_has_every_figure():
    lost = comparison_of(
        make_set(trained=("hole",), masks=Pair(27.8, 30.0)), make_set("steel"), left_out=("wood",)
    )
    lines = decided(lost).markdown().splitlines()
    assert lines[:3] == ["# Version 4 against version 3", "", decided(lost).summary]
    assert (
        "| masks | NO | -1.10 points (30.00 to 28.90) | mean AP50 of masks falls by at most 1 points |"
        in lines
    )
    assert (
        "| gain | yes | +4.00 points (40.00 to 44.00), interval +0.50 to +6.00 | the 99 % interval of the "
        "change of mean AP50 of boxes, on other images and with other trainings, lies above 0 |"
    ) in lines
    assert (
        "- masks: mean AP50 of masks falls by at most 1 points; it was: -1.10 points (30.00 to 28.90)"
    ) in lines
    assert (
        "| tile | +4.00 points (40.00 to 44.00) | +1.00 to +7.00 | -2.20 points (30.00 to 27.80) | "
        "+0.00 points (35.00 to 35.00) | +0.00 points (20.00 to 20.00) | +0.000 (0.500 to 0.500) |"
    ) in lines
    assert "- tile: crack; left out, trained on: hole" in lines
    assert "- wood: left out, all its classes were trained on" in lines


def test_the_page_has_every_pair_and_the_luck():
    pairs = SeedComparison(42, Pair(44.0, 40.0)), SeedComparison(82, Pair(41.5, 40.0))
    page = decided(replace(GOOD, seeds=pairs, luck=1.06)).markdown()
    assert "- seed 42: +4.00 points (40.00 to 44.00)\n- seed 82: +1.50 points (40.00 to 41.50)" in page
    assert "change their mean by 1.06 points" in page
    assert "The luck of training" not in decided(GOOD).markdown()


@pytest.mark.parametrize("comparison", [GOOD, None, comparison_of(left_out=("tile",))])
def test_a_decision_survives_json(comparison):
    decision = decided(comparison)
    content = json.loads(json.dumps(decision.as_dict()))
    assert DECISION.validate_json(json.dumps(content), strict=True) == decision
    assert (content["summary"], content["promoted"]) == (decision.summary, decision.promoted)


def test_a_decision_that_lost_a_part_is_not_read():
    whole = decided(GOOD).as_dict()
    for place, key in (
        (whole, "comparison"),
        (whole["comparison"], "left_out"),
        (whole["comparison"]["sets"][0], "alarms"),
    ):
        kept = place.pop(key)
        with pytest.raises(ValueError, match=key):
            DECISION.validate_json(json.dumps(whole), strict=True)
        place[key] = kept
    DECISION.validate_json(json.dumps(whole), strict=True)
    for name in ("seeds", "luck"):  # decisions from before several seeds were compared are still known
        whole["comparison"].pop(name)
    assert DECISION.validate_json(json.dumps(whole), strict=True) == decided(GOOD)


# Two trainings on the same images, as a random process: what an image shows and how hard it is is the same
# for both; what each finds is drawn anew, more alike on the draws of prompts of one model than between
# models. A training's luck makes its model better or worse on each set.

IMAGES = (57, 19, 38, 26, 30, 36, 44)  # targets of the sets of insa-mini
IN_DOMAIN = 4  # of these, another split seed has other unseen classes, hence other targets
GOOD_IMAGES = 50
LUCK = (
    0.25  # of a training on a set, as a logit: about as much as `promote.seed_spread` in the mean of the sets
)


def scene(rng, images):
    """Image and class of each instance, and how hard each image is."""
    image = np.repeat(np.arange(images), 1 + rng.poisson(0.8, images))
    return image, rng.integers(0, 2, len(image)), rng.normal(0, 1, images)


def found(rng, scenery, strength):
    """Boxes of a model that finds an instance with a chance of `strength` [I], as a logit."""
    image, labels, _ = scenery
    chance = 1 / (1 + np.exp(-strength))
    hit = np.flatnonzero(rng.random(len(image)) < chance[image])
    wrong = np.repeat(np.arange(len(strength)), rng.poisson(2.0, len(strength)))
    places = np.concatenate([image[hit], wrong])
    scores = np.concatenate([rng.normal(0.7, 1, len(hit)), rng.normal(0, 1, len(wrong))])
    order = np.lexsort((-scores, places))
    instance = np.concatenate([hit, np.full(len(wrong), -1)])[order]
    truth_score = np.full(len(image), -np.inf)
    truth_score[hit] = scores[: len(hit)]
    return Matches(
        images=np.arange(len(strength)),
        scores=scores[order],
        classes=np.concatenate([labels[hit], rng.integers(0, 2, len(wrong))])[order],
        image=places[order],
        instance=instance,
        ignored=np.zeros(len(order), dtype=bool),
        truth_image=image,
        truth_classes=labels,
        truth_ids=np.arange(len(image)) + 1,
        truth_score=truth_score,
        class_names=("crack", "hole"),
    )


def figures(rng, scenery, quality, names, resampling):
    """All a model reaches on one set; `quality` moves every chance of finding something.

    `names` are the scenery's images, `resampling` is what `resampled_figures` takes beside its draws.
    """
    own = scenery[2] + rng.normal(0, 0.7, len(scenery[2]))

    def draws(change, count=3):
        return [JudgedDraw(names, found(rng, scenery, quality + change + own)) for _ in range(count)]

    boxes = draws(0.0)
    return ModelFigures(
        boxes=plain_figure(boxes),
        masks=plain_figure(draws(-0.4)),
        resampled=resampled_figures(boxes, *resampling),
        blurred=plain_figure(draws(-0.5, 1)),
        shifted=plain_figure(draws(-1.0)),
        alarms=float(rng.poisson(0.3, GOOD_IMAGES).mean()),
    )


def contest(*args, limits=LIMITS, **kwargs):
    return summarised(played(*args, **kwargs), (), limits)


def played(seed, gain=0.0, resamples=500, luck=LUCK, seeds=1):
    """Both trainings on all sets, with models of `seeds` split seeds; the challenger is better by `gain`."""
    rng = np.random.default_rng(seed)
    measured = []
    for number, images in enumerate(IMAGES):
        same = scene(rng, images)
        sceneries = [scene(rng, images) if number < IN_DOMAIN else same for _ in range(seeds)]
        names = [
            tuple(f"{split if number < IN_DOMAIN else 0}-{n}" for n in range(images))
            for split in range(seeds)
        ]
        resampling = sorted({name for own in names for name in own}), resamples, number
        for split, (scenery, own) in enumerate(zip(sceneries, names, strict=True)):
            pair = [
                figures(rng, scenery, quality + rng.normal(0, luck), own, resampling)
                for quality in (gain, 0.0)
            ]
            measured.append(MeasuredSet(split, str(number), ("crack", "hole"), (), *pair))
    return measured


def test_of_fifty_equal_models_none_is_promoted():
    assert [seed for seed in range(50) if decided(contest(seed)).passed] == []


def test_a_planted_better_model_is_promoted_and_a_worse_one_refused():
    better = [decided(contest(seed, gain=1.6, luck=0.0)) for seed in range(5)]
    assert not {rule.name for decision in better for rule in decision.broken} & {"gain", "masks", "every set"}
    assert sum(decision.promoted for decision in better) >= 3  # alarms on 350 images rise by chance, too
    for seed in range(3):
        worse = decided(contest(seed, gain=-1.6, luck=0.0))
        assert {"gain", "masks", "every set"} <= {rule.name for rule in worse.broken}


def test_of_equal_trainings_as_many_pass_as_the_level_says_and_more_if_luck_is_left_out():
    """The interval must cover what another training changes: without its luck it is too narrow."""
    games = [played(seed, resamples=200, luck=0.5) for seed in range(60)]  # 3.5 points in the mean

    def passed(spread):
        limits = LIMITS.model_copy(update={"level": 0.8, "seed_spread": spread})
        return sum(summarised(game, (), limits).interval.low > 0 for game in games)

    fair, naive = passed(3.5), passed(0.0)
    assert fair <= 11  # 6 are expected of 60, give or take 2.3
    assert naive >= fair + 5


def test_several_seeds_average_their_luck_out():
    one, three = contest(3), contest(3, seeds=3)
    assert len(three.seeds) == 3
    assert one.luck == LIMITS.seed_spread
    changes = [pair.boxes.change for pair in three.seeds]
    assert three.luck == pytest.approx(max(LIMITS.seed_spread, np.std(changes, ddof=1)) / np.sqrt(3))
    assert three.mean(lambda s: s.boxes).change == pytest.approx(np.mean(changes))
    assert three.interval.high - three.interval.low < one.interval.high - one.interval.low
