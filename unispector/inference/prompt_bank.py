"""The prompt bank: one embedding per class, in a file that knows which model made it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from unispector.errors import PromptBankError
from unispector.ops.files import atomic_write_bytes

FORMAT = "unispector prompt bank 1"


@dataclass(frozen=True)
class PromptBank:
    """Class prompts, ready to detect with; no prompt image is needed any more.

    An embedding is the mean over all marked instances of all prompt images of its class
    (instance-weighted; paper section 3.3), before any normalisation.

    Attributes:
        embeddings: [C, D] float32 on the CPU.
        class_names: C distinct names.
        counts: instances behind each embedding, at least 1.
        fingerprint: the model that made the embeddings; no other model can read them.
    """

    embeddings: Tensor
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        if not len(self.embeddings) == len(self.class_names) == len(self.counts):
            raise PromptBankError(
                f"a prompt bank of {len(self.embeddings)} embeddings, {len(self.class_names)} names and "
                f"{len(self.counts)} counts; it needs one of each per class"
            )
        if self.embeddings.ndim != 2 or not torch.isfinite(self.embeddings).all():
            raise PromptBankError("the embeddings of a prompt bank must be finite numbers of shape [C, D]")
        if not self.class_names:
            raise PromptBankError("a prompt bank without any class; mark at least one instance")
        if repeated := sorted({n for n in self.class_names if self.class_names.count(n) > 1}):
            raise PromptBankError(f"a prompt bank with class '{repeated[0]}' more than once")
        if empty := [n for n, count in zip(self.class_names, self.counts, strict=True) if count < 1]:
            raise PromptBankError(f"class '{empty[0]}' has no prompt; mark at least one instance of it")

    def __len__(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_instances(
        cls, embeddings: Tensor, labels: Tensor, class_names: Sequence[str], fingerprint: str
    ) -> Self:
        """Average instances into classes.

        Args:
            embeddings: [N, D] float, one row per marked instance.
            labels: [N] int64 index into `class_names`.
            class_names: C names, in the order of the bank.
            fingerprint: of the model that made the embeddings.

        Raises:
            PromptBankError: a class has no instance; the message names it.
        """
        labels = labels.cpu()
        sums = torch.zeros(len(class_names), embeddings.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels, embeddings.detach().cpu().double())
        counts = torch.bincount(labels, minlength=len(class_names))
        means = (sums / counts.clamp(min=1)[:, None]).float()
        return cls(means, tuple(class_names), tuple(counts.tolist()), fingerprint)

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
        return type(self)(self.embeddings[rows], tuple(names), counts, self.fingerprint)

    def merge(self, other: "PromptBank") -> Self:
        """Both banks in one; a class of both becomes the mean over all its instances.

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
        return type(self)((sums / totals[:, None]).float(), names, counts, self.fingerprint)

    def save(self, path: str | Path) -> None:
        """Write the bank as one safetensors file, atomically.

        Args:
            path: file to write; its folder is made when absent.
        """
        metadata = {
            "format": FORMAT,
            "class_names": json.dumps(self.class_names),
            "counts": json.dumps(self.counts),
            "fingerprint": self.fingerprint,
        }
        tensors = {"embeddings": self.embeddings.detach().cpu().float().contiguous()}
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
                if metadata.get("format") != FORMAT:
                    raise PromptBankError(f"{path}: a safetensors file, but no prompt bank of this version")
                return cls(
                    file.get_tensor("embeddings"),
                    tuple(json.loads(metadata["class_names"])),
                    tuple(json.loads(metadata["counts"])),
                    metadata["fingerprint"],
                )
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise PromptBankError(f"{path}: not a readable prompt bank; build it again") from error
