"""Embeddings of single marked instances, from which any bank of some of them is a mean away."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unispector.inference.prompt_bank import PromptBank
from unispector.structures import EncodedPrompts


@dataclass(frozen=True)
class InstanceEmbeddings:
    """N encoded prompt instances."""

    encoded: EncodedPrompts  # the instances, float32 on the CPU
    labels: Tensor  # [N] int64 index into `class_names`
    instance_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    fingerprint: str
    image_sizes: tuple[int, ...]  # C sides of the network input in pixels that the classes are looked at with
    tiles: tuple[int, ...] = ()  # C sides of the tiles; see `PromptBank`
    bit_depth: int = 16  # that 16-bit images were read with

    def bank(self) -> PromptBank:
        """The bank of all of them: a class's embedding is the mean over its instances (paper 3.3).

        Raises:
            PromptBankError: a class has no instance; the message names it.
        """
        bank = PromptBank.from_instances(
            self.encoded, self.labels, self.class_names, self.fingerprint, self.image_sizes
        )
        return replace(bank, tiles=self.tiles, bit_depth=self.bit_depth)

    def only(self, instance_ids: Collection[int]) -> "InstanceEmbeddings":
        """Those of some instances."""
        kept = [row for row, number in enumerate(self.instance_ids) if number in instance_ids]
        rows = torch.tensor(kept, dtype=torch.int64)
        ids = tuple(self.instance_ids[row] for row in kept)
        return replace(self, encoded=self.encoded.rows(rows), labels=self.labels[rows], instance_ids=ids)
