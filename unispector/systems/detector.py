"""What the benchmark needs of a system."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.errors import DataError


@runtime_checkable
class BenchmarkDetector(Protocol):
    """The interface the benchmark needs of a detector."""

    def encode_prompts(self, prompts: Annotations, images: Path) -> Any:
        """Learn what to look for; called once per draw of prompts.

        Args:
            prompts: all instances are prompts of their category; all categories are looked for together.
            images: folder their file names are relative to.

        Returns:
            Whatever `detect` needs.
        """

    def detect(self, images: Sequence[Path], prompts: Any) -> Iterator[Detections]:
        """Look for all prompted classes on every image.

        Returns:
            One `Detections` per image, in order; `class_names` are names of the prompts' categories,
            scores lie in [0, 1], masks are COCO run-length codes of the image's size.
        """


def check_prompted(class_names: Sequence[str], shown: Iterable[bool]) -> None:
    """Refuse a class of which no prompt is shown.

    Raises:
        DataError: there is one; the message names it.
    """
    for name, is_shown in zip(class_names, shown, strict=True):
        if not is_shown:
            raise DataError(f"class {name!r} has no prompt; mark at least one of its instances")


@runtime_checkable
class TrainableDetector(BenchmarkDetector, Protocol):
    """A detector that learns from images before anything is prompted."""

    def fit(self, annotations: Annotations, images: Path, out: Path) -> None:
        """Train; called once, before the first `encode_prompts`.

        Args:
            annotations: the seen classes of one split seed; of a system that learns from good images, images
                without an instance.
            images: folder their file names are relative to.
            out: folder to keep what was learnt in, where that can be read again.
        """
