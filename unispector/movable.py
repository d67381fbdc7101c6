"""The base of the detector's nouns."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Movable:
    """A dataclass of tensors (and nested ones) that moves between devices as a whole."""

    def to(self, device: torch.device | str) -> Self:
        """Copy with every tensor on `device`; nothing waits for a tensor that comes from pinned memory."""
        moved: Self = changed(self, lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))
        return moved

    def pin_memory(self) -> Self:
        """Copy in pinned memory, from which a GPU fetches by itself; a data loader calls this."""
        pinned: Self = changed(self, Tensor.pin_memory)
        return pinned


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Movable):
        return type(value)(**{f.name: changed(getattr(value, f.name), change) for f in fields(value)})
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor | Movable):
        return tuple(changed(item, change) for item in value)
    return value
