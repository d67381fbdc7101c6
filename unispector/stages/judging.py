"""A detector judged on targets under many sets of prompts at once; every target is encoded once."""

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Never

from unispector.config import EvaluateConfig
from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.evaluation.ground_truth import GroundTruth, Overlaps
from unispector.inference.detector import Picture, UniSpector
from unispector.inference.prompt_bank import PromptBank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tqdm import tqdm


@dataclass(frozen=True)
class Trial:
    """One set of prompts, and what is to be found with them."""

    bank: PromptBank
    truth: GroundTruth


def load_detector(directory: Path) -> UniSpector:
    """The model of a directory, on the GPU where there is one.

    Raises:
        CheckpointError: the directory is incomplete or does not fit this code.
    """
    import torch

    return UniSpector.load(directory, device="cuda" if torch.cuda.is_available() else "cpu")


def judge(
    detector: UniSpector,
    trials: Sequence[Trial],
    picture: Callable[[str], Picture],
    config: EvaluateConfig,
    advance: Callable[[float], object],
) -> list[dict[int, Overlaps]]:
    """Detect with every trial's prompts and compare with its ground truth, target by target.

    Args:
        detector: the model.
        trials: of the same classes; a target file that several have is read and encoded once.
        picture: the picture of a target, by its file name.
        config: batch size and number of detections.
        advance: gets shares of the work that add up to 1.

    Returns:
        Of each trial, what is kept of the detections, by image id.

    Raises:
        DataError: a picture is unusable.
        PromptBankError: a bank is another model's, or the classes differ.
    """
    wanted: dict[str, list[tuple[int, int]]] = {}
    for number, trial in enumerate(trials):
        for image in trial.truth.annotations.images:
            wanted.setdefault(image.file_name, []).append((number, image.id))
    kept: list[dict[int, Overlaps]] = [{} for _ in trials]
    stream = detector.stream_banks(
        map(picture, wanted), [trial.bank for trial in trials], config.batch_size, config.detections
    )
    for places, found in zip(wanted.values(), stream, strict=True):
        for number, image_id in places:
            kept[number][image_id] = trials[number].truth.overlaps(image_id, found[number])
        advance(1 / len(wanted))
    return kept


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


@contextmanager
def progress_bar(total: int) -> "Iterator[tqdm[Never]]":
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
