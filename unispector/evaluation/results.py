"""All evaluations of a run of the pipeline: rows, their means and spreads, and the JSON they live in."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import TypeAdapter

from unispector.errors import DataError
from unispector.evaluation.alarms import AlarmFigures
from unispector.evaluation.coco_metrics import AveragePrecision, SetMetrics
from unispector.evaluation.intervals import Interval

Subset = Literal["unseen", "seen"]

MAIN_VARIANT, UNTRAINED = "unispector", "untrained"
VARIANTS = {
    MAIN_VARIANT: "UniSpector",
    "base": "Base",
    "sspe": "+ SSPE",
    "cpe": "+ SSPE + CPE",
    "dinov": "DINOv",
    "trex2": "T-Rex2",
    "maskdino": "MaskDINO",
    UNTRAINED: "Untrained",
}
"""Kinds of model in the order of the report, and how it calls them."""


def variant_name(variant: str) -> str:
    """Return the report's name of a kind of model."""
    return VARIANTS.get(variant, variant)


FIGURES = ("bbox.AP", "bbox.AP50", "bbox.AP75", "segm.AP", "segm.AP50", "segm.AP75")
"""Box and mask figures a summary has."""

SUBSETS: dict[Subset, str] = {"unseen": "unseen classes", "seen": "seen classes"}


@dataclass(frozen=True)
class EvaluationRow:
    """One model on one data set with one draw of prompts."""

    variant: str  # kind of model, see `VARIANTS`
    data_set: str
    subset: Subset  # `unseen` = classes (or, across domains, whole sets) that training never saw
    split_seed: int
    prompt_seed: int
    metrics: SetMetrics  # average precision in percent
    intervals: dict[str, Interval]  # confidence interval of some of `FIGURES`, by figure
    # False alarms on defect-free images, and recall at a fixed rate of them; None where the set has no such
    # images.
    alarms: AlarmFigures | None


ImageKind = Literal["sample", "false alarm", "miss"]


@dataclass(frozen=True)
class DrawnImage:
    """One image of the report."""

    file: str
    kind: ImageKind  # a `sample` drawn at random, or one of the worst failures
    data_set: str
    subset: Subset
    classes: tuple[str, ...]  # what the target shows, or the class that failed
    image: str
    note: str  # what to look at, one line; empty for a sample


@dataclass(frozen=True)
class ModelRecord:
    """A model that was evaluated."""

    variant: str  # kind of model, see `VARIANTS`
    split_seed: int
    fingerprint: str  # hex SHA-256 of weights and model configuration
    provenance: dict[str, str]  # what produced it (data hash, commit, training run ...)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (population) in percent over the rows it summarises."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Summary:
    """One variant on one set and subset, over split seeds and prompt seeds."""

    variant: str
    data_set: str
    subset: Subset
    split_seeds: tuple[int, ...]
    rows: int  # number of evaluations in it
    figures: dict[str, Spread]


