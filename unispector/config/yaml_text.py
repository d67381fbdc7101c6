"""YAML that people write, read strictly: what stands there twice, or too deep, is a mistake."""

from typing import Any

import yaml

_TROUBLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError)
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(text: str | bytes) -> Any:
    """The plain values of a YAML document.

    Raises:
        ValueError: it is no YAML, it is nested too deep, or a key stands twice in a mapping; in one line,
            with the line of the text.
    """
    try:
        return yaml.load(text, _Strict)  # noqa: S506 - a kind of SafeLoader
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    # PyYAML lets out what its own code stumbles over, such as the KeyError of `!!bool x`.
    except _TROUBLE as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Strict(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            # What a merge brings in is meant to be overlaid.
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line, known = key.start_mark.line + 1, (key.tag, key.value)
            if known in first:
                raise ValueError(
                    f"key {key.value[:80]!r} twice, in lines {first[known]} and {line}; remove one of them"
                )
            first[known] = line
        return super().construct_mapping(node, deep)
