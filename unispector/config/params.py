"""All of `params.yaml`, read and validated at this one edge."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from unispector.config.data import DataConfig, MiniConfig, SplitConfig
from unispector.config.evaluation import EvaluateConfig, SweepConfig
from unispector.config.model import ModelConfig
from unispector.config.section import Section
from unispector.config.training import AugmentConfig, LossConfig, PromptConfig, TrainConfig
from unispector.errors import ConfigError


class Config(Section):
    """All of `params.yaml`."""

    mini: MiniConfig = MiniConfig()
    data: DataConfig
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    prompt: PromptConfig = PromptConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    sweep: SweepConfig = SweepConfig()

    def ablation_base(self) -> "Config":
        """The ablation's base row: the same recipe without SSPE's spectrum, CPE and PQS."""
        return self.model_copy(
            update={
                "model": self.model.without_contributions(),
                "loss": self.loss.model_copy(update={"contrastive": 0.0, "relevance": 0.0}),
                "train": self.train.model_copy(update={"start": None}),
            }
        )


def load_config(path: Path = Path("params.yaml")) -> Config:
    """Read and validate `params.yaml`.

    Args:
        path: YAML file whose top-level keys are the fields of `Config`.

    Raises:
        ConfigError: the file is absent or no YAML, a key is unknown or a value is out of range.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); run from the project's root"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    try:
        return Config.model_validate(raw or {})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    """One line for the first field at fault, with how many more there are."""
    first, *others = error.errors()
    field = ".".join(str(part) for part in first["loc"]) or "(top level)"
    message = "unknown parameter; check its spelling" if first["type"] == "extra_forbidden" else first["msg"]
    more = f" (and {len(others)} more)" if others else ""
    return f"{field}: {message}{more}"
