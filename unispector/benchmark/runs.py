"""Evaluations in MLflow: one run for all models that were judged together, one nested in it per model.

A figure is named `<subset>/<set>/<figure>`, such as `unseen/tile/bbox_AP50`, and `mean` stands for the
unweighted mean over the sets; a curve is `sweep/<set>/<sweep>/<figure>`. The run of them all has the
same, over the split seeds, below the variant: `unispector/unseen/mean/bbox_AP50`. All are rounded to 4
decimals.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unispector.config import Config
from unispector.evaluation.results import (
    FIGURES,
    EvaluationReport,
    EvaluationRow,
    ModelRecord,
    Subset,
    class_scores,
    figure_of,
)
from unispector.evaluation.sweeps import SWEEPS, SweepReport, SweepRow
from unispector.project.lineage import dvc_hash, git_state
from unispector.project.paths import SPLITS
from unispector.tracking.run import JOB_TAG, TrackedRun, TrackingStore, flat, metric_part

EXPERIMENT = "evaluation"
RUN_KEY = "mlflow_run_id"
"""Key of a model's provenance under which its training run is named."""
MODELS_TAG = "models"

logger = logging.getLogger(__name__)

_MEAN = "mean"
_SECTIONS = {"model", "loss", "augment", "prompt", "train", "evaluate"}
_SWEEP_PREFIX: dict[Subset, str] = {"unseen": "sweep", "seen": "sweep_seen"}

Curves = dict[str, dict[int, float]]


def track_evaluation(
    store: TrackingStore, config: Config, report: EvaluationReport, files: Sequence[Path], root: Path
) -> None:
    """Record an evaluation of all models; trouble with the store is warned of and stops nothing.

    The same models on the same data with the same parameters are the same run, which is brought up to date.

    Args:
        files: files and folders to keep with the run, such as `evaluation.json` and `pictures`.

    Raises:
        DataError: `dvc.lock` is damaged.
    """
    evaluation = _Evaluation.of(store, config, report.models, root)
    with store.unfailing("the evaluation"), evaluation.run() as run:
        for model in report.models:
            with evaluation.model_run(run, model) as own:
                rows = [row for row in report.rows if _is_of(row, model)]
                own.results(_single(_summary(rows)))
                if rows:
                    own.table("evaluation/rows", _row_table(rows))
                    own.table("evaluation/classes", _class_table(rows))
        for variant in report.variants:
            figures = _summary(row for row in report.rows if row.variant == variant)
            run.results(_below(variant, _single(figures)))
        _keep(run, files)


def track_sweeps(
    store: TrackingStore,
    config: Config,
    evaluation_models: Sequence[ModelRecord],
    sweeps: SweepReport,
    files: Sequence[Path],
    root: Path,
) -> None:
    """Add the curves of the sweeps to the runs of an evaluation; trouble with the store is warned of.

    A level is MLflow's step: level divided by the sweep's `step`, a whole number.

    Args:
        evaluation_models: all models of the evaluation, swept or not.

    Raises:
        DataError: `dvc.lock` is damaged.
    """
    evaluation = _Evaluation.of(store, config, evaluation_models, root)
    with store.unfailing("the sweeps"), evaluation.run() as run:
        for model in evaluation_models:
            if rows := [row for row in sweeps.rows if _is_of(row, model)]:
                with evaluation.model_run(run, model) as own:
                    own.results(_curves(SweepReport(tuple(rows)), model.variant))
        for variant in dict.fromkeys(row.variant for row in sweeps.rows):
            run.results(_below(variant, _curves(sweeps, variant)))
        _keep(run, files)


def track_report(store: TrackingStore, models: Sequence[ModelRecord], page: Path) -> None:
    """Keep the report's page with the last evaluation of these models; warns where there is none."""
    with store.unfailing("the report"):
        run = store.latest(EXPERIMENT, MODELS_TAG, _models_key(models))
        if run is None:
            logger.warning("%s: has no run of this evaluation; %s is on the disk only", store.root, page)
        else:
            run.artifact(page)


@dataclass(frozen=True)
class _Evaluation:
    """The runs of one evaluation."""

    store: TrackingStore
    config: Config
    models: str  # hash of the models that were judged
    job: str  # hash of everything that determines the figures
    lineage: dict[str, str]  # tags that name code and data

    @classmethod
    def of(
        cls, store: TrackingStore, config: Config, models: Sequence[ModelRecord], root: Path
    ) -> "_Evaluation":
        data, models_key = dvc_hash(root, SPLITS.as_posix()), _models_key(models)
        job = _hash([models_key, data, _parameters(config)])
        code = {f"git.{key}": value for key, value in git_state(root).items()}
        # A run that is brought up to date must not keep the diff of another time.
        return cls(store, config, models_key, job, {"data.dvc": data, "git.diff_sha256": "", **code})

    @contextmanager
    def run(self) -> Iterator[TrackedRun]:
        """The run of all models."""
        tags = {JOB_TAG: self.job, MODELS_TAG: self.models, **self.lineage}
        with self.store.run(EXPERIMENT, f"evaluation-{self.job[:8]}", tags) as run:
            run.params(_parameters(self.config))
            yield run

    @contextmanager
    def model_run(self, parent: TrackedRun, model: ModelRecord) -> Iterator[TrackedRun]:
        """One model's run, nested under `parent`."""
        name = f"{model.variant}-seed{model.split_seed}"
        provenance = dict(model.provenance)
        tags = {
            JOB_TAG: f"{self.job}-{name}",
            "variant": model.variant,
            "split_seed": str(model.split_seed),
            "fingerprint": model.fingerprint,
            "training_run": provenance.pop(RUN_KEY, ""),
            **{f"provenance.{key}": value for key, value in provenance.items()},
            **self.lineage,
        }
        with self.store.run(EXPERIMENT, name, tags, parent=parent.run_id) as run:
            run.params(_parameters(self.config.variant(model.variant)))
            yield run


