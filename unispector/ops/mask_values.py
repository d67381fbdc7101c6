"""What a mask image marks, in whatever mode people and tools store it: values of which 0 is no mark.

Beside masks of two values there are soft edges, classes, probabilities, and pictures whose transparency is
the mask. All that is not black counts, but for the noise of lossy compression: where values crowd near black
and near white with little between, they are cut at the middle.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unispector.errors import DataError

SPECKS = 0.05
"""Share of the visible pixels up to which black ones belong to a picture that its transparency cuts out."""
LEAST_WHITE = 128
"""Brightest value from which on noise is looked for: below it values are classes."""

Values = npt.NDArray[np.uint8]


def mask_values(image: Image.Image, name: str | Path) -> Values:
    """The values of a loaded mask of one class.

    `name` is what a message calls it. Returns uint8 [h, w]; values above 255 read 255. Floats of 0 to 1 are
    cut at 0.5, unless they are 0 and one value more.

    Raises:
        DataError: its transparency and its colours mark different regions.
    """
    values = _stored(image, name)
    if values.dtype.kind == "f":
        values = _of_floats(values)
    highest = int(values.max())
    scaled = _eight_bits(values)
    if highest > 255:
        scaled = np.multiply(values.clip(0), 255 / highest, dtype=np.float32).astype(np.uint8)
    if _is_noisy(scaled):
        return np.where(scaled > int(scaled.max()) // 2, scaled, 0).astype(np.uint8)
    return _eight_bits(values)


def class_values(image: Image.Image, name: str | Path) -> Values:
    """The values of a loaded mask whose values are classes; of a palette the indices.

    Returns uint8 [h, w]; values above 255 read 255.

    Raises:
        DataError: as of `mask_values`.
    """
    if image.mode in ("P", "1"):
        return np.array(image, dtype=np.uint8)
    return _eight_bits(_stored(image, name))


def _eight_bits(values: npt.NDArray[Any]) -> Values:
    return values if values.dtype == np.uint8 else values.clip(0, 255).astype(np.uint8)


def _stored(image: Image.Image, name: str | Path) -> npt.NDArray[Any]:
    """The values as they are; of colours the brightest channel, or the opacity."""
    if image.mode == "L" or image.mode.startswith("I") or image.mode == "F":
        return np.array(image)
    if not image.has_transparency_data:
        return _brightest(np.asarray(image.convert("RGB")))
    pixels = np.asarray(image.convert("RGBA"))
    brightest, alpha = _brightest(pixels[:, :, :3]), pixels[:, :, 3]
    return _of_transparent(np.where(alpha > 0, brightest, 0).astype(np.uint8), alpha, name)


def _brightest(colours: Values) -> Values:
    brightest: Values = colours.max(axis=2)
    return brightest


def _of_transparent(seen: Values, alpha: Values, name: str | Path) -> Values:
    """The opacity where it varies; the colours where they mark the same region on a black ground."""
    least, most = int(alpha.min()), int(alpha.max())
    if least == most:
        return seen
    opaque = alpha > (least + most) // 2
    coloured = seen > (int(seen.max()) // 2 if _is_noisy(seen) else 0)
    black = np.count_nonzero(alpha) - np.count_nonzero(coloured)
    if not coloured.any() or black <= SPECKS * np.count_nonzero(alpha):
        return np.where(opaque, alpha, 0).astype(np.uint8) if least else alpha
    if (coloured == opaque).all() or (coloured != opaque).all():
        return seen
    raise DataError(
        f"{name}: its transparency and its colours mark different regions; "
        "save the mask without transparency, white on black"
    )


def _of_floats(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Floats as whole numbers."""
    finite = np.nan_to_num(values, nan=0.0, posinf=65535.0, neginf=0.0)
    if finite.min() < 0 or finite.max() > 1:
        whole: npt.NDArray[Any] = np.ceil(finite.clip(0, 65535)).astype(np.uint16)
        return whole
    marked = finite[finite > 0]
    least = marked[0] if len(marked) and (marked == marked[0]).all() else 0.5
    return np.where(finite >= least, 255, 0).astype(np.uint8)


def _is_noisy(values: Values) -> bool:
    """Return whether a mask of black and white was compressed with loss.

    Its values crowd near the two with little between, and ripple: classes are flat.
    """
    counts = np.array(Image.fromarray(values).histogram())
    white = int(np.flatnonzero(counts)[-1])
    quarter = white // 4
    dark, between = counts[1 : quarter + 1], counts[quarter + 1 : white - quarter].sum()
    bright = counts[white - quarter : white]
    if white < LEAST_WHITE or np.count_nonzero(dark) < 3 or np.count_nonzero(bright) < 2:
        return False
    near = dark.sum() + bright.sum()
    if 4 * between > near or between > bright.sum() + counts[white]:
        return False
    ripples = np.zeros(256, np.bool_)
    ripples[1 : quarter + 1] = ripples[white - quarter : white] = True
    ripples[[1 + int(dark.argmax()), white - quarter + int(bright.argmax())]] = False  # grounds off by one
    rippling, inner = ripples[values], values[1:, 1:]
    flat = rippling[1:, 1:] & (inner == values[:-1, 1:]) & (inner == values[1:, :-1])
    return bool(2 * np.count_nonzero(flat) < np.count_nonzero(rippling))
