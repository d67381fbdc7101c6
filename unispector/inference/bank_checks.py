"""What must hold of a prompt bank, whether it was just made or read from a file."""

from typing import TYPE_CHECKING

from torch import Tensor

from unispector.errors import PromptBankError
from unispector.prior_structures import PromptMemory

if TYPE_CHECKING:
    from unispector.inference.prompt_bank import PromptBank

LEAST_SIDE = 64  # pixels of a tile


def check_bank(bank: "PromptBank") -> None:
    """Refuse a bank whose parts do not belong together.

    Raises:
        PromptBankError: what is wrong, in one line.
    """
    names, counts = bank.class_names, bank.counts
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
    if bank.embeddings.ndim != 2 or not _finite(bank.embeddings):
        raise PromptBankError("the embeddings of a prompt bank must be finite numbers of shape [C, D]")
    if not names:
        raise PromptBankError("a prompt bank without any class; mark at least one instance")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise PromptBankError(f"a prompt bank with class '{repeated[0]}' more than once")
    if empty := [name for name, count in zip(names, counts, strict=True) if count < 1]:
        raise PromptBankError(f"class '{empty[0]}' has no prompt; mark at least one instance of it")
    _check_memory(bank)
    _check_negatives(bank)


def _check_memory(bank: "PromptBank") -> None:
    memory, owners = bank.memory, bank.owners
    if memory is not None and not _fits_together(memory):
        raise PromptBankError("a prompt bank whose features are not of one shape; build it again")
    if len(owners) != (len(memory) if memory is not None else 0):
        raise PromptBankError("a prompt bank whose memory does not say which class each image shows")
    if memory is not None and set(owners) != set(range(len(bank))):
        raise PromptBankError("a prompt bank whose memory is not of its classes; build it again")
    if memory is not None and not _finite(*_features(memory)):
        raise PromptBankError("a prompt bank with features that are no finite numbers; build it again")


def _check_negatives(bank: "PromptBank") -> None:
    negatives, owners = bank.negatives, bank.negative_owners
    if {len(cells) for cells in negatives} != ({len(owners)} if owners else set()):
        raise PromptBankError("a prompt bank whose negatives do not say which class they are not")
    known = [cells.shape[1:] for cells in bank.memory.inside] if bank.memory is not None and negatives else []
    if [cells.shape[1:] for cells in negatives] != known or not _finite(*negatives):
        raise PromptBankError("a prompt bank whose negatives do not fit; build it again")
    if not set(owners) <= set(range(len(bank))):
        raise PromptBankError("a prompt bank whose negatives are not of its classes; build it again")


def _fits_together(memory: PromptMemory) -> bool:
    """Return whether the tensors of a memory have the shapes that `PromptMemory` states."""
    images = len(memory.image) if memory.image.ndim == 1 else -1
    levels = zip(memory.inside, memory.outside, memory.plainness, strict=True)
    return memory.sizes.shape == (images, 2) and all(
        (inside.ndim, outside.ndim) == (3, 3)
        and inside.shape[:2] == plainness.shape
        and inside.shape[1] > 0
        and inside.shape[2] == outside.shape[2]
        and {len(inside), len(outside)} == {images}
        for inside, outside, plainness in levels
    )


def _features(memory: PromptMemory) -> tuple[Tensor, ...]:
    """All of a memory that is measured: everything but the numbers of images."""
    return *memory.inside, *memory.outside, *memory.plainness, memory.sizes


def _finite(*tensors: Tensor) -> bool:
    """Return whether tensors hold finite numbers with fractions."""
    return all(tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in tensors)
