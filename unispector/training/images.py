"""Images of a training as it goes: what the model finds by now, and where it puts the prompts."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unispector.config import Config
from unispector.data.coco import Annotations, ImageRecord
from unispector.detections import Detections
from unispector.inference.detector import UniSpector
from unispector.modeling.saved_model import SavedModel
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.drawing import Image, side_by_side, write_image
from unispector.ops.files import atomic_write_bytes
from unispector.reporting.charts import png
from unispector.reporting.evaluation_images import Shown, sample_panels
from unispector.reporting.prompt_space import PromptSpace, scatter_chart
from unispector.scores import DEFAULT_SCORE
from unispector.training.monitor import SeenPrompts

FOLDER = "pictures"
"""Of a job's work directory; the images are `step-*` in it."""

_EXAMPLES = 4
_SCORE = DEFAULT_SCORE  # lowest of a detection that is drawn ...
_SUREST = 3  # ... but of the surest ones, which early in a training lie below
_DETECTIONS = 20  # of an image


@dataclass(frozen=True)
class Example:
    """A training image, and another one that prompts it."""

    category_id: int
    prompt: ImageRecord
    target: ImageRecord


def choose_examples(annotations: Annotations, count: int) -> tuple[Example, ...]:
    """Classes spread over all that can be shown, each with two images that no other one has."""
    showing: dict[int, list[ImageRecord]] = {category.id: [] for category in annotations.categories}
    for image in annotations.images:
        instances = annotations.instances_of(image.id)
        for category_id in {instance.category_id for instance in instances if not instance.iscrowd}:
            showing[category_id].append(image)
    able = sorted(category_id for category_id, images in showing.items() if len(images) > 1)
    count = min(count, len(able))
    examples: list[Example] = []
    taken: set[int] = set()
    for category_id in (able[place * len(able) // count] for place in range(count)):
        free = [image for image in showing[category_id] if image.id not in taken][:2]
        if len(free) == 2:
            examples.append(Example(category_id, *free))
            taken.update(image.id for image in free)
    return tuple(examples)


@dataclass(frozen=True)
class TrainingImages:
    """Draws a model while it is trained."""

    annotations: Annotations
    images: Path
    config: Config
    folder: Path

    def draw(self, step: int, model: UniSpectorModel, prompts: SeenPrompts) -> None:
        """Draw predictions on a few training images, the same ones each time, and the latest prompts.

        The model goes back into training mode; no random number is drawn.

        Args:
            step: steps done, in the files' names and titles.
            prompts: where it puts the prompts of the latest batches.

        Raises:
            DataError: an image cannot be read.
        """
        try:
            self._draw_predictions(step, model)
        finally:
            model.train()
        self._draw_prompts(step, prompts)

    def _draw_predictions(self, step: int, model: UniSpectorModel) -> None:
        examples = choose_examples(self.annotations, _EXAMPLES)
        if not examples:
            return
        annotations = self.annotations.keep_categories([example.category_id for example in examples])
        prompts = annotations.keep_images([example.prompt.id for example in examples])
        targets = annotations.keep_images([example.target.id for example in examples])
        detector = UniSpector(SavedModel(model, self.config, fingerprint=f"step {step}", provenance={}))
        bank = detector.encode_annotations(prompts, self.images)
        files = [self.images / image.file_name for image in targets.images]
        found = detector.detect(files, bank, limit=_DETECTIONS)
        detections = dict(zip((image.id for image in targets.images), found, strict=True))
        shown = Shown(prompts, targets, detections, self.images)
        strips = []
        for example in examples:
            name = annotations.class_names[annotations.class_index[example.category_id]]
            score = _lowest_drawn(detections[example.target.id])
            panels = sample_panels(shown, example.target, name, 1, score)
            strips.append(side_by_side(panels, f"step {step} · {example.target.file_name}"))
        write_image(self.folder / f"step-{step:06d}-predictions.jpg", _below_one_another(strips))

    def _draw_prompts(self, step: int, prompts: SeenPrompts) -> None:
        if not prompts.angles():
            return
        space = PromptSpace.of(prompts.embeddings, prompts.labels.tolist(), self.annotations.class_names)
        chart = scatter_chart(space, f"Prompts after {step} steps", space.reach)
        atomic_write_bytes(self.folder / f"step-{step:06d}-prompts.png", png(chart))


def _lowest_drawn(found: Detections) -> float:
    """Score from which on detections are drawn, 3 decimals."""
    surest: list[float] = found.scores[:_SUREST].tolist()
    return min([_SCORE, *(math.floor(1000 * score) / 1000 for score in surest)])


def _below_one_another(strips: list[Image]) -> Image:
    """One image of strips of different widths, filled up with the first one's ground."""
    width = max(strip.shape[1] for strip in strips)
    sheet: Image = np.empty((sum(strip.shape[0] for strip in strips), width, 3), dtype=np.uint8)
    sheet[:] = strips[0][0, 0]
    top = 0
    for strip in strips:
        sheet[top : top + strip.shape[0], : strip.shape[1]] = strip
        top += strip.shape[0]
    return sheet
