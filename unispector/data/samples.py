"""The one builder of samples, of annotated images and of a user's marks alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unispector.data.transforms import ResizedImage, pad_masks
from unispector.ops.boxes import xyxy_to_cxcywh
from unispector.ops.masks import boxes_to_masks
from unispector.ops.spectrum import EmptyBins, crop_spectra
from unispector.structures import Sample, Targets, padded_side


@dataclass(frozen=True)
class Frame:
    """The network's input, and the spectra that are read from it."""

    image_size: int  # side S of the square input in pixels
    bins: int  # radial bins J of a spectrum
    spectrum_empty: EmptyBins  # treatment of empty bins, `interp` or `zero`
    spectrum_min_side: int  # a smaller crop is grown to this many pixels

    @property
    def padded_size(self) -> int:
        """Side P of the padded frame."""
        return padded_side(self.image_size)


def build_sample(
    resized: ResizedImage,
    labels: Sequence[int],
    frame: Frame,
    *,
    original_hw: tuple[int, int],
    image_id: int = 0,
    box_prompts: tuple[Tensor, Tensor] | None = None,
) -> Sample:
    """Build a sample; an instance whose mask is empty gets its filled box as mask.

    Args:
        resized: image with K instances, at the frame's size; an empty mask in it is filled in place.
        labels: class index of each instance.
        frame: of the network that reads the sample.
        original_hw: height and width of the file in pixels.
        image_id: id in the annotation file.
        box_prompts: [K] bool, which instances prompt with a filled box instead of their mask, and [K, 4]
            these boxes, xyxy pixels; None = all prompt with their mask.
    """
    size, padded = frame.image_size, frame.padded_size
    image = torch.from_numpy(np.ascontiguousarray(resized.image.transpose(2, 0, 1)))
    boxes = torch.from_numpy(np.ascontiguousarray(resized.boxes_xyxy))
    masks = torch.from_numpy(np.ascontiguousarray(resized.masks))
    vanished = ~masks.flatten(1).any(1)
    masks[vanished] = boxes_to_masks(boxes[vanished], size)
    prompt_boxes, regions = boxes, masks
    if box_prompts is not None:
        as_box, given = box_prompts
        prompt_boxes = torch.where(as_box[:, None], given, boxes)
        regions = torch.where(as_box[:, None, None], boxes_to_masks(prompt_boxes, size), masks)
    return Sample(
        image=image,
        targets=Targets(
            labels=torch.tensor(labels, dtype=torch.int64),
            boxes=xyxy_to_cxcywh(boxes / padded),
            masks=pad_masks(masks, padded),
        ),
        roi_masks=pad_masks(regions, padded),
        spectra=crop_spectra(image, prompt_boxes, frame.bins, frame.spectrum_empty, frame.spectrum_min_side),
        image_id=image_id,
        original_hw=original_hw,
    )
