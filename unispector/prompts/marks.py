"""Marked images as they are kept: the file as it came and its marks in pixels, both checked before."""

import hashlib
import io
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError, PromptBankError
from unispector.names import name_problem
from unispector.ops.files import read_image_size
from unispector.ops.rle import BoolArray, Rle, encode_rle, segmentation_to_mask, segmentation_to_rle

if TYPE_CHECKING:
    from unispector.inference.marking import Prompt

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}
"""Formats of images that are kept, as Pillow names them, and the suffix of their files."""

# No `+`: it stands for the slash in the name of an enrolment's report folder.
_LABEL = re.compile(r"[\w ./&(),'-]{1,80}")
_KEPT = re.compile(r"[0-9a-f]{64}\.(?:png|jpg|bmp|tif|webp)")

Box = tuple[float, float, float, float]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MarkedImage:
    """An image file and the marks of one class on it; give boxes or masks, not both."""

    data: bytes  # content of the file: PNG, JPEG, BMP, TIFF or WebP
    name: str
    # Boxes (left, top, width, height) in pixels of the upright image.
    boxes_xywh: Sequence[Sequence[float]] = ()
    masks_rle: Sequence[Rle] = ()  # COCO run-length codes of the image's size
    negative: bool = False  # the marks show what the class is not


