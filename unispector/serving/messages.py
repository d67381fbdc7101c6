"""JSON messages of the service and of the registered model."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from unispector.detections import Detections

Number = Annotated[float, Field(allow_inf_nan=False)]
Box = Annotated[list[Number], Field(min_length=4, max_length=4)]


class Message(BaseModel):
    """Base of all messages: a misspelt key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RleMessage(Message):
    """A mask as a COCO run-length code."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)] = Field(
        description="Height and width in pixels.", examples=[[480, 640]]
    )
    counts: str = Field(
        description="COCO's compressed run-length code; `pycocotools.mask.decode` reads it.",
        examples=["PPYo1"],
    )


class DetectionMessage(Message):
    """One detection."""

    label: str = Field(description="Class, as its prompts were labelled.", examples=["crack"])
    score: Number = Field(description="Class score times mask quality, 0 to 1.", examples=[0.62])
    box: Box = Field(
        description="Left, top, width, height in pixels of the image.", examples=[[120.5, 80.0, 41.2, 23.9]]
    )
    mask: RleMessage = Field(description="Of the image's size.")


class ImageMessage(Message):
    """The detections on one image, best first."""

    name: str = Field(description="File name as sent; odd characters are replaced.", examples=["part-17.png"])
    width: int = Field(description="In pixels, of the upright image.", examples=[640])
    height: int = Field(description="In pixels, of the upright image.", examples=[480])
    detections: list[DetectionMessage] = Field(description="Best first.")


class PromptMessage(Message):
    """A marked image: boxes or masks of one class, not both."""

    image: str  # the image's file, in base64
    label: str = "defect"  # class
    boxes: list[Box] = []  # left, top, width, height in pixels of the image, each
    masks: list[RleMessage] = []  # of the image's size


def image_message(name: str, detections: Detections) -> ImageMessage:
    """The detections on one image as a message.

    Args:
        name: what the sender calls the image.
        detections: in the image's own pixels, best first; not changed or rounded.
    """
    height, width = detections.image_hw
    rows = zip(
        detections.labels.tolist(),
        detections.scores.tolist(),
        detections.boxes_xyxy.tolist(),
        detections.masks_rle,
        strict=True,
    )
    found = [
        DetectionMessage(
            label=detections.class_names[label],
            score=score,
            box=[left, top, right - left, bottom - top],
            mask=RleMessage.model_validate(rle),
        )
        for label, score, (left, top, right, bottom), rle in rows
    ]
    return ImageMessage(name=name, width=width, height=height, detections=found)
