"""Figures of a report's rows with spread and interval: of one set, and as the mean over sets."""

from collections.abc import Iterable, Sequence
from math import hypot

import numpy as np

from unispector.evaluation.intervals import Interval
from unispector.evaluation.results import EvaluationReport, EvaluationRow, Subset, figure_of
from unispector.reporting.model import Measured


def measured(rows: Sequence[EvaluationRow], figure: str) -> Measured | None:
    """One of `FIGURES` over evaluations of one model kind and set; None without any.

    The interval's ends are the means of the evaluations' own, which is wide rather than narrow, as the
    evaluations do not depend on each other entirely; None where one of them has no interval.
    """
    spread = spread_of(figure_of(row.metrics, figure) for row in rows)
    intervals = [row.intervals[figure] for row in rows if figure in row.intervals]
    if spread is None or len(intervals) < len(rows):
        return spread
    low, high = np.mean([(interval.low, interval.high) for interval in intervals], axis=0)
    return Measured(spread.mean, spread.deviation, Interval(float(low), float(high)))


def spread_of(numbers: Iterable[float | None]) -> Measured | None:
    """Mean and spread of the numbers there are; None without any."""
    values = [number for number in numbers if number is not None]
    if not values:
        return None
    return Measured(float(np.mean(values)), float(np.std(values)) if len(values) > 1 else None)


def mean_over_sets(figures: Iterable[Measured | None]) -> Measured | None:
    """Unweighted mean of the sets that have the figure; None where none has.

    The sets' images are drawn apart, so the distances from the means to the ends of their intervals add
    up as squares (Zou and Donner 2008, MOVER); no interval where a set has none.
    """
    present = [figure for figure in figures if figure is not None]
    if not present:
        return None
    mean = float(np.mean([figure.mean for figure in present]))
    ends = [(figure.mean, figure.interval) for figure in present if figure.interval is not None]
    if len(ends) < len(present):
        return Measured(mean)
    below = hypot(*(max(0.0, value - interval.low) for value, interval in ends)) / len(ends)
    above = hypot(*(max(0.0, interval.high - value) for value, interval in ends)) / len(ends)
    return Measured(mean, None, Interval(max(0.0, mean - below), min(100.0, mean + above)))


def mean_of_report(report: EvaluationReport, variant: str, subset: Subset, figure: str) -> Measured | None:
    """A variant's figure as the mean over the report's sets."""
    return mean_over_sets(
        measured(report.rows_of(variant, data_set, subset), figure) for data_set in report.data_sets
    )
