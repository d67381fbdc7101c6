"""The paired bootstrap against a plain loop that repeats images, one model, draw and resample at a time."""

import numpy as np
import pytest

from made_up_evaluation import make_matches
from unispector.evaluation.intervals import Interval
from unispector.evaluation.paired import JudgedDraw, paired_interval, plain_figure, resampled_figures

CLASSES = 2
LEVEL = 0.9


def random_truth(rng, files):
    """file -> class of each instance."""
    return {name: rng.integers(0, CLASSES, rng.integers(1, 4)).tolist() for name in files}


def random_images(rng, truth, scores):
    """file -> (class of each instance, [(score, class, instance found or -1)]); no two scores are equal."""
    images = {}
    for name, labels in truth.items():
        found = [(next(scores), label, n) for n, label in enumerate(labels) if rng.random() < 0.6]
        found += [(next(scores), int(rng.integers(0, CLASSES)), -1) for _ in range(rng.integers(0, 3))]
        images[name] = labels, sorted(found, reverse=True)
    return images


def judged(images):
    """The images as the evaluation keeps them."""
    start, rows, truth = 0, [], []
    for place, (labels, found) in enumerate(images.values()):
        rows += [(score, label, place, -1 if n < 0 else start + n, False) for score, label, n in found]
        truth += [(label, place) for label in labels]
        start += len(labels)
    score_of = {row[3]: row[0] for row in rows if row[3] >= 0}
    known = [(score_of.get(n, -np.inf), *one) for n, one in enumerate(truth)]
    matches = make_matches(rows, known, np.arange(len(images)) + 7, ("crack", "hole"))
    return JudgedDraw(tuple(images), matches)


def slow_ap50(images, times):
    """AP50 where each image occurs `times` as often; None where there is no instance."""
    figures = []
    for label in range(CLASSES):
        instances = sum(times[name] * labels.count(label) for name, (labels, _) in images.items())
        if not instances:
            continue
        ranked = sorted(
            (-score, found >= 0, times[name])
            for name, (_, rows) in images.items()
            for score, own, found in rows
            if own == label
        )
        curve, right, shown = [], 0, 0
        for _, hit, copies in ranked:
            shown += copies
            right += copies * hit
            if hit and copies:
                curve.append((right / instances, right / shown))
        points = [max((p for r, p in curve if r >= k * 0.01), default=0) for k in range(101)]
        figures.append(100 * sum(points) / 101)
    return sum(figures) / len(figures) if figures else None


def figures_of(draws, resamples, seed):
    """On other images of those that the draws have."""
    files = [name for draw in draws for name in draw]
    return resampled_figures([judged(draw) for draw in draws], files, resamples, seed)


def mean_of_known(figures):
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None


@pytest.fixture
def sets():
    """Two sets of three draws each, found by two models; draws share some images only."""
    rng = np.random.default_rng(4)
    scores = iter(rng.permutation(np.arange(20_000)) / 20_000)
    made = []
    for number, size in enumerate((7, 4)):
        files = [f"{number}-{n}.png" for n in range(size)]
        truths = [random_truth(rng, rng.permutation(files)[: size - d].tolist()) for d in range(3)]
        made.append([[random_images(rng, truth, scores) for truth in truths] for _ in range(2)])
    return made


def test_figures_on_other_images_are_those_of_repeated_images(sets):
    for seed, (draws, _) in enumerate(sets):
        files = sorted({name for draw in draws for name in draw})
        weights = np.random.default_rng(seed).multinomial(len(files), [1 / len(files)] * len(files), size=60)
        figures = figures_of(draws, 60, seed)
        for row, figure in zip(weights, figures, strict=True):
            times = dict(zip(files, row.tolist(), strict=True))
            assert figure == pytest.approx(mean_of_known([slow_ap50(draw, times) for draw in draws]))
        once = dict.fromkeys(files, 1)
        plain = plain_figure([judged(draw) for draw in draws])
        assert plain == pytest.approx(np.mean([slow_ap50(draw, once) for draw in draws]))


