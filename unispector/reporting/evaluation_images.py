"""Images of an evaluation: prompt, ground truth and prediction side by side.

Samples are drawn at random and blind to the result, so they are fair; failures are the worst there are, each
marked and explained. What is to be drawn is chosen first, so that only the detections of those images need
to be at hand.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import TestPair
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.evaluation.failures import FalseAlarm, Miss, in_turn
from unispector.evaluation.ground_truth import boxes_xywh
from unispector.evaluation.matching import MATCH_IOU
from unispector.evaluation.results import SUBSETS, DrawnImage, ImageKind, Subset
from unispector.ops.drawing import (
    WARNING_COLOUR,
    Image,
    Panel,
    Region,
    class_colour,
    draw_regions,
    side_by_side,
    write_image,
)
from unispector.ops.files import read_image
from unispector.ops.rle import segmentation_to_mask

Floats = npt.NDArray[np.float64]

_THICK = 6  # pixels of a marked box's line; others have 2
_SAME_SCORE = 0.05  # far more than detecting an image once more changes a score


@dataclass(frozen=True)
class Shown:
    """The inputs of the images."""

    prompts: Annotations
    targets: Annotations
    detections: Mapping[int, Detections]  # of the target images to be drawn at least, by image id
    images: Path  # folder the file names are relative to


@dataclass(frozen=True)
class _Scene:
    """A target image with all there is to draw of it."""

    shown: Shown
    image: ImageRecord
    score: float  # lowest score of a detection that is drawn

    @property
    def found(self) -> Detections:
        """All detections, the weak ones too."""
        return self.shown.detections[self.image.id]

    @property
    def instances(self) -> tuple[InstanceRecord, ...]:
        """Ground truth in file order."""
        return self.shown.targets.instances_of(self.image.id)

    @property
    def truth(self) -> list[Region]:
        """A region of each instance, its caption the class name."""
        return _truth_regions(self.shown.targets, self.image, self.found.class_names)

    def panels(
        self, label: str, number: int, truth: Sequence[Region], found: Sequence[Region]
    ) -> tuple[Panel, ...]:
        """Prompt `number` of the class, ground truth and prediction."""
        pixels = read_image(self.shown.images / self.image.file_name)
        count = len(self.instances)
        return (
            _prompt_panel(self.shown, label, self.found.class_names, number),
            Panel(
                draw_regions(pixels, truth), "Ground truth", f"{count} instance{'s' if count != 1 else ''}"
            ),
            _prediction_panel(pixels, found, self.found, self.score),
        )


@dataclass(frozen=True)
class Strip:
    """An image to be written, with what its record says of it."""

    kind: ImageKind
    classes: tuple[str, ...]
    image: str
    note: str
    panels: tuple[Panel, ...]


def choose_samples(targets: Annotations, seed: int, count: int) -> list[tuple[ImageRecord, str]]:
    """Distinct images with the class they stand for: classes in turn, images at random."""
    order = [targets.images[i] for i in np.random.default_rng(seed).permutation(len(targets.images))]
    showing: dict[str, list[int]] = {name: [] for name in targets.class_names}
    for position, image in enumerate(order):
        for name in _classes_in(targets, image):
            showing[name].append(position)
    return [(order[position], name) for name, position in islice(in_turn(showing), count)]


def sample_strips(
    shown: Shown, chosen: Iterable[tuple[ImageRecord, str]], score: float
) -> Iterator[tuple[str, Strip]]:
    """Draw target images, each beside one of its class's prompts, with the end of the file's name.

    Args:
        chosen: images with the class they stand for, see `choose_samples`.
        score: lowest score of a detection that is drawn.
    """
    for number, (image, label) in enumerate(chosen, start=1):
        panels = sample_panels(shown, image, label, number, score)
        yield f"{number:02d}", Strip("sample", _classes_in(shown.targets, image), image.file_name, "", panels)


def sample_panels(
    shown: Shown, image: ImageRecord, label: str, number: int, score: float
) -> tuple[Panel, ...]:
    """Prompt, ground truth and prediction of a target image.

    Args:
        number: which of the class's prompt images, in turn from 1.
    """
    scene = _Scene(shown, image, score)
    return scene.panels(label, number, scene.truth, scene.found.above(score).regions())


def failure_strips(
    shown: Shown, failures: Sequence[FalseAlarm | Miss], score: float
) -> Iterator[tuple[str, Strip]]:
    """Draw false alarms, then missed instances, each marked in red, beside one of its class's prompts.

    Args:
        failures: told by the boxes, see `worst_false_alarms` and `worst_misses`.
        score: lowest score of a detection that is drawn; the one the failures were chosen by.

    Yields:
        The end of the file's name, and what to write there.

    Raises:
        DataError: a false alarm is not among the detections of its image.
    """
    scenes = {image.id: _Scene(shown, image, score) for image in shown.targets.images}
    alarms = [failure for failure in failures if isinstance(failure, FalseAlarm)]
    for number, alarm in enumerate(alarms, start=1):
        yield f"false-alarm-{number:02d}", _alarm(scenes[alarm.image_id], alarm, number)
    misses = [failure for failure in failures if isinstance(failure, Miss)]
    for number, miss in enumerate(misses, start=1):
        yield f"miss-{number:02d}", _miss(scenes[miss.image_id], miss, number)


def good_alarm_strips(
    shown: Shown, found: Mapping[str, Detections], score: float
) -> Iterator[tuple[str, Strip]]:
    """Draw defect-free images with their surest detection marked in red, beside one of its class's prompts.

    Args:
        found: file -> its detections, at least one, see `worst_good_images`.
    """
    for number, (file, of_file) in enumerate(found.items(), start=1):
        yield f"defect-free-{number:02d}", _good_alarm(shown, file, of_file, number, score)


def file_stem(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]", "-", name)


def write_strips(strips: Iterable[tuple[str, Strip]], test: TestPair, out: Path) -> list[DrawnImage]:
    """Write strips as they are drawn.

    Args:
        out: folder of the reports; the files are written to `pictures/` in it.
    """
    subset: Subset = "seen" if test.part == "seen" else "unseen"
    records = []
    for suffix, strip in strips:
        file = f"pictures/{file_stem(f'{test.set_name}-{subset}-{suffix}')}.jpg"
        caption = f"{test.set_name} · {SUBSETS[subset]} · {strip.image}"
        if strip.kind != "sample":
            caption = f"{strip.kind.capitalize()}, {strip.classes[0]}: {strip.note} · {caption}"
        write_image(out / file, side_by_side(strip.panels, caption))
        classes, image, note = strip.classes, strip.image, strip.note
        records.append(DrawnImage(file, strip.kind, test.set_name, subset, classes, image, note))
    return records


def _alarm(scene: _Scene, alarm: FalseAlarm, number: int) -> Strip:
    """The detection is marked in the prediction, its place in the ground truth."""
    names = [region.caption for region in scene.truth]
    overlaps = _overlaps(scene.found, scene.instances)
    row = _row_of(alarm, scene, overlaps[:, [name == alarm.class_name for name in names]])
    found = _alarm_regions(scene.found, row, scene.score)
    panels = scene.panels(alarm.class_name, number, [*scene.truth, _place(found[-1])], found)
    note = f"score {scene.found.scores[row]:.2f}, {_reason(alarm.class_name, names, overlaps[row])}"
    return Strip("false alarm", (alarm.class_name,), scene.image.file_name, note, panels)


def _miss(scene: _Scene, miss: Miss, number: int) -> Strip:
    """The instance is marked in the ground truth, its place in the prediction."""
    position = [instance.id for instance in scene.instances].index(miss.instance_id)
    truth, drawn = scene.truth, scene.found.above(scene.score)
    missed = replace(
        truth.pop(position), caption=f"{miss.class_name}, missed", colour=WARNING_COLOUR, line=_THICK
    )
    found = [*drawn.regions(), _place(missed)]
    panels = scene.panels(miss.class_name, number, [*truth, missed], found)
    note = f"no detection of {miss.class_name} matches it"
    if miss.best_score > -math.inf:
        note = f"found with score {miss.best_score:.2f} only"
    note += _taken_for(miss.class_name, drawn, _overlaps(drawn, scene.instances)[:, position])
    return Strip("miss", (miss.class_name,), scene.image.file_name, note, panels)


def _good_alarm(shown: Shown, file: str, found: Detections, number: int, score: float) -> Strip:
    label, surest = _labels(found)[0], float(found.scores[0])
    pixels = read_image(shown.images / file)
    panels = (
        _prompt_panel(shown, label, found.class_names, number),
        Panel(draw_regions(pixels, []), "Defect-free image"),
        _prediction_panel(pixels, _alarm_regions(found, 0, score), found, score),
    )
    note = f"score {surest:.2f} on a defect-free image"
    return Strip("false alarm", (label,), file, note, panels)


def _row_of(alarm: FalseAlarm, scene: _Scene, overlaps: Floats) -> int:
    """The class's detection of that score; of several, the one farthest from its instances [n, own]."""
    scores, nearest = scene.found.scores.tolist(), overlaps.max(axis=1, initial=0).tolist()
    rows = [
        (abs(scores[row] - alarm.score), nearest[row], row)
        for row, label in enumerate(_labels(scene.found))
        if label == alarm.class_name
    ]
    if not rows or min(rows)[0] > _SAME_SCORE:
        raise DataError(
            f"{scene.image.file_name}: no {alarm.class_name!r} with score {alarm.score:.2f} among its "
            "detections; pass those the false alarm was chosen from"
        )
    return min(rows)[2]


