"""Names and shapes of a published detector of this family, without its backbone and unused parts."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

PIXELS, HEAD = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
LEVELS = 4
Shapes = dict[str, tuple[int, ...]]


def pair(name: str, *weight: int) -> Shapes:
    """A layer's weight and its bias, as long as the weight's first axis."""
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def mlp(name: str, *widths: int) -> Shapes:
    parts = [pair(f"{name}.layers.{i}", b, a) for i, (a, b) in enumerate(pairwise(widths))]
    return {name: shape for part in parts for name, shape in part.items()}


@dataclass(frozen=True)
class Published:
    """Sizes of a published detector."""

    width: int
    heads: int
    points: int
    hidden: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    channels: tuple[int, ...]

    def shapes(self) -> Shapes:
        """All but the box head and the last norm, which are stored several times."""
        return self._pixel_decoder() | self._predictor()

    def _deformable(self, name: str) -> Shapes:
        samples = self.heads * LEVELS * self.points
        found = pair(f"{name}.sampling_offsets", 2 * samples, self.width)
        found |= pair(f"{name}.attention_weights", samples, self.width)
        found |= pair(f"{name}.value_proj", self.width, self.width)
        return found | pair(f"{name}.output_proj", self.width, self.width)

    def _attention(self, name: str) -> Shapes:
        weights = {f"{name}.in_proj_weight": (3 * self.width, self.width)}
        weights[f"{name}.in_proj_bias"] = (3 * self.width,)
        return weights | pair(f"{name}.out_proj", self.width, self.width)

    def _feedforward(self, name: str) -> Shapes:
        first, second = pair(f"{name}.linear1", self.hidden, self.width), (self.width, self.hidden)
        return first | pair(f"{name}.linear2", *second)

    def _pixel_decoder(self) -> Shapes:
        width, channels = self.width, self.channels
        found: Shapes = {f"{PIXELS}transformer.level_embed": (LEVELS, width)}
        for index, (c, kernel) in enumerate(zip((*channels[1:], channels[-1]), (1, 1, 1, 3), strict=True)):
            found |= pair(f"{PIXELS}input_proj.{index}.0", width, c, kernel, kernel)
            found |= pair(f"{PIXELS}input_proj.{index}.1", width)
        for index in range(self.encoder_layers):
            name = f"{PIXELS}transformer.encoder.layers.{index}"
            found |= self._deformable(f"{name}.self_attn") | self._feedforward(name)
            found |= pair(f"{name}.norm1", width) | pair(f"{name}.norm2", width)
        found |= {f"{PIXELS}adapter_1.weight": (width, channels[0], 1, 1)} | pair(
            f"{PIXELS}adapter_1.norm", width
        )
        found |= {f"{PIXELS}layer_1.weight": (width, width, 3, 3)} | pair(f"{PIXELS}layer_1.norm", width)
        return found | pair(f"{PIXELS}mask_features", width, width, 1, 1)

    def _predictor(self) -> Shapes:
        width = self.width
        found: Shapes = {f"{HEAD}{name}.weight": (1, width) for name in ("content_tokens", "pos_embed")}
        found |= {f"{HEAD}{name}.weight": (2, width) for name in ("label_enc", "pb_embedding")}
        found |= {f"{HEAD}query_feat.weight": (self.queries, width)}
        found |= {
            f"{HEAD}query_embed.weight": (self.queries, 4),
            f"{HEAD}class_embed_openset": (width, 2 * width),
        }
        for index in range(LEVELS):
            name = f"{HEAD}project_cross_attention_layers.{index}"
            found |= self._attention(f"{name}.multihead_attn") | pair(f"{name}.norm", width)
        for index in range(self.decoder_layers):
            name = f"{HEAD}decoder.layers.{index}"
            found |= self._deformable(f"{name}.cross_attn") | self._attention(f"{name}.self_attn")
            found |= self._feedforward(name)
            for number in (1, 2, 3):
                found |= pair(f"{name}.norm{number}", width)
        found |= mlp(f"{HEAD}decoder.ref_point_head", 2 * width, width, width)
        return found | mlp(f"{HEAD}mask_embed", *[width] * 4)


WIDTH, SWIN_WIDTHS, SWIN_DEPTHS, SWIN_HEADS = 256, (96, 192, 384, 768), (2, 2, 6, 2), (3, 6, 12, 24)


def swin() -> Shapes:
    found = pair("backbone.patch_embed.proj", 96, 3, 4, 4) | pair("backbone.patch_embed.norm", 96)
    for stage, (c, depth, heads) in enumerate(zip(SWIN_WIDTHS, SWIN_DEPTHS, SWIN_HEADS, strict=True)):
        for block in range(depth):
            name = f"backbone.layers.{stage}.blocks.{block}"
            found |= pair(f"{name}.norm1", c) | pair(f"{name}.norm2", c)
            found |= pair(f"{name}.attn.qkv", 3 * c, c) | pair(f"{name}.attn.proj", c, c)
            found |= pair(f"{name}.mlp.fc1", 4 * c, c) | pair(f"{name}.mlp.fc2", c, 4 * c)
            found[f"{name}.attn.relative_position_bias_table"] = (169, heads)
            found[f"{name}.attn.relative_position_index"] = (49, 49)
        if stage < 3:
            found |= pair(f"backbone.layers.{stage}.downsample.norm", 4 * c)
            found[f"backbone.layers.{stage}.downsample.reduction.weight"] = (2 * c, 4 * c)
        found |= pair(f"backbone.norm{stage}", c)
    return found


def official_state() -> dict[str, Tensor]:
    """UniSpector-base as it is published, with random values."""
    generator = torch.Generator().manual_seed(0)
    published = Published(WIDTH, 8, 4, 2048, 6, 9, 300, SWIN_WIDTHS)
    shapes = swin() | published.shapes() | mlp(f"{HEAD}iou_prediction_head", 256, 256, 256, 1)
    shapes |= {f"{HEAD}class_embed": (256, 512), f"{HEAD}mask_tokens.weight": (6, 256)}
    shapes |= {"criterion.empty_weight": (2,)}
    state = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    box = {name: torch.rand(shape, generator=generator) for name, shape in mlp("", 256, 256, 256, 4).items()}
    places = [f"{HEAD}{part}.{i}" for part in ("bbox_embed", "decoder.bbox_embed") for i in range(9)]
    for place in (f"{HEAD}_bbox_embed", *places):
        state |= {place + name: value for name, value in box.items()}
    for leaf in ("weight", "bias"):
        norm = torch.rand(256, generator=generator)
        state |= {f"{HEAD}decoder_norm.{leaf}": norm, f"{HEAD}decoder.norm.{leaf}": norm}
    return {f"model.{name}": value for name, value in state.items()}
