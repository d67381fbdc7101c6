"""The prompt bank: one embedding per class, in a file that knows which model made it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from unispector.errors import PromptBankError
from unispector.ops.files import atomic_write_bytes
from unispector.prior_structures import PromptMemory
from unispector.structures import EncodedPrompts

FORMAT = "unispector prompt bank 5"
_WITHOUT_TILES = "unispector prompt bank 4"  # is still read
LEAST_SIDE = 64  # pixels of a tile
REMEMBERED = 8  # marked images of a class that the similarity prior compares with, at most
_SIDES = ("inside", "outside", "plainness")
_DAMAGE = (SafetensorError, OSError, LookupError, ValueError, TypeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class PromptBank:
    """Class prompts, ready to detect with; no prompt image is needed any more.

    An embedding is the mean over all marked instances of all prompt images of its class
    (instance-weighted; paper section 3.3), before any normalisation.
    """

    embeddings: Tensor  # [C, D] float32 on the CPU
    class_names: tuple[str, ...]  # C distinct names
    counts: tuple[int, ...]  # instances behind each embedding, at least 1
    fingerprint: str  # the model that made the embeddings; no other model can read them
    image_sizes: tuple[int, ...]  # C sides of the network input in pixels that the classes are looked at with
    # Frozen features of the marks on at most `REMEMBERED` images a class, float16, for the similarity prior;
    # None of a model without it.
    memory: PromptMemory | None = None
    owners: tuple[int, ...] = ()  # class (row of `embeddings`) of each image in `memory`
    # C sides of the square tiles, in pixels of the image, in which the classes are looked for; 0 = the whole
    # image. Left out, all are 0.
    tiles: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        classes = len(self.class_names)
        object.__setattr__(self, "tiles", _checked_tiles(self.tiles, classes))
        if {len(self.embeddings), len(self.counts), len(self.image_sizes)} != {classes}:
            raise PromptBankError(
                f"a prompt bank of {len(self.embeddings)} embeddings, {len(self.class_names)} names, "
                f"{len(self.counts)} counts and {len(self.image_sizes)} sizes; it needs one of each per class"
            )
        if self.embeddings.ndim != 2 or not _finite(self.embeddings):
            raise PromptBankError("the embeddings of a prompt bank must be finite numbers of shape [C, D]")
        if not self.class_names:
            raise PromptBankError("a prompt bank without any class; mark at least one instance")
        if repeated := sorted({n for n in self.class_names if self.class_names.count(n) > 1}):
            raise PromptBankError(f"a prompt bank with class '{repeated[0]}' more than once")
        if empty := [n for n, count in zip(self.class_names, self.counts, strict=True) if count < 1]:
            raise PromptBankError(f"class '{empty[0]}' has no prompt; mark at least one instance of it")
        if self.memory is not None and not _fits_together(self.memory):
            raise PromptBankError("a prompt bank whose features are not of one shape; build it again")
        if len(self.owners) != (len(self.memory) if self.memory is not None else 0):
            raise PromptBankError("a prompt bank whose memory does not say which class each image shows")
        if self.memory is not None and set(self.owners) != set(range(len(self))):
            raise PromptBankError("a prompt bank whose memory is not of its classes; build it again")
        if self.memory is not None and not _finite(*_features(self.memory)):
            raise PromptBankError("a prompt bank with features that are no finite numbers; build it again")

    def __len__(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_instances(
        cls,
        encoded: EncodedPrompts,
        labels: Tensor,
        class_names: Sequence[str],
        fingerprint: str,
        image_sizes: tuple[int, ...],
    ) -> Self:
        """Average instances into classes.

        Args:
            encoded: N marked instances.
            labels: [N] int64 index into `class_names`.
            class_names: C names, in the order of the bank.
            image_sizes: C sides of the input that the classes were encoded with.

        Raises:
            PromptBankError: a class has no instance; the message names it.
        """
        labels, embeddings = labels.cpu(), encoded.embeddings.detach().cpu().double()
        sums = torch.zeros(len(class_names), embeddings.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels, embeddings)
        counts = torch.bincount(labels, minlength=len(class_names))
        means = (sums / counts.clamp(min=1)[:, None]).float()
        memory = encoded.memory
        if memory is not None:
            memory, owner = memory.to("cpu").by_image(labels)
            labels = labels.new_zeros(len(memory)).scatter(0, owner, labels)
        remembered = _remembered(memory, labels)
        return cls(means, tuple(class_names), tuple(counts.tolist()), fingerprint, image_sizes, *remembered)

    def check(self, fingerprint: str) -> None:
        """Refuse another model's bank.

        Raises:
            PromptBankError: the bank was made by a model other than `fingerprint`.
        """
        if fingerprint != self.fingerprint:
            raise PromptBankError(
                f"the prompt bank was made by model {self.fingerprint[:12]}, this is model "
                f"{fingerprint[:12]}; build the bank again with this model"
            )

    def select(self, names: Sequence[str]) -> Self:
        """The bank of `names` only, in their order.

        Raises:
            PromptBankError: a name has no prompt in the bank, or is named twice.
        """
        if missing := [name for name in names if name not in self.class_names]:
            raise PromptBankError(
                f"class '{missing[0]}' has no prompt in the bank; it knows {', '.join(self.class_names)}"
            )
        rows = [self.class_names.index(name) for name in names]
        counts = tuple(self.counts[row] for row in rows)
        kept = [place for place, owner in enumerate(self.owners) if owner in rows]
        memory = self.memory.rows(torch.tensor(kept, dtype=torch.int64)) if self.memory is not None else None
        owners = tuple(rows.index(self.owners[place]) for place in kept)
        sizes, tiles = (tuple(own[row] for row in rows) for own in (self.image_sizes, self.tiles))
        return type(self)(
            self.embeddings[rows], tuple(names), counts, self.fingerprint, sizes, memory, owners, tiles
        )

    def tiled(self, side: int) -> Self:
        """The bank with all classes looked for in tiles of this side; 0 = on the whole image.

        Raises:
            PromptBankError: the side is below `LEAST_SIDE`.
        """
        return replace(self, tiles=(side,) * len(self))

    def merge(self, other: "PromptBank") -> Self:
        """Both banks in one; a class of both becomes the mean over all its instances.

        A class that they look at with different sizes or tiles keeps those of the bank with more instances of
        it.

        Raises:
            PromptBankError: the banks were made by different models.
        """
        other.check(self.fingerprint)
        names = tuple(dict.fromkeys((*self.class_names, *other.class_names)))
        labels = torch.tensor([names.index(name) for name in (*self.class_names, *other.class_names)])
        weights = torch.tensor((*self.counts, *other.counts), dtype=torch.float64)
        rows = torch.cat((self.embeddings, other.embeddings)).double()
        totals = torch.zeros(len(names), dtype=torch.float64).index_add_(0, labels, weights)
        sums = torch.zeros(len(names), rows.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels, rows * weights[:, None])
        counts = tuple(int(total) for total in totals)
        owners = [names.index(bank.class_names[owner]) for bank in (self, other) for owner in bank.owners]
        memories = [bank.memory for bank in (self, other) if bank.memory is not None]
        memory = PromptMemory.joined(memories) if memories else None
        remembered = _remembered(memory, torch.tensor(owners, dtype=torch.int64))
        known: dict[str, tuple[int, int, int]] = {}
        for bank in (self, other):
            own = zip(bank.counts, bank.image_sizes, bank.tiles, strict=True)
            for name, view in zip(bank.class_names, own, strict=True):
                known[name] = max(view, known.get(name, (0, 0, 0)))
        sizes, tiles = (tuple(known[name][part] for name in names) for part in (1, 2))
        means = (sums / totals[:, None]).float()
        return type(self)(means, names, counts, self.fingerprint, sizes, *remembered, tiles)

    def save(self, path: str | Path) -> None:
        """Write the bank as one safetensors file, atomically."""
        metadata = {
            "format": FORMAT,
            "class_names": json.dumps(self.class_names),
            "counts": json.dumps(self.counts),
            "fingerprint": self.fingerprint,
            "image_sizes": json.dumps(self.image_sizes),
            "owners": json.dumps(self.owners),
            "tiles": json.dumps(self.tiles),
        }
        tensors = {"embeddings": self.embeddings.detach().cpu().float().contiguous()}
        if self.memory is not None:
            tensors |= dict(_named(self.memory))
        atomic_write_bytes(path, save_tensors(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a bank written by `save`.

        Raises:
            PromptBankError: the file is absent, truncated, or no prompt bank.
        """
        if not Path(path).is_file():
            raise PromptBankError(f"{path}: no such prompt bank; `unispector prompts build` makes one")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                _check_format(metadata.get("format", ""))
                return cls(
                    file.get_tensor("embeddings"),
                    tuple(json.loads(metadata["class_names"])),
                    tuple(map(int, json.loads(metadata["counts"]))),
                    metadata["fingerprint"],
                    tuple(map(int, json.loads(metadata["image_sizes"]))),
                    _memory_of(file),
                    tuple(map(int, json.loads(metadata["owners"]))),
                    tuple(map(int, json.loads(metadata.get("tiles", "[]")))),
                )
        except PromptBankError as error:
            raise PromptBankError(f"{path}: {error}") from error
        except _DAMAGE as error:
            raise PromptBankError(f"{path}: not a readable prompt bank; build it again") from error


