"""A frozen SAM (Segment Anything, arXiv 2304.02643) of transformers, as the systems built on it need it.

What PerSAM (arXiv 2305.03048) changes in SAM's mask decoder is done as in its repository, from which
transformers differs in two ways: there the bias is added to the logits of an attention, in the repository to
its softmax, of which a softmax is taken again; and the target's embedding is added to the queries of the
last attention too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unispector.config import Roi
from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.data.transforms import ImageArray, resize_image
from unispector.errors import DataError
from unispector.ops.rle import BoolArray, segmentation_to_mask
from unispector.systems.hub import checkpoint_folder, read_model

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Mean and deviation per colour, on 0 to 255, of the pixels that SAM and ImageNet's networks see."""
UPSCALED = 4  # times that SAM's masks are finer than its features
_ATTENTION = "unispector-persam"  # name of the decoder's attention in transformers' register


@dataclass(frozen=True)
class Scene:
    """An image as SAM sees it: in the upper left of a square frame."""

    features: Tensor  # [1, D, g, g]
    shown_hw: tuple[int, int]  # pixels of the frame that the image fills
    image_hw: tuple[int, int]  # its own size in pixels


@dataclass(frozen=True)
class Guess:
    """What SAM answers to a prompt."""

    logits: Tensor  # [B, n, 4g, 4g] of the masks, over the frame
    quality: Tensor  # [B, n] predicted IoU, about [0, 1]


@dataclass(frozen=True)
class Guidance:
    """What PerSAM tells the decoder besides the prompt."""

    bias: Tensor  # [g * g] in [0, 1], added to the tokens' attention to the image
    target: Tensor  # [D] added to the tokens