def test_the_interval_is_the_quantiles_of_a_loop_over_the_same_images_for_both_models(sets):
    differences = []
    weights = [
        np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=200) for seed, n in enumerate((7, 4))
    ]
    for row in range(200):
        of_sets = []
        for number, models in enumerate(sets):
            files = sorted({name for draw in models[0] for name in draw})
            times = dict(zip(files, weights[number][row].tolist(), strict=True))
            new, old = (mean_of_known([slow_ap50(draw, times) for draw in model]) for model in models)
            of_sets.append(new - old)
        differences.append(sum(of_sets) / len(of_sets))
    resampled = [[figures_of(models[who], 200, seed) for seed, models in enumerate(sets)] for who in (0, 1)]
    interval = paired_interval(*resampled, LEVEL)
    low, high = np.percentile(differences, [5, 95])
    assert low < high
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_the_same_images_for_both_make_the_interval_narrower_than_each_models_own(sets):
    """Images that are hard for both models cancel out; drawn apart they would not."""
    draws = sets[0][0]
    weaker = [
        {name: (labels, [(s, c, n) for s, c, n in found if s < 0.98]) for name, (labels, found) in d.items()}
        for d in draws
    ]
    new = figures_of(draws, 500, 1)
    old = figures_of(weaker, 500, 1)
    apart = figures_of(weaker, 500, 2)
    together, loose = paired_interval([new], [old], LEVEL), paired_interval([new], [apart], LEVEL)
    assert together.high - together.low < (loose.high - loose.low) / 2


def test_a_model_against_itself_differs_by_nothing(sets):
    figures = [figures_of(sets[0][0], 100, 3)]
    assert paired_interval(figures, figures, LEVEL) == Interval(0, 0)


def test_the_images_of_other_draws_are_drawn_too(sets):
    """Models of several trainings are judged on the same resampled images, whichever of them each sees."""
    first, *others = sets[0][0]
    files = [name for draw in (first, *others) for name in draw]
    weights = np.random.default_rng(5).multinomial(7, [1 / 7] * 7, size=40)
    place = {name: number for number, name in enumerate(sorted(set(files)))}
    figures = resampled_figures([judged(first)], files, 40, 5)
    for row, figure in zip(weights, figures, strict=True):
        assert figure == pytest.approx(slow_ap50(first, {name: int(row[place[name]]) for name in first}))


def test_luck_widens_the_interval_as_much_as_a_normal_draw_would(sets):
    new, old = ([figures_of(models[who], 4000, 1) for models in sets] for who in (0, 1))
    plain, lucky = (paired_interval(new, old, LEVEL, luck) for luck in (0.0, 20.0))
    of_images = np.std(np.mean(np.stack(new) - np.stack(old), axis=0))
    half = 1.645 * np.hypot(of_images, 20.0)  # the 90 % interval of a normal distribution
    assert (lucky.high - lucky.low) / 2 == pytest.approx(half, rel=0.07)
    assert (lucky.high + lucky.low) / 2 == pytest.approx((plain.high + plain.low) / 2, abs=2.0)
    zero = [np.zeros(4000)]
    alone = paired_interval(zero, zero, 0.99, 1.5)
    assert (alone.low, alone.high) == pytest.approx((-2.576 * 1.5, 2.576 * 1.5), abs=0.4)


def test_resamples_without_an_instance_are_left_out():
    nan = np.nan
    new = [np.array([10.0, 20.0, nan, 40.0]), np.array([nan, 20.0, 30.0, 40.0])]
    old = [np.array([0.0, 10.0, nan, 20.0]), np.array([nan, 20.0, 30.0, 40.0])]
    assert paired_interval(new, old, 0.5) == Interval(*np.quantile([5.0, 10.0], [0.25, 0.75]))
    # A draw none of whose images were drawn leaves the set's figure to the other draws.
    hit, miss = {"a.png": ([0], [(0.5, 0, 0)])}, {"b.png": ([0], [])}
    figures = figures_of([hit, miss], 50, 0)
    assert set(figures.tolist()) == {0.0, 50.0, 100.0}


def test_without_sets_or_instances_there_is_no_interval():
    with pytest.raises(ValueError, match="at least one set"):
        paired_interval([], [], LEVEL)
    with pytest.raises(ValueError, match="draw more"):
        paired_interval([np.array([np.nan])], [np.array([np.nan])], LEVEL)