@dataclass(frozen=True)
class StoredPrompt:
    """The marks of one class on an image that is kept; boxes or masks, not both.

    Attributes:
        image: name of the kept file: SHA-256 of its content, and a suffix.
        boxes_xywh: left, top, width, height in pixels of the upright image.
        masks_rle: compressed COCO run-length codes of the image's size.
        source: what the image was called when it came.
        negative: the marks show what the class is not.
    """

    picture: str
    boxes_xywh: tuple[Box, ...]
    masks_rle: tuple[Rle, ...]
    source: str
    negative: bool = False

    @classmethod
    def of(cls, picture: MarkedImage) -> Self:
        """A marked image, its marks checked and in their one form.

        Raises:
            DataError: the image is unreadable or of another format; no mark; boxes and masks at once; a
                mark that is empty, twice there, outside the image or of another size.
            PromptBankError: the temporary folder cannot be written, such as on a full disk.
        """
        from unispector.inference.geometry import Geometry
        from unispector.inference.marking import Prompt, mark

        # No model's: any size shows whether a mark can be read.
        any_size = Geometry(image_size=64, bins=8, spectrum_empty="interp", spectrum_min_side=8)
        suffix = _suffix(picture)
        with _as_file(picture, suffix) as file:
            try:
                masks = _masks(picture.masks_rle, file)
                boxes = tuple(_box(box) for box in picture.boxes_xywh)
                mark(Prompt(file, boxes, masks), 0, any_size)
            except DataError as error:
                message = str(error).removeprefix(f"{file}: ")
                raise DataError(f"{picture.name}: {message}") from error
        codes = () if masks is None else tuple(encode_rle(masks))
        digest = hashlib.sha256(picture.data).hexdigest()
        prompt = cls(digest + suffix, boxes, codes, one_line(picture.name), picture.negative)
        if len(set(prompt.marks())) < len(boxes) + len(codes):
            raise DataError(f"{picture.name}: the same mark twice; leave one out")
        return prompt

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read the attributes as JSON has them.

        Raises:
            ValueError, KeyError, TypeError, DataError: it is no such thing.
        """
        picture = content["picture"]
        boxes = tuple(_box(box) for box in content["boxes_xywh"])
        codes = tuple({"size": list(c["size"]), "counts": str(c["counts"])} for c in content["masks_rle"])
        negative = content.get("negative", False)
        if not _KEPT.fullmatch(picture) or bool(boxes) == bool(codes) or not isinstance(negative, bool):
            raise ValueError("no kept image with boxes or masks")
        return cls(picture, boxes, codes, str(content["source"]), negative)

    def marks(self) -> list[object]:
        """The marks, so that equal ones are equal."""
        return [*self.boxes_xywh, *(code["counts"] for code in self.masks_rle)]

    def as_prompt(self, folder: Path, label: str) -> "Prompt":
        """The marks as a detector takes them.

        Raises:
            DataError: the image is unreadable, or a mask is of another size.
        """
        from unispector.inference.marking import Prompt

        file = folder / self.picture
        return Prompt(file, self.boxes_xywh, _masks(self.masks_rle, file), label)

    def instances(self, width: int, height: int) -> Iterator[tuple[Box, Rle | None]]:
        """The box of each mark, cut at the image's edge, and its mask, which stays a code.

        Raises:
            DataError: a mask is of another size.
        """
        for left, top, wide, high in self.boxes_xywh:
            x, y = max(left, 0.0), max(top, 0.0)
            yield (x, y, min(left + wide, float(width)) - x, min(top + high, float(height)) - y), None
        for code in self.masks_rle:
            checked = segmentation_to_rle(code, height, width)
            yield _box(coco_mask.toBbox(checked)), checked


def read_marks(file: Path) -> Annotations:
    """Read a COCO file whose marks prompt; how many of them are groups, which prompt nothing, is said.

    Raises:
        DataError: it is none; a bank is refused with what to give in its place.
    """
    if file.suffix == ".safetensors":
        raise DataError(f"{file}: a bank keeps no images; give the COCO file and images it was built from")
    annotations = Annotations.read(file)
    if groups := sum(instance.iscrowd for instance in annotations.instances):
        logger.warning(
            "%s: %d of %d marks are groups (iscrowd) and left out; if each is one instance, as CVAT's masks "
            "are, run `unispector convert coco` on the folder",
            *(file, groups, len(annotations.instances)),
        )
    return annotations


def _instances(own: StoredPrompt, image: ImageRecord, folder: Path) -> Iterator[tuple[Box, Rle | None]]:
    try:
        yield from own.instances(image.width, image.height)
    except DataError as error:
        raise PromptBankError(
            f"{folder / own.picture}: the marks kept of it are damaged ({error}); restore the store"
        ) from error


def as_annotations(classes: Mapping[str, Iterable[StoredPrompt]], folder: Path) -> Annotations:
    """Prompts as a detector reads them: image by image, masks decoded only when it is their turn.

    Negatives are left out.

    Raises:
        DataError: an image is unreadable.
        PromptBankError: a mask is of another size than its image, or no mask.
    """
    everything = [
        (number, own)
        for number, prompts in enumerate(classes.values(), 1)
        for own in prompts
        if not own.negative
    ]
    names = dict.fromkeys(own.picture for _, own in everything)
    images = {name: ImageRecord(n, name, *read_image_size(folder / name)) for n, name in enumerate(names, 1)}
    marks = [
        (images[own.picture].id, category, box, code)
        for category, own in everything
        for box, code in _instances(own, images[own.picture], folder)
    ]
    return Annotations(
        tuple(images.values()),
        tuple(
            InstanceRecord(number, image, category, box, box[2] * box[3], code)
            for number, (image, category, box, code) in enumerate(marks, 1)
        ),
        tuple(CategoryRecord(number, label, "") for number, label in enumerate(classes, 1)),
    )


def checked_label(label: str) -> str:
    """The name of a class, if it can be one.

    Raises:
        DataError: other characters than letters, digits, space and `_-./&(),'`, more than 80, a space at an
            end, or parts between slashes that are empty or `.` or `..`.
    """
    proper = not name_problem(label) and _LABEL.fullmatch(label) and label == label.strip()
    if not proper or {"", ".", ".."} & set(label.split("/")):
        raise DataError(
            f"{label[:80]!r}: not the name of a class; use 1 to 80 letters, digits, spaces and any of "
            "_-./&(),' without a space or slash at an end or parts such as '..'"
        )
    return label


def one_line(text: str) -> str:
    """Text that a list of versions can show: nothing but printable characters and single spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def check_new(own: Iterable[StoredPrompt], new: Iterable[StoredPrompt]) -> None:
    """Refuse a mark that a class has already.

    Raises:
        DataError: the same mark on the same image; the message names the image.
    """
    known = {(prompt.picture, mark) for prompt in own for mark in prompt.marks()}
    for prompt in new:
        marks = {(prompt.picture, mark) for mark in prompt.marks()}
        if marks & known:
            raise DataError(f"{prompt.source}: the class has this mark on this image already; leave it out")
        known |= marks


def _suffix(picture: MarkedImage) -> str:
    try:
        with Image.open(io.BytesIO(picture.data), formats=tuple(SUFFIXES)) as image:
            return SUFFIXES.get(str(image.format), ".jpg")  # MPO: what phones call some of their JPEGs
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{picture.name}: not a readable PNG, JPEG, BMP, TIFF or WebP image; replace the file"
        ) from error


@contextmanager
def _as_file(picture: MarkedImage, suffix: str) -> Iterator[Path]:
    """The image as a file for a while: the one reader of images reads files."""
    try:
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            file.write(picture.data)
            file.flush()
            yield Path(file.name)
    except OSError as error:
        raise PromptBankError(
            f"{picture.name}: cannot be checked, the temporary folder cannot be written ({error.strerror}); "
            "check its permissions and space"
        ) from error


def _masks(codes: Sequence[Rle], file: Path) -> BoolArray | None:
    if not codes:
        return None
    width, height = read_image_size(file)
    return np.stack([segmentation_to_mask(code, height, width) for code in codes])


def _box(box: Sequence[float]) -> Box:
    try:
        left, top, width, height = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("a box must be four numbers: left, top, width, height in pixels") from error
    return left, top, width, height
