"""Messages say exactly what was found."""

import math

import pytest
import torch
from pydantic import ValidationError

from unispector.detections import Detections
from unispector.ops.rle import encode_rle
from unispector.serving.messages import PromptMessage, image_message


def test_nothing_is_rounded_or_reordered():
    masks = torch.zeros(2, 30, 40, dtype=torch.bool)
    masks[0, 3:9, 4:20] = masks[1, 10:, :] = True
    codes = tuple(encode_rle(masks.numpy()))
    boxes = torch.tensor([[4.1, 3.0, 20.7, 9.3], [0.0, 10.0, 40.0, 30.0]])
    scores = torch.tensor([0.7312345, 0.1])
    found = Detections(boxes, scores, torch.tensor([1, 0]), codes, ("hole", "crack"), (30, 40))
    message = image_message("part.png", found)
    assert (message.name, message.width, message.height) == ("part.png", 40, 30)
    assert [each.label for each in message.detections] == ["crack", "hole"]
    assert [each.score for each in message.detections] == scores.double().tolist()
    left, top, width, height = message.detections[0].box
    corners = torch.tensor([left, top, left + width, top + height])
    assert torch.equal(corners, boxes[0])
    assert [each.mask.model_dump() for each in message.detections] == list(codes)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, "a"])
def test_boxes_of_prompts_are_finite_numbers(number):
    with pytest.raises(ValidationError):
        PromptMessage(image="", boxes=[[0, 0, 1, number]])


def test_boxes_of_prompts_have_four_numbers():
    with pytest.raises(ValidationError):
        PromptMessage(image="", boxes=[[0, 0, 1]])
    assert PromptMessage(image="", boxes=[[0, 0, 1, 2]]).label == "defect"