def _checked_tiles(tiles: tuple[int, ...], classes: int) -> tuple[int, ...]:
    if not tiles:
        return (0,) * classes
    if len(tiles) != classes or any(side != 0 and side < LEAST_SIDE for side in tiles):
        raise PromptBankError(
            f"a prompt bank of {classes} classes with tiles of {', '.join(map(str, tiles))} pixels; it "
            f"needs a side per class, {LEAST_SIDE} or more, or 0 for the whole image"
        )
    return tiles


def _check_format(name: str) -> None:
    """Refuse files that are no prompt bank, and prompt banks that this version cannot read."""
    if name in (FORMAT, _WITHOUT_TILES):
        return
    kind, _, number = name.rpartition(" ")
    if (
        kind == FORMAT.rpartition(" ")[0]
        and number.isdecimal()
        and int(number) > int(FORMAT.rpartition(" ")[2])
    ):
        raise PromptBankError("a prompt bank made by a newer version; update unispector or build it again")
    raise PromptBankError("a safetensors file, but no prompt bank of this version")


def _remembered(memory: PromptMemory | None, labels: Tensor) -> tuple[PromptMemory | None, tuple[int, ...]]:
    """At most `REMEMBERED` images of each class, evenly through them, and their classes."""
    if memory is None:
        return None, ()
    kept = [labels.new_zeros(0)]
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        count = min(len(own), REMEMBERED)
        kept.append(own[torch.arange(count) * len(own) // count])
    rows = torch.cat(kept)
    return memory.rows(rows).half(), tuple(labels[rows].tolist())


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


def _named(memory: PromptMemory) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a memory with the name it is saved under."""
    for side in _SIDES:
        yield from ((f"{side}.{i}", t.contiguous()) for i, t in enumerate(getattr(memory, side)))
    yield from ((name, getattr(memory, name).contiguous()) for name in ("image", "sizes"))


def _memory_of(file: Any) -> PromptMemory | None:
    """The memory in an open bank, if it has one."""
    levels = sum(key.startswith("inside.") for key in file.keys())  # noqa: SIM118
    if not levels:
        return None
    inside, outside, plainness = (
        tuple(file.get_tensor(f"{side}.{i}") for i in range(levels)) for side in _SIDES
    )
    return PromptMemory(inside, outside, plainness, file.get_tensor("image"), file.get_tensor("sizes"))
