"""JSON, read so that whatever is wrong with a text is one error."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The plain values of a JSON document.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
