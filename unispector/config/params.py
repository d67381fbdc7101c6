"""All of `params.yaml` and the presets to lay over it, read and validated at this one edge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from unispector.config.data import DataConfig, MiniConfig, SplitConfig
from unispector.config.evaluation import EvaluateConfig, SweepConfig
from unispector.config.model import UNION_TAGS, ModelConfig
from unispector.config.operation import EnrollConfig, PromoteConfig, RetrainConfig
from unispector.config.section import Section
from unispector.config.training import ABLATION, AugmentConfig, LossConfig, PromptConfig, TrainConfig
from unispector.errors import ConfigError

_PRESETS = Path(__file__).with_name("presets")


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
    retrain: RetrainConfig = RetrainConfig()
    promote: PromoteConfig = PromoteConfig()
    enroll: EnrollConfig = EnrollConfig()

    @model_validator(mode="after")
    def _keeps_maps_of_frozen_backbones_only(self) -> Self:
        if self.train.views and not all(backbone.frozen for backbone in self.model.backbones):
            raise ValueError(
                f"train.views {self.train.views} keeps what the backbone makes of images, which "
                "changes if it trains; set model.backbone.frozen, or train.views to 0"
            )
        return self

    def variant(self, name: str) -> "Config":
        """The parameters of one kind of model.

        Args:
            name: a row of the ablation (`ABLATION`): `base` has none of the paper's parts, `sspe` and `cpe`
                are named after what they have beside the row before. Any other is the whole recipe.
        """
        if name not in ABLATION:
            return self
        row = ABLATION.index(name)
        losses = {"relevance": 0.0, "contrastive": self.loss.contrastive if row > 1 else 0.0}
        return self.model_copy(
            update={
                "model": self.model.with_parts(sspe=row > 0, pqs=False),
                "loss": self.loss.model_copy(update=losses),
                "train": self.train.model_copy(update={"start": None}),
            }
        )


def load_config(path: Path = Path("params.yaml"), preset: str | None = None) -> Config:
    """Read and validate `params.yaml`.

    Args:
        path: YAML file whose top-level keys are the fields of `Config`.
        preset: name of a preset whose values take the place of the file's; None = the file alone.

    Raises:
        ConfigError: the file is absent or no YAML, a key is unknown or a value is out of range, or there is
            no such preset.
    """
    content = _read(path)
    config = parse_config(content, str(path))
    if preset is None:
        return config
    above = _parsed(_read(preset_file(preset)), f"preset {preset}")
    return _validated(_overlaid(_parsed(content, str(path)), above), f"{path} with preset {preset}")


def parse_config(content: bytes, origin: str) -> Config:
    """Validate what stands in a file of parameters.

    Args:
        content: the file's.
        origin: its name, for messages.

    Raises:
        ConfigError: it is no YAML, a key is unknown or a value is out of range.
    """
    return _validated(_parsed(content, origin), origin)


def preset_names() -> tuple[str, ...]:
    """Names of the presets: every file of `unispector/config/presets` is one."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.yaml")))


def preset_file(name: str) -> Path:
    """The file of a preset: the part of `params.yaml` that it sets.

    Raises:
        ConfigError: there is no preset of that name.
    """
    if name not in preset_names():
        raise ConfigError(f"{name}: no such preset; there are {', '.join(preset_names())}")
    return _PRESETS / f"{name}.yaml"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); run from the project's root"
        ) from error


def _parsed(content: bytes, origin: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values or {}, dict):
        raise ConfigError(f"{origin}: holds no sections; they begin as `model:` and `train:` do")
    return values or {}


def _validated(values: Mapping[str, Any], origin: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(error)}") from error


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` sets in place of its own, section by section."""
    inner = {
        key: _overlaid(below[key], value)
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        else value
        for key, value in above.items()
    }
    return {**below, **inner}


def _first_problem(error: ValidationError) -> str:
    """One line for the first field at fault, with how many more there are."""
    first, *others = error.errors()
    field = ".".join(str(part) for part in first["loc"] if part not in UNION_TAGS) or "(top level)"
    message = "unknown parameter; check its spelling" if first["type"] == "extra_forbidden" else first["msg"]
    more = f" (and {len(others)} more)" if others else ""
    return f"{field}: {message}{more}"
