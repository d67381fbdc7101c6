"""`unispector prompts doctor`: which marked images to keep, to mend and to add, before anything is searched.

From Python: `diagnose_prompts(UniSpector.load("fast"), Annotations.read(file), images)`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any

from unispector.config import Roi
from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.inference.detector import UniSpector
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.files import read_image_size
from unispector.project.progress import progress_bar
from unispector.prompts.advice import Advice, advice_on, expected, outliers
from unispector.prompts.checks import CheckSettings, check_class
from unispector.prompts.figures import ClassFigures
from unispector.prompts.store import PromptStore
from unispector.prompts.trials import MarkedClass
from unispector.scores import DEFAULT_SCORE


@dataclass(frozen=True)
class ClassDiagnosis:
    """One class: its figures, and what to do."""

    figures: ClassFigures
    advice: tuple[Advice, ...]

    @classmethod
    def of(cls, figures: ClassFigures) -> "ClassDiagnosis":
        """The diagnosis that figures give."""
        return cls(figures, advice_on(figures))

    @property
    def label(self) -> str:
        """The name of the class."""
        return self.figures.label

    def on_image(self, file_name: str) -> tuple[Advice, ...]:
        """Advice on one image, the most urgent first."""
        return tuple(advice for advice in self.advice if advice.file_name == file_name)

    @property
    def on_class(self) -> tuple[Advice, ...]:
        """Advice on the class as a whole."""
        return self.on_image("")

    @cached_property
    def to_drop(self) -> tuple[str, ...]:
        """Images whose prompts harm, in their order."""
        return tuple(advice.file_name for advice in self.advice if advice.kind == "drop")

    @cached_property
    def suspects(self) -> tuple[str, ...]:
        """Images whose marks are to be dropped or to be looked at again, in their order."""
        kinds = ("drop", "look", "loose", "confused")
        return tuple(dict.fromkeys(a.file_name for a in self.advice if a.file_name and a.kind in kinds))

    def as_dict(self) -> dict[str, Any]:
        """Figures and advice as plain lists and dicts, without detections."""
        figures = self.figures
        far = outliers(figures)
        images = []
        for name, image in figures.images.items():
            own: dict[str, Any] = {"file_name": name, "outlier": name in far}
            own["marks"] = [asdict(mark) for mark in image.check.marks] if image.check else []
            parts = ("dropped", "alone", "shifted", "blurred", "given_back")
            own |= {part: asdict(value) if (value := getattr(image, part)) else None for part in parts}
            own["cosine"] = image.cosine
            own["advice"] = [asdict(advice) for advice in self.on_image(name)]
            images.append(own)
        count = len(figures.images)
        return {
            "class": figures.label,
            "roi": figures.roi,
            "score": figures.score,
            "weighed": figures.weighed,
            "ap50": figures.ap50,
            "curve": [asdict(point) for point in figures.curve],
            "expected": {str(n): expected(figures.curve, n) for n in (count, count + 2)},
            "other_roi": asdict(figures.other_roi) if figures.other_roi else None,
            "advice": [asdict(advice) for advice in self.on_class],
            "images": images,
        }


@dataclass(frozen=True)
class PromptDiagnosis:
    """All classes of some marked images."""

    classes: tuple[ClassDiagnosis, ...]
    root: Path  # folder the file names are relative to
    model: str  # fingerprint of the model
    # File name -> what it is called in the report; itself where it is not among them.
    names: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as plain lists and dicts."""
        return {"model": self.model, "classes": [one.as_dict() for one in self.classes]}


