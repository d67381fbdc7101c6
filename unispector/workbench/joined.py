"""The one place where the bench meets the detector: how marks become prompts and prompts a bank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.rle import decode_rle
from unispector.workbench.marks import ANY_CLASS, Mark


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


def encode(model: Model, marks: Sequence[Mark], root: Path, bit_depth: int) -> PromptBank | None:
    """The bank of a session's marks and of the prompts it was started with; None without any.

    Negative marks of a class without prompts, and all of them where the model cannot use them, are left out.

    Args:
        root: folder that the marks' images are named below.
        bit_depth: bits that 16-bit images really use.

    Raises:
        DataError: an image or a mark cannot be used.
        PromptBankError: the prompts were made by another model, or of images of another bit depth.
    """
    prompts = [as_prompt(mark, root) for mark in marks if not mark.negative]
    own = model.detector.encode(prompts, bit_depth=bit_depth) if prompts else None
    bank = model.base.merge(own) if model.base is not None and own is not None else own or model.base
    if bank is None or bank.memory is None:
        return bank
    known = (ANY_CLASS, *bank.class_names)
    negatives = [as_prompt(mark, root) for mark in marks if mark.negative and mark.label in known]
    return model.detector.with_negatives(bank, negatives)


def as_prompt(mark: Mark, root: Path) -> Prompt:
    """A mark as the detector takes it."""
    if mark.mask is None:
        return Prompt(str(root / mark.image), [mark.box], label=mark.label)
    masks = np.asarray(decode_rle(mark.mask))[None]
    return Prompt(str(root / mark.image), masks=masks, label=mark.label)


def thresholds(bank: PromptBank) -> Mapping[str, float]:
    """Where the slider of each class stands at first."""
    return dict(zip(bank.class_names, bank.thresholds, strict=True))


def advice(marks: Sequence[Mark], bank: PromptBank | None) -> list[Advice]:
    """What can be said of each class's prompts."""
    lines = []
    if bank is not None and bank.memory is None:
        unused = dict.fromkeys(mark.label for mark in marks if mark.negative)
        text = "marks of what it is not are kept, but this model cannot use them"
        lines = [Advice(label, None, text) for label in unused]
    positive = [mark for mark in marks if not mark.negative]
    for label in dict.fromkeys(mark.label for mark in positive):
        own = [mark for mark in positive if mark.label == label]
        images = list(dict.fromkeys(mark.image for mark in own))
        if len(images) == 1:
            text = "marked on one image; mark two to four more images, as different as the defect gets"
            lines.append(Advice(label, images[0], text))
    return lines
