"""Stage `sweep`: the main model again and again, with prompts or targets changed a step at a time."""

from pathlib import Path

from unispector.benchmark.plan import plan
from unispector.benchmark.runs import track_sweeps
from unispector.benchmark.sweep import sweep_models
from unispector.config import Config
from unispector.errors import ConfigError
from unispector.evaluation.results import EvaluationReport
from unispector.evaluation.sweeps import SweepReport
from unispector.ops.files import atomic_write_text
from unispector.project.paths import EVALUATION, SWEEPS
from unispector.tracking.run import TrackingStore


def sweep(config: Config, root: Path, tracking: TrackingStore | None) -> SweepReport:
    """Write `reports/sweep.json` and add the curves to the MLflow runs of the evaluation.

    Args:
        tracking: where runs are recorded; None = nowhere.

    Raises:
        ConfigError: `sweep` names a set or a prompt seed that there is not.
        CheckpointError: a model is missing or unusable.
        DataError: the evaluation's record, a file of the splits or an image is unusable.
    """
    _check(config)
    models = EvaluationReport.read(root / EVALUATION).models
    report = sweep_models(plan(config, root), config)
    atomic_write_text(root / SWEEPS, report.as_json())
    if tracking is not None:
        track_sweeps(tracking, config, models, report, [root / SWEEPS], root)
    return report


def _check(config: Config) -> None:
    if strangers := set(config.sweep.of(config.data.sets)) - set(config.data.sets):
        raise ConfigError(f"sweep.sets: {min(strangers)!r} is not among data.sets {list(config.data.sets)}")
    if strange := set(config.sweep.prompt_seeds) - set(config.split.prompt_seeds):
        raise ConfigError(
            f"sweep.prompt_seeds: {min(strange)} is not among split.prompt_seeds "
            f"{list(config.split.prompt_seeds)}"
        )