def _parameters(config: Config) -> dict[str, object]:
    return flat(config.model_dump(mode="json", include=_SECTIONS))


def _models_key(models: Sequence[ModelRecord]) -> str:
    return _hash(sorted((model.variant, model.split_seed, model.fingerprint) for model in models))


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _is_of(row: EvaluationRow | SweepRow, model: ModelRecord) -> bool:
    return (row.variant, row.split_seed) == (model.variant, model.split_seed)


def _set_part(data_set: str) -> str:
    """The set's part of a metric's name; a set that is called `mean` is kept apart from the mean."""
    part = metric_part(data_set)
    return f":{part}" if part == _MEAN else part


def _figures(row: EvaluationRow) -> dict[str, float]:
    """All figures of a row, named as their metrics' last part: AP, AP50 by size, false alarms."""
    figures = {_metric(figure): figure_of(row.metrics, figure) for figure in FIGURES}
    for kind in ("bbox", "segm"):
        sizes = getattr(row.metrics, kind).by_size
        figures |= {f"{kind}_AP50_{size}": score.AP50 for size, score in sizes.items() if score}
    if row.alarms is not None:
        figures |= {
            "false_alarms": row.alarms.false_alarms,
            "alarm_threshold": row.alarms.threshold,
            "recall_boxes": row.alarms.recall_boxes,
            "recall_masks": row.alarms.recall_masks,
        }
    return figures


def _metric(figure: str) -> str:
    return figure.replace(".", "_")


def _summary(rows: Iterable[EvaluationRow]) -> dict[str, float]:
    """Mean and, of several rows, `_std` of each figure of each set, and the means over the sets."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for figure, value in _figures(row).items():
            values.setdefault(f"{row.subset}/{_set_part(row.data_set)}/{figure}", []).append(value)
    means = {name: float(np.mean(own)) for name, own in values.items()}
    deviations = {f"{name}_std": float(np.std(own)) for name, own in values.items() if len(own) > 1}
    over_sets: dict[str, list[float]] = {}
    for name, mean in means.items():
        subset, _, figure = name.split("/")
        over_sets.setdefault(f"{subset}/{_MEAN}/{figure}", []).append(mean)
    return {**means, **deviations, **{name: float(np.mean(own)) for name, own in over_sets.items()}}


def _single(figures: Mapping[str, float]) -> Curves:
    return {name: {0: round(value, 4)} for name, value in figures.items()}


def _below(variant: str, curves: Curves) -> Curves:
    return {f"{variant}/{name}": curve for name, curve in curves.items()}


def _curves(sweeps: SweepReport, variant: str) -> Curves:
    """Each figure of each set over each sweep, and the mean over the sets at the levels all of them have."""
    result: Curves = {}
    for subset, prefix in _SWEEP_PREFIX.items():
        for sweep in sweeps.sweeps():
            for figure in FIGURES:
                by_set = {
                    _set_part(name): {
                        round(point.level / SWEEPS[sweep].step): round(point.mean, 4)
                        for point in sweeps.curve(sweep, name, figure, variant=variant, subset=subset)
                    }
                    for name in sweeps.data_sets
                }
                by_set = {name: curve for name, curve in by_set.items() if curve}
                if by_set:
                    by_set[_MEAN] = _mean_curve(list(by_set.values()))
                result |= {
                    f"{prefix}/{name}/{sweep}/{_metric(figure)}": curve for name, curve in by_set.items()
                }
    return result


def _mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    shared = [step for step in curves[0] if all(step in curve for curve in curves)]
    return {step: round(float(np.mean([curve[step] for curve in curves])), 4) for step in shared}


def _row_table(rows: Sequence[EvaluationRow]) -> list[dict[str, object]]:
    """A line for each draw of prompts, with confidence intervals; what a row lacks is empty."""
    numbers = []
    for row in rows:
        intervals = {
            f"{_metric(figure)}_{end}": value
            for figure, interval in row.intervals.items()
            for end, value in vars(interval).items()
        }
        numbers.append({**_figures(row), **intervals})
    columns = dict.fromkeys(name for own in numbers for name in own)
    return [
        {
            "data_set": row.data_set,
            "subset": row.subset,
            "prompt_seed": row.prompt_seed,
            **{name: round(own[name], 4) if name in own else None for name in columns},
        }
        for row, own in zip(rows, numbers, strict=True)
    ]


def _class_table(rows: Sequence[EvaluationRow]) -> list[dict[str, object]]:
    """A line for each class, the mean over the draws of prompts; MLflow compares runs by the first column."""
    scores = {figure: class_scores(rows, figure) for figure in FIGURES}
    return [
        {
            "class": name,
            "data_set": data_set,
            "subset": subset,
            **{_metric(figure): round(scores[figure][data_set, subset, name], 4) for figure in FIGURES},
        }
        for data_set, subset, name in scores[FIGURES[0]]
    ]


def _keep(run: TrackedRun, files: Iterable[Path]) -> None:
    for path in files:
        run.artifact(path, path.name if path.is_dir() else None)
