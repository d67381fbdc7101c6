"""Every knob, as frozen typed sections that mirror `params.yaml`; `load_config` is the only edge.

The one truth is a field: its type, range, default and description, which `params.yaml` is rendered from.
Unknown keys and values out of range are refused with one line that names the file and the field.
A preset (`presets/NAME.yaml`) is a part of `params.yaml` under a name; `unispector params` lays it over.
Inner code receives the section it needs and never reads YAML.
"""

from unispector.config.data import DataConfig, MiniConfig, SetConfig, SplitConfig
from unispector.config.evaluation import EvaluateConfig, SweepConfig, SystemsConfig
from unispector.config.model import (
    BackboneConfig,
    DenoisingConfig,
    ModelConfig,
    QuerySelectionConfig,
    SimilarityPriorConfig,
    SpectralConfig,
)
from unispector.config.operation import EnrollConfig, PromoteConfig, RetrainConfig
from unispector.config.params import (
    Config,
    load_config,
    parse_config,
    preset_names,
    preset_values,
    read_values,
)
from unispector.config.section import Section
from unispector.config.training import AugmentConfig, LossConfig, PromptConfig, Roi, TrainConfig

__all__ = [
    "AugmentConfig", "BackboneConfig", "Config", "DataConfig", "DenoisingConfig", "EnrollConfig",
    "EvaluateConfig", "LossConfig", "MiniConfig", "ModelConfig", "PromoteConfig", "PromptConfig",
    "QuerySelectionConfig", "RetrainConfig", "Roi", "Section", "SetConfig", "SimilarityPriorConfig",
    "SpectralConfig", "SplitConfig", "SweepConfig", "SystemsConfig", "TrainConfig", "load_config",
    "parse_config", "preset_names", "preset_values", "read_values",
]  # fmt: skip
