"""The bodies of requests as the service's description shows them."""

from typing import Any

from unispector.serving.forms import KEPT_PAIRS

_FILE = {"type": "string", "format": "binary"}


def _body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


DETECT_BODY = _body(
    {
        "images": {
            "type": "array",
            "items": _FILE,
            "description": "Pictures: PNG, JPEG, BMP, TIFF or WebP. Repeat for more.",
        },
        "classes": {
            "type": "array",
            "items": {"type": "string", "examples": ["crack"]},
            "description": "Look only for these classes. Repeat for more; without it, for all.",
        },
        "min_score": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0,
            "description": "Leave out detections that score less; 0.15 is a start for looking at them.",
        },
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": KEPT_PAIRS,
            "default": KEPT_PAIRS,
            "description": "Candidates that are kept of a picture before overlapping ones go.",
        },
    },
    ["images"],
)

PROMPT_BODY = _body(
    {
        "image": {**_FILE, "description": "A picture that shows the defect."},
        "label": {"type": "string", "description": "Class to add to, or to make.", "examples": ["crack"]},
        "boxes": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "JSON list of [left, top, width, height] in pixels, one for each instance.",
            "examples": ["[[120, 80, 40, 24]]"],
        },
        "mask": {
            **_FILE,
            "description": "Instead of boxes: a picture of the same size, not black where one instance is.",
        },
        "by": {"type": "string", "description": "Who adds it, for the history.", "default": "http"},
        "note": {
            "type": "string",
            "description": "Why, for the history.",
            "examples": ["new tool on line 3"],
        },
    },
    ["image", "label"],
)
