"""JSON, read so that whatever is wrong with a text is one error."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The plain values of a JSON document.

    Raises:
        ValueError: it is no JSON, nested deeper than Python reads, or a key stands twice in an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose last value would otherwise count in silence."""
    read = dict(pairs)
    if len(read) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice[:80]!r} twice in an object; remove one of them")
    return read
