"""The paths of the stages' files, relative to the project."""

from pathlib import Path

SPLITS = Path("data/splits")
SPLIT_CHECKS = SPLITS / "checks.json"
FINGERPRINTS = Path("data/training-fingerprints.json")
TRAINING_START = Path("data/training-start")
MODELS = Path("artifacts/models")
CHECKPOINTS = Path("artifacts/checkpoints")
MAPS = Path("artifacts/maps")
TRACKING = Path("artifacts/mlflow")
OPERATION = Path("artifacts/operate")
RETRAINING = Path("artifacts/retraining.json")
PROMOTIONS = Path("reports/promotion")
PROMPT_STORE = Path("data/prompts")
CHAMPION_MODEL = "models:/unispector@champion"  # what production uses
TRAINING_CURVES = Path("reports/training")
TRAINING_SUMMARY = Path("reports/training.json")
EVALUATION = Path("reports/evaluation.json")
METRICS = Path("reports/metrics.json")
PICTURES = Path("reports/pictures")
PROMPT_SPACE = Path("reports/prompt_space.json")
SWEEPS = Path("reports/sweep.json")
SYSTEM_RECORDS = Path("reports/systems")
BENCHMARKED = Path("reports/benchmark")  # what `unispector benchmark` was told to write there
SYSTEMS_PAGE = Path("reports/systems.md")
STATISTICS = Path("reports/statistics.json")
STATISTICS_PAGE = Path("reports/statistics.md")
STATISTICS_FIGURE = Path("reports/statistics.png")
DATA_DOCS = Path("reports/data_docs")
SPLIT_DOCS = Path("reports/data_docs_splits")


def annotation_file(set_name: str) -> Path:
    """The InsA file of a set, `convert`'s product."""
    return Path("data/insa") / f"{set_name}.json"


def survey_file(set_name: str) -> Path:
    """The output of `survey` for a set."""
    return Path("data/insa") / f"{set_name}.survey.parquet"


def check_report(set_name: str) -> Path:
    """The output of `validate` for a set."""
    return Path("reports/validation") / f"{set_name}.json"


def dropped_file(set_name: str) -> Path:
    """The table of what `convert` left out of a set."""
    return Path("data/insa") / f"{set_name}.dropped.csv"