@dataclass(frozen=True)
class EvaluationReport:
    """Everything an evaluation of all models found."""

    rows: tuple[EvaluationRow, ...]  # one per model, set, subset and prompt seed
    pictures: tuple[DrawnImage, ...]  # those drawn, of the main variant
    models: tuple[ModelRecord, ...]
    prompts_judged: bool  # prompt images were targets too, which the protocol does not allow

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `evaluation.json`.

        Raises:
            DataError: the file is absent or was not written by `evaluation_json`.
        """
        try:
            report = TypeAdapter(cls).validate_json(path.read_bytes(), strict=True, extra="forbid")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); run the stage evaluate") from error
        except ValueError as error:
            raise DataError(f"{path}: not a record of evaluations; run the evaluate stage again") from error
        if not report.rows:
            raise DataError(f"{path}: no evaluations in it; run the evaluate stage again")
        return report

    def evaluation_json(self) -> str:
        """Every row, image and model, as JSON text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def metrics_json(self) -> str:
        """Means and spreads as nested JSON for `dvc metrics`.

        `bbox` and `segm` at the top are the headline: the main variant on unseen classes, the
        unweighted mean over the data sets; then variant -> set (and `mean`) -> subset -> figures.
        """
        content: dict[str, Any] = {}
        for variant in self.variants:
            summaries = self.summaries(variant)
            by_set: dict[str, Any] = {}
            for summary in summaries:
                by_set.setdefault(summary.data_set, {})[summary.subset] = _figures(summary)
            by_set["mean"] = {s: figures for s in SUBSETS if (figures := _mean_figures(summaries, s))}
            content[variant] = by_set
        headline = content.get(MAIN_VARIANT, {}).get("mean", {}).get("unseen", {})
        return json.dumps({**headline, **content}, indent=1) + "\n"

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants that were evaluated, in the report's order."""
        present = dict.fromkeys(row.variant for row in self.rows)
        return tuple(sorted(present, key=lambda name: [*VARIANTS, name].index(name)))

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Data sets in the order of evaluation."""
        return tuple(dict.fromkeys(row.data_set for row in self.rows))

    def summaries(self, variant: str) -> tuple[Summary, ...]:
        """The variant's means and spreads, one per set and subset that were evaluated."""
        return tuple(
            _summary(group)
            for data_set in self.data_sets
            for subset in SUBSETS
            if (group := self.rows_of(variant, data_set, subset))
        )

    def rows_of(self, variant: str, data_set: str, subset: Subset) -> list[EvaluationRow]:
        """Evaluations of one variant on one part of a set, over all seeds."""
        wanted = (variant, data_set, subset)
        return [row for row in self.rows if (row.variant, row.data_set, row.subset) == wanted]

    def on_shared_seeds(self) -> Self:
        """Only the rows of the split seeds that every variant was evaluated on: a fair comparison."""
        seeds = [{row.split_seed for row in self.rows if row.variant == variant} for variant in self.variants]
        shared = set.intersection(*seeds)
        return replace(self, rows=tuple(row for row in self.rows if row.split_seed in shared))


def figure_of(metrics: SetMetrics, figure: str) -> float:
    """One of `FIGURES`, in percent."""
    kind, name = figure.split(".")
    return float(getattr(getattr(metrics, kind), name))


def mean_over_sets(summaries: Iterable[Summary], subset: Subset, figure: str) -> float | None:
    """Unweighted mean of one of `FIGURES` over the data sets that have the subset; None without any."""
    values = [summary.figures[figure].mean for summary in summaries if summary.subset == subset]
    return float(np.mean(values)) if values else None


def class_scores(rows: Iterable[EvaluationRow], figure: str) -> dict[tuple[str, Subset, str], float]:
    """Mean of one of `FIGURES` for each (set, subset, class) that has ground truth, in that order."""
    kind, name = figure.split(".")
    values: dict[tuple[str, Subset, str], list[float]] = {}
    for row in rows:
        judged: AveragePrecision = getattr(row.metrics, kind)
        for class_name, score in judged.per_class.items():
            if score is not None:
                key = (row.data_set, row.subset, class_name)
                values.setdefault(key, []).append(float(getattr(score, name)))
    order = {name: number for number, name in enumerate(SUBSETS)}
    sets = {key[0]: number for number, key in reversed(list(enumerate(values)))}
    ordered = sorted(values, key=lambda key: (sets[key[0]], order[key[1]], key[2]))
    return {key: float(np.mean(values[key])) for key in ordered}


def _summary(rows: Sequence[EvaluationRow]) -> Summary:
    figures = {}
    for figure in FIGURES:
        values = np.array([figure_of(row.metrics, figure) for row in rows])
        figures[figure] = Spread(float(values.mean()), float(values.std()))
    return Summary(
        variant=rows[0].variant,
        data_set=rows[0].data_set,
        subset=rows[0].subset,
        split_seeds=tuple(sorted({row.split_seed for row in rows})),
        rows=len(rows),
        figures=figures,
    )


def _nested(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`bbox.AP50` -> {"bbox": {"AP50": ...}}, rounded."""
    nested: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        kind, name = key.split(".")
        nested.setdefault(kind, {})[name] = round(value, 4)
    return nested


def _figures(summary: Summary) -> dict[str, dict[str, float]]:
    means = {figure: spread.mean for figure, spread in summary.figures.items()}
    return _nested(means | {f"{figure}_std": spread.deviation for figure, spread in summary.figures.items()})


def _mean_figures(summaries: Sequence[Summary], subset: Subset) -> dict[str, dict[str, float]]:
    means = {figure: mean_over_sets(summaries, subset, figure) for figure in FIGURES}
    return _nested({figure: value for figure, value in means.items() if value is not None})
