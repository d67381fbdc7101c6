"""The one place where the bench meets the detector: how marks become prompts and prompts a bank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.rle import decode_rle
from unispector.workbench.marks import Mark

DEFAULT_THRESHOLD = 0.1
"""Where a slider stands of a class whose prompts have no threshold of their own."""


@dataclass(frozen=True)
class Model:
    """A detector and the prompts that the program was started with."""

    detector: UniSpector
    base: PromptBank | None  # classes that need no mark in the session
    version: str  # of `base`


@dataclass(frozen=True)
class Advice:
    """One line of advice on a class's prompts."""

    label: str
    image: str | None  # the marked image that it is about
    text: str


def encode(model: Model, marks: Sequence[Mark], root: Path) -> PromptBank | None:
    """The bank of a session's marks and of the prompts it was started with; None without any.

    Args:
        root: folder that the marks' images are named below.

    Raises:
        DataError: an image or a mark cannot be used.
        PromptBankError: the prompts were made by another model.
    """
    prompts = [prompt for mark in marks if not mark.negative for prompt in [as_prompt(mark, root)]]
    own = model.detector.encode(prompts) if prompts else None
    if model.base is None or own is None:
        return own or model.base
    return model.base.merge(own)


def as_prompt(mark: Mark, root: Path) -> Prompt:
    """A mark as the detector takes it."""
    if mark.mask is None:
        return Prompt(str(root / mark.image), [mark.box], label=mark.label)
    masks = np.asarray(decode_rle(mark.mask))[None]
    return Prompt(str(root / mark.image), masks=masks, label=mark.label)


def thresholds(bank: PromptBank) -> Mapping[str, float]:
    """Where the slider of each class stands at first."""
    return dict.fromkeys(bank.class_names, DEFAULT_THRESHOLD)


def advice(marks: Sequence[Mark]) -> list[Advice]:
    """What can be said of each class's prompts."""
    lines = []
    positive = [mark for mark in marks if not mark.negative]
    for label in dict.fromkeys(mark.label for mark in positive):
        own = [mark for mark in positive if mark.label == label]
        images = list(dict.fromkeys(mark.image for mark in own))
        if len(images) == 1:
            text = "marked on one image; mark two to four more images, as different as the defect gets"
            lines.append(Advice(label, images[0], text))
    return lines
