"""`UniSpector`: load a model once, encode prompts once, detect on any number of images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Self, overload

import torch
from torch import Tensor

from unispector.config.evaluation import KEPT_PAIRS
from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.transforms import ImageArray
from unispector.detections import Detections
from unispector.errors import PromptBankError
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.marking import ALL, Prompt, by_class, check_annotated, mark_together
from unispector.inference.network import Network, chunks
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.tiles import MarkSizes, Tile, View, views_of
from unispector.inference.tiling import NOT_MEANT, TiledSearch, annotations_in_tiles, marks_in_tiles, numbered
from unispector.modeling.saved_model import SHIPPED_MODELS, SavedModel, find_device, load_model, model_folder
from unispector.ops.images import ImageInput, Images, is_single, listed
from unispector.prior_structures import PromptMemory
from unispector.structures import EncodedPrompts, Sample

__all__ = ["ALL", "ImageInput", "Prompt", "UniSpector"]

Samples = Callable[[View, Sequence[bool]], Iterable[tuple[Sample, Sequence[int]]]]
"""Of a view and the classes that have it, marked images and the number of each mark; always in one order."""


class UniSpector:
    """A trained detector.

    Prompts and targets are separate calls: a prompt image is encoded once, and no target's result
    depends on the other targets of its batch.
    """

    def __init__(self, saved: SavedModel) -> None:
        """Wrap a loaded model."""
        self.fingerprint = saved.fingerprint
        self.provenance = saved.provenance
        self._network = Network(saved)
        self._geometry = self._network.geometry

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
        return cls(load_model(model_folder(model), find_device(device)))

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self._network.device

    @property
    def parameters(self) -> int:
        """How many weights the network has, frozen ones too."""
        return self._network.parameters

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        batch_size: int = 8,
        bit_depth: int = 16,
        negatives: Prompt | Sequence[Prompt] = (),
        tile: Tile = "auto",
    ) -> PromptBank:
        """Encode marked images into one embedding per class.

        A class's embedding is the mean over all its marks on all its images, instance-weighted
        (paper section 3.3).

        Args:
            prompts: one, or several; classes are numbered in order of first appearance.
            bit_depth: 8 to 16, the bits that 16-bit images really use, such as 12 of many cameras; the bank
                remembers it, and `detect` reads targets in the same way.
            negatives: marks of what is not the defect; see `with_negatives`.
            tile: side in pixels of the tiles in which marks and targets are looked at, at least five typical
                marks of a class; 0 = images are looked at as a whole; auto = tiles for classes whose marks
                are too small to be seen otherwise.

        Raises:
            DataError: an image or a mark cannot be used; the message names it.
            PromptBankError: no prompts at all, or negatives that cannot be used.
        """
        prompts = [prompts] if isinstance(prompts, Prompt) else prompts
        names = tuple(dict.fromkeys(prompt.label for prompt in prompts))
        labels = [names.index(prompt.label) for prompt in prompts]
        sides, labels_of_marks, image_hw = list[float](), list[int](), list[tuple[int, int]]()
        # Looking at every image once more is only worth it where sizes can differ.
        once_more = self._geometry.magnify > 1 or tile not in ("auto", 0)
        marked = mark_together(prompts, labels, self._geometry, bit_depth) if once_more else ()
        for sample in marked:
            sides += self._geometry.sides(sample.targets)
            labels_of_marks += sample.targets.labels.tolist()
            image_hw += [sample.original_hw] * len(sample.targets)
        views = views_of(MarkSizes(sides, image_hw, labels_of_marks), len(names), self._geometry, tile)
        samples = partial(self._samples, prompts, labels, bit_depth)
        encoded, owners, _ = self._encode_samples(samples, views, batch_size)
        sizes, tiles = tuple(view.size for view in views), tuple(view.tile for view in views)
        bank = PromptBank.from_instances(encoded, owners, names, self.fingerprint, sizes)
        bank = replace(bank, tiles=tiles, bit_depth=bit_depth)
        return self.with_negatives(bank, negatives, batch_size)

    def check(self, bank: PromptBank) -> None:
        """Refuse a bank that this model cannot read.

        Raises:
            PromptBankError: another model made it, or its sizes are not those of this one.
        """
        bank.check(self.fingerprint)
        self._geometry.check(bank.image_sizes)
        if bank.widths != self._network.widths:
            found, own = (", ".join(map(str, widths)) for widths in (bank.widths, self._network.widths))
            raise PromptBankError(
                f"a prompt bank of {found} channels; this model's have {own}; build the bank again"
            )

    def with_negatives(
        self, bank: PromptBank, negatives: Prompt | Sequence[Prompt], batch_size: int = 8
    ) -> PromptBank:
        """Add marks of what is not the defect: findings that look more like them get a lower score.

        Of a class the last `OPPOSED` are kept.

        Args:
            negatives: one, or several, on any images; the label names the class that it is not, `ALL` stands
                for every class of the bank.

        Raises:
            DataError: an image or a mark cannot be used; the message names it.
            PromptBankError: the bank is another model's, has no such class, or the model has no similarity
                prior, which alone can use negatives.
        """
        self.check(bank)
        negatives = [negatives] if isinstance(negatives, Prompt) else negatives
        if negatives and bank.memory is None:
            raise PromptBankError("this model has no similarity prior, so it cannot use negatives")
        for label, own in enumerate(by_class(negatives, bank.class_names)):
            samples = partial(self._samples, own, [0] * len(own), bank.bit_depth)
            encoded, _, _ = self._encode_samples(samples, [bank.views[label]], batch_size)
            if encoded.memory is not None:
                bank = bank.opposed_by(encoded.memory.inside, [label] * len(encoded.memory))
        return bank

    def encode_annotations(
        self,
        annotations: Annotations,
        root: str | Path,
        roi: Literal["box", "mask"] = "box",
        batch_size: int = 8,
        tile: Tile = "auto",
        bit_depth: int = 16,
    ) -> PromptBank:
        """Encode every annotated instance of a COCO file as a prompt of its category.

        Args:
            tile: as of `encode`.
            bit_depth: as of `encode`.

        Raises:
            DataError: an image cannot be used.
            PromptBankError: a category has no instance; the message names it.
        """
        return self.encode_instances(annotations, root, roi, batch_size, None, tile, bit_depth).bank()

    def encode_instances(
        self,
        annotations: Annotations,
        root: str | Path,
        roi: Literal["box", "mask"] = "box",
        batch_size: int = 8,
        change: Callable[[ImageArray], ImageArray] | None = None,
        tile: Tile | Sequence[View] = "auto",
        bit_depth: int = 16,
    ) -> InstanceEmbeddings:
        """Encode every annotated instance of a COCO file on its own; an image is encoded only once.

        Args:
            change: what to do to every image before it is looked at, its size kept; None = nothing.
            tile: as of `encode`; or how each class is looked at, to follow a bank.
            bit_depth: as of `encode`.

        Raises:
            DataError: an image cannot be used.
        """
        check_annotated(annotations)

        def dataset(view: View) -> InstanceDataset:
            return InstanceDataset(
                annotations,
                Path(root),
                frame=self._geometry.sized(view.size),
                augment=None,
                box_share=1.0 if roi == "box" else 0.0,
                seed=0,
                change=change,
                bit_depth=bit_depth,
            )

        def samples(view: View, classes: Sequence[bool]) -> Iterator[tuple[Sample, Sequence[int]]]:
            images = dataset(view)
            if view.tile:
                frame = self._geometry.sized(view.size)
                return annotations_in_tiles(images, annotations, roi, classes, frame, view.tile)
            return numbered(images.sample(index) for index in range(len(images)))

        names = annotations.class_names
        views: Sequence[View]
        if isinstance(tile, str | int):
            views = views_of(MarkSizes.of_annotations(annotations), len(names), self._geometry, tile)
        else:
            views = tile
        ids = dataset(View(0, self._geometry.image_size)).instance_ids
        encoded, labels, rows = self._encode_samples(samples, views, batch_size)
        ordered = tuple(ids[row] for row in rows)
        sizes, tiles = tuple(view.size for view in views), tuple(view.tile for view in views)
        return InstanceEmbeddings(encoded, labels, ordered, names, self.fingerprint, sizes, tiles, bit_depth)

    def _samples(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[int],
        bit_depth: int,
        view: View,
        classes: Sequence[bool],
    ) -> Iterable[tuple[Sample, Sequence[int]]]:
        """Prompts as `Samples` gives them."""
        frame = self._geometry.sized(view.size)
        if view.tile:
            return marks_in_tiles(prompts, labels, classes, frame, view.tile, bit_depth)
        return numbered(mark_together(prompts, labels, frame, bit_depth))

    def _encode_samples(
        self, samples: Samples, views: Sequence[View], batch_size: int
    ) -> tuple[EncodedPrompts, Tensor, list[int]]:
        """Encode marked images, each class as it is looked at.

        Args:
            views: of each class.

        Returns:
            All N instances, their labels [N], and the number of each; on the CPU.
        """
        parts, labels, rows = [], [torch.zeros(0, dtype=torch.int64)], list[int]()
        for view in sorted(set(views)):
            classes = [own == view for own in views]
            for chunk in chunks(samples(view, classes), batch_size):
                here = torch.cat([sample.targets.labels for sample, _ in chunk])
                numbers = torch.tensor([number for _, own in chunk for number in own], dtype=torch.int64)
                wanted = (torch.tensor(classes)[here] & (numbers != NOT_MEANT)).nonzero().flatten()
                rows += numbers[wanted].tolist()
                if len(wanted):
                    parts.append(self._network.encode([sample for sample, _ in chunk]).rows(wanted))
                    labels.append(here[wanted])
        embeddings = [part.embeddings.float() for part in parts]
        joined = torch.cat([torch.zeros(0, self._network.model.width), *embeddings])
        memories = [part.memory for part in parts if part.memory is not None]
        memory = PromptMemory.joined(memories) if memories else None
        return EncodedPrompts(joined, memory), torch.cat(labels), rows

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
        """Find every class of the bank on one image or on several.

        A class with tiles is looked for in each tile of a larger image, and on the image as a whole.

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
        self,
        images: Images,
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
        return (found for (found,) in self.stream_banks(listed(images), [bank], batch_size, limit, progress))

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
            self.check(bank)
            if bank.bit_depth != banks[0].bit_depth:
                raise PromptBankError("banks of different bit depths cannot be tried in one pass")
            if bank.class_names != banks[0].class_names:
                raise PromptBankError(
                    f"banks of different classes ({', '.join(bank.class_names)} and "
                    f"{', '.join(banks[0].class_names)}) cannot be tried in one pass; make one pass for each"
                )
        look = partial(self._network.stream, batch_size=batch_size, limit=limit)
        if not any(side for bank in banks for side in bank.tiles):
            return look(images, banks)
        search = TiledSearch(look, limit, self._network.rules.nms_iou, progress)
        return search.stream(images, banks)
