"""The prompts that are served: a bank file that never changes, or a store that may."""

import hashlib
from pathlib import Path

from unispector.errors import PromptBankError
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.serving.answers import ClassAnswer, PromptsAnswer, VersionAnswer
from unispector.serving.refusal import RefusedError

HISTORY = 100
"""Versions told at a time."""


class FixedPrompts:
    """A bank file, read once."""

    def __init__(self, file: Path) -> None:
        """Read the file, or raise PromptBankError."""
        self._bank = PromptBank.load(file)
        if self._bank.bit_depth != 16:
            raise PromptBankError(
                f"{file}: made of {self._bank.bit_depth}-bit images, which the service would read as of 16; "
                "build the bank of images converted to 8 bits, and send such"
            )
        self._version = hashlib.sha256(file.read_bytes()).hexdigest()[:12]

    def version(self) -> str:
        """Twelve hex digits of the file's hash."""
        return self._version

    def bank(self, detector: UniSpector) -> PromptBank:
        """The bank; PromptBankError where another model made it."""
        detector.check(self._bank)
        return self._bank

    def listing(self, served: str, trouble: str) -> PromptsAnswer:
        """Its classes, without a history."""
        bank = self._bank
        classes = [
            ClassAnswer(label=label, marks=count, negatives=bank.negative_owners.count(row))
            for row, (label, count) in enumerate(zip(bank.class_names, bank.counts, strict=True))
        ]
        return PromptsAnswer(
            version=self._version,
            served=served,
            trouble=trouble if served != self._version else "",
            changeable=False,
            classes=classes,
            history=[],
        )


class StoredPrompts:
    """A prompt store, which other processes may change too."""

    def __init__(self, store: PromptStore) -> None:
        self._store = store

    def version(self) -> str:
        """Number of the store's version."""
        return str(self._store.current().version)

    def bank(self, detector: UniSpector) -> PromptBank | None:
        """The store's bank."""
        return self._store.bank(detector)

    def listing(self, served: str, trouble: str) -> PromptsAnswer:
        """Classes of the current version, and the history."""
        now, history = self._store.current(), self._store.history(HISTORY)
        return PromptsAnswer(
            version=str(now.version),
            served=served,
            trouble=trouble if served != str(now.version) else "",
            changeable=True,
            classes=[
                ClassAnswer(
                    label=label,
                    marks=sum(len(prompt.marks()) for prompt in prompts if not prompt.negative),
                    negatives=sum(len(prompt.marks()) for prompt in prompts if prompt.negative),
                )
                for label, prompts in now.classes.items()
            ],
            history=[
                VersionAnswer(
                    version=str(v.version), time=v.time, by=v.by, note=v.note, classes=list(v.classes)
                )
                for v in history
            ],
        )

    def add(self, label: str, picture: MarkedImage, by: str, note: str) -> None:
        """Make a version with the image.

        Raises:
            DataError: the label, the image or a mark cannot be used.
        """
        self._store.add(label, [picture], by, note, {})

    def remove(self, label: str, by: str, note: str) -> None:
        """Make a version without the class.

        Raises:
            RefusedError: there is no such class.
        """
        if label not in self._store.current().classes:
            raise RefusedError(404, f"no class '{label}'")
        self._store.remove(label, by, note)


Prompts = FixedPrompts | StoredPrompts


def stored(prompts: Prompts) -> StoredPrompts:
    """Prompts that may be changed.

    Raises:
        RefusedError: they are a bank file.
    """
    if isinstance(prompts, FixedPrompts):
        raise RefusedError(409, "the prompts are a bank file, which never changes; serve a folder of prompts")
    return prompts
