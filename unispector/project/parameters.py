"""Parameters as people see and change them: what is in force and why, and presets put into `params.yaml`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from unispector.config import Config, DataConfig, load_config, parse_config, preset_file
from unispector.errors import ConfigError
from unispector.ops.files import atomic_write_bytes

Edit = tuple[int, int, str]
"""From, to (places in a text), and what is to stand there."""


@dataclass(frozen=True)
class Parameter:
    """A parameter in force.

    Attributes:
        name: sections and field, such as `model.backbone.name`.
        value: as JSON has it.
        source: `default` (the code's), the file's name, or `preset NAME`.
        changed: it differs from the code's default, or has none.
        meaning: the comment beside it in the file; empty without one.
    """

    name: str
    value: Any
    source: str
    changed: bool
    meaning: str


@dataclass(frozen=True)
class Change:
    """A value of `params.yaml` before and after, as text."""

    name: str
    old: str
    new: str


def parameters(params: Path, preset: str | None = None) -> tuple[Parameter, ...]:
    """Every parameter in force, in the order of `Config`; of sets only what is written of them.

    Args:
        params: file of parameters.
        preset: name of a preset to lay over it; None = the file alone.

    Raises:
        ConfigError: the file or the preset cannot be used.
    """
    values = _leaves(_plain(load_config(params, preset)))
    defaults = _leaves(_plain(Config(data=DataConfig(sets={}))))
    text = params.read_bytes().decode("utf-8")
    written = _nodes(_root(text))
    above = _nodes(_root(preset_file(preset).read_text(encoding="utf-8"))) if preset else {}

    def source(name: str) -> str:
        if name in above:
            return f"preset {preset}"
        return params.name if name in written else "default"

    return tuple(
        Parameter(
            name,
            value,
            source(name),
            name not in defaults or defaults[name] != value,
            _comment(text, written[name]) if name in written else "",
        )
        for name, value in values.items()
        # Not every set needs a line for what is seldom set.
        if not (name.startswith("data.sets.") and source(name) == "default")
    )


def use_preset(preset: str, params: Path, *, dry_run: bool = False) -> tuple[Change, ...]:
    """Put a preset's values into `params.yaml`; every other byte stays, comments too.

    Args:
        preset: name of the preset.
        params: file of parameters, replaced as a whole.
        dry_run: only tell what would change.

    Returns:
        The values that changed or were not written yet.

    Raises:
        ConfigError: file or preset cannot be used, or the file is written so that values cannot be put in.
    """
    before, after = load_config(params), load_config(params, preset)
    old, new = _leaves(_plain(before)), _leaves(_plain(after))
    text = params.read_bytes().decode("utf-8")
    chosen = preset_file(preset).read_text(encoding="utf-8")
    written, wanted = _nodes(_root(text)), _nodes(_root(chosen))
    names = [name for name in wanted if name not in written or old[name] != new[name]]
    rewritten = _rewritten(text, chosen, set(names)).encode("utf-8")
    if not _says(rewritten, after):
        raise ConfigError(
            f"{params}: cannot be rewritten; write every section as in the shipped file, a value a line, "
            f"or copy {preset_file(preset).name}'s values by hand"
        )
    if names and not dry_run:
        atomic_write_bytes(params, rewritten)
    return tuple(
        Change(
            name,
            _before(text, written.get(name), old, name),
            _slice(chosen, wanted[name]),
        )
        for name in names
    )


def _before(text: str, written: Node | None, old: Mapping[str, Any], name: str) -> str:
    if written is not None:
        return _slice(text, written)
    return f"{as_text(old[name])} (default)" if name in old else "nothing"


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


def _root(text: str) -> MappingNode:
    root = YAML(typ="rt", pure=True).compose(text)
    return root if isinstance(root, MappingNode) else MappingNode("", [])


def _nodes(mapping: MappingNode, prefix: str = "") -> dict[str, Node]:
    """`section.field` -> where its value stands."""
    found: dict[str, Node] = {}
    for key, value in mapping.value:
        name = f"{prefix}{key.value}"
        found |= _nodes(value, f"{name}.") if isinstance(value, MappingNode) else {name: value}
    return found


def _end(node: Node) -> int:
    """Where a value ends; a block's own mark lies behind the comments that follow it."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, MappingNode) else last)
    return int(node.end_mark.index)


def _slice(text: str, node: Node) -> str:
    return text[node.start_mark.index : _end(node)]


def _comment(text: str, node: Node) -> str:
    rest = text[_end(node) :].partition("\n")[0].strip()
    return rest.lstrip("# ") if rest.startswith("#") else ""


def _rewritten(text: str, chosen: str, names: set[str]) -> str:
    """`text` with the values that `chosen` has for `names`, none of the rest touched."""
    edits = sorted(_edits(text, _root(text), chosen, _root(chosen), names), key=lambda edit: edit[0])
    for start, end, new in reversed(edits):
        text = text[:start] + new + text[end:]
    return text


def _edits(
    text: str, mapping: MappingNode, chosen: str, wanted: MappingNode, names: set[str], prefix: str = ""
) -> Iterator[Edit]:
    present = {key.value: (key, value) for key, value in mapping.value}
    for key, value in wanted.value:
        name = f"{prefix}{key.value}"
        start = mapping.start_mark
        if key.value not in present and mapping.flow_style:
            comma = ", " if mapping.value else ""
            yield start.index + 1, start.index + 1, f"{key.value}: {_slice(chosen, value)}{comma}"
        elif key.value not in present:
            indent = " " * start.column
            yield start.index, start.index, f"{_lines(key, value, chosen, indent)}\n{indent}"
        elif not isinstance(value, MappingNode):
            if name in names:
                yield _replacement(text, *present[key.value], _slice(chosen, value))
        elif isinstance(place := present[key.value][1], MappingNode):
            yield from _edits(text, place, chosen, value, names, f"{name}.")


def _replacement(text: str, key: Node, value: Node, new: str) -> Edit:
    start = value.start_mark.index
    if isinstance(value, CollectionNode) and not value.flow_style:
        # A list over several lines becomes one behind its key, before the comment there.
        start = key.end_mark.index + 1
        new = f" {new}{text[start:].partition(chr(10))[0]}"
    return start, _end(value), new


def _lines(key: Node, value: Node, chosen: str, indent: str) -> str:
    """A key with its value as it is to stand behind `indent`, a section over as many lines as in `chosen`."""
    if not isinstance(value, MappingNode) or value.flow_style:
        return f"{key.value}: {_slice(chosen, value)}"
    deeper = f"{indent}  "
    fields = (_lines(inner, place, chosen, deeper) for inner, place in value.value)
    return f"{key.value}:" + "".join(f"\n{deeper}{field}" for field in fields)


def _says(content: bytes, config: Config) -> bool:
    try:
        return parse_config(content, "") == config
    except ConfigError:
        return False