def _reason(label: str, names: Sequence[str], overlaps: Floats) -> str:
    """Return the reason why a detection of class `label` is false, by its overlap with each instance [g]."""
    own = max((iou for iou, name in zip(overlaps, names, strict=True) if name == label), default=0.0)
    others = [(iou, name) for iou, name in zip(overlaps, names, strict=True) if name != label]
    if own >= MATCH_IOU:
        return f"a second detection of one {label}"
    if others and max(others)[0] >= MATCH_IOU:
        return f"lies on {max(others)[1]}"
    return f"overlaps {label} by less than half" if own else f"no {label} there"


def _taken_for(label: str, drawn: Detections, overlaps: Floats) -> str:
    """The surest detection of another class that lies on an instance, by their overlaps with it [n]."""
    rivals = [
        (score, name)
        for score, name, iou in zip(drawn.scores.tolist(), _labels(drawn), overlaps, strict=True)
        if name != label and iou >= MATCH_IOU
    ]
    return f", taken for {max(rivals)[1]} with score {max(rivals)[0]:.2f}" if rivals else ""


def _overlaps(found: Detections, instances: Sequence[InstanceRecord]) -> Floats:
    """COCO's IoU of boxes [n, g], whatever their classes."""
    boxes = boxes_xywh(found)
    truth = np.array([instance.bbox for instance in instances], dtype=np.float64).reshape(-1, 4)
    iou = coco_mask.iou(boxes, truth, np.zeros(len(truth), dtype=bool))
    return np.asarray(iou, dtype=np.float64).reshape(len(boxes), len(truth))