class FrozenSam:
    """SAM with weights that never change, on the GPU where there is one."""

    def __init__(self, checkpoint: str) -> None:
        """Load a checkpoint of transformers' SamModel; its configuration says how large it is.

        Args:
            checkpoint: folder, or name in the local cache of the hub.

        Raises:
            CheckpointError: there is none, it lacks tensors, or is of another model.
        """
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = _load(checkpoint).to(self.device)
        vision = self._model.config.vision_config
        self.side = int(vision.image_size)
        self.grid = self.side // int(vision.patch_size)
        self.width = int(self._model.config.mask_decoder_config.hidden_size)
        self.parameters = sum(weight.numel() for weight in self._model.parameters())
        with torch.no_grad():
            self._places = self._model.get_image_wide_positional_embeddings()

    @torch.no_grad()
    def see(self, pixels: ImageArray, stretched: bool = False) -> Scene:
        """Features of an image.

        Args:
            pixels: [h, w, 3] uint8 RGB.
            stretched: over the whole frame; if not, the aspect is kept and the rest is padded, as SAM does.
        """
        height, width = pixels.shape[:2]
        if stretched:
            image = resize_image(pixels, self.side)
        else:
            scale = self.side / max(height, width)
            image = resized(pixels, max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
        shown = image.shape[0], image.shape[1]
        frame = functional.pad(normalised(image), (0, self.side - shown[1], 0, self.side - shown[0]))
        features = self._model.get_image_embeddings(frame.to(self.device))
        return Scene(features, shown, (height, width))

    @torch.no_grad()
    def point_tokens(self, points: Tensor, labels: Sequence[int], box: Tensor | None = None) -> Tensor:
        """[1, t, D] tokens of points [k, 2] and a box [4] (x, y, x, y), in pixels of the frame.

        A label is 1 where the point lies on what is looked for, 0 where it does not.
        """
        tokens, _ = self._model.prompt_encoder(
            input_points=points[None, None].float(),
            input_labels=torch.tensor([[labels]], device=self.device),
            input_boxes=None if box is None else box[None, None].float(),
            input_masks=None,
        )
        return tokens[:, 0]  # type: ignore[no-any-return]

    def decode(
        self,
        features: Tensor,
        tokens: Tensor,
        mask: Tensor | None = None,
        several: bool = True,
        guidance: Guidance | None = None,
    ) -> Guess:
        """Masks of prompts; gradients reach the tokens.

        Args:
            features: [B, D, g, g] of the images.
            tokens: [B, t, D] of their prompts.
            mask: [B, 4g, 4g] logits of an earlier guess.
            several: SAM's three masks of parts and wholes; if not, its single one.
            guidance: of PerSAM.
        """
        _, dense = self._model.prompt_encoder(None, None, None, None if mask is None else mask[:, None])
        options: dict[str, Any] = {}
        if guidance is not None:
            options["attention_similarity"] = guidance.bias[None, None, None]
            options["target_embedding"] = guidance.target
        decoder = self._model.mask_decoder
        with _last_attention_told(decoder, guidance):
            logits, quality = decoder(
                image_embeddings=features,
                image_positional_embeddings=self._places.expand(len(features), -1, -1, -1),
                sparse_prompt_embeddings=tokens[:, None],
                dense_prompt_embeddings=dense,
                multimask_output=several,
                **options,
            )
        return Guess(logits[:, 0], quality[:, 0])

    def in_frame(self, scene: Scene, logits: Tensor) -> Tensor:
        """[shown_hw] a map [4g, 4g] over the frame, in the frame's pixels and where the image is."""
        frame = functional.interpolate(logits[None, None], (self.side, self.side), mode="bilinear")
        return frame[0, 0, : scene.shown_hw[0], : scene.shown_hw[1]]

    def on_image(self, scene: Scene, logits: Tensor) -> Tensor:
        """[image_hw] a map [4g, 4g] over the frame, in the image's own pixels."""
        shown = self.in_frame(scene, logits)
        return functional.interpolate(shown[None, None], scene.image_hw, mode="bilinear")[0, 0]


def resized(pixels: ImageArray, height: int, width: int) -> ImageArray:
    """The pixels at another size: bilinear, averaging when it shrinks."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    image = functional.interpolate(image, (height, width), mode="bilinear", antialias=True)
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def normalised(pixels: ImageArray) -> Tensor:
    """[1, 3, h, w] float of uint8 RGB pixels [h, w, 3], as SAM and ImageNet's networks take them."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    return ((torch.from_numpy(pixels).permute(2, 0, 1) - mean) / deviation)[None]


def prompt_mask(instance: InstanceRecord, image: ImageRecord, roi: Roi) -> BoolArray:
    """[h, w] what a prompt marks: the instance's mask, or the pixels that its box touches.

    Raises:
        DataError: the mask marks nothing.
    """
    if roi == "mask" and instance.segmentation is not None:
        inside = segmentation_to_mask(instance.segmentation, image.height, image.width)
        if not inside.any():
            raise DataError(f"{image.file_name}: the mask of annotation {instance.id} is empty; redraw it")
        return inside
    x, y, width, height = instance.bbox
    inside = np.zeros((image.height, image.width), dtype=np.bool_)
    inside[max(int(y), 0) : int(np.ceil(y + height)), max(int(x), 0) : int(np.ceil(x + width))] = True
    return inside


def class_mask(annotations: Annotations, image: ImageRecord, category: int, roi: Roi) -> BoolArray:
    """[h, w] what all prompts of a class mark on an image; an absent class marks nothing."""
    inside = np.zeros((image.height, image.width), dtype=np.bool_)
    for instance in annotations.instances_of(image.id):
        if instance.category_id == category:
            inside |= prompt_mask(instance, image, roi)
    return inside


def covered(mask: BoolArray, shown_hw: tuple[int, int], side: int, grid: int) -> Tensor:
    """[grid, grid] share in [0, 1] of each cell of a square frame that a mask covers.

    Args:
        mask: [h, w] of an image.
        shown_hw: pixels of the frame that the image fills.
        side: of the frame in pixels, a multiple of `grid`.
        grid: cells along a side.
    """
    height, width = shown_hw
    shown = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    frame = functional.pad(torch.from_numpy(shown)[None, None], (0, side - width, 0, side - height))
    return functional.avg_pool2d(frame, side // grid)[0, 0]


def marked_cells(share: Tensor) -> Tensor:
    """Cells [g, g] that are covered by half, or of a thin mask those that are covered most.

    PerSAM's repository samples the mask at the cells' centres, which loses a thin one.
    """
    return share >= share.max().clamp(min=1e-12, max=0.5)


def _load(checkpoint: str) -> Any:
    """Transformers' model, its decoder's attention replaced."""
    from transformers import AttentionInterface, SamModel

    model = read_model(SamModel, checkpoint_folder(checkpoint))
    AttentionInterface.register(_ATTENTION, _attention)
    model.config.mask_decoder_config._attn_implementation = _ATTENTION
    return model


def _attention(
    module: Any,  # noqa: ARG001 transformers passes it
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' interface; a bias is added to its weights, of which a softmax is taken."""
    weights = (query @ key.transpose(2, 3) * scaling).softmax(-1)
    if attention_mask is not None:
        weights = (weights + attention_mask).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


@contextmanager
def _last_attention_told(decoder: Any, guidance: Guidance | None) -> Iterator[None]:
    """Let the decoder's last attention know the target, which transformers does not pass on."""
    if guidance is None:
        yield
        return

    def tell(_: Any, args: tuple[Any, ...], given: dict[str, Tensor]) -> tuple[tuple[Any, ...], Any]:
        return args, given | {"query": given["query"] + guidance.target}

    hook = decoder.transformer.final_attn_token_to_image.register_forward_pre_hook(tell, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
