"""YAML that people write, read strictly: what stands there twice, or too deep, is a mistake."""

from typing import Any

import yaml

_TROUBLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError)
_MERGE = "tag:yaml.org,2002:merge"
MOST_MERGED = 10_000
"""Keys that all merges (`<<`) of a text bring in together: a few lines of them grow without a bound."""


def read_yaml(text: str | bytes) -> Any:
    """The plain values of a YAML document.

    Raises:
        ValueError: it is no YAML, it is nested too deep, a key stands twice in a mapping, in whatever
            spelling, or merges bring in more than `MOST_MERGED` keys; in one line, with the line of the text.
    """
    try:
        return yaml.load(text, _Strict)  # noqa: S506 - a kind of SafeLoader
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    # PyYAML lets out what its own code stumbles over, such as the KeyError of `!!bool x`.
    except _TROUBLE as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Strict(yaml.SafeLoader):
    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self._flat: set[int] = set()  # ids of the mappings whose merges are done
        self._merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if id(node) in self._flat:
            return
        self._flat.add(id(node))
        # What a merge brings in is meant to be overlaid.
        own = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE]
        for key, value in node.value:
            if key.tag == _MERGE:
                self._count(value)
        super().flatten_mapping(node)
        first: dict[Any, int] = {}
        for key in own:
            line, known = key.start_mark.line + 1, self.construct_object(key)
            if known in first:
                raise ValueError(
                    f"key {key.value[:80]!r} twice, in lines {first[known]} and {line}; remove one of them"
                )
            first[known] = line

    def _count(self, merged: yaml.Node) -> None:
        """Count what a merge brings in, before it is copied."""
        for part in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
            if isinstance(part, yaml.MappingNode):
                self.flatten_mapping(part)
                self._merged += len(part.value)
            if self._merged > MOST_MERGED:
                line = merged.start_mark.line + 1
                raise ValueError(
                    f"merges (<<) bring in more than {MOST_MERGED} keys up to line {line}; write them out"
                )
