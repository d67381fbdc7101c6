"""The multipart forms that requests carry: how many and how large their parts, and what they say."""

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Self

from fastapi import Form, UploadFile
from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field, Json, Strict, model_validator
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from unispector.config.evaluation import KEPT_PAIRS
from unispector.errors import DataError
from unispector.prompts.marks import checked_label
from unispector.serving.limits import Limits
from unispector.serving.messages import Message, Number
from unispector.serving.refusal import RefusedError, shown

FIELD_BYTES = 2**16
"""Most bytes of a part that is no file."""

_REPEATED = ("images", "classes")
_NUMBERS = ("min_score", "limit")


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
            "the name of a class must have 1 to 80 letters, digits, spaces and _-./&(),' , no space or slash "
            "at an end and no parts such as '..'",
        ) from error


def shown_name(filename: str | None, number: int) -> str:
    """A client's file name as it is echoed: its last part, odd characters replaced; never opened."""
    last = re.split(r"[/\\]", filename or "")[-1]
    return shown(last[-100:]).strip() or f"image {number}"


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("give one line of printable characters")
    return text


_Box = Annotated[list[Annotated[Number, Strict()]], Field(min_length=4, max_length=4)]
_Line = Annotated[str, AfterValidator(_one_line)]


class DetectForm(Message):
    """A request to detect."""

    images: list[UploadFile] = Field(
        description="Images: PNG, JPEG, BMP, TIFF or WebP. Repeat for more.", min_length=1
    )
    classes: list[str] = Field(
        [],
        description="Look only for these classes. Repeat for more; without it, for all.",
        examples=[["crack"]],
    )
    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Leave out detections that score less; without it, those under their class's threshold.",
    )
    limit: int = Field(
        KEPT_PAIRS,
        ge=1,
        le=KEPT_PAIRS,
        description="Candidates that are kept of an image before overlapping ones go.",
    )


class PromptForm(Message):
    """A request to add a prompt; boxes or a mask, not both."""

    image: UploadFile = Field(description="An image that shows the defect.")
    label: Annotated[str, AfterValidator(check_label)] = Field(
        description="Class to add to, or to make.", examples=["crack"]
    )
    boxes: Json[Annotated[list[_Box], Field(min_length=1)]] = Field(
        [],
        description="JSON list of [left, top, width, height] in pixels, one for each instance.",
        examples=["[[120, 80, 40, 24]]"],
    )
    mask: UploadFile | None = Field(
        None, description="Instead of boxes: an image of the same size, not black where one instance is."
    )
    negative: bool = Field(False, description="The marks show what the class is not.")
    by: _Line = Field("http", max_length=40, description="Who adds it, for the history.")
    note: _Line = Field(
        "", max_length=200, description="Why, for the history.", examples=["new tool on line 3"]
    )

    @model_validator(mode="after")
    def _marked_once(self) -> Self:
        if bool(self.boxes) == (self.mask is not None):
            raise ValueError("mark the defect with `boxes` or with `mask`, one of the two")
        return self


DetectBody = Annotated[DetectForm, Form(media_type="multipart/form-data")]
PromptBody = Annotated[PromptForm, Form(media_type="multipart/form-data")]


class FormRoute(APIRoute):
    """A route whose body, where it has one, is a multipart form within the service's limits."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request; it parses the form, since FastAPI itself would set no limits."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def limited(request: Request) -> Response:
            try:
                _check_parts(await _parsed(request, request.app.state.service.limits))
                return await handle(request)
            finally:
                await request.close()

        return limited


async def _parsed(request: Request, limits: Limits) -> FormData:
    """The form, which the request keeps.

    Raises:
        RefusedError: 415 for another kind of body, 413 for more or larger parts, 400 for one that is broken.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "an encoded body; send it without Content-Encoding")
    kind, options = parse_options_header(request.headers.get("content-type"))
    # Some of Python's codecs take minutes for a megabyte, so the sender does not choose one.
    if kind != b"multipart/form-data" or options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise RefusedError(415, "another kind of body; send multipart/form-data in UTF-8")
    most = limits.pictures + limits.marks
    try:
        form = await request.form(max_files=most, max_fields=most, max_part_size=FIELD_BYTES)
    except HTTPException as error:  # 400 whatever is wrong
        raise RefusedError(413 if "aximum" in error.detail else 400, error.detail) from error
    # The parser passes over a last part that does not end.
    if b"--" + options.get(b"boundary", b"") + b"--" not in request.state.body_end:
        raise RefusedError(400, "the multipart body is cut off")
    return form


def _check_parts(form: FormData) -> None:
    """Refuse what FastAPI would pass over: a field given twice, and an empty number."""
    for name in form:
        values = form.getlist(name)
        if len(values) > 1 and name not in _REPEATED:
            raise RefusedError(400, f"{shown(name)}: given {len(values)} times; give it once")
        if name in _NUMBERS and values == [""]:
            raise RefusedError(400, f"{name}: give a number")
