"""Images of what was prompted, what is there and what was found, legible at any image size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from unispector.errors import DataError
from unispector.ops.files import atomic_write_bytes
from unispector.ops.rle import Rle, decode_rle

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (255, 176, 0),
    (0, 190, 255),
    (255, 80, 120),
    (90, 220, 110),
    (190, 130, 255),
    (255, 125, 50),
    (60, 220, 200),
    (240, 120, 230),
    (215, 215, 60),
    (110, 150, 255),
)
"""RGB of the classes in turn; bright, and apart for the common kinds of colour blindness."""

WARNING_COLOUR: Colour = (255, 0, 0)
"""RGB of what went wrong; in no palette."""

_BACKGROUND: Colour = (24, 27, 33)
_TEXT: Colour = (236, 239, 244)
_MUTED: Colour = (150, 158, 172)
_SHORTEST_SIDE, _LONGEST_SIDE = 512, 1280


@dataclass(frozen=True)
class Region:
    """One region to draw."""

    box_xyxy: tuple[float, float, float, float]  # pixels of the image it lies in
    # [h, w] bool, the COCO run-length code of one, which is decoded only when drawn, or None: the box alone.
    mask: npt.NDArray[np.bool_] | Rle | None
    caption: str  # text beside the box; empty for none
    colour: Colour  # RGB, 0 to 255
    line: int = 2  # width of the box's line in pixels of the drawing


@dataclass(frozen=True)
class Panel:
    """One image of a strip: uint8 [h, w, 3] RGB, a title and a muted line under it."""

    image: Image
    title: str
    note: str = ""


def class_colour(index: int) -> Colour:
    """Colour of a class by its index; repeats after `len(PALETTE)` classes."""
    return PALETTE[index % len(PALETTE)]


def draw_regions(image: Image, regions: Iterable[Region]) -> Image:
    """Draw boxes, translucent masks and captions in the order given.

    The image is uint8 [h, w, 3] RGB; regions are in its pixels. Returns uint8 RGB; a small image is enlarged
    so that its shorter side has 512 pixels, a large one shrunk to 1280 on its longer side.
    """
    scale = _display_scale(*image.shape[:2])
    canvas = _resized(image, scale)
    frames = []
    for region in regions:
        if region.mask is not None:
            _tint(canvas, region.mask, region.colour)
        frames.append(replace(region, mask=None))
    for region in frames:
        x0, y0, x1, y1 = _frame(canvas, region, scale)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), (0, 0, 0), region.line + 2, cv2.LINE_AA)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), region.colour, region.line, cv2.LINE_AA)
    taken: list[tuple[int, int, int, int]] = []
    for region in reversed(frames):
        if region.caption:
            _label(canvas, region, scale, taken)
    return canvas


def _display_scale(height: int, width: int) -> float:
    grow = max(1.0, _SHORTEST_SIDE / min(height, width))
    return min(grow, _LONGEST_SIDE / max(height, width))


def _resized(image: Image, scale: float) -> Image:
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)


def _tint(canvas: Image, mask: npt.NDArray[np.bool_] | Rle, colour: Colour) -> None:
    mask, size = decode_rle(mask) if isinstance(mask, dict) else mask, (canvas.shape[1], canvas.shape[0])
    shown = np.asarray(
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8
    )
    inside = shown > 0
    canvas[inside] = (0.62 * canvas[inside] + 0.38 * np.array(colour)).astype(np.uint8)
    outline, _ = cv2.findContours(shown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, outline, -1, colour, 1, cv2.LINE_AA)


def _frame(canvas: Image, region: Region, scale: float) -> tuple[int, int, int, int]:
    """Return the rectangle of a box's line: around the region, which it does not hide, and in the image."""
    height, width = canvas.shape[:2]
    air, edge = region.line // 2 + 1, region.line // 2
    x0, y0, x1, y1 = (round(value * scale) for value in region.box_xyxy)
    left, top = max(x0 - air, edge), max(y0 - air, edge)
    return left, top, min(x1 + air, width - 1 - edge), min(y1 + air, height - 1 - edge)


