"""Stage `evaluate`: every model on every set, seen and unseen classes."""

import shutil
from pathlib import Path

from unispector.benchmark.evaluate import evaluate_models
from unispector.benchmark.plan import plan
from unispector.benchmark.runs import track_evaluation
from unispector.config import Config
from unispector.evaluation.results import EvaluationReport
from unispector.ops.files import atomic_write_text
from unispector.project.paths import EVALUATION, METRICS, PICTURES, PROMPT_SPACE
from unispector.reporting.prompt_space import records_json
from unispector.tracking.run import TrackingStore


def evaluate(config: Config, root: Path, tracking: TrackingStore | None) -> EvaluationReport:
    """Judge every model of the benchmark; write all rows, prompt spaces, images and, last, the metrics.

    Models are `<variant>/seed<S>`: `unispector` for all split seeds, `base` for the ablation's seeds,
    `untrained` where it exists.

    Args:
        tracking: where the figures are recorded as MLflow runs; None = nowhere.

    Raises:
        CheckpointError: a model is missing or unusable.
        DataError: a file of the splits is missing, or a file or an image is unusable.
    """
    todo = plan(config, root)
    shutil.rmtree(root / PICTURES, ignore_errors=True)
    (root / PICTURES).mkdir(parents=True)
    report, spaces = evaluate_models(todo, config, (root / PICTURES).parent)
    atomic_write_text(root / EVALUATION, report.evaluation_json())
    atomic_write_text(root / PROMPT_SPACE, records_json(spaces))
    atomic_write_text(root / METRICS, report.metrics_json())
    if tracking is not None:
        files = [root / EVALUATION, root / METRICS, root / PICTURES]
        track_evaluation(tracking, config, report, files, root)
    return report
