"""Figures of the benchmark's sets (paper appendix, table 1 and figure 1), without opening an image."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from unispector.data.coco import Annotations
from unispector.errors import DataError
from unispector.ops.files import atomic_write_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Colour:
    """HSV over all pixels of a set, in OpenCV's ranges: hue 0 to 179, saturation and value 0 to 255."""

    hue: Moments
    saturation: Moments
    value: Moments


@dataclass(frozen=True)
class Quantiles:
    """Smallest, lower quartile, median, upper quartile and largest of some values."""

    minimum: float
    lower: float
    median: float
    upper: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Quantiles of at least one value, interpolated linearly between neighbours."""
        return cls(*(float(value) for value in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))))


@dataclass(frozen=True)
class PromptRules:
    """The number of prompt images of a class (paper appendix 1.2)."""

    prompts_per_class: int  # always, under the fixed rule
    tail_images: int  # under the adaptive rule a class with at most so many images gets one


@dataclass(frozen=True)
class ClassStatistics:
    """One class."""

    name: str  # the class
    images: int  # images that show it
    instances: int  # its instances
    # Prompt images to target images if each class gets the same number of prompts, and if a class of few
    # images gets one; 0 where the class cannot be prompted.
    fixed_ratio: float
    adaptive_ratio: float


@dataclass(frozen=True)
class SetStatistics:
    """One set."""

    name: str  # the set
    # What its annotation file holds.
    images: int
    instances: int
    colour: Colour  # over all pixels
    # Of the images, in pixels.
    width: Quantiles
    height: Quantiles
    instances_per_image: Quantiles  # of the kept images
    instance_size: Quantiles  # area of an instance as a share of its image's, in (0, 1]
    classes: tuple[ClassStatistics, ...]  # its classes, by name


@dataclass(frozen=True)
class Statistics:
    """All sets of the benchmark, and the rules their prompts were counted by."""

    rules: PromptRules
    sets: tuple[SetStatistics, ...]

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `write` wrote.

        Raises:
            DataError: the file is absent or no such record.
        """
        from pydantic import TypeAdapter, ValidationError

        path = Path(path)
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); run the statistics stage") from error
        except ValidationError as error:
            raise DataError(f"{path}: not the statistics of sets; run the statistics stage again") from error

    def write(self, path: str | Path) -> None:
        """Write the statistics as JSON, atomically."""
        atomic_write_json(path, asdict(self))


def set_statistics(
    name: str, annotations: Annotations, survey: "pd.DataFrame", rules: PromptRules
) -> SetStatistics:
    """Figures of one set.

    `survey` is that of `unispector.data.survey.read_survey`.

    Raises:
        DataError: the survey is not of this file's images, or an image of it could not be used.
    """
    if sorted(survey["file_name"]) != sorted(image.file_name for image in annotations.images):
        raise DataError(
            f"{name}: the survey is of other images than the annotation file; survey the set again"
        )
    broken = survey.loc[survey["problem"] != "", "problem"]
    if len(broken):
        raise DataError(f"{name}: {broken.iloc[0]}")
    area_of = {image.id: image.width * image.height for image in annotations.images}
    return SetStatistics(
        name=name,
        images=len(annotations.images),
        instances=len(annotations.instances),
        colour=Colour(*(_moments(survey, channel) for channel in "hsv")),
        width=Quantiles.of(survey["width"].tolist()),
        height=Quantiles.of(survey["height"].tolist()),
        instances_per_image=Quantiles.of([len(annotations.instances_of(id_)) for id_ in area_of]),
        instance_size=Quantiles.of([item.area / area_of[item.image_id] for item in annotations.instances]),
        classes=_classes(annotations, rules),
    )


def prompt_ratio(images: int, pure: int, prompts: int) -> float:
    """Prompt images to target images of one class.

    Of the `images` that show the class only the `pure` ones, which show no other, can be prompts; `prompts`
    are wanted, but the class always leaves itself one target. Returns at least 0; 0 where the class cannot be
    prompted.
    """
    drawn = min(prompts, pure, images - 1)
    return drawn / (images - drawn)


def _moments(survey: "pd.DataFrame", channel: str) -> Moments:
    pixels = int(survey["pixels"].sum())
    mean = float(survey[f"{channel}_sum"].sum()) / pixels
    square = float(survey[f"{channel}_squares"].sum()) / pixels
    return Moments(mean, max(square - mean**2, 0.0) ** 0.5)


def _classes(annotations: Annotations, rules: PromptRules) -> tuple[ClassStatistics, ...]:
    labels = [annotations.labels_of(image.id) for image in annotations.images]
    images = Counter(label for shown in labels for label in shown)
    pure = Counter(next(iter(shown)) for shown in labels if len(shown) == 1)
    instances = Counter(instance.category_id for instance in annotations.instances)
    found = []
    for category in sorted(annotations.categories, key=lambda record: record.name):
        total, alone = images[category.id], pure[category.id]
        if not total:
            continue
        fixed = prompt_ratio(total, alone, rules.prompts_per_class)
        adaptive = prompt_ratio(total, alone, 1) if total <= rules.tail_images else fixed
        found.append(ClassStatistics(category.name, total, instances[category.id], fixed, adaptive))
    return tuple(found)