def _label(canvas: Image, region: Region, scale: float, taken: list[tuple[int, int, int, int]]) -> None:
    """Write the caption on a plate outside the box where there is room, clear of earlier plates."""
    size, pad = 17, 5
    height, width = canvas.shape[:2]
    text_width = _text_width(region.caption, size, 600)
    plate_w, plate_h = text_width + 2 * pad, size + 2 * pad
    x0, y0, _, y1 = _frame(canvas, region, scale)
    left = min(max(x0 - 1, 0), max(width - plate_w, 0))
    for top in (y0 - plate_h, y1 + 1, y0 + 1, y0 - 2 * plate_h, y1 + plate_h):
        plate = (left, top, left + plate_w, top + plate_h)
        if top >= 0 and top + plate_h <= height and not any(_overlap(plate, other) for other in taken):
            break
    else:
        return
    taken.append(plate)
    canvas[plate[1] : plate[3], plate[0] : plate[2]] = region.colour
    bright = 0.299 * region.colour[0] + 0.587 * region.colour[1] + 0.114 * region.colour[2] > 120
    ink = (16, 18, 22) if bright else (255, 255, 255)
    _text(canvas, region.caption, (left + pad, top + pad + size - 3), size, ink, 600)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def side_by_side(panels: Sequence[Panel], caption: str) -> Image:
    """A strip of images of one height, each under its title, with a caption line below.

    Panels are usually prompt, ground truth and prediction, already drawn on; the caption is one line, cut
    with an ellipsis where it does not fit. Returns uint8 [H, W, 3] RGB.
    """
    gap, header, footer = 16, 58, 40
    height = max(min(panel.image.shape[0] for panel in panels), _SHORTEST_SIDE // 2)
    images = [_resized(panel.image, height / panel.image.shape[0]) for panel in panels]
    width = sum(image.shape[1] for image in images) + gap * (len(images) + 1)
    sheet: Image = np.empty((header + height + footer, width, 3), dtype=np.uint8)
    sheet[:] = _BACKGROUND
    left = gap
    for panel, image in zip(panels, images, strict=True):
        room = image.shape[1]
        sheet[header : header + image.shape[0], left : left + room] = image
        _text(sheet, _fitted(panel.title, 19, 700, room), (left, 26), 19, _TEXT, 700)
        _text(sheet, _fitted(panel.note, 15, 400, room), (left, 48), 15, _MUTED, 400)
        left += room + gap
    _text(sheet, _fitted(caption, 15, 400, width - 2 * gap), (gap, header + height + 26), 15, _MUTED, 400)
    return sheet


def in_columns(headings: Sequence[tuple[str, Colour]], rows: Sequence[tuple[Sequence[Image], str]]) -> Image:
    """A sheet of images in columns of one width, each row with a caption line below it.

    Args:
        headings: text and colour of each column's heading.
        rows: as many images as there are headings, each fitted into a square, and the caption.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    cell, gap, header, footer = 360, 16, 44, 34
    width = gap + len(headings) * (cell + gap)
    sheet: Image = np.empty((header + len(rows) * (cell + footer), width, 3), dtype=np.uint8)
    sheet[:] = _BACKGROUND
    lefts = [gap + column * (cell + gap) for column in range(len(headings))]
    for (text, colour), left in zip(headings, lefts, strict=True):
        _text(sheet, _fitted(text, 19, 700, cell), (left, 28), 19, colour, 700)
    for number, (images, caption) in enumerate(rows):
        top = header + number * (cell + footer)
        for image, left in zip(images, lefts, strict=True):
            fitted = _resized(image, cell / max(image.shape[:2]))[:cell, :cell]
            down, across = (cell - fitted.shape[0]) // 2, (cell - fitted.shape[1]) // 2
            sheet[top + down :, left + across :][: fitted.shape[0], : fitted.shape[1]] = fitted
        _text(sheet, _fitted(caption, 15, 400, width - 2 * gap), (gap, top + cell + 22), 15, _MUTED, 400)
    return sheet


def _text(image: Image, text: str, origin: tuple[int, int], size: int, colour: Colour, weight: int) -> None:
    if text:
        cv2.putText(image, _writable(text), origin, colour, cv2.FontFace("sans"), size, weight)


def _text_width(text: str, size: int, weight: int) -> int:
    if not text:
        return 0
    left, _, width, _ = cv2.getTextSize((0, 0), _writable(text), (0, 0), cv2.FontFace("sans"), size, weight)
    return int(left + width)


def _writable(text: str) -> str:
    """The text without what is no UTF-8: OpenCV ends the whole program at it."""
    return text.encode("utf-8", "replace").decode()


def _fitted(text: str, size: int, weight: int, room: int) -> str:
    if _text_width(text, size, weight) <= room:
        return text
    while text and _text_width(text + "…", size, weight) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def write_image(path: Path, image: Image) -> None:
    """Write an RGB image, all or nothing; the suffix chooses the format.

    The path ends in .png, .jpg or .jpeg; the image is uint8 [h, w, 3] RGB.

    Raises:
        DataError: another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in {".png", ".jpg", ".jpeg"}:
        raise DataError(f"{path}: images are written as .png or .jpg; rename the output")
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if suffix != ".png" else [cv2.IMWRITE_PNG_COMPRESSION, 6]
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    atomic_write_bytes(path, data.tobytes())
