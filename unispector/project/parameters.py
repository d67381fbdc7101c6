"""Parameters as people see and change them: what is in force and why, and presets put into `params.yaml`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unispector.config import Config, load_config, preset_values, read_values
from unispector.ops.files import atomic_write_bytes, atomic_write_text
from unispector.project.params_file import edited, meanings, rendered


@dataclass(frozen=True)
class Parameter:
    """A parameter in force."""

    name: str  # sections and field, such as `model.backbone.name`
    value: Any
    source: str  # `default` (the code's), the file's name, or `preset NAME`
    changed: bool  # it differs from the code's default, or has none
    meaning: str  # what it means and which values it takes


@dataclass(frozen=True)
class Change:
    """A value of `params.yaml` before and after, as text."""

    name: str
    old: str
    new: str


def parameters(params: Path, preset: str | None = None) -> tuple[Parameter, ...]:
    """Every parameter in force, in the order of `Config`; of sets only what is written of them.

    Raises:
        ConfigError: the file or the preset cannot be used.
    """
    config = load_config(params, preset)
    values, defaults = _leaves(_plain(config)), _leaves(_plain(Config()))
    explained, written = meanings(config), _leaves(read_values(params))
    above = _leaves(preset_values(preset)) if preset else {}

    def source(name: str) -> str:
        if name in above:
            return f"preset {preset}"
        return params.name if name in written else "default"

    return tuple(
        Parameter(name, value, source(name), name not in defaults or defaults[name] != value, explained[name])
        for name, value in values.items()
        # Not every set needs a line for what is seldom set.
        if not (name.startswith("data.sets.") and value is None and source(name) == "default")
    )


def use_preset(preset: str, params: Path, *, dry_run: bool = False) -> tuple[Change, ...]:
    """Put a preset's values into `params.yaml`; comments and all other values stay.

    Returns:
        The values that changed or were not written yet.

    Raises:
        ConfigError: file or preset cannot be used, or the file is written so that values cannot be put in.
    """
    values, after = preset_values(preset), load_config(params, preset)
    old, new = _leaves(_plain(load_config(params))), _leaves(_plain(after))
    written = _leaves(read_values(params))
    names = [name for name in _leaves(values) if name not in written or old[name] != new[name]]
    content = edited(params.read_bytes(), values, after, str(params))
    if names and not dry_run:
        atomic_write_bytes(params, content)

    def before(name: str) -> str:
        return as_text(old[name]) + ("" if name in written else " (default)") if name in old else "nothing"

    return tuple(Change(name, before(name), as_text(new[name])) for name in names)


def write_parameters(params: Path) -> None:
    """Write every parameter with what it means: values of the file stay, all others are the defaults.

    Args:
        params: file of parameters, replaced as a whole, its comments too; made where there is none.

    Raises:
        ConfigError: the file is there and cannot be used.
    """
    config = load_config(params) if params.exists() else Config()
    atomic_write_text(params, rendered(config))


def as_text(value: Any) -> str:
    """A parameter's value as YAML has it, on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`section.field` -> value of all that is no section."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
