"""Batches: samples put together, and how they are loaded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from unispector.data.dataset import InstanceDataset
from unispector.data.episodes import EpisodeSampler, SampleKey
from unispector.errors import DataError
from unispector.structures import Batch, Sample, Targets, VisualPrompts


def collate(samples: Sequence[Sample]) -> Batch:
    """Put one or more samples of one image size into a batch; every instance becomes a prompt too.

    Returns the batch, images and instances in the order of `samples`.
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


def training_batches(
    dataset: InstanceDataset, sampler: EpisodeSampler, start_step: int, steps: int, workers: int
) -> Iterator[Batch]:
    """The batches of steps `start_step` to `steps` - 1; the same ones with or without workers.

    `start_step` is 0 unless a run is resumed, `steps` the number of the whole run; 0 `workers` load in this
    process. Yields one batch per step.

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
