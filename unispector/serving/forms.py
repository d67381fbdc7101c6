"""The body of a request: counted while it arrives, taken apart, and checked."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from unispector.errors import DataError
from unispector.prompts.marks import checked_label
from unispector.serving.limits import Limits
from unispector.serving.messages import Box
from unispector.serving.refusal import RefusedError, Share, shown

FIELD_BYTES = 2**16
"""Most bytes of a part that is no file."""
KEPT_PAIRS = 300
"""(query, class) pairs kept per picture, as in the library, if a request does not say."""

_BOXES = TypeAdapter(Annotated[list[Box], Field(min_length=1)])


@dataclass(frozen=True)
class Part:
    """One part of a multipart body.

    Attributes:
        name: of the field.
        filename: None where the part is no file.
        data: its bytes.
    """

    name: str
    filename: str | None
    data: bytes


@dataclass(frozen=True)
class DetectForm:
    """A checked request to detect.

    Attributes:
        pictures: name and bytes of each file.
        classes: looked for; empty = all.
        min_score: lowest score that is answered.
        limit: (query, class) pairs kept per picture.
    """

    pictures: tuple[tuple[str, bytes], ...]
    classes: tuple[str, ...]
    min_score: float
    limit: int


@dataclass(frozen=True)
class PromptForm:
    """A checked request to add a prompt; boxes or a mask, not both.

    Attributes:
        name: of the picture.
        image: its bytes.
        label: class.
        boxes: left, top, width, height in pixels, each.
        mask: bytes of its file, or None.
        by: who adds it.
        note: why.
    """

    name: str
    image: bytes
    label: str
    boxes: tuple[tuple[float, ...], ...]
    mask: bytes | None
    by: str
    note: str


@dataclass
class _Collector:
    """Parts as the parser finds them."""

    most: int
    parts: list[Part] = field(default_factory=list)
    ended: bool = False
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _key: bytes = b""
    _value: bytes = b""
    _pieces: list[bytes] = field(default_factory=list)

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._pieces.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": lambda: setattr(self, "ended", True),
        }

    def _begin(self) -> None:
        if len(self.parts) == self.most:
            raise RefusedError(413, f"more than {self.most} parts; send less at a time")
        self._headers, self._pieces = {}, []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key = self._value = b""

    def _end(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        name, filename = options.get(b"name"), options.get(b"filename")
        if kind != b"form-data" or name is None:
            raise RefusedError(400, "a part of the body has no name; send multipart/form-data")
        shown = None if filename is None else filename.decode("utf-8", "replace")
        data = b"".join(self._pieces)
        if shown is None and len(data) > FIELD_BYTES:
            raise RefusedError(413, f"a field of more than {FIELD_BYTES} bytes that is no file")
        self.parts.append(Part(name.decode("utf-8", "replace"), shown, data))


async def read_body(request: Request, limits: Limits, memory: Share) -> bytes:
    """The whole body, refused as soon as it is too large or too slow.

    Args:
        request: nothing of whose body was read yet.
        limits: of bytes and seconds.
        memory: takes every byte that is held.

    Raises:
        RefusedError: 413, 408, 415 for an encoded body, 503 where all requests together hold too much.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "an encoded body; send it without Content-Encoding")
    too_large = RefusedError(413, f"a body of more than {limits.body_mib} MiB; send less at a time")
    if int(request.headers.get("content-length", 0)) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                memory.take(len(chunk))
                body += chunk
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError as error:
        raise RefusedError(408, f"the body took more than {limits.body_seconds:g} s") from error
    except ClientDisconnect as error:
        raise RefusedError(400, "the body ended early") from error
    return bytes(body)