def _labels(found: Detections) -> list[str]:
    return [found.class_names[label] for label in found.labels.tolist()]


def _alarm_regions(found: Detections, row: int, score: float) -> list[Region]:
    """Regions of the detections from `score` on; that of detection `row`, marked, is drawn last."""
    regions = found.above(min(score, float(found.scores[row]))).regions()
    marked = replace(regions.pop(-1 - row), colour=WARNING_COLOUR, line=_THICK)  # the best comes last
    return [*regions, marked]


def _place(region: Region) -> Region:
    """Return the place of a marked region, to be drawn in the other panel."""
    return Region(region.box_xyxy, None, "", WARNING_COLOUR)


def _classes_in(annotations: Annotations, image: ImageRecord) -> tuple[str, ...]:
    present = sorted(annotations.class_index[category_id] for category_id in annotations.labels_of(image.id))
    return tuple(annotations.class_names[index] for index in present)


def _prompt_panel(shown: Shown, label: str, names: tuple[str, ...], number: int) -> Panel:
    """One of the class's prompt images with its boxes; another one in each image."""
    candidates = [image for image in shown.prompts.images if label in _classes_in(shown.prompts, image)]
    image = candidates[(number - 1) % len(candidates)]
    regions = [
        replace(region, mask=None)
        for region in _truth_regions(shown.prompts, image, names)
        if region.caption == label
    ]
    note = "the one prompt image" if len(candidates) == 1 else f"one of {len(candidates)} prompt images"
    picture = draw_regions(read_image(shown.images / image.file_name), regions)
    return Panel(picture, "Prompt", f"{label} · {note}")


def _prediction_panel(pixels: Image, regions: Sequence[Region], found: Detections, score: float) -> Panel:
    note = f"{len(found.above(score))} with score ≥ {score:g}"
    return Panel(draw_regions(pixels, regions), "Prediction", note)


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
