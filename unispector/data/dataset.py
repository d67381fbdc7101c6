"""Annotated images as samples of the detector, deterministic in (seed, index, epoch seed)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.data.samples import Frame, build_sample
from unispector.data.transforms import Augmentation, ImageArray, ResizedImage, resize_mask
from unispector.errors import DataError
from unispector.ops.images import as_pixels
from unispector.ops.rle import BoolArray, segmentation_to_mask
from unispector.structures import Sample

LOOSE = 0.5  # share of the box prompts of a training that are larger than the defect


class InstanceDataset:
    """The images of an annotation file, each with its instances as targets and as prompts.

    Crowd annotations are left out. Images without any instance give samples of zero rows.

    Args:
        annotations: what to read.
        root: folder that `file_name` is relative to.
        frame: of the network that reads the samples.
        augment: random changes; None for evaluation.
        box_share: chance that an instance's prompt region is its filled box, not its mask.
        box_slack: largest share of its width and of its height by which such a box grows; half of them
            do, as nobody draws boxes to the pixel.
        seed: of all chance.
        change: what to do to every image as it is read, its size kept; None = nothing.
        bit_depth: as of `as_pixels`.
    """

    def __init__(
        self,
        annotations: Annotations,
        root: Path,
        *,
        frame: Frame,
        augment: Augmentation | None,
        box_share: float,
        box_slack: float = 0.0,
        seed: int,
        change: Callable[[ImageArray], ImageArray] | None = None,
        bit_depth: int = 16,
    ) -> None:
        self.class_names = annotations.class_names
        self._images = annotations.images
        self._instances = [
            tuple(instance for instance in annotations.instances_of(image.id) if not instance.iscrowd)
            for image in annotations.images
        ]
        self._class_index = annotations.class_index
        self._root = root
        self._frame = frame
        self._augment = augment
        self._box_share = box_share
        self._box_slack = box_slack
        self._seed = seed
        self._change = change
        self._bit_depth = bit_depth

    def __len__(self) -> int:
        return len(self._images)

    @property
    def instance_ids(self) -> tuple[int, ...]:
        """Ids of all instances in the order of the samples' rows."""
        return tuple(instance.id for instances in self._instances for instance in instances)

    def sample(self, index: int, epoch_seed: int = 0) -> Sample:
        """Read, resize and augment one image.

        `index` counts in the file's order; another `epoch_seed`, not negative, gives other random changes of
        the same image.

        Raises:
            DataError: the file is unreadable or not of the size the annotations say, or a mask is
                malformed; the message names the file.
        """
        record, instances = self._images[index], self._instances[index]
        rng = np.random.default_rng((self._seed, index, epoch_seed))
        scene = self._read(index)
        if self._augment is not None:
            scene = self._augment(scene, rng)
        boxes = torch.from_numpy(np.ascontiguousarray(scene.boxes_xyxy))
        as_box = torch.from_numpy(rng.random(len(boxes)) < self._box_share)
        return build_sample(
            scene,
            [self._class_index[instances[i].category_id] for i in scene.kept],
            self._frame,
            original_hw=(record.height, record.width),
            image_id=record.id,
            box_prompts=(as_box, self._loosened(boxes, rng)),
        )

    def _loosened(self, boxes_px: Tensor, rng: np.random.Generator) -> Tensor:
        """Half of the boxes [K, 4] xyxy grown to either side of each axis, none out of the image."""
        sides = boxes_px[:, 2:] - boxes_px[:, :2]
        loose = torch.from_numpy(rng.random((len(boxes_px), 1)) < LOOSE)
        grown = torch.from_numpy(rng.random((len(boxes_px), 2))).to(sides) * self._box_slack * sides * loose
        before = torch.from_numpy(rng.random((len(boxes_px), 2))).to(sides) * grown
        corners = torch.cat((boxes_px[:, :2] - before, boxes_px[:, 2:] + grown - before), dim=1)
        return corners.clamp(0, self._frame.image_size)

    def pixels(self, index: int) -> ImageArray:
        """An image as it is in its file, or changed; `index` counts in the file's order.

        Raises:
            DataError: the file is unreadable or not of the size the annotations say; the message names it.
        """
        record = self._images[index]
        path = self._root / record.file_name
        image = as_pixels(path, self._bit_depth)
        record.check_size(path, image.shape[1], image.shape[0])
        return image if self._change is None else self._change(image)

    def _read(self, index: int) -> ResizedImage:
        record, instances = self._images[index], self._instances[index]
        image = self.pixels(index)
        path = self._root / record.file_name
        masks = [self._mask(path, record, instance) for instance in instances]
        boxes = [instance.bbox for instance in instances]
        return ResizedImage.of(image, boxes, masks, self._frame.image_size)

    def _mask(self, path: Path, record: ImageRecord, instance: InstanceRecord) -> BoolArray:
        """Mask in the resized image; empty where it vanishes or where the file has a box only."""
        size, segmentation = self._frame.image_size, instance.segmentation
        try:
            if not segmentation:
                return np.zeros((size, size), dtype=np.bool_)
            if isinstance(segmentation, dict):
                return resize_mask(segmentation_to_mask(segmentation, record.height, record.width), size)
            scale = np.array([size / record.width, size / record.height])
            polygons = [(np.reshape(part, (-1, 2)) * scale).ravel().tolist() for part in segmentation]
            return segmentation_to_mask(polygons, size, size)
        except DataError as error:
            raise DataError(f"{path}: annotation {instance.id}: {error}") from error
