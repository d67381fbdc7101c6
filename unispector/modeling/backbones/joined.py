"""Several backbones as one: their maps in a row, their pyramids joined, their levels side by side."""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from unispector.modeling.backbones.backbone import Backbone, Pyramid


class JoinedBackbone(Backbone):
    """Backbones that read the same image; each keeps its own size, normalisation and training."""

    def __init__(self, parts: Sequence[Backbone]) -> None:
        """Join backbones.

        Args:
            parts: in the order their maps and levels come in.
        """
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.frozen = all(part.frozen for part in parts)
        self.map_shapes = tuple(shape for part in parts for shape in part.map_shapes)
        self.matching_channels = tuple(c for part in parts for c in part.matching_channels)
        stride4, stride8, stride16, stride32 = (
            sum(level) for level in zip(*(part.channels for part in parts), strict=True)
        )
        self.channels = stride4, stride8, stride16, stride32

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """All parts' maps, part after part."""
        return tuple(m for part in self.parts for m in part(images))

    def pyramid(self, maps: tuple[Tensor, ...]) -> Pyramid:
        """The parts' channels side by side, stride by stride."""
        pyramids = [part.pyramid(own) for part, own in self._shared_out(maps)]
        stride4, stride8, stride16, stride32 = (
            torch.cat(level, dim=1) for level in zip(*pyramids, strict=True)
        )
        return stride4, stride8, stride16, stride32

    def matching(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """All parts' levels, part after part."""
        return tuple(level for part, own in self._shared_out(maps) for level in part.matching(own))

    @property
    def detail_channels(self) -> int:
        """Those of the first part: a vision transformer beside it has no stride of 4 of its own."""
        return cast(Backbone, self.parts[0]).detail_channels

    def checkpoint_activations(self) -> None:
        """Pass it on to every part."""
        for part in self.parts:
            cast(Backbone, part).checkpoint_activations()

    def _shared_out(self, maps: tuple[Tensor, ...]) -> Iterator[tuple[Backbone, tuple[Tensor, ...]]]:
        """Each part with the maps that it made."""
        start = 0
        for module in self.parts:
            part = cast(Backbone, module)
            end = start + len(part.map_shapes)
            yield part, maps[start:end]
            start = end