def parse_form(body: bytes, content_type: str, most: int) -> tuple[Part, ...]:
    """The parts of a multipart body.

    Args:
        body: all of it.
        content_type: the request's header.
        most: parts.

    Raises:
        RefusedError: 415 for another kind of body, 413 for more parts, 400 for one that is broken.
    """
    try:
        kind, options = parse_options_header(content_type)
    except UnicodeError as error:
        raise RefusedError(415, "an unreadable Content-Type; send multipart/form-data") from error
    # Some of Python's codecs take minutes for a megabyte, so the sender does not choose one.
    if kind != b"multipart/form-data" or options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise RefusedError(415, "another kind of body; send multipart/form-data in UTF-8")
    collector = _Collector(most)
    try:
        parser = MultipartParser(options.get(b"boundary", b""), collector.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RefusedError(400, "not a readable multipart body; let a library make it") from error
    if not collector.ended:
        raise RefusedError(400, "the multipart body is cut off")
    return tuple(collector.parts)


def detect_form(parts: Sequence[Part], limits: Limits) -> DetectForm:
    """The parts of a request to detect.

    Raises:
        RefusedError: a part is missing, unknown, twice there or out of range.
    """
    _only(parts, files=("images",), fields=("classes", "min_score", "limit"))
    files = [part for part in parts if part.name == "images"]
    if not files:
        raise RefusedError(400, "no picture; send at least one file as `images`")
    if len(files) > limits.pictures:
        raise RefusedError(413, f"{len(files)} pictures; send at most {limits.pictures} at a time")
    pictures = tuple((shown_name(file.filename, n), file.data) for n, file in enumerate(files, start=1))
    classes = tuple(_text(part) for part in parts if part.name == "classes")
    return DetectForm(
        pictures,
        classes,
        _score(_field(parts, "min_score", "0")),
        _pairs(_field(parts, "limit", str(KEPT_PAIRS))),
    )


def prompt_form(parts: Sequence[Part], limits: Limits) -> PromptForm:
    """The parts of a request to add a prompt.

    Raises:
        RefusedError: a part is missing, unknown, twice there or out of range.
    """
    _only(parts, files=("image", "mask"), fields=("label", "boxes", "by", "note"))
    images = [part for part in parts if part.name == "image"]
    masks = [part.data for part in parts if part.name == "mask"]
    if len(images) != 1 or len(masks) > 1:
        raise RefusedError(400, "send one file as `image`, and `boxes` or one file as `mask`")
    boxes = _field(parts, "boxes", "")
    if bool(boxes) == bool(masks):
        raise RefusedError(400, "mark the defect with `boxes` or with `mask`, one of the two")
    return PromptForm(
        name=shown_name(images[0].filename, 1),
        image=images[0].data,
        label=check_label(_field(parts, "label", "")),
        boxes=_boxes(boxes, limits) if boxes else (),
        mask=masks[0] if masks else None,
        by=_note("by", _field(parts, "by", "http"), 40),
        note=_note("note", _field(parts, "note", ""), 200),
    )


def check_label(label: str) -> str:
    """The name of a class, as it is.

    Raises:
        RefusedError: it has other characters than names of classes have, or too many.
    """
    try:
        return checked_label(label)
    except DataError as error:
        raise RefusedError(
            400,
            "the name of a class must have 1 to 80 letters, digits, spaces and _-./ , no space or slash at "
            "an end and no parts such as '..'",
        ) from error


def shown_name(filename: str | None, number: int) -> str:
    """A client's file name as it is echoed: its last part, odd characters replaced; never opened."""
    last = re.split(r"[/\\]", filename or "")[-1]
    return shown(last[-100:]).strip() or f"picture {number}"


def _only(parts: Sequence[Part], files: Sequence[str], fields: Sequence[str]) -> None:
    for part in parts:
        if part.name not in (*files, *fields):
            known = ", ".join((*files, *fields))
            raise RefusedError(400, f"unknown part '{shown_name(part.name, 0)}'; known are {known}")
        if part.name in files and part.filename is None:
            raise RefusedError(400, f"{part.name}: send it as a file")
        if part.name in fields and part.filename is not None:
            raise RefusedError(400, f"{part.name}: a file; send it as a plain field")


def _field(parts: Sequence[Part], name: str, default: str) -> str:
    found = [part for part in parts if part.name == name]
    if len(found) > 1:
        raise RefusedError(400, f"{name}: given {len(found)} times; give it once")
    return _text(found[0]) if found else default


def _text(part: Part) -> str:
    try:
        return part.data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"{part.name}: not UTF-8") from error


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:  # nor is NaN
        raise RefusedError(400, "min_score: give a number from 0 to 1")
    return score


def _pairs(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= KEPT_PAIRS:
        raise RefusedError(400, f"limit: give a whole number from 1 to {KEPT_PAIRS}")
    return int(text)


def _boxes(text: str, limits: Limits) -> tuple[tuple[float, ...], ...]:
    try:
        boxes = _BOXES.validate_json(text, strict=True)
    except ValidationError as error:
        raise RefusedError(
            400, "boxes: give a JSON list of [left, top, width, height], four finite numbers in pixels each"
        ) from error
    if len(boxes) > limits.marks:
        raise RefusedError(413, f"{len(boxes)} boxes; send at most {limits.marks} at a time")
    return tuple(tuple(box) for box in boxes)


def _note(name: str, text: str, most: int) -> str:
    if len(text) > most or not text.isprintable():
        raise RefusedError(400, f"{name}: give one line of at most {most} printable characters")
    return text
