"""What must hold of a prompt bank, whether it was just made or read from a file."""

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unispector.errors import PromptBankError
from unispector.names import name_problem
from unispector.prior_structures import PromptMemory

if TYPE_CHECKING:
    from unispector.inference.prompt_bank import PromptBank

LEAST_SIDE, MOST_SIDE = 64, 2**18  # pixels of a tile
FARTHEST = 20.0  # from 0 that the logarithm of a share of a frame's side can be
LONGEST = 1e4  # of an embedding; those of trained models have lengths around 10
ROUNDING = 0.02  # how far a unit vector in half precision, perhaps made in bfloat16, may be from 1


def check_bank(bank: "PromptBank") -> None:
    """Refuse a bank whose parts do not belong together.

    Raises:
        PromptBankError: what is wrong, in one line.
    """
    names, counts = bank.class_names, bank.counts
    _check_tensor("embeddings", bank.embeddings, torch.float32, 2)
    if {len(bank.embeddings), len(counts), len(bank.image_sizes)} != {len(names)}:
        raise PromptBankError(
            f"a prompt bank of {len(bank.embeddings)} embeddings, {len(names)} names, {len(counts)} counts "
            f"and {len(bank.image_sizes)} sizes; it needs one of each per class"
        )
    if len(bank.calibrations) != len(names):
        raise PromptBankError("a prompt bank whose calibrations are not of its classes; build it again")
    if len(bank.tiles) != len(names) or any(side != 0 and side < LEAST_SIDE for side in bank.tiles):
        raise PromptBankError(
            f"a prompt bank of {len(names)} classes with tiles of {', '.join(map(str, bank.tiles))} pixels; "
            f"it needs a side per class, {LEAST_SIDE} or more, or 0 for the whole image"
        )
    if not 8 <= bank.bit_depth <= 16:
        raise PromptBankError(f"a prompt bank of {bank.bit_depth}-bit images; 8 to 16 bits can be")
    if not names:
        raise PromptBankError("a prompt bank without any class; mark at least one instance")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise PromptBankError(f"a prompt bank with class '{repeated[0]}' more than once")
    for name in names:
        if problem := name_problem(name):
            raise PromptBankError(f"a prompt bank with a class whose name {name!a:.90} {problem}; rename it")
    if empty := [name for name, count in zip(names, counts, strict=True) if count < 1]:
        raise PromptBankError(f"class '{empty[0]}' has no prompt; mark at least one instance of it")
    _check_memory(bank)
    _check_negatives(bank)


def check_values(bank: "PromptBank") -> None:
    """Refuse numbers of a file that no model makes: with them nothing would be found.

    Raises:
        PromptBankError: what is wrong, in one line.
    """
    lengths = bank.embeddings.norm(dim=1)
    if not ((lengths > 0) & (lengths < LONGEST)).all():
        raise PromptBankError("a prompt bank whose embeddings are none that a model makes; build it again")
    if bank.memory is not None and (bank.memory.sizes.abs() > FARTHEST).any():
        raise PromptBankError("a prompt bank whose sizes are no logarithms of shares; build it again")
    if max(bank.tiles) > MOST_SIDE:
        raise PromptBankError("a prompt bank with tiles larger than any image; build it again")


def _check_memory(bank: "PromptBank") -> None:
    memory, owners = bank.memory, bank.owners
    if memory is not None:
        _check_tensor("image", memory.image, torch.int64, 1)
    if len(owners) != (len(memory) if memory is not None else 0):
        raise PromptBankError(
            "a prompt bank whose memory does not say which class an image shows; build it again"
        )
    if memory is None:
        return
    if {len(memory.outside), len(memory.plainness)} != {len(memory.inside)}:
        raise PromptBankError("a prompt bank whose features lack a level; build it again")
    for level, (inside, outside) in enumerate(memory.levels):
        _check_units(f"inside.{level}", inside, all_shown=True)
        _check_units(f"outside.{level}", outside, all_shown=False)
        plainness = memory.plainness[level]
        _check_tensor(f"plainness.{level}", plainness, torch.float16, 2)
        if (plainness.abs() > 1 + ROUNDING).any():
            raise PromptBankError(f"a prompt bank whose plainness.{level} are no cosines; build it again")
    _check_tensor("sizes", memory.sizes, torch.float32, 2)
    if not _fits_together(memory) or (memory.image < 0).any():
        raise PromptBankError("a prompt bank whose features are not of one shape; build it again")
    if set(owners) != set(range(len(bank))):
        raise PromptBankError("a prompt bank whose memory is not of its classes; build it again")


def _check_negatives(bank: "PromptBank") -> None:
    negatives, owners = bank.negatives, bank.negative_owners
    for level, cells in enumerate(negatives):
        _check_units(f"negatives.{level}", cells, all_shown=True)
    if {len(cells) for cells in negatives} != ({len(owners)} if owners else set()):
        raise PromptBankError("a prompt bank whose negatives do not say what they are not; build it again")
    known = [cells.shape[1:] for cells in bank.memory.inside] if bank.memory is not None and negatives else []
    if [cells.shape[1:] for cells in negatives] != known:
        raise PromptBankError("a prompt bank whose negatives do not fit; build it again")
    if not set(owners) <= set(range(len(bank))):
        raise PromptBankError("a prompt bank whose negatives are not of its classes; build it again")


def _fits_together(memory: PromptMemory) -> bool:
    """Return whether the tensors of a memory have the shapes that `PromptMemory` states."""
    images = len(memory.image)
    levels = zip(memory.inside, memory.outside, memory.plainness, strict=True)
    return memory.sizes.shape == (images, 2) and all(
        inside.shape[:2] == plainness.shape
        and inside.shape[1] > 0
        and inside.shape[2] == outside.shape[2]
        and {len(inside), len(outside)} == {images}
        for inside, outside, plainness in levels
    )


def _check_units(name: str, cells: Tensor, *, all_shown: bool) -> None:
    """Refuse features [n, m, D] that are no unit vectors, or zeros where there is nothing to see.

    With `all_shown`, each of the n needs one that is not zero.
    """
    _check_tensor(name, cells, torch.float16, 3)
    lengths = cells.float().norm(dim=2)
    seen = lengths > 0
    if ((lengths - 1).abs()[seen] > ROUNDING).any() or (all_shown and not seen.any(1).all()):
        raise PromptBankError(f"a prompt bank whose {name} are no unit vectors; build it again")


def _check_tensor(name: str, tensor: Tensor, kind: torch.dtype, sides: int) -> None:
    if (tensor.dtype, tensor.ndim) != (kind, sides):
        found, wanted = (str(each).removeprefix("torch.") for each in (tensor.dtype, kind))
        raise PromptBankError(
            f"a prompt bank whose {name} are {found} of {tensor.ndim} sides, not {wanted} of {sides}; "
            "build it again"
        )
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise PromptBankError(f"a prompt bank whose {name} are no finite numbers; build it again")
