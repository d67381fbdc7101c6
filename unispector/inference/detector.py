"""`UniSpector`: load a model once, encode prompts once, detect on any number of images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, Self, overload

import numpy as np
import torch
from torch import Tensor

from unispector.config.evaluation import KEPT_PAIRS
from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.loading import collate
from unispector.data.transforms import ImageArray, resize_image
from unispector.detections import Detections
from unispector.errors import PromptBankError
from unispector.inference.geometry import Geometry
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.marking import ALL, Prompt, by_class, mark_together
from unispector.inference.passes import Pass, best_of, chunks
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling.postprocess import Rules, postprocess
from unispector.modeling.saved_model import SHIPPED_MODELS, SavedModel, find_device, load_model, shipped_model
from unispector.ops.images import ImageInput, Images, as_pixels, is_single, listed
from unispector.prior_structures import PromptMemory
from unispector.structures import ClassPrompts, EncodedPrompts, ImageFeatures, Sample

__all__ = ["ALL", "ImageInput", "Prompt", "UniSpector"]

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
            device: where to run, `cpu`, `cuda` or `cuda:1`; None = on the GPU where there is one.

        Raises:
            DataError: there is no such device here.
            CheckpointError: the folder is incomplete or does not fit this code, or a package that the model
                takes weights from is not installed.
        """
        directory = shipped_model(str(model)) if model in SHIPPED_MODELS else Path(model)
        return cls(load_model(directory, find_device(device)))

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self._model.parameters()).device

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        batch_size: int = 8,
        bit_depth: int = 16,
        negatives: Prompt | Sequence[Prompt] = (),
    ) -> PromptBank:
        """Encode marked images into one embedding per class.

        A class's embedding is the mean over all its marks on all its images, instance-weighted
        (paper section 3.3).

        Args:
            prompts: one, or several; classes are numbered in order of first appearance.
            bit_depth: 8 to 16, the bits that 16-bit images really use, such as 12 of many cameras; the bank
                remembers it, and `detect` reads targets in the same way.
            negatives: marks of what is not the defect; see `with_negatives`.

        Raises:
            DataError: an image or a mark cannot be used; the message names it.
            PromptBankError: no prompts at all, or negatives that cannot be used.
        """
        prompts = [prompts] if isinstance(prompts, Prompt) else prompts
        names = tuple(dict.fromkeys(prompt.label for prompt in prompts))
        labels = [names.index(prompt.label) for prompt in prompts]

        def samples(geometry: Geometry) -> Iterator[Sample]:
            return mark_together(prompts, labels, geometry, bit_depth)

        sides, labels_of_marks = list[float](), list[int]()
        # Looking at every image once more is only worth it where sizes can differ.
        for sample in samples(self._geometry) if self._geometry.magnify > 1 else ():
            sides += self._geometry.sides(sample.targets)
            labels_of_marks += sample.targets.labels.tolist()
        sizes = self._geometry.input_sizes(sides, labels_of_marks, len(names))
        encoded, owners, _ = self._encode_samples(samples, sizes, batch_size)
        bank = PromptBank.from_instances(encoded, owners, names, self.fingerprint, sizes)
        return self.with_negatives(replace(bank, bit_depth=bit_depth), negatives, batch_size)

    def with_negatives(
        self, bank: PromptBank, negatives: Prompt | Sequence[Prompt], batch_size: int = 8
    ) -> PromptBank:
        """Add marks of what is not the defect: what resembles them is not found, or with a lower score.

        Of a class the last `OPPOSED` are kept.

        Args:
            negatives: one, or several, on any images; the label names the class that it is not, `ALL` stands
                for every class of the bank.

        Raises:
            DataError: an image or a mark cannot be used; the message names it.
            PromptBankError: the bank is another model's, has no such class, or the model has no similarity
                prior, which alone can use negatives.
        """
        bank.check(self.fingerprint)
        negatives = [negatives] if isinstance(negatives, Prompt) else negatives
        if negatives and bank.memory is None:
            raise PromptBankError("this model has no similarity prior, so it cannot use negatives")
        for label, own in enumerate(by_class(negatives, bank.class_names)):
            samples = partial(mark_together, own, [0] * len(own), bit_depth=bank.bit_depth)
            encoded, _, _ = self._encode_samples(samples, [bank.image_sizes[label]], batch_size)
            if encoded.memory is not None:
                bank = bank.opposed_by(encoded.memory, [label] * len(encoded.memory))
        return bank

    def encode_annotations(
        self,
        annotations: Annotations,
        root: str | Path,
        roi: Literal["box", "mask"] = "box",
        batch_size: int = 8,
    ) -> PromptBank:
        """Encode every annotated instance of a COCO file as a prompt of its category.

        Raises:
            DataError: an image cannot be used.
            PromptBankError: a category has no instance; the message names it.
        """
        return self.encode_instances(annotations, root, roi, batch_size).bank()

    def encode_instances(
        self,
        annotations: Annotations,
        root: str | Path,
        roi: Literal["box", "mask"] = "box",
        batch_size: int = 8,
        change: Callable[[ImageArray], ImageArray] | None = None,
    ) -> InstanceEmbeddings:
        """Encode every annotated instance of a COCO file on its own; an image is encoded only once.

        Args:
            change: what to do to every image before it is looked at, its size kept; None = nothing.

        Raises:
            DataError: an image cannot be used.
        """

        def dataset(geometry: Geometry) -> InstanceDataset:
            return InstanceDataset(
                annotations,
                Path(root),
                frame=geometry,
                augment=None,
                box_share=1.0 if roi == "box" else 0.0,
                seed=0,
                change=change,
            )

        def samples(geometry: Geometry) -> Iterator[Sample]:
            images = dataset(geometry)
            return (images.sample(index) for index in range(len(images)))

        names, ids = annotations.class_names, dataset(self._geometry).instance_ids
        sizes = self._geometry.annotated_sizes(annotations)
        encoded, labels, rows = self._encode_samples(samples, sizes, batch_size)
        ordered = tuple(ids[row] for row in rows)
        return InstanceEmbeddings(encoded, labels, ordered, names, self.fingerprint, sizes)

    def _encode_samples(
        self, samples: Callable[[Geometry], Iterable[Sample]], sizes: Sequence[int], batch_size: int
    ) -> tuple[EncodedPrompts, Tensor, list[int]]:
        """Encode marked images, each class at its own size.

        Args:
            samples: all marked images in a frame; always the same, in the same order.
            sizes: side of the input for each class.

        Returns:
            All N instances, their labels [N], and which of the samples' instances each is; on the CPU.
        """
        parts, labels, rows = [], [torch.zeros(0, dtype=torch.int64)], list[int]()
        for size in sorted(set(sizes)):
            classes = torch.tensor([own == size for own in sizes])
            first = 0
            for chunk in chunks(samples(self._geometry.sized(size)), batch_size):
                here = torch.cat([sample.targets.labels for sample in chunk])
                wanted = classes[here].nonzero().flatten()
                rows += (first + wanted).tolist()
                first += len(here)
                if len(wanted):
                    parts.append(self._encode_chunk(chunk).rows(wanted))
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

    @overload
    def detect(  # type: ignore[overload-overlap]  # a text is one image
        self, images: ImageInput, bank: PromptBank, batch_size: int = ..., limit: int = ...
    ) -> Detections: ...

    @overload
    def detect(
        self, images: Iterable[ImageInput], bank: PromptBank, batch_size: int = ..., limit: int = ...
    ) -> list[Detections]: ...

    def detect(
        self, images: Images, bank: PromptBank, batch_size: int = 8, limit: int = KEPT_PAIRS
    ) -> Detections | list[Detections]:
        """Find every class of the bank on one image or on several, in one pass per image.

        Args:
            images: one or several of any size: files, arrays (uint8 or uint16; [h, w], [h, w, 1], RGB
                [h, w, 3], RGBA [h, w, 4]) or PIL images. 16-bit values are read at the bank's bit depth.
            batch_size: images per forward pass; changes speed, not results.
            limit: (query, class) pairs kept per image.

        Returns:
            Of one image its detections, of several a list in their order; boxes in the image's own pixels.

        Raises:
            DataError: an image is unreadable, or of a kind that cannot be used.
            PromptBankError: the bank was made by another model.
        """
        found = list(self.stream(images, bank, batch_size, limit))
        return found[0] if is_single(images) else found

    def stream(
        self, images: Images, bank: PromptBank, batch_size: int = 8, limit: int = KEPT_PAIRS
    ) -> Iterator[Detections]:
        """`detect`, one result at a time, for more images than one wants to wait for.

        Raises:
            DataError: while iterating, an image is unreadable.
            PromptBankError: at once, the bank was made by another model.
        """
        return (found for (found,) in self.stream_banks(listed(images), [bank], batch_size, limit))

    def stream_banks(
        self,
        images: Iterable[ImageInput],
        banks: Sequence[PromptBank],
        batch_size: int = 8,
        limit: int = KEPT_PAIRS,
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
            if bank.bit_depth != banks[0].bit_depth:
                raise PromptBankError("banks of different bit depths cannot be tried in one pass")
            if bank.class_names != banks[0].class_names:
                raise PromptBankError(
                    f"banks of different classes ({', '.join(bank.class_names)} and "
                    f"{', '.join(banks[0].class_names)}) cannot be tried in one pass; make one pass for each"
                )
        return self._stream(images, banks, batch_size, limit)

    def _stream(
        self, images: Iterable[ImageInput], banks: Sequence[PromptBank], batch_size: int, limit: int
    ) -> Iterator[tuple[Detections, ...]]:
        threads = torch.get_num_threads()
        find = partial(self._find, self._passes(banks, -(-batch_size // threads)), banks, limit)
        # Shares of a batch side by side, a thread each, take less than one batch with all threads.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for chunk in chunks(images, batch_size):
                shares = list(chunks(chunk, -(-len(chunk) // threads)))
                for found in map(find, shares) if len(shares) == 1 else pool.map(find, shares):
                    yield from found

    def _find(
        self, passes: Sequence[Pass], banks: Sequence[PromptBank], limit: int, images: Sequence[ImageInput]
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
            tuple(best_of(parts, bank, limit) for parts, bank in zip(row, banks, strict=True))
            for row in found
        ]

    @torch.inference_mode()
    def _passes(self, banks: Sequence[PromptBank], batch_size: int) -> list[Pass]:
        """All banks, by the size of the input; as many together as memory allows."""
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for number, bank in enumerate(banks):
            for size in set(bank.image_sizes):
                own = zip(bank.class_names, bank.image_sizes, strict=True)
                groups.setdefault((size, tuple(name for name, of in own if of == size)), []).append(number)
        passes = []
        for (size, names), numbers in sorted(groups.items()):
            for some in chunks(numbers, self._banks_at_once(size, batch_size, len(names))):
                prompts = ClassPrompts.joined([self._prompts_of(banks[n].select(names)) for n in some])
                passes.append(Pass(size, names, tuple(some), prompts))
        return passes

    def _banks_at_once(self, size: int, images: int, classes: int) -> int:
        """Return the number of banks decoded together, so that their maps stay within memory."""
        cells = (self._geometry.sized(size).padded_size // 4) ** 2
        maps = self._row_maps + classes * self._prior_maps
        return max(LOGITS_AT_ONCE // (images * maps * cells), 1)

    @torch.inference_mode()
    def _prompts_of(self, bank: PromptBank) -> ClassPrompts:
        """A bank as one set of prompts, on the network's device."""
        memory, members, against = bank.compared()
        return self._model.class_prompts(
            bank.embeddings[None].to(self.device),
            memory.to(self.device) if memory is not None else None,
            members[None].to(self.device),
            against[None].to(self.device) if against is not None else None,
        )

    @torch.inference_mode()
    def _encode_images(self, pictures: Sequence[np.ndarray], size: int) -> ImageFeatures:
        resized = np.stack([resize_image(picture, size) for picture in pictures])
        images = torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(self.device)
        return self._model.encode_images(images)

    @torch.inference_mode()
    def _detect_pass(
        self, features: ImageFeatures, pictures: Sequence[np.ndarray], limit: int, step: Pass
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