def diagnose_prompts(
    detector: UniSpector,
    annotations: Annotations,
    root: str | Path,
    roi: Roi = "box",
    thresholds: Mapping[str, float] | None = None,
    *,
    quick: bool = False,
    bit_depth: int = 16,
    only: Collection[str] | None = None,
) -> PromptDiagnosis:
    """Say of marked images which to keep, to mend and to add.

    Every image is looked at with prompts from the others; of a class with more than `WEIGHED` images, so many
    are drawn to try what single images are worth.

    Args:
        annotations: marked images of one or several classes, as `encode_annotations` takes them.
        root: folder the file names are relative to.
        roi: prompt with the boxes or with the masks.
        thresholds: class -> score, as the model gives it, from which a finding counts; without one, that
            from which `detect` draws.
        quick: leave out shifted boxes, blurred images and fewer prompts, two thirds of the time.
        bit_depth: 8 to 16, the bits that 16-bit images really use.
        only: classes to diagnose, beside which the others are rivals; None = all.

    Raises:
        DataError: a class has no mark, or an image is unreadable or of another size than its record says.
    """
    root = Path(root)
    own = {name: MarkedClass(of_class(annotations, name), root) for name in annotations.class_names}
    _check_images(annotations, root)
    known = {
        name: _Encoded(marked, detector.encode_instances(marked.annotations, root, roi, bit_depth=bit_depth))
        for name, marked in own.items()
    }
    least, classes = dict(thresholds or {}), list[ClassDiagnosis]()
    for name, one in known.items():
        if only is not None and name not in only:
            continue
        settings = CheckSettings(roi, least.get(name, DEFAULT_SCORE), not quick, not quick)
        rivals = partial(_rivals, [other for called, other in known.items() if called != name])
        with progress_bar(f"doctor {name}", "trial") as progress:
            figures = check_class(detector, one.marked, one.instances, rivals, settings, progress)
        classes.append(ClassDiagnosis.of(figures))
    return PromptDiagnosis(tuple(classes), root, detector.fingerprint)


def diagnose_store(detector: UniSpector, folder: str | Path, *, quick: bool = False) -> PromptDiagnosis:
    """Diagnose the prompts in production, which keep their images; see `diagnose_prompts`.

    Raises:
        PromptBankError: the store is damaged.
        DataError: there is no store or no class in it.
    """
    if Path(folder).is_file():
        raise DataError(f"{folder}: a file, but no store of prompts; a store keeps images, a bank does not")
    store = PromptStore(folder)
    now = store.current()
    if not now.classes:
        raise DataError(f"{folder}: no prompt in this store; `unispector prompts enroll` adds some")
    names = {own.picture: own.source for prompts in now.classes.values() for own in prompts}
    least = {name: own.lowest for name, own in now.calibrations_of(detector.fingerprint).items()}
    # As in production: a mask where there is one, else the box.
    found = diagnose_prompts(detector, store.annotations(now), store.images, "mask", least, quick=quick)
    return replace(found, names=names)


@dataclass(frozen=True)
class _Encoded:
    """A class with its marks encoded."""

    marked: MarkedClass
    instances: InstanceEmbeddings

    def without(self, image_id: int) -> PromptBank | None:
        """The prompts of all its images but one; None where there is none."""
        ids = {image.id for image in self.marked.annotations.images} - {image_id}
        return self.marked.bank(self.instances, ids)


def _rivals(others: Sequence[_Encoded], image_id: int) -> PromptBank | None:
    """Prompts of other classes, none of them from an image; None where there is none."""
    banks = [bank for other in others if (bank := other.without(image_id)) is not None]
    return reduce(PromptBank.merge, banks) if banks else None


def of_class(annotations: Annotations, name: str) -> Annotations:
    """The marks of one class that are no crowds, and the images that show them.

    Raises:
        DataError: there is none.
    """
    ids = {category.id for category in annotations.categories if category.name == name}
    own = annotations.keep_categories(ids)
    own = replace(own, instances=tuple(mark for mark in own.instances if not mark.iscrowd))
    if not own.instances:
        raise DataError(f"class {name!r} has no mark; mark it on two images or more, or take it out")
    return own.keep_images({mark.image_id for mark in own.instances})


def _check_images(annotations: Annotations, root: Path) -> None:
    """Refuse before the work what would end it in the middle."""
    for image in annotations.images:
        image.check_size(image.file_name, *read_image_size(root / image.file_name))
