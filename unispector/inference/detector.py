"""`UniSpector`: load a model once, encode prompts once, detect on any number of pictures."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import torch

from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.loading import collate
from unispector.data.transforms import resize_image
from unispector.inference.marking import Geometry, Picture, Prompt, mark, read_picture
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling.postprocess import Rules, postprocess
from unispector.modeling.saved_model import SavedModel, load_model
from unispector.structures import Detections, Sample

__all__ = ["Picture", "Prompt", "UniSpector"]

Item = TypeVar("Item")


class UniSpector:
    """A trained detector.

    Prompts and targets are separate calls: a prompt picture is encoded once, and no target's result
    depends on the other targets of its batch.
    """

    def __init__(self, saved: SavedModel) -> None:
        """Wrap a loaded model.

        Args:
            saved: weights in a ready network, its configuration and its fingerprint.
        """
        spectral = saved.config.model.spectral
        self.fingerprint = saved.fingerprint
        self.provenance = saved.provenance
        self._model = saved.model.eval()
        model = saved.config.model
        self._rules = Rules(model.boxes == "mask", model.confine_masks, model.nms_iou)
        self._geometry = Geometry(
            image_size=saved.model.image_size,
            padded_size=saved.model.padded_size,
            bins=spectral.bins,
            spectrum_empty=spectral.empty,
            spectrum_min_side=spectral.min_side,
        )

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu") -> Self:
        """Load a model directory.

        Args:
            directory: holds `model.safetensors` and `config.json`.
            device: where to run, e.g. `cpu` or `cuda`.

        Raises:
            CheckpointError: the directory is incomplete or does not fit this code.
        """
        return cls(load_model(Path(directory), device))

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return next(self._model.parameters()).device

    def encode(self, prompts: Sequence[Prompt], batch_size: int = 8) -> PromptBank:
        """Encode marked pictures into one embedding per class.

        A class's embedding is the mean over all its marks on all its pictures, instance-weighted
        (paper section 3.3).

        Args:
            prompts: at least one; classes are numbered in order of first appearance.
            batch_size: pictures per forward pass.

        Raises:
            DataError: a picture or a mark cannot be used; the message names it.
            PromptBankError: no prompts at all.
        """
        names = tuple(dict.fromkeys(prompt.label for prompt in prompts))
        samples = (mark(prompt, names.index(prompt.label), self._geometry) for prompt in prompts)
        return self._encode_samples(samples, names, batch_size)

    def encode_annotations(
        self,
        annotations: Annotations,
        root: str | Path,
        roi: Literal["box", "mask"] = "box",
        batch_size: int = 8,
    ) -> PromptBank:
        """Encode every annotated instance of a COCO file as a prompt of its category.

        Args:
            annotations: prompt images; each category needs an instance.
            root: folder the file names are relative to.
            roi: prompt with the filled box (the paper's protocol) or with the instance's mask.
            batch_size: pictures per forward pass.

        Raises:
            DataError: an image cannot be used.
            PromptBankError: a category has no instance; the message names it.
        """
        geometry = self._geometry
        dataset = InstanceDataset(
            annotations,
            Path(root),
            image_size=geometry.image_size,
            bins=geometry.bins,
            spectrum_empty=geometry.spectrum_empty,
            spectrum_min_side=geometry.spectrum_min_side,
            augment=None,
            box_share=1.0 if roi == "box" else 0.0,
            seed=0,
        )
        samples = (dataset.sample(index) for index in range(len(dataset)))
        return self._encode_samples(samples, dataset.class_names, batch_size)

    def _encode_samples(
        self, samples: Iterable[Sample], class_names: Sequence[str], batch_size: int
    ) -> PromptBank:
        embeddings, labels = [torch.zeros(0, self._model.width)], [torch.zeros(0, dtype=torch.int64)]
        for chunk in _chunks(samples, batch_size):
            batch = collate(chunk).to(self.device)
            with torch.inference_mode():
                features = self._model.encode_images(batch.images)
                embeddings.append(self._model.encode_prompts(features, batch.prompts).float().cpu())
            labels.append(batch.prompts.labels.cpu())
        instances = torch.cat(embeddings), torch.cat(labels)
        return PromptBank.from_instances(*instances, class_names, self.fingerprint)

    def detect(
        self, images: Sequence[Picture], bank: PromptBank, batch_size: int = 8, limit: int = 300
    ) -> list[Detections]:
        """Find every class of the bank on every picture, in one pass per picture.

        Args:
            images: files, or uint8 RGB arrays [h, w, 3], of any size.
            bank: made by this model.
            batch_size: pictures per forward pass; changes speed, not results.
            limit: (query, class) pairs kept per picture.

        Returns:
            Detections per picture, in the order of `images`; boxes in the picture's own pixels.

        Raises:
            DataError: a picture is unreadable.
            PromptBankError: the bank was made by another model.
        """
        return list(self.stream(images, bank, batch_size, limit))

    def stream(
        self, images: Iterable[Picture], bank: PromptBank, batch_size: int = 8, limit: int = 300
    ) -> Iterator[Detections]:
        """`detect`, one result at a time, for more pictures than one wants to wait for.

        Raises:
            DataError: while iterating, a picture is unreadable.
            PromptBankError: at once, the bank was made by another model.
        """
        bank.check(self.fingerprint)
        return self._stream(images, bank, batch_size, limit)

    def _stream(
        self, images: Iterable[Picture], bank: PromptBank, batch_size: int, limit: int
    ) -> Iterator[Detections]:
        for chunk in _chunks(images, batch_size):
            yield from self._detect_batch([read_picture(image) for image in chunk], bank, limit)

    @torch.inference_mode()
    def _detect_batch(self, pictures: Sequence[np.ndarray], bank: PromptBank, limit: int) -> list[Detections]:
        size = self._geometry.image_size
        resized = np.stack([resize_image(picture, size) for picture in pictures])
        images = torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(self.device)
        output = self._model.detect(self._model.encode_images(images), bank.embeddings.to(self.device))
        return postprocess(
            output,
            [(picture.shape[0], picture.shape[1]) for picture in pictures],
            class_names=bank.class_names,
            image_size=size,
            padded_size=self._geometry.padded_size,
            rules=self._rules,
            limit=limit,
        )


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive lists of `size` items, the last one shorter."""
    if size < 1:
        raise ValueError(f"batch size {size}; it must be 1 or more")
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
