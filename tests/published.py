"""Names and shapes of a published detector of this family, without its backbone and unused parts."""

from dataclasses import dataclass
from itertools import pairwise

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
