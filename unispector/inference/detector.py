"""`UniSpector`: load a model once, encode prompts once, detect on any number of images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from unispector.config.evaluation import KEPT_PAIRS
from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.loading import collate
from unispector.data.transforms import ImageArray, resize_image
from unispector.errors import PromptBankError
from unispector.inference.geometry import Geometry
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.marking import ImageInput, Prompt, as_pixels, mark_together
from unispector.inference.merging import best_of
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.tiles import MarkSizes, Tile, View, views_of
from unispector.inference.tiling import NOT_MEANT, TiledSearch, annotations_in_tiles, marks_in_tiles, numbered
from unispector.modeling.postprocess import Rules, postprocess
from unispector.modeling.saved_model import SHIPPED_MODELS, SavedModel, load_model, shipped_model
from unispector.prior_structures import PromptMemory
from unispector.structures import ClassPrompts, Detections, EncodedPrompts, ImageFeatures, Sample

__all__ = ["ImageInput", "Prompt", "UniSpector"]

Item = TypeVar("Item")

LOGITS_AT_ONCE = 2**24
"""Numbers in maps that are held at a time while many prompt banks are tried, per thread (64 MiB)."""


class UniSpector:
    """A trained detector.

    Prompts and targets are separate calls: a prompt image is encoded once, and no target's result
    depends on the other targets of its batch.
    """

    def __init__(self, saved: SavedModel) -> None:
        """Wrap a loaded model."""
        self.fingerprint = saved.fingerprint
        self.provenance = saved.provenance
        self._model = saved.model.eval()
        model = saved.config.model
        prior = model.similarity_prior
        # Of a class, as many as at stride 4; what a candidate grows to is drawn at stride 2, twice.
        self._prior_maps = prior.width + 8 + 8 * prior.grown if prior.enabled else 0
        # With a prior the mask features are a row's own.
        self._row_maps = model.queries + (model.width if prior.enabled else 0)
        self._rules = Rules(model.boxes == "mask", model.confine_masks, model.nms_iou)
        self._geometry = Geometry.of(model)

    @classmethod
    def load(cls, model: str | Path = SHIPPED_MODELS[0], device: str | None = None) -> Self:
        """Load a model.

        Args:
            model: one that the package ships, `fast` or `accurate`, or a folder with `model.safetensors` and
                `config.json`.
            device: where to run, e.g. `cpu`; None = on the GPU where there is one.

        Raises:
            CheckpointError: the folder is incomplete or does not fit this code, or a package that the model
                takes weights from is not installed.
        """
        directory = shipped_model(str(model)) if model in SHIPPED_MODELS else Path(model)
        return cls(load_model(directory, device or ("cuda" if torch.cuda.is_available() else "cpu")))

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self._model.parameters()).device

    def encode(self, prompts: Sequence[Prompt], batch_size: int = 8, tile: Tile = "auto") -> PromptBank:
        """Encode marked images into one embedding per class.

        A class's embedding is the mean over all its marks on all its images, instance-weighted
        (paper section 3.3).

        Args:
            prompts: at least one; classes are numbered in order of first appearance.
            tile: side in pixels of the tiles in which marks and targets are looked at, at least five typical
                marks of a class; 0 = images are looked at as a whole; auto = tiles for classes whose marks
                are too small to be seen otherwise.

        Raises:
            DataError: an image or a mark cannot be used; the message names it.
            PromptBankError: no prompts at all.
        """
        names = tuple(dict.fromkeys(prompt.label for prompt in prompts))
        labels = [names.index(prompt.label) for prompt in prompts]

        def samples(view: View, classes: Sequence[bool]) -> Iterator[tuple[Sample, Sequence[int]]]:
            frame = self._geometry.sized(view.size)
            if view.tile:
                return marks_in_tiles(prompts, labels, classes, frame, view.tile)
            return numbered(mark_together(prompts, labels, frame))

        sides, labels_of_marks, image_hw = list[float](), list[int](), list[tuple[int, int]]()
        # Looking at every image once more is only worth it where sizes can differ.
        once_more = self._geometry.magnify > 1 or tile not in ("auto", 0)
        for sample in mark_together(prompts, labels, self._geometry) if once_more else ():
            sides += self._geometry.sides(sample.targets)
            labels_of_marks += sample.targets.labels.tolist()
            image_hw += [sample.original_hw] * len(sample.targets)
        views = views_of(MarkSizes(sides, image_hw, labels_of_marks), len(names), self._geometry, tile)
        encoded, owners, _ = self._encode_samples(samples, views, batch_size)
        sizes, tiles = tuple(view.size for view in views), tuple(view.tile for view in views)
        bank = PromptBank.from_instances(encoded, owners, names, self.fingerprint, sizes)
        return replace(bank, tiles=tiles)

    def encode_annotations(
        self,
        annotations: Annotations,
        root: str | Path,
        roi: Literal["box", "mask"] = "box",
        batch_size: int = 8,
        tile: Tile = "auto",
    ) -> PromptBank:
        """Encode every annotated instance of a COCO file as a prompt of its category.

        Raises:
            DataError: an image cannot be used.
            PromptBankError: a category has no instance; the message names it.
        """
        return self.encode_instances(annotations, root, roi, batch_size, tile=tile).bank()

    def encode_instances(
        self,
        annotations: Annotations,
        root: str | Path,
        roi: Literal["box", "mask"] = "box",
        batch_size: int = 8,
        change: Callable[[ImageArray], ImageArray] | None = None,
        tile: Tile = "auto",
    ) -> InstanceEmbeddings:
        """Encode every annotated instance of a COCO file on its own; an image is encoded only once.

        Args:
            change: what to do to every image before it is looked at, its size kept; None = nothing.
            tile: as of `encode`.

        Raises:
            DataError: an image cannot be used.
        """

        def dataset(view: View) -> InstanceDataset:
            return InstanceDataset(
                annotations,
                Path(root),
                frame=self._geometry.sized(view.size),
                augment=None,
                box_share=1.0 if roi == "box" else 0.0,
                seed=0,
                change=change,
            )

        def samples(view: View, classes: Sequence[bool]) -> Iterator[tuple[Sample, Sequence[int]]]:
            images = dataset(view)
            if view.tile:
                frame = self._geometry.sized(view.size)
                return annotations_in_tiles(images, annotations, roi, classes, frame, view.tile)
            return numbered(images.sample(index) for index in range(len(images)))

        names = annotations.class_names
        views = views_of(MarkSizes.of_annotations(annotations), len(names), self._geometry, tile)
        ids = dataset(View(0, self._geometry.image_size)).instance_ids
        encoded, labels, rows = self._encode_samples(samples, views, batch_size)
        ordered = tuple(ids[row] for row in rows)
        sizes, tiles = tuple(view.size for view in views), tuple(view.tile for view in views)
        return InstanceEmbeddings(encoded, labels, ordered, names, self.fingerprint, sizes, tiles)

    def _encode_samples(
        self,
        samples: Callable[[View, Sequence[bool]], Iterable[tuple[Sample, Sequence[int]]]],
        views: Sequence[View],
        batch_size: int,
    ) -> tuple[EncodedPrompts, Tensor, list[int]]:
        """Encode marked images, each class as it is looked at.

        Args:
            samples: of a view and the classes that have it, marked images and the number of each mark; always
                the same, in the same order.
            views: of each class.

        Returns:
            All N instances, their labels [N], and the number of each; on the CPU.
        """
        parts, labels, rows = [], [torch.zeros(0, dtype=torch.int64)], list[int]()
        for view in sorted(set(views)):
            classes = [own == view for own in views]
            for chunk in _chunks(samples(view, classes), batch_size):
                here = torch.cat([sample.targets.labels for sample, _ in chunk])
                numbers = torch.tensor([number for _, own in chunk for number in own], dtype=torch.int64)
                wanted = (torch.tensor(classes)[here] & (numbers != NOT_MEANT)).nonzero().flatten()
                rows += numbers[wanted].tolist()
                if len(wanted):
                    parts.append(self._encode_chunk([sample for sample, _ in chunk]).rows(wanted))
                    labels.append(here[wanted])
        embeddings = torch.cat(
            [torch.zeros(0, self._model.width), *(part.embeddings.float() for part in parts)]
        )
        memories = [part.memory for part in parts if part.memory is not None]
        memory = PromptMemory.joined(memories) if memories else None
        return EncodedPrompts(embeddings, memory), torch.cat(labels), rows

    @torch.inference_mode()
    def _encode_chunk(self, samples: list[Sample]) -> EncodedPrompts:
        """All instances of some samples, on the CPU."""
        batch = collate(samples).to(self.device)
        features = self._model.encode_images(batch.images)
        encoded = self._model.encode_prompts(features, batch.prompts).to("cpu")
        return EncodedPrompts(encoded.embeddings, encoded.memory.half() if encoded.memory else None)

    def detect(
        self, images: Sequence[ImageInput], bank: PromptBank, batch_size: int = 8, limit: int = KEPT_PAIRS
    ) -> list[Detections]:
        """Find every class of the bank on every image.

        A class with tiles is looked for in each tile of a larger image, and on the image as a whole.

        Args:
            images: files, or uint8 RGB arrays [h, w, 3], of any size.
            batch_size: images per forward pass; changes speed, not results.
            limit: (query, class) pairs kept per image.

        Returns:
            Detections per image, in the order of `images`; boxes in the image's own pixels.

        Raises:
            DataError: an image is unreadable.
            PromptBankError: the bank was made by another model.
        """
        return list(self.stream(images, bank, batch_size, limit))

    def stream(
        self,
        images: Iterable[ImageInput],
        bank: PromptBank,
        batch_size: int = 8,
        limit: int = KEPT_PAIRS,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Detections]:
        """`detect`, one result at a time, for more images than one wants to wait for.

        Args:
            progress: told how many tiles of an image are done, and how many it has, where a bank has tiles.

        Raises:
            DataError: while iterating, an image is unreadable.
            PromptBankError: at once, the bank was made by another model.
        """
        return (found for (found,) in self.stream_banks(images, [bank], batch_size, limit, progress))

    def stream_banks(
        self,
        images: Iterable[ImageInput],
        banks: Sequence[PromptBank],
        batch_size: int = 8,
        limit: int = KEPT_PAIRS,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[Detections, ...]]:
        """Detections of many banks on every image, which is encoded only once for all of them.

        Args:
            banks: alternative prompts of the same classes, in the same order; at least one.

        Yields:
            Per image, the detections of each bank.

        Raises:
            DataError: while iterating, an image is unreadable.
            PromptBankError: at once, a bank was made by another model or has other classes.
        """
        for bank in banks:
            bank.check(self.fingerprint)
            self._geometry.check(bank.image_sizes)
            if bank.class_names != banks[0].class_names:
                raise PromptBankError(
                    f"banks of different classes ({', '.join(bank.class_names)} and "
                    f"{', '.join(banks[0].class_names)}) cannot be tried in one pass; make one pass for each"
                )
        look = partial(self._stream, batch_size=batch_size, limit=limit)
        if not any(side for bank in banks for side in bank.tiles):
            return look(images, banks)
        return TiledSearch(look, batch_size, limit, self._rules.nms_iou, progress).stream(images, banks)

    def _stream(
        self, images: Iterable[ImageInput], banks: Sequence[PromptBank], batch_size: int, limit: int
    ) -> Iterator[tuple[Detections, ...]]:
        threads = torch.get_num_threads()
        find = partial(self._find, self._passes(banks, -(-batch_size // threads)), banks, limit)
        # Shares of a batch side by side, a thread each, take less than one batch with all threads.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for chunk in _chunks(images, batch_size):
                shares = list(_chunks(chunk, -(-len(chunk) // threads)))
                for found in map(find, shares) if len(shares) == 1 else pool.map(find, shares):
                    yield from found

    def _find(
        self, passes: Sequence["_Pass"], banks: Sequence[PromptBank], limit: int, images: Sequence[ImageInput]
    ) -> list[tuple[Detections, ...]]:
        """Of each image, the detections of each bank."""
        pictures = [as_pixels(image) for image in images]
        found: list[list[list[Detections]]] = [[[] for _ in banks] for _ in pictures]
        for size, same in groupby(passes, key=lambda step: step.size):
            features = self._encode_images(pictures, size)
            for step in same:
                of_pass = self._detect_pass(features, pictures, limit, step)
                for row, of_image in zip(found, of_pass, strict=True):
                    for number, detections in zip(step.banks, of_image, strict=True):
                        row[number].append(detections)
        return [tuple(best_of(parts, banks[0].class_names, limit) for parts in row) for row in found]

    @torch.inference_mode()
    def _passes(self, banks: Sequence[PromptBank], batch_size: int) -> list["_Pass"]:
        """All banks, by the size of the input; as many together as memory allows."""
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for number, bank in enumerate(banks):
            for size in set(bank.image_sizes):
                own = zip(bank.class_names, bank.image_sizes, strict=True)
                groups.setdefault((size, tuple(name for name, of in own if of == size)), []).append(number)
        passes = []
        for (size, names), numbers in sorted(groups.items()):
            for some in _chunks(numbers, self._banks_at_once(size, batch_size, len(names))):
                prompts = ClassPrompts.joined([self._prompts_of(banks[n].select(names)) for n in some])
                passes.append(_Pass(size, names, tuple(some), prompts))
        return passes

    def _banks_at_once(self, size: int, images: int, classes: int) -> int:
        """Return the number of banks decoded together, so that their maps stay within memory."""
        cells = (self._geometry.sized(size).padded_size // 4) ** 2
        maps = self._row_maps + classes * self._prior_maps
        return max(LOGITS_AT_ONCE // (images * maps * cells), 1)

    @torch.inference_mode()
    def _prompts_of(self, bank: PromptBank) -> ClassPrompts:
        """A bank as one set of prompts, on the network's device."""
        memory = bank.memory.to(self.device) if bank.memory is not None else None
        owners = torch.tensor(bank.owners, dtype=torch.int64)
        members = torch.arange(len(bank))[None, :, None] == owners
        embeddings = bank.embeddings[None].to(self.device)
        return self._model.class_prompts(embeddings, memory, members.to(self.device))

    @torch.inference_mode()
    def _encode_images(self, pictures: Sequence[np.ndarray], size: int) -> ImageFeatures:
        resized = np.stack([resize_image(picture, size) for picture in pictures])
        images = torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(self.device)
        return self._model.encode_images(images)

    @torch.inference_mode()
    def _detect_pass(
        self, features: ImageFeatures, pictures: Sequence[np.ndarray], limit: int, step: "_Pass"
    ) -> list[list[Detections]]:
        """Of each image, the detections with each of K sets of prompts."""
        count = len(step.banks)
        detections = postprocess(
            self._model.detect(features, step.prompts),
            [(picture.shape[0], picture.shape[1]) for picture in pictures for _ in range(count)],
            class_names=step.class_names,
            image_size=step.size,
            rules=self._rules,
            limit=limit,
        )
        return [detections[start : start + count] for start in range(0, len(detections), count)]


@dataclass(frozen=True)
class _Pass:
    """Alternative prompts of some classes, all looked at with one size of the input."""

    size: int  # side S of the input in pixels
    class_names: tuple[str, ...]  # C of a bank's classes
    banks: tuple[int, ...]  # numbers of the K banks
    prompts: ClassPrompts  # K sets of C classes


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive lists of `size` items, the last one shorter."""
    if size < 1:
        raise ValueError(f"batch size {size}; it must be 1 or more")
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
