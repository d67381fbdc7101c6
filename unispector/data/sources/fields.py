"""Fields common to several annotation formats: names, numbers, image sizes, suffixes of images."""

import math
import re
import reprlib

from unispector.names import name_problem

IMAGE_SUFFIX = r"(?i:jpe?g|png|bmp|tiff?|webp)"
# Not the control characters and other line ends that Python counts among them: no name may have those.
_BLANKS = re.compile(r"[^\S\x0b\x0c\x1c-\x1f\x85\u2028\u2029]+")


def to_number(value: object) -> float:
    """A finite number, given as such or as text.

    Raises:
        ValueError: it is something else; the message says what was found.
    """
    try:
        # Python reads 6_1 as 61, which no tool writes.
        odd = isinstance(value, bool) or (isinstance(value, str) and "_" in value)
        number = math.nan if odd else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a number is missing" if value is None else f"{_told(value)} is no finite number")
    return number


def to_name(value: object) -> str:
    """A class name, its blanks trimmed and runs of them joined.

    Raises:
        ValueError: it cannot be a name; the message says why.
    """
    name = _BLANKS.sub(" ", value).strip(" ") if isinstance(value, str) else ""
    if problem := name_problem(name):
        told = f"{_told(value)} is no name{f': it {problem}' if name else ''}"
        raise ValueError("it has no name" if value in (None, "") else told)
    return name


def _told(value: object) -> str:
    """A value as a message can hold it: lists may be of any depth."""
    return reprlib.repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def other_size(own: tuple[int, int], what: str, stated: tuple[int, int]) -> str:
    """Say that an image has another size than what is drawn on it, and how that may come."""
    turned = own == stated[::-1] != stated
    why = ", as an EXIF orientation does it; save the image without" if turned else ""
    return f"{own[0]}x{own[1]}, {what} {stated[0]}x{stated[1]}{why}"


def to_size(width: object, height: object) -> tuple[int, int] | None:
    """Width and height in pixels as an annotation states them; None where one is absent or 0.

    Raises:
        ValueError: they are no whole numbers of pixels.
    """
    if width is None or height is None:
        return None
    sides = to_number(width), to_number(height)
    if any(side < 0 or not side.is_integer() for side in sides):
        raise ValueError(f"{sides[0]:g}x{sides[1]:g} is no size in pixels")
    return (int(sides[0]), int(sides[1])) if all(sides) else None
