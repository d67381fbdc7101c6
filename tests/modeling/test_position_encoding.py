"""Sine encodings against their formula, channel by channel."""

import math

import pytest
import torch

from unispector.modeling.position_encoding import encode_boxes, encode_map


def wave(angle: float, channel: int, channels: int) -> float:
    argument = angle / 10_000 ** (2 * (channel // 2) / channels)
    return math.cos(argument) if channel % 2 else math.sin(argument)


def test_map_encodes_rows_then_columns():
    height, width, channels = 3, 5, 8
    encoded = encode_map(height, width, channels, torch.device("cpu")).view(height, width, channels)
    for row in range(height):
        for column in range(width):
            y = (row + 1) / (height + 1e-6) * 2 * math.pi
            x = (column + 1) / (width + 1e-6) * 2 * math.pi
            expected = [wave(y, k, 4) for k in range(4)] + [wave(x, k, 4) for k in range(4)]
            assert encoded[row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_boxes_encode_y_x_w_h():
    cx, cy, w, h = 0.1, 0.35, 0.6, 0.85
    encoded = encode_boxes(torch.tensor([[[cx, cy, w, h]]]), 6)
    assert encoded.shape == (1, 1, 24)
    expected = [wave(2 * math.pi * part, k, 6) for part in (cy, cx, w, h) for k in range(6)]
    assert encoded.flatten().tolist() == pytest.approx(expected, abs=1e-5)
