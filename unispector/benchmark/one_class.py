"""One class at a time: the set, the draw of prompts and targets, and the detectors that are tried.

`measure` and `diagnose` share all of it, so that both speak of the same images.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from unispector.config import Roi
from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.defect_free import defect_free_images
from unispector.data.protocol.splits import SplitRules, draw_prompts, untestable
from unispector.data.sources import SOURCES
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.evaluation.one_class import SkippedClass
from unispector.ops.files import list_images
from unispector.project.progress import progress_bar
from unispector.prompts.marks import read_marks

PROMPT_IMAGES = 5  # marked a class, as in the benchmark
MIN_SIDE = 0.01  # share of the image's sides under which a component is dropped, as in the benchmark
EVERY_GOOD_IMAGE = 2**31


@dataclass(frozen=True)
class MarkedSet:
    """Annotated images, and some without a defect."""

    name: str
    annotations: Annotations
    images: Path  # folder the file names are relative to
    good: tuple[Path, ...] = ()  # defect-free images; may be none

    @cached_property
    def has_masks(self) -> bool:
        """Return whether any instance has an outline of its own; a polygon that is the box is none."""
        return any(instance.outlined for instance in self.annotations.instances)


@dataclass(frozen=True)
class OneClassSettings:
    """The draws of prompts and targets, and the kind of marks."""

    prompt_seeds: tuple[int, ...] = (42, 82, 777)  # a draw of prompts and targets each
    targets: int = 40  # images judged a class, at most, and as many defect-free ones
    roi: Roi = "box"  # mark the instances of the prompt images by their boxes or by their masks


@dataclass(frozen=True)
class ClassDraw:
    """One class's prompts and targets, and nothing of the other classes; no image is in both."""

    class_name: str
    prompt_seed: int
    prompts: Annotations  # up to five images with all their instances of the class
    targets: Annotations
    possible_targets: int  # images that could have been targets


def read_coco_set(annotations: Path, images: Path, good: Path | None = None) -> MarkedSet:
    """A COCO file and its images.

    Args:
        images: folder its file names are relative to.

    Raises:
        DataError: the file is malformed, or a folder is absent or has no image.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; give the one the annotations' file names are relative to")
    return MarkedSet(annotations.stem, read_marks(annotations), images, _good_in(good))


def read_raw_set(raw: Path, source: str, good: Path | None = None) -> MarkedSet:
    """A release as it is distributed, read by the converter of its layout, nothing written.

    Args:
        source: a key of `SOURCES`.
        good: folder of defect-free images; None = those of the release itself.

    Raises:
        DataError: there is no such source, or the release is not in its layout.
    """
    if source not in SOURCES:
        raise DataError(f"{source}: no such source; known are {', '.join(SOURCES)}")
    name = raw.resolve().name
    with tempfile.TemporaryDirectory() as folder, progress_bar(f"read {name}") as progress:
        files = ConversionFiles.beside(Path(folder) / "set.json")
        convert_set(name, SOURCES[source], raw, files, min_side=MIN_SIDE, workers=1, progress=progress)
        annotations = Annotations.read(files.annotations)
        free = defect_free_images(files.dropped, EVERY_GOOD_IMAGE, seed=0)
    return MarkedSet(name, annotations, raw, _good_in(good) or tuple(raw / image for image in free))


def draw_classes(
    marked: MarkedSet, settings: OneClassSettings
) -> tuple[tuple[ClassDraw, ...], tuple[SkippedClass, ...]]:
    """Prompts and targets of every class and prompt seed, and the classes that cannot be measured.

    A prompt image may show other classes too; they are not marked.

    Raises:
        DataError: no class can be measured, or masks are to be marked and the set has none.
    """
    if settings.roi == "mask" and not marked.has_masks:
        raise DataError(f"{marked.name}: its instances are boxes; prompt with boxes (--roi box)")
    draws, skipped = [], []
    for category in sorted(marked.annotations.categories, key=lambda record: record.name):
        own = _of_class(marked.annotations, category.id)
        if reason := untestable(own, [category.name]).get(category.name):
            skipped.append(SkippedClass(category.name, reason))
        else:
            draws += [_draw(marked.name, own, seed, settings.targets) for seed in settings.prompt_seeds]
    if not draws:
        raise DataError(f"{marked.name}: no class has two images, one to mark and one to look at; add images")
    return tuple(draws), tuple(skipped)


def draw_good(marked: MarkedSet, count: int) -> tuple[Path, ...]:
    """At most `count` of the defect-free images, in a fixed random order, the same for all classes."""
    order = np.random.default_rng(0).permutation(len(marked.good))[:count]
    return tuple(marked.good[i] for i in sorted(order.tolist()))


def timed(results: Iterator[Detections]) -> Iterator[tuple[Detections, float]]:
    """Results with the processor time each took, in seconds, all threads of the process together."""
    while True:
        start = time.process_time()
        found = next(results, None)
        if found is None:
            return
        yield found, time.process_time() - start


def _of_class(annotations: Annotations, category_id: int) -> Annotations:
    """One class, its instances that are no crowds, and the images that show it."""
    own = annotations.keep_categories({category_id})
    instances = tuple(instance for instance in own.instances if not instance.iscrowd)
    own = Annotations(own.images, instances, own.categories)
    return own.keep_images({instance.image_id for instance in instances})


def _draw(name: str, own: Annotations, seed: int, count: int) -> ClassDraw:
    class_name = own.class_names[0]
    rules = SplitRules(
        unseen_fraction=0.5,  # plays no part here
        prompts_per_class=PROMPT_IMAGES,
        tail_images=0,
        seen_test_fraction=0,
    )
    draw = draw_prompts(name, own, [class_name], rules, seed)
    images = draw.target.images
    # Another stream of the seed than the prompts'; a smaller count is a part of a larger one.
    order = np.random.default_rng([seed, 1, *class_name.encode()]).permutation(len(images))[:count]
    targets = draw.target.keep_images({images[i].id for i in order.tolist()})
    return ClassDraw(class_name, seed, draw.prompt, targets, len(images))


def _good_in(folder: Path | None) -> tuple[Path, ...]:
    """Images of a folder; a .png beside a .jpg of the same stem is its mask."""
    if folder is None:
        return ()
    files = list_images([folder])
    photographs = {file.stem for file in files if file.suffix.lower() in (".jpg", ".jpeg")}
    return tuple(file for file in files if file.suffix.lower() != ".png" or file.stem not in photographs)
