"""Sine position encodings of feature maps and boxes."""

import math

import torch
from torch import Tensor


def _sine(positions: Tensor, channels: int, temperature: float = 10_000.0) -> Tensor:
    """Interleaved sine and cosine of angles [...] at `channels` / 2 frequencies: [..., channels]."""
    index = torch.arange(channels, device=positions.device) // 2
    frequency = temperature ** (2 * index / channels)
    angles = positions[..., None] / frequency
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def encode_map(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Encode every cell of a map, y channels first.

    Args:
        height, width: size of the map in cells.
        channels: D, even.
        device: where the result lives.

    Returns:
        [height * width, D], row by row; 1-based positions over the last one, times 2π.
    """
    y = torch.arange(1, height + 1, device=device) / (height + 1e-6) * 2 * math.pi
    x = torch.arange(1, width + 1, device=device) / (width + 1e-6) * 2 * math.pi
    rows = _sine(y, channels // 2)[:, None].expand(-1, width, -1)
    columns = _sine(x, channels // 2)[None].expand(height, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


def encode_boxes(boxes: Tensor, channels: int) -> Tensor:
    """Encode normalised boxes [..., 4] cxcywh as [..., 4 * channels], in the order y, x, w, h."""
    cx, cy, w, h = (boxes * 2 * math.pi).unbind(-1)
    return torch.cat([_sine(part, channels) for part in (cy, cx, w, h)], dim=-1)
