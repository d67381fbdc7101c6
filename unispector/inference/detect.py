"""`unispector detect`: images in, drawn images and one `detections.json` out."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unispector.detections import Detections
from unispector.errors import DataError
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.targets import Target, Targets
from unispector.ops.drawing import write_image
from unispector.ops.files import atomic_write_text
from unispector.ops.json_text import parse_json
from unispector.project.progress import progress_bar
from unispector.scores import DEFAULT_SCORE

RECORD, EARLIER = "detections.json", "detections.earlier.json"
"""The results; and those of the run before, while this one is not at its end."""


@dataclass
class ClassReport:
    """What was found of one class."""

    name: str
    detections: int = 0  # recorded in `detections.json`
    drawn: int = 0  # those with at least the score asked for, which the images show
    highest: float | None = None  # the highest score, 0 to 1, recorded or not; None without any


@dataclass(frozen=True)
class DetectionReport:
    """The result of a run of `detect`."""

    images: int  # that were looked at
    unread: int  # that could not be read
    classes: tuple[ClassReport, ...]
    output: Path

    @property
    def detections(self) -> int:
        """Detections recorded in `detections.json`."""
        return sum(each.detections for each in self.classes)

    @property
    def drawn(self) -> int:
        """Detections that the images show."""
        return sum(each.drawn for each in self.classes)

    @property
    def highest(self) -> float | None:
        """The highest score, 0 to 1; None without detections."""
        return max((each.highest for each in self.classes if each.highest is not None), default=None)


def detect(
    detector: UniSpector,
    bank: PromptBank,
    targets: Targets,
    output: Path,
    *,
    min_score: float | None = None,
    batch_size: int = 8,
    tell: Callable[[str], None] = lambda _: None,
) -> DetectionReport:
    """Find the prompted classes on every target.

    Writes `pictures/<name>.png` per target and, last, `detections.json`: a COCO file of `images` (with
    their `picture`), `categories`, and `annotations` that carry a `score`; detections that score under
    `DEFAULT_SCORE` and are not drawn are left out. Until then an earlier run's file is
    `detections.earlier.json`; it and the images that the run drew go at the end. An interrupt (Ctrl-C) ends
    the run with what was found so far.

    Args:
        min_score: lowest score that is drawn; None = the threshold of each class.
        batch_size: images per forward pass.
        tell: called with a line for each target that cannot be read, and for an interrupt.

    Raises:
        DataError: no target at all can be read, or `output` cannot be written; then an earlier run's results
            stay as they are.
        PromptBankError: the bank is of another model.
    """
    run = _Run(bank, output, bank.thresholds if min_score is None else (min_score,) * len(bank))
    unread: list[DataError] = []
    looked, shown = tee(_readable(targets, bank.bit_depth, unread))  # read once and kept until it is drawn
    told = 0
    try:
        with progress_bar("detect") as show, progress_bar("large image", "tile") as show_tiles:
            stream = detector.stream((pixels for _, pixels in looked), bank, batch_size, progress=show_tiles)
            for (target, pixels), detections in zip(shown, stream, strict=True):
                run.keep(target, detections, detections.above(run.least).plot(pixels))
                for error in unread[told:]:
                    tell(f"skipped: {error}")
                told = len(unread)
                show(len(run.images) + told, targets.total)
    except KeyboardInterrupt:
        if run.images:
            run.finish()
            tell(f"interrupted; what was found on {len(run.images)} images is in {output}")
        raise
    if len(unread) == 1 and not run.images:
        raise unread[0]
    for error in unread[told:]:
        tell(f"skipped: {error}")
    if not run.images:
        raise DataError(f"none of the {len(unread)} images can be read, so nothing was written to {output}")
    run.finish()
    return DetectionReport(len(run.images), len(unread), tuple(run.classes), output)


def _readable(
    targets: Targets, bit_depth: int, unread: list[DataError]
) -> Iterator[tuple[Target, npt.NDArray[np.uint8]]]:
    """Targets with their pixels; errors of those without go to `unread`."""
    for target in targets.read(bit_depth):
        if isinstance(target.pixels, DataError):
            unread.append(target.pixels)
        else:
            yield target, target.pixels


@dataclass
class _Run:
    """What a run has found, and its files."""

    bank: PromptBank
    output: Path
    least: tuple[float, ...]  # score of each class from which on a detection is drawn
    images: list[dict[str, object]] = field(default_factory=list)
    annotations: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.classes = [ClassReport(name) for name in self.bank.class_names]
        self._earlier = _drawn_before(self.output)
        self._names: set[str] = set()

    def keep(self, target: Target, detections: Detections, drawn: npt.NDArray[np.uint8]) -> None:
        """Write a drawn image, and remember what was found on it."""
        name = _free_name(target.stem, self._names)
        with self._writing():
            if not self._names and (self.output / RECORD).exists():
                (self.output / RECORD).replace(self.output / EARLIER)
            write_image(self.output / name, drawn)
        self._names.add(name)
        kept = detections.above([min(DEFAULT_SCORE, score) for score in self.least])
        record = kept.to_coco(len(self.images) + 1, target.name, len(self.annotations) + 1)
        self.images.append({**record["images"][0], "picture": name})
        self.annotations += record["annotations"]
        for label, score in zip(detections.labels.tolist(), detections.scores.tolist(), strict=True):
            own = self.classes[label]
            own.highest = max(own.highest or 0.0, score)
        for label in kept.labels.tolist():
            self.classes[label].detections += 1
        for label in kept.above(self.least).labels.tolist():
            self.classes[label].drawn += 1

    def finish(self) -> None:
        """Write the record, and remove what an earlier run drew."""
        record = {
            "info": {"description": "UniSpector detections", "model": self.bank.fingerprint},
            "images": self.images,
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.bank.class_names, start=1)],
            "annotations": self.annotations,
        }
        with self._writing():
            atomic_write_text(self.output / RECORD, json.dumps(record, indent=1) + "\n")
        # What cannot be removed stays; the results are written.
        for name in (*(self._earlier - self._names), EARLIER):
            with suppress(OSError, ValueError):
                (self.output / name).unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self.output}: cannot be written ({error.strerror}); check permissions and free space"
            ) from error


def _drawn_before(output: Path) -> set[str]:
    """Names of the images that earlier runs drew into this folder; none behind a link."""
    if (output / "pictures").is_symlink():
        return set()
    names = {name for record in (RECORD, EARLIER) for name in _drawn_names(output / record)}
    return {name for name in names if name == f"pictures/{Path(name).stem}.png"}


def _drawn_names(record: Path) -> set[str]:
    try:
        images = parse_json(record.read_text(encoding="utf-8"))["images"]
        return {str(image["picture"]) for image in images}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _free_name(stem: str, taken: set[str]) -> str:
    """`pictures/a.png` for an image `a`; for the second `a`, `pictures/a-2.png`."""
    name, copy = f"pictures/{stem}.png", 1
    while name in taken:
        copy += 1
        name = f"pictures/{stem}-{copy}.png"
    return name
