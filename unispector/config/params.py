"""All of `params.yaml` and the presets to lay over it, read and validated at this one edge."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from unispector.config.data import DataConfig, MiniConfig, SplitConfig
from unispector.config.evaluation import EvaluateConfig, SweepConfig, SystemsConfig
from unispector.config.model import UNION_TAGS, ModelConfig
from unispector.config.operation import EnrollConfig, PromoteConfig, RetrainConfig
from unispector.config.section import Section
from unispector.config.training import ABLATION, RIVALS, AugmentConfig, LossConfig, PromptConfig, TrainConfig
from unispector.config.yaml_text import read_yaml
from unispector.errors import ConfigError

_PRESETS = Path(__file__).with_name("presets")
_DEFAULT = "default"


class Config(Section):
    """All of `params.yaml`."""

    mini: MiniConfig = Field(MiniConfig(), description="the embedded default data, generated here")
    data: DataConfig = Field(DataConfig(), description="where raw data lie and which sets make the benchmark")
    split: SplitConfig = Field(
        SplitConfig(), description="seen and unseen classes, prompts and targets (paper, appendix 1)"
    )
    model: ModelConfig = Field(
        ModelConfig(),
        description="the detector; every row of the ablation is a setting of this section and of loss",
    )
    loss: LossConfig = Field(
        LossConfig(), description="weights of the terms; the first five weigh matching costs too"
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="of training images only")
    prompt: PromptConfig = Field(
        PromptConfig(), description="how prompts are sampled in training and read in tests"
    )
    train: TrainConfig = Field(TrainConfig(), description="optimisation, and how a machine runs it")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="judging of models on the benchmark")
    sweep: SweepConfig = Field(
        SweepConfig(), description="robustness of the main model on unseen classes (paper, 4.1)"
    )
    systems: SystemsConfig = Field(
        SystemsConfig(), description="the comparison with other systems (docs/systems.md)"
    )
    retrain: RetrainConfig = Field(
        RetrainConfig(), description="scheduled retraining; its schedule is in prefect.yaml"
    )
    promote: PromoteConfig = Field(
        PromoteConfig(),
        description="rules a challenger must pass to become champion, both judged on the same prompts "
        "and targets (docs/promotion.md)",
    )
    enroll: EnrollConfig = Field(
        EnrollConfig(),
        description="checks before a new defect joins the production prompts, each marked image left out "
        "in turn",
    )

    @property
    def starting_files(self) -> dict[str, Path]:
        """Files and folders that training starts from, as written; name of the parameter -> path."""
        several = len(self.model.backbones) > 1
        named = {"train.start": self.train.start}
        for number, network in enumerate(self.model.backbones):
            named[f"model.backbone{f'.{number}' if several else ''}.weights"] = network.weights_file
        return {name: path for name, path in named.items() if path}

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
                are named after what they have beside the row before; or one of `RIVALS`. Any other is the
                whole recipe.
        """
        if name in ABLATION:
            row = ABLATION.index(name)
            model = self.model.with_parts(sspe=row > 0, pqs=False)
            losses = {"relevance": 0.0, "contrastive": self.loss.contrastive if row > 1 else 0.0}
        elif name in RIVALS:
            model = self.model.as_rival(name)
            selects = model.query_selection.enabled
            losses = {"contrastive": 0.0, "relevance": self.loss.relevance if selects else 0.0}
        else:
            return self
        return self.model_copy(
            update={
                "model": model,
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
    values = read_values(path)
    config = _validated(values, str(path))
    if preset is None:
        return config
    return _validated(_overlaid(values, preset_values(preset)), f"{path} with preset {preset}")


def read_values(path: Path) -> dict[str, Any]:
    """Read the values of a file of parameters, by section and field, not validated.

    Raises:
        ConfigError: the file is absent or no YAML.
    """
    return _parsed(_read(path), str(path))


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
    """Names of the presets: `default`, and every file of `unispector/config/presets`."""
    return tuple(sorted({_DEFAULT, *(path.stem for path in _PRESETS.glob("*.yaml"))}))


def preset_values(name: str) -> dict[str, Any]:
    """The part of `params.yaml` that a preset sets, by section and field.

    `default` sets what any other preset sets, data sets apart, to the code's defaults.

    Raises:
        ConfigError: there is no preset of that name, or its file is no YAML.
    """
    names = preset_names()
    if name not in names:
        raise ConfigError(f"{name}: no such preset; there are {', '.join(names)}")
    if name != _DEFAULT:
        return _parsed(_read(_PRESETS / f"{name}.yaml"), f"preset {name}")
    undone: dict[str, Any] = {}
    for other in names:
        if other != _DEFAULT:
            undone = _overlaid(undone, preset_values(other))
    return _defaults_of(undone, Config().model_dump(mode="json", exclude={"data"}))


def _defaults_of(chosen: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of all that `chosen` sets, in the order of the sections."""
    return {
        key: _defaults_of(chosen[key], value)
        if isinstance(value, Mapping) and isinstance(chosen[key], Mapping)
        else value
        for key, value in defaults.items()
        if key in chosen
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); run from the project's root"
        ) from error


def _parsed(content: bytes, origin: str) -> dict[str, Any]:
    try:
        values = read_yaml(content)
    except ValueError as error:
        raise ConfigError(f"{origin}: not valid YAML ({error})") from error
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
