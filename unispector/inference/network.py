"""The network in use: marked images in, encoded; images in, detections out, in as few passes as can be."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import TypeVar

import numpy as np
import torch

from unispector.data.loading import collate
from unispector.data.transforms import resize_image
from unispector.detections import Detections
from unispector.inference.geometry import Geometry
from unispector.inference.merging import best_of
from unispector.inference.negatives import Negatives
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling.postprocess import Rules, postprocess
from unispector.modeling.saved_model import SavedModel
from unispector.ops.images import ImageInput, as_pixels, count_pixels
from unispector.structures import ClassPrompts, EncodedPrompts, ImageFeatures, Sample

Item = TypeVar("Item")

PIXELS_AT_ONCE = 100_000_000
"""Pixels from which on a batch takes no further image; all of its images are held (300 MB)."""
LOGITS_AT_ONCE = 2**24
"""Numbers in maps that are held at a time while many prompt banks are tried, per thread (64 MiB)."""


@dataclass(frozen=True)
class _Pass:
    """Alternative prompts of some classes, all looked at with one size of the input."""

    size: int  # side S of the input in pixels
    class_names: tuple[str, ...]  # C of a bank's classes
    banks: tuple[int, ...]  # numbers of the K banks
    prompts: ClassPrompts  # K sets of C classes
    negatives: tuple[Negatives, ...]  # K, what the classes are not


class Network:
    """A saved model as a detector uses it."""

    def __init__(self, saved: SavedModel) -> None:
        """Wrap a loaded model."""
        self.model = saved.model.eval()
        model = saved.config.model
        prior = model.similarity_prior
        # Of a class, as many as at stride 4; what a candidate grows to is drawn at stride 2, twice.
        self.prior_maps = prior.width + 8 + 8 * prior.grown if prior.enabled else 0
        # With a prior the mask features are a row's own.
        self.row_maps = model.queries + (model.width if prior.enabled else 0)
        self.rules = Rules(model.boxes == "mask", model.confine_masks, model.nms_iou)
        self.geometry = Geometry.of(model)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of an embedding, and of each level of features that the similarity prior compares."""
        levels = self.model.backbone.matching_channels if self.model.similarity is not None else ()
        return (self.model.width, *levels)

    @property
    def device(self) -> torch.device:
        """The device it runs on."""
        return next(self.model.parameters()).device

    @property
    def parameters(self) -> int:
        """How many weights it has, frozen ones too."""
        return sum(weight.numel() for weight in self.model.parameters())

    @torch.inference_mode()
    def encode(self, samples: list[Sample]) -> EncodedPrompts:
        """All instances of some samples, on the CPU."""
        batch = collate(samples).to(self.device)
        features = self.model.encode_images(batch.images)
        encoded = self.model.encode_prompts(features, batch.prompts).to("cpu")
        return EncodedPrompts(encoded.embeddings, encoded.memory.half() if encoded.memory else None)

    def stream(
        self, images: Iterable[ImageInput], banks: Sequence[PromptBank], batch_size: int, limit: int
    ) -> Iterator[tuple[Detections, ...]]:
        """Detections of each bank on images that are looked at as a whole.

        Args:
            banks: alternative prompts of the same classes, in the same order; at least one.
            batch_size: images per forward pass.
            limit: (query, class) pairs kept per image.

        Raises:
            DataError: while iterating, an image is unreadable.
        """
        threads = torch.get_num_threads()
        find = partial(self._find, self._passes(banks, -(-batch_size // threads)), banks, limit)
        # Shares of a batch side by side, a thread each, take less than one batch with all threads.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for chunk in batches(images, batch_size):
                shares = list(chunks(chunk, -(-len(chunk) // threads)))
                for found in map(find, shares) if len(shares) == 1 else pool.map(find, shares):
                    yield from found

    def _find(
        self, passes: Sequence[_Pass], banks: Sequence[PromptBank], limit: int, images: Sequence[ImageInput]
    ) -> list[tuple[Detections, ...]]:
        """Of each image, the detections of each bank."""
        pictures = [as_pixels(image, banks[0].bit_depth) for image in images]
        found: list[list[list[Detections]]] = [[[] for _ in banks] for _ in pictures]
        for size, same in groupby(passes, key=lambda step: step.size):
            features = self._encode_images(pictures, size)
            for step in same:
                of_pass = self._detect_pass(features, pictures, limit, step)
                for row, of_image in zip(found, of_pass, strict=True):
                    for number, detections in zip(step.banks, of_image, strict=True):
                        row[number].append(detections)
        return [
            tuple(
                calibrated(best_of(parts, bank.class_names, limit), bank)
                for parts, bank in zip(row, banks, strict=True)
            )
            for row in found
        ]

    @torch.inference_mode()
    def _passes(self, banks: Sequence[PromptBank], batch_size: int) -> list[_Pass]:
        """All banks, by the size of the input; as many together as memory allows."""
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for number, bank in enumerate(banks):
            for size in set(bank.image_sizes):
                own = zip(bank.class_names, bank.image_sizes, strict=True)
                groups.setdefault((size, tuple(name for name, of in own if of == size)), []).append(number)
        passes = []
        for (size, names), numbers in sorted(groups.items()):
            for some in chunks(numbers, self._banks_at_once(size, batch_size, len(names))):
                parts = [banks[number].select(names) for number in some]
                prompts = ClassPrompts.joined([self._prompts_of(part) for part in parts])
                negatives = tuple(Negatives.of(part, self.device) for part in parts)
                passes.append(_Pass(size, names, tuple(some), prompts, negatives))
        return passes

    def _banks_at_once(self, size: int, images: int, classes: int) -> int:
        """Return the number of banks decoded together, so that their maps stay within memory."""
        cells = (self.geometry.sized(size).padded_size // 4) ** 2
        maps = self.row_maps + classes * self.prior_maps
        return max(LOGITS_AT_ONCE // (images * maps * cells), 1)

    @torch.inference_mode()
    def _prompts_of(self, bank: PromptBank) -> ClassPrompts:
        """A bank as one set of prompts, on the network's device."""
        memory = bank.memory.to(self.device) if bank.memory is not None else None
        owners = torch.tensor(bank.owners, dtype=torch.int64)
        members = torch.arange(len(bank))[None, :, None] == owners
        embeddings = bank.embeddings[None].to(self.device)
        return self.model.class_prompts(embeddings, memory, members.to(self.device))

    @torch.inference_mode()
    def _encode_images(self, pictures: Sequence[np.ndarray], size: int) -> ImageFeatures:
        resized = np.stack([resize_image(picture, size) for picture in pictures])
        images = torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(self.device)
        return self.model.encode_images(images)

    @torch.inference_mode()
    def _detect_pass(
        self, features: ImageFeatures, pictures: Sequence[np.ndarray], limit: int, step: _Pass
    ) -> list[list[Detections]]:
        """Of each image, the detections with each of K sets of prompts."""
        count = len(step.banks)
        detections = postprocess(
            self.model.detect(features, step.prompts),
            [(picture.shape[0], picture.shape[1]) for picture in pictures for _ in range(count)],
            class_names=step.class_names,
            image_size=step.size,
            rules=self.rules,
            limit=limit,
        )
        return [
            [
                negatives.lower(detections[row * count + number], features, row)
                for number, negatives in enumerate(step.negatives)
            ]
            for row in range(len(pictures))
        ]


def calibrated(found: Detections, bank: PromptBank) -> Detections:
    """The detections with scores as a bank's calibrations give them, best first."""
    if all(calibration.as_found for calibration in bank.calibrations):
        return found
    scores = found.scores
    for label, calibration in enumerate(bank.calibrations):
        if not calibration.as_found:
            scores = torch.where(found.labels == label, calibration.apply(scores), scores)
    return found.ranked(scores)


def batches(images: Iterable[ImageInput], most: int) -> Iterator[list[ImageInput]]:
    """Consecutive lists of at most so many images, fewer where they are large; none is read ahead."""
    if most < 1:
        raise ValueError(f"batch size {most}; it must be 1 or more")
    batch: list[ImageInput] = []
    pixels = 0
    for image in images:
        batch.append(image)
        pixels += count_pixels(image)
        if len(batch) == most or pixels >= PIXELS_AT_ONCE:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive lists of `size` items, the last one shorter."""
    if size < 1:
        raise ValueError(f"batch size {size}; it must be 1 or more")
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
