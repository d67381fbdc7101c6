"""The one place where the bench meets the detector: how marks become prompts and prompts a bank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.rle import decode_rle
from unispector.prompts.calibrate import Budget, Marked, calibrate, odds
from unispector.prompts.doctor import diagnose_prompts
from unispector.workbench.marks import ANY_CLASS, Mark
from unispector.workbench.session import Chosen, marks_about


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
    drop: bool = False  # whether it is to drop the image's marks of the class


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


def advice(
    marks: Sequence[Mark],
    bank: PromptBank | None,
    checked: Mapping[str, tuple[tuple[Mark, ...], list[Advice]]],
) -> list[Advice]:
    """What can be said of each class's prompts.

    Args:
        checked: class -> its marks when the doctor looked at them, and what it said.
    """
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
        elif label in checked:
            marks_then, said = checked[label]
            stale = Advice(label, None, "the marks have changed since they were checked: check them again")
            lines += said if marks_then == marks_about(marks, label) else [stale]
    return lines


def checkable(marks: Sequence[Mark], label: str) -> list[str]:
    """The classes whose marks the doctor can check: the one named, or all where the name is empty.

    Raises:
        DataError: there is none.
    """
    images: dict[str, set[str]] = {}
    for mark in marks:
        if not mark.negative and label in ("", mark.label):
            images.setdefault(mark.label, set()).add(mark.image)
    labels = [name for name, own in images.items() if len(own) > 1]
    if not labels:
        raise DataError("each image is looked at with the marks of the others: mark two images or more first")
    return labels


def check(
    model: Model, marks: Sequence[Mark], root: Path, labels: Sequence[str], bit_depth: int
) -> list[Advice]:
    """What the prompt doctor says of some classes' marks, in its quick form.

    Raises:
        DataError: an image cannot be used.
    """
    found = diagnose_prompts(
        model.detector, as_annotations(marks), root, "mask", quick=True, bit_depth=bit_depth, only=labels
    )
    lines = [
        Advice(own.label, said.file_name or None, said.text, said.kind == "drop")
        for own in found.classes
        for said in own.advice
        if said.kind != "fine"
    ]
    fine = [name for name in labels if all(line.label != name for line in lines)]
    return lines + [Advice(name, None, "checked: nothing to mend") for name in fine]


def check_budget(
    model: Model, marks: Sequence[Mark], used: Sequence[Mark], label: str, good: tuple[int, int]
) -> None:
    """Refuse at once what cannot be chosen.

    Args:
        marks: all that are about the class.
        used: the marks whose images are there.
        good: good images, and of how many at most one may show a false alarm.

    Raises:
        DataError: see `choose`.
    """
    if model.base is not None and label in model.base.class_names:
        raise DataError(f"{label}: its prompts came with the bank, without their images; calibrate that bank")
    if tuple(marks) != marks_about(used, label):
        raise DataError(f"{label}: a marked image is gone or has changed; restore it, or remove its marks")
    if (images := len({mark.image for mark in marks if not mark.negative})) < 2:
        raise DataError(
            f"{label}: marked on {images} images; each is looked at with the others, mark 2 or more"
        )
    count, one_in = good
    Budget(1 / one_in).check(count)


def choose(
    model: Model,
    marks: Sequence[Mark],
    root: Path,
    label: str,
    good: Sequence[Path],
    one_in: int,
    bit_depth: int,
) -> tuple[float, Chosen]:
    """The threshold of a class for a budget of false alarms, as the page's scores have it, and its proof.

    Raises:
        DataError: too few good images or marks, or an image cannot be used.
    """
    bank = encode(model, marks, root, bit_depth)
    if bank is None or label not in bank.class_names:
        raise DataError(f"{label}: not marked")
    own = as_annotations([mark for mark in marks if mark.label == label])
    told = calibrate(
        model.detector, bank.select([label]), Marked(own, root, "mask"), good, Budget(1 / one_in)
    )
    (calibration,) = told.calibrations
    # The page's scores have four digits: none of a false alarm that was rounded up may count.
    value = min(round(calibration.lowest, 4) + 1e-4, 1.0)
    return round(value, 4), Chosen(calibration, model.detector.fingerprint)


def holds(chosen: Chosen, bank: PromptBank | None) -> bool:
    """Whether a chosen threshold is still proved, as far as is known."""
    return chosen.holds and (bank is None or chosen.model == bank.fingerprint)


def promise(chosen: Chosen, bank: PromptBank | None) -> str:
    """What a chosen threshold promises, or why it does not any more, in one line."""
    told, budget = chosen.calibration, chosen.calibration.budget
    rate = odds(budget.rate) if budget is not None else ""
    if not holds(chosen, bank) or budget is None:
        why = "the model is another one" if chosen.holds else "the marks have changed"
        return f"{why}: the threshold for {rate} is not proved any more, choose it again"
    found = f"{told.found} of {told.marks} marks found"
    return f"a false alarm on at most {rate} good images, {budget.confidence:.0%} sure; {found}"


def as_annotations(marks: Sequence[Mark]) -> Annotations:
    """The marks that are no negatives, as the doctor and the calibration take them."""
    own = [mark for mark in marks if not mark.negative]
    images = {mark.image: number for number, mark in enumerate({m.image: m for m in own}.values(), 1)}
    sizes = {mark.image: mark.hw for mark in own}
    labels = {label: number for number, label in enumerate(dict.fromkeys(mark.label for mark in own), 1)}
    return Annotations(
        tuple(ImageRecord(number, name, sizes[name][1], sizes[name][0]) for name, number in images.items()),
        tuple(
            InstanceRecord(
                *(number, images[mark.image], labels[mark.label], mark.box),
                float(decode_rle(mark.mask).sum()) if mark.mask is not None else mark.box[2] * mark.box[3],
                mark.mask,
            )
            for number, mark in enumerate(own, 1)
        ),
        tuple(CategoryRecord(number, label, "") for label, number in labels.items()),
    )
