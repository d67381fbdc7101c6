"""The prompt bank: one embedding per class, in a file that knows which model made it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from unispector.errors import PromptBankError
from unispector.inference.bank_checks import check_bank, check_values
from unispector.inference.bank_file import DAMAGE, read_file, whole_numbers, write_file
from unispector.inference.calibration import Calibration
from unispector.inference.tiles import View
from unispector.ops.json_text import parse_json
from unispector.prior_structures import PromptMemory
from unispector.structures import EncodedPrompts

REMEMBERED = 8  # marked images of a class that the similarity prior compares with, at most
OPPOSED = 32  # negatives of a class that are kept, at most: the last ones
_SIDES = ("inside", "outside", "plainness")


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
    bit_depth: int = 16  # bits that 16-bit prompt images really used; 16-bit targets are read so, too
    # The same features in M marks of what is not the defect, at most `OPPOSED` a class: of each level
    # [M, m_l, D_l] float16 unit vectors; empty = no such mark.
    negatives: tuple[Tensor, ...] = ()
    negative_owners: tuple[int, ...] = ()  # class that each mark in `negatives` is not
    calibrations: tuple[Calibration, ...] = ()  # C, what the scores of each class mean

    def __post_init__(self) -> None:
        for name, default in (("tiles", 0), ("calibrations", Calibration())):
            if not getattr(self, name):
                object.__setattr__(self, name, (default,) * len(self))
        check_bank(self)

    def __len__(self) -> int:
        return len(self.class_names)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The score of each class from which on a finding counts."""
        return tuple(calibration.threshold for calibration in self.calibrations)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the embeddings, and of each level of the memory."""
        levels = self.memory.inside if self.memory is not None else ()
        return tuple(part.shape[-1] for part in (self.embeddings, *levels))

    @property
    def views(self) -> tuple[View, ...]:
        """How each class is looked at."""
        return tuple(map(View, self.tiles, self.image_sizes))

    def calibrated(self, calibrations: Mapping[str, Calibration]) -> Self:
        """The bank with other calibrations of some of its classes, by name."""
        own = zip(self.class_names, self.calibrations, strict=True)
        return replace(self, calibrations=tuple(calibrations.get(name, before) for name, before in own))

    def opposed_by(self, negatives: Sequence[Tensor], owners: Sequence[int]) -> Self:
        """The bank with further marks of what is not the defect; those classes lose their calibration.

        Args:
            negatives: of n marks, as in `negatives`.
            owners: class that each is not.
        """
        cells = tuple(level.detach().cpu().half() for level in negatives)
        if self.negatives:
            cells = tuple(map(torch.cat, zip(self.negatives, cells, strict=True)))
        everyone = (*self.negative_owners, *owners)
        kept = [place for place, of in enumerate(everyone) if everyone[place:].count(of) <= OPPOSED]
        opposed = replace(
            self,
            negatives=tuple(level[kept] for level in cells),
            negative_owners=tuple(everyone[place] for place in kept),
        )
        return opposed.calibrated({self.class_names[owner]: Calibration() for owner in owners})

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

    @property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Shapes of all tensors without the first side, which classes and marks take."""
        memory = self.memory.tensors if self.memory is not None else ()
        return tuple(part.shape[1:] for part in (self.embeddings, *memory))

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
        against = [place for place, owner in enumerate(self.negative_owners) if owner in rows]
        negatives = tuple(level[against] for level in self.negatives) if against else ()
        return replace(
            self,
            embeddings=self.embeddings[rows],
            class_names=tuple(names),
            counts=counts,
            image_sizes=sizes,
            memory=memory,
            owners=owners,
            tiles=tiles,
            negatives=negatives,
            negative_owners=tuple(rows.index(self.negative_owners[place]) for place in against),
            calibrations=tuple(self.calibrations[row] for row in rows),
        )

    def tiled(self, side: int) -> Self:
        """The bank with all classes looked for in tiles of this side; 0 = on the whole image.

        Calibrations go: the scores change.

        Raises:
            PromptBankError: the side is below `LEAST_SIDE`.
        """
        return replace(self, tiles=(side,) * len(self), calibrations=())

    def merge(self, other: "PromptBank") -> Self:
        """Both banks in one; a class of both becomes the mean over all its instances.

        A class that they look at with different sizes or tiles keeps those of the bank with more instances of
        it. A class of both loses its calibration, since its scores change.

        Raises:
            PromptBankError: the banks were made by different models, or of different bit depths.
        """
        other.check(self.fingerprint)
        if other.shapes != self.shapes:
            raise PromptBankError("prompt banks of other shapes cannot be merged; build both again")
        if other.bit_depth != self.bit_depth:
            raise PromptBankError(
                f"prompt banks of {self.bit_depth} and {other.bit_depth} bits cannot be merged; encode again"
            )
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
        merged = type(self)(
            means, names, counts, self.fingerprint, sizes, *remembered, tiles=tiles, bit_depth=self.bit_depth
        )
        for bank in (self, other):
            if bank.negatives:
                owners = [names.index(bank.class_names[owner]) for owner in bank.negative_owners]
                merged = merged.opposed_by(bank.negatives, owners)
        return merged.calibrated(
            {
                name: calibration
                for bank, another in ((self, other), (other, self))
                for name, calibration in zip(bank.class_names, bank.calibrations, strict=True)
                if name not in another.class_names
            }
        )

    def save(self, path: str | Path) -> None:
        """Write the bank as one safetensors file, atomically."""
        metadata = {
            "class_names": json.dumps(self.class_names),
            "counts": json.dumps(self.counts),
            "fingerprint": self.fingerprint,
            "image_sizes": json.dumps(self.image_sizes),
            "owners": json.dumps(self.owners),
            "tiles": json.dumps(self.tiles),
            "bit_depth": str(self.bit_depth),
            "negative_owners": json.dumps(self.negative_owners),
            "calibrations": json.dumps([each.as_dict() for each in self.calibrations]),
        }
        tensors = {"embeddings": self.embeddings.detach().cpu()}
        if self.memory is not None:
            tensors |= _named(self.memory)
        tensors |= {f"negatives.{level}": cells for level, cells in enumerate(self.negatives)}
        write_file(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a bank written by `save`.

        Raises:
            PromptBankError: the file is absent, damaged, or no prompt bank.
        """
        if not Path(path).is_file():
            raise PromptBankError(f"{path}: no such prompt bank; `unispector prompts build` makes one")
        try:
            tensors, metadata = read_file(Path(path))
            names = parse_json(metadata["class_names"])
            if not isinstance(names, list):
                raise TypeError("no list of names")
            memory, negatives = _memory_of(tensors), _levels_of(tensors, "negatives")
            if strange := tensors.keys() - {"embeddings"}:
                raise PromptBankError(f"the tensor {min(strange)} in it is of no part of a prompt bank")
            bank = cls(
                tensors["embeddings"],
                tuple(names),
                whole_numbers(metadata, "counts"),
                metadata["fingerprint"],
                whole_numbers(metadata, "image_sizes"),
                memory,
                whole_numbers(metadata, "owners"),
                whole_numbers(metadata, "tiles", "[]"),
                int(metadata.get("bit_depth", 16)),
                negatives,
                whole_numbers(metadata, "negative_owners", "[]"),
                tuple(map(Calibration.from_dict, parse_json(metadata.get("calibrations", "[]")))),
            )
            check_values(bank)
            return bank
        except PromptBankError as error:
            raise PromptBankError(f"{path}: {error}") from error
        except DAMAGE as error:
            raise PromptBankError(f"{path}: not a readable prompt bank; build it again") from error


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


def _named(memory: PromptMemory) -> dict[str, Tensor]:
    """Every tensor of a memory under the name it is saved with."""
    levels = {f"{side}.{i}": t for side in _SIDES for i, t in enumerate(getattr(memory, side))}
    return {**levels, "image": memory.image, "sizes": memory.sizes}


def _memory_of(tensors: dict[str, Tensor]) -> PromptMemory | None:
    """The memory among a file's tensors, which are taken out, if there is one."""
    inside, outside, plainness = (_levels_of(tensors, side) for side in _SIDES)
    if not inside:
        return None
    return PromptMemory(inside, outside, plainness, tensors.pop("image"), tensors.pop("sizes"))


def _levels_of(tensors: dict[str, Tensor], side: str) -> tuple[Tensor, ...]:
    """What `<side>.0`, `<side>.1` and so on are, which are taken out."""
    count = sum(name.startswith(f"{side}.") for name in tensors)
    return tuple(tensors.pop(f"{side}.{level}") for level in range(count))
