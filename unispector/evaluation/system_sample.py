"""One target of a comparison: what was prompted, what is there and what a system found."""

from dataclasses import dataclass, replace
from typing import Self

from pydantic import FiniteFloat

from unispector.data.coco import Annotations, ImageRecord
from unispector.detections import Detections

Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
"""Left, top, right and bottom in pixels of the image."""


@dataclass(frozen=True)
class SystemSample:
    """A randomly sampled target beside a prompt of its class; boxes are of that class alone."""

    data_set: str
    split_seed: int | None  # None of a cross-domain set
    prompt_seed: int
    class_name: str
    # Files relative to the project.
    prompt_image: str
    prompted: tuple[Box, ...]
    target_image: str
    truth: tuple[Box, ...]
    found: tuple[Box, ...] = ()  # the surest first, at most as many as there are in `truth`

    @property
    def key(self) -> tuple[str, int | None, int, str, str]:
        """The same for two systems that were shown the same."""
        return (self.data_set, self.split_seed, self.prompt_seed, self.class_name, self.target_image)

    def with_found(self, found: Detections) -> Self:
        """The same with the best of what was found: a number, since scores of two systems do not compare."""
        names = [found.class_names[label] for label in found.labels.tolist()]
        own = [i for i, name in enumerate(names) if name == self.class_name]
        surest = sorted(own, key=found.scores.tolist().__getitem__, reverse=True)[: len(self.truth)]
        return replace(self, found=tuple(_box(found.boxes_xyxy[i].tolist()) for i in surest))


def boxes_of_class(annotations: Annotations, image: ImageRecord, class_name: str) -> tuple[Box, ...]:
    """Boxes of an image's instances of a class."""
    known, index = annotations.class_names, annotations.class_index
    own = [one for one in annotations.instances_of(image.id) if known[index[one.category_id]] == class_name]
    return tuple((x, y, x + width, y + height) for x, y, width, height in (one.bbox for one in own))


def _box(values: list[float]) -> Box:
    left, top, right, bottom = values
    return left, top, right, bottom
