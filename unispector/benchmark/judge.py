"""A detector judged on targets under many sets of prompts at once; every target is encoded once."""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Never

import numpy as np
import numpy.typing as npt

from unispector.config import EvaluateConfig
from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.evaluation.ground_truth import GroundTruth, Overlaps
from unispector.inference.detector import ImageInput, UniSpector
from unispector.inference.prompt_bank import PromptBank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tqdm import tqdm


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One set of prompts, and what is to be found with them."""

    bank: PromptBank
    truth: GroundTruth


def judge(
    detector: UniSpector,
    trials: Sequence[Trial],
    picture: Callable[[str], ImageInput],
    config: EvaluateConfig,
    advance: Callable[[float], object],
) -> list[dict[int, Overlaps]]:
    """Detect with every trial's prompts and compare with its ground truth, target by target.

    Args:
        trials: a target that several of the same classes have is read and encoded once.
        picture: the image of a target, by its file name.
        advance: gets shares of the work that add up to 1.

    Returns:
        Of each trial, what is kept of the detections, by image id.

    Raises:
        DataError: an image is unusable.
        PromptBankError: a bank is another model's.
    """
    kept: list[dict[int, Overlaps]] = [{} for _ in trials]
    for numbers in _same_classes([trial.bank for trial in trials]):
        wanted: dict[str, list[tuple[int, int]]] = {}
        for place, number in enumerate(numbers):
            for image in trials[number].truth.annotations.images:
                wanted.setdefault(image.file_name, []).append((place, image.id))
        banks = [trials[number].bank for number in numbers]
        stream = detector.stream_banks(map(picture, wanted), banks, config.batch_size, config.detections)
        share = len(numbers) / len(trials) / len(wanted)
        for places, found in zip(wanted.values(), stream, strict=True):
            for place, image_id in places:
                number = numbers[place]
                kept[number][image_id] = trials[number].truth.overlaps(image_id, found[place])
            advance(share)
    return kept


def scores_on(
    detector: UniSpector, banks: Sequence[PromptBank], files: Sequence[Path], config: EvaluateConfig
) -> list[tuple[npt.NDArray[np.float32], ...]]:
    """Of each bank, the scores of all its detections on each image.

    Raises:
        DataError: an image is unusable.
        PromptBankError: a bank is another model's.
    """
    scores: list[tuple[npt.NDArray[np.float32], ...]] = [() for _ in banks]
    for numbers in _same_classes(banks):
        same = [banks[number] for number in numbers]
        for found in detector.stream_banks(files, same, config.batch_size, config.detections):
            for number, of_bank in zip(numbers, found, strict=True):
                scores[number] += (of_bank.scores.numpy(),)
    return scores


def _same_classes(banks: Sequence[PromptBank]) -> list[list[int]]:
    """Positions of the banks that can be tried together: official draws may differ in their classes."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, bank in enumerate(banks):
        groups.setdefault(bank.class_names, []).append(number)
    return list(groups.values())


def read_pair(prompt: Path, target: Path) -> tuple[Annotations, Annotations]:
    """Prompts and targets; every class that the targets show needs a prompt.

    Raises:
        DataError: a file is unusable, or a class has no prompt.
    """
    prompts, targets = Annotations.read(prompt), Annotations.read(target)
    shown = {targets.class_names[targets.class_index[i.category_id]] for i in targets.instances}
    if missing := shown - set(prompts.class_names):
        raise DataError(
            f"{prompt}: no prompt for class {min(missing)!r}, which {target.name} has; "
            "add one, or take the class out of the targets"
        )
    return prompts, targets


def warn_of_shared(prompts: Annotations, targets: Annotations) -> None:
    """Say so where images are prompts and targets: what is found on them flatters the model."""
    names = {image.file_name for image in prompts.images}
    if shared := sum(image.file_name in names for image in targets.images):
        logger.warning(
            "%d of %d targets are prompts too: the figures are higher than on other images",
            shared,
            len(targets.images),
        )


@contextmanager
def share_bar(total: int) -> "Iterator[tqdm[Never]]":
    """A bar over `total` pieces of work, quiet where nobody looks."""
    from tqdm import tqdm

    with tqdm(
        total=total,
        bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        mininterval=0.2 if sys.stderr.isatty() else 60,
    ) as bar:
        yield bar


def advance(bar: "tqdm[Never]") -> Callable[[float], object]:
    """Moves the bar by shares of a piece; their sum may round to a little more than the total."""
    total = float(bar.total or 0)
    return lambda share: bar.update(min(share, total - bar.n))
