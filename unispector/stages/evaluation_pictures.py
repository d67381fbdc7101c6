"""Pictures of an evaluation: prompt, ground truth and prediction side by side."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unispector.data.coco import Annotations, ImageRecord
from unispector.data.protocol.split_tree import TestPair
from unispector.evaluation.pictures import (
    Panel,
    Region,
    class_colour,
    detection_regions,
    draw_regions,
    side_by_side,
    write_picture,
)
from unispector.evaluation.results import SUBSETS, PictureRecord, Subset
from unispector.ops.files import read_image
from unispector.ops.rle import segmentation_to_mask
from unispector.structures import Detections


@dataclass(frozen=True)
class Shown:
    """What the pictures are made of.

    Attributes:
        prompts: annotations of the prompt images.
        targets: ground truth.
        detections: of each target image, by image id.
        images: folder the file names are relative to.
    """

    prompts: Annotations
    targets: Annotations
    detections: Mapping[int, Detections]
    images: Path

    @property
    def class_names(self) -> tuple[str, ...]:
        """The detector's, whose order gives the colours."""
        return next(iter(self.detections.values())).class_names


def draw_pictures(shown: Shown, test: TestPair, count: int, score: float, out: Path) -> list[PictureRecord]:
    """Draw some target images beside one of their prompts, classes in turn, images by lot.

    The lot is seeded by the prompt seed and blind to the result, so the pictures are a fair sample.

    Args:
        shown: annotations and detections.
        test: names the set, the classes' part and the seeds.
        count: pictures at most.
        score: lowest score of a detection that is drawn.
        out: folder of the reports; the files are written to `pictures/` in it.
    """
    subset: Subset = "seen" if test.part == "seen" else "unseen"
    records = []
    for number, (image, label) in enumerate(_chosen(shown.targets, test.prompt_seed, count), start=1):
        name = f"pictures/{test.set_name}-{subset}-{number:02d}.jpg".replace(" ", "-")
        panels = [_prompt_panel(shown, label, number), *_target_panels(shown, image, score)]
        caption = f"{test.set_name} · {SUBSETS[subset]} · {image.file_name}"
        write_picture(out / name, side_by_side(panels, caption))
        classes = _classes_in(shown.targets, image)
        records.append(PictureRecord(name, test.set_name, subset, classes, image.file_name))
    return records


def _chosen(targets: Annotations, seed: int, count: int) -> Iterator[tuple[ImageRecord, str]]:
    """Distinct images with the class they stand for: one image of each class, then the next of each."""
    rng = np.random.default_rng(seed)
    order = [targets.images[i] for i in rng.permutation(len(targets.images))]
    waiting = {
        name: [image for image in order if name in _classes_in(targets, image)]
        for name in targets.class_names
    }
    taken: set[int] = set()
    while len(taken) < count and any(waiting.values()):
        for name, images in waiting.items():
            while images and images[0].id in taken:
                images.pop(0)
            if images and len(taken) < count:
                taken.add(images[0].id)
                yield images.pop(0), name


def _classes_in(annotations: Annotations, image: ImageRecord) -> tuple[str, ...]:
    present = sorted(annotations.class_index[category_id] for category_id in annotations.labels_of(image.id))
    return tuple(annotations.class_names[index] for index in present)


def _prompt_panel(shown: Shown, label: str, number: int) -> Panel:
    """One of the class's prompt images with its boxes; another one in each picture."""
    candidates = [image for image in shown.prompts.images if label in _classes_in(shown.prompts, image)]
    image = candidates[(number - 1) % len(candidates)]
    regions = [
        Region(region.box_xyxy, None, region.caption, region.colour)
        for region in _truth_regions(shown.prompts, image, shown.class_names)
        if region.caption == label
    ]
    note = "the one prompt image" if len(candidates) == 1 else f"one of {len(candidates)} prompt images"
    picture = draw_regions(read_image(shown.images / image.file_name), regions)
    return Panel(picture, "Prompt", f"{label} · {note}")


def _target_panels(shown: Shown, image: ImageRecord, score: float) -> tuple[Panel, Panel]:
    pixels = read_image(shown.images / image.file_name)
    truth = _truth_regions(shown.targets, image, shown.class_names)
    found = shown.detections[image.id].above(score)
    instances = f"{len(truth)} instance{'s' if len(truth) != 1 else ''}"
    detections = f"{len(found)} with score ≥ {score:g}"
    return (
        Panel(draw_regions(pixels, truth), "Ground truth", instances),
        Panel(draw_regions(pixels, detection_regions(found)), "Prediction", detections),
    )


def _truth_regions(annotations: Annotations, image: ImageRecord, names: tuple[str, ...]) -> list[Region]:
    """Instances with the colour of their name's position in `names`."""
    regions = []
    for instance in annotations.instances_of(image.id):
        name = annotations.class_names[annotations.class_index[instance.category_id]]
        x, y, width, height = instance.bbox
        mask = None
        if instance.segmentation is not None:
            mask = segmentation_to_mask(instance.segmentation, image.height, image.width)
        regions.append(Region((x, y, x + width, y + height), mask, name, class_colour(names.index(name))))
    return regions
