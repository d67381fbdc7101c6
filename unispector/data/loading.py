"""Batches: which images go together, and how they are loaded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unispector.data.dataset import InstanceDataset
from unispector.errors import ConfigError, DataError, TrainingError
from unispector.ops.rle import BoolArray
from unispector.structures import Batch, Sample, Targets, VisualPrompts

SampleKey = tuple[int, int]
"""Index of an image and the epoch seed it is drawn with."""


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples of one image size into a batch; every instance becomes a prompt too.

    Args:
        samples: at least one.

    Returns:
        The batch, images and instances in the order of `samples`.
    """
    counts = [len(sample.targets) for sample in samples]
    # Targets are views of one tensor each: a worker then hands over few shared-memory files, not hundreds.
    labels = torch.cat([sample.targets.labels for sample in samples])
    boxes = torch.cat([sample.targets.boxes for sample in samples])
    masks = torch.cat([sample.targets.masks for sample in samples])
    parts = zip(labels.split(counts), boxes.split(counts), masks.split(counts), strict=True)
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        targets=tuple(Targets(*part) for part in parts),
        prompts=VisualPrompts(
            roi_masks=torch.cat([sample.roi_masks for sample in samples]),
            image_index=torch.arange(len(samples)).repeat_interleave(torch.tensor(counts)),
            labels=labels,
            spectra=torch.cat([sample.spectra for sample in samples]),
        ),
        image_ids=tuple(sample.image_id for sample in samples),
        original_hw=tuple(sample.original_hw for sample in samples),
    )


class EpisodeSampler:
    """Draws each step's images class by class, so that a class comes with several images.

    Per step the classes are gone through in random order; of each, images are drawn until the batch
    has `images_per_class` that show it (an image counts for every class in it), until the batch is
    full. When the classes run out, another round adds as many again. No image comes twice before all
    have come. Step `i` needs no earlier step, so a resumed run continues exactly.

    Args:
        labels_per_image: class indices that occur in each image; images without any are never drawn.
        batch_size: images per step over all workers.
        images_per_class: images of one class that go together.
        seed: of all draws.
        rank: which of `world` equal, contiguous slices of a step's images to hand out.
        world: number of workers that share a step.

    Raises:
        TrainingError: no image has a label.
        ConfigError: `batch_size` cannot be shared equally.
    """

    def __init__(
        self,
        labels_per_image: Sequence[Sequence[int]],
        batch_size: int,
        images_per_class: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise ConfigError(
                f"train.batch_size {batch_size} cannot be shared by {world} workers; make it a multiple"
            )
        labels = sorted({label for image in labels_per_image for label in image})
        if not labels:
            raise TrainingError("no training image has an annotated instance; check the training file")
        column = {label: position for position, label in enumerate(labels)}
        shows = np.zeros((len(labels), len(labels_per_image)), dtype=np.bool_)
        for index, image in enumerate(labels_per_image):
            shows[[column[label] for label in image], index] = True
        self._shows = shows
        self._labelled: BoolArray = np.array([len(image) > 0 for image in labels_per_image])
        self._batch_size = batch_size
        self._images_per_class = images_per_class
        self._seed = seed
        share = batch_size // world
        self._slice = slice(rank * share, (rank + 1) * share)

    def batch_at(self, step: int) -> list[SampleKey]:
        """The images of step `step` (from 0) for this rank: index and epoch seed of each."""
        indices = self._draw(np.random.default_rng((self._seed, step)))
        first = step * self._batch_size
        return [(index, first + place) for place, index in enumerate(indices)][self._slice]

    def _draw(self, rng: np.random.Generator) -> list[int]:
        drawn: list[int] = []
        fresh = self._labelled.copy()
        shown = np.zeros(len(self._shows), dtype=np.int64)
        wanted = 0
        while True:
            wanted += self._images_per_class
            for label in rng.permutation(len(self._shows)):
                candidates = np.flatnonzero(self._shows[label] & fresh)
                missing = min(wanted - shown[label], self._batch_size - len(drawn), len(candidates))
                if missing > 0:
                    picked = rng.choice(candidates, missing, replace=False)
                    drawn += picked.tolist()
                    fresh[picked] = False
                    shown += self._shows[:, picked].sum(axis=1)
                if len(drawn) == self._batch_size:
                    return drawn
            if not fresh.any():
                fresh = self._labelled.copy()


def training_batches(
    dataset: InstanceDataset, sampler: EpisodeSampler, start_step: int, steps: int, workers: int
) -> Iterator[Batch]:
    """The batches of steps `start_step` to `steps` - 1; the same ones with or without workers.

    Args:
        dataset: where the samples come from.
        sampler: which samples make a step.
        start_step: first step, 0 unless a run is resumed.
        steps: number of steps of the whole run.
        workers: loading processes; 0 loads in this one.

    Yields:
        One batch per step.

    Raises:
        DataError: an image or its annotations cannot be read.
    """
    keys = (sampler.batch_at(step) for step in range(start_step, steps))
    if workers == 0:
        for batch_keys in keys:
            yield collate([dataset.sample(*key) for key in batch_keys])
        return
    loader = DataLoader(
        _KeyedDataset(dataset.sample),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collated,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def evaluation_batches(dataset: InstanceDataset, batch_size: int) -> Iterator[Batch]:
    """All images in order, `batch_size` at a time, the last batch what is left.

    Args:
        dataset: made without augmentation.
        batch_size: images per batch.

    Yields:
        Batches; images without instances are among them.

    Raises:
        DataError: an image or its annotations cannot be read.
    """
    for start in range(0, len(dataset), batch_size):
        indices = range(start, min(start + batch_size, len(dataset)))
        yield collate([dataset.sample(index) for index in indices])


@dataclass(frozen=True)
class _KeyedDataset(Dataset[Sample | DataError]):
    """Samples by key for a loader's worker; an error is handed over, a raised one would be rewrapped."""

    read: Callable[[int, int], Sample]

    def __getitem__(self, key: SampleKey) -> Sample | DataError:
        try:
            return self.read(*key)
        except DataError as error:
            return error


def _collated(samples: Sequence[Sample | DataError]) -> Batch | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    return collate([sample for sample in samples if isinstance(sample, Sample)])
