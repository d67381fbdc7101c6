"""Nearest-prototype matching on frozen ImageNet features: the floor that every detector must beat.

Nothing is trained. A cell of an image's feature map shows a class as far as it is more alike to some
cell inside the class's prompt boxes than to every cell outside of all boxes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unispector.config import BackboneConfig, Roi
from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.data.transforms import resize_image
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.modeling.build import build_backbone
from unispector.ops.components import components
from unispector.ops.files import read_image
from unispector.ops.rle import BoolArray, encode_crop, segmentation_to_mask
from unispector.systems.findings import Finding, as_detections

STRIDE = 8
PROTOTYPES = 1024  # at most, of a class and as many of its background
LEAST_AREA = 0.0001  # share of the image below which a component is noise
MOST = 100  # detections of one class in one image
STEEPNESS = 10.0  # of the score's sigmoid
THRESHOLDS = 128  # tried between the lowest and the highest similarity


@dataclass(frozen=True)
class ClassPrototypes:
    """The prototypes of one class."""

    foreground: Tensor  # [f, D] unit vectors of cells inside its prompts
    background: Tensor  # [b, D] unit vectors of cells outside of all prompts; b may be 0
    threshold: float  # similarity in [-2, 2] from which on a cell shows the class


class PrototypeDetector:
    """Nearest prototypes, boxes or masks as prompts."""

    def __init__(self, roi: Roi = "box", side: int = 512) -> None:
        """Load the packaged EfficientNet-Lite0, on the GPU where there is one.

        Args:
            roi: a prompt is an instance's box or its mask.
            side: of the square network input in pixels, a multiple of 32.

        Raises:
            CheckpointError: the packaged weights are not installed.
        """
        self._side, self._roi = side, roi
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._backbone = build_backbone(BackboneConfig(), side).eval().to(self._device)
        self.parameters = sum(weight.numel() for weight in self._backbone.parameters())

    def encode_prompts(self, prompts: Annotations, images: Path) -> dict[str, ClassPrototypes]:
        """Prototypes and a threshold per class, from the images that show it.

        Args:
            prompts: every instance is a prompt of its category.

        Returns:
            Class name -> prototypes, in the order of `prompts.class_names`.

        Raises:
            DataError: a class has no prompt, or an image is unreadable.
        """
        grid = self._side // STRIDE
        cells = torch.stack([self._cells(read_image(images / image.file_name)) for image in prompts.images])
        marked = torch.stack([_marked(prompts, image, grid, self._roi) for image in prompts.images]).to(
            self._device
        )
        known = {}
        for name, inside in zip(prompts.class_names, marked.unbind(1), strict=True):
            shown = inside.any(1)
            if not shown.any():
                raise DataError(f"class {name!r} has no prompt; mark at least one of its instances")
            known[name] = _class_prototypes(cells[shown], inside[shown], ~marked[shown].any(1))
        return known

    def detect(self, images: Sequence[Path], prompts: dict[str, ClassPrototypes]) -> Iterator[Detections]:
        """Components of each class's similarity above its threshold, image by image."""
        for path in images:
            pixels = read_image(path)
            cells, found = self._cells(pixels), []
            for label, known in enumerate(prompts.values()):
                similarity = _similarity(cells, known.foreground, known.background)
                found += _instances(label, similarity, known.threshold, pixels.shape[:2])
            yield as_detections(found, tuple(prompts), pixels.shape[:2])

    @torch.inference_mode()
    def _cells(self, pixels: np.ndarray) -> Tensor:
        """[C, D] unit vectors of an image's cells, row by row: strides 8 and 16 on the finer grid."""
        square = torch.from_numpy(resize_image(pixels, self._side)).permute(2, 0, 1)[None]
        _, fine, coarse, _ = self._backbone(square.to(self._device))
        coarse = functional.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        both = torch.cat([functional.normalize(level) for level in (fine, coarse)], dim=1)
        return functional.normalize(both)[0].flatten(1).T.contiguous()


def _marked(prompts: Annotations, image: ImageRecord, grid: int, roi: Roi = "box") -> Tensor:
    """[classes, C] cells that the prompts of each class mark."""
    inside = torch.zeros(len(prompts.categories), grid, grid, dtype=torch.bool)
    for instance in prompts.instances_of(image.id):
        label = prompts.class_index[instance.category_id]
        cells = (_cells_of_mask if roi == "mask" else _cells_of_box)(instance, image, grid)
        inside[label] |= torch.from_numpy(cells)
    return inside.flatten(1)


def _cells_of_box(instance: InstanceRecord, image: ImageRecord, grid: int) -> BoolArray:
    """[grid, grid] cells whose centre lies in the box; of a tiny box, the cell it lies in."""
    scale = np.array([grid / image.width, grid / image.height])
    corner, size = np.reshape(instance.bbox, (2, 2)) * scale
    first = np.ceil(corner - 0.5).clip(0).astype(int)
    last = np.ceil(corner + size - 0.5).clip(0).astype(int)
    middle = np.floor(corner + size / 2).clip(0, grid - 1).astype(int)
    first, last = np.where(last > first, (first, last), (middle, middle + 1))
    inside = np.zeros((grid, grid), dtype=np.bool_)
    inside[first[1] : last[1], first[0] : last[0]] = True
    return inside


def _cells_of_mask(instance: InstanceRecord, image: ImageRecord, grid: int) -> BoolArray:
    """[grid, grid] cells that the mask covers by half; of a thin mask, those it covers most."""
    if instance.segmentation is None:
        return _cells_of_box(instance, image, grid)
    mask = segmentation_to_mask(instance.segmentation, image.height, image.width)
    share = cv2.resize(mask.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= min(0.5, float(share.max())), dtype=np.bool_)


def _class_prototypes(cells: Tensor, inside: Tensor, free: Tensor) -> ClassPrototypes:
    """Prototypes of P images [P, C, D], and the threshold that fits them best.

    Each image's map is made without its own cells, a single image's two halves without each other.
    """
    single = len(cells) == 1
    lot = torch.Generator().manual_seed(0)
    halves = torch.randint(2, inside.shape, generator=lot)
    fold = (halves if single else torch.arange(len(cells))[:, None].expand(inside.shape)).to(cells.device)
    maps = torch.zeros(inside.shape, device=cells.device)
    for number in range(2 if single else len(cells)):
        held = fold == number
        others = (_drawn(cells[where & ~held]) for where in (inside, free))
        maps[held] = _similarity(cells[held], *others)
    return ClassPrototypes(_drawn(cells[inside]), _drawn(cells[free]), _best_threshold(maps, inside))


def _drawn(cells: Tensor) -> Tensor:
    """At most `PROTOTYPES` of the cells [n, D], at random."""
    lot = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
    return cells[lot[:PROTOTYPES].to(cells.device)]


def _similarity(cells: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """[n] best cosine to the foreground minus best cosine to the background, 0 to what is empty."""
    best = [
        (cells @ prototypes.T).amax(1) if len(prototypes) else cells.new_zeros(len(cells))
        for prototypes in (foreground, background)
    ]
    return best[0] - best[1]


def _best_threshold(maps: Tensor, inside: Tensor) -> float:
    """Return the threshold at which P maps [P, C] have the best mean IoU with the boxes."""
    low, high = float(maps.min()), float(maps.max())
    candidates = torch.linspace(low, high, THRESHOLDS, device=maps.device)
    above = maps >= candidates[:, None, None]
    ious = (above & inside).sum(2) / (above | inside).sum(2)
    return float(candidates[ious.mean(1).argmax()])


def _instances(label: int, similarity: Tensor, threshold: float, image_hw: Sequence[int]) -> list[Finding]:
    """Score, label, box and mask code of the best components of one class [C]."""
    height, width = image_hw
    grid = round(len(similarity) ** 0.5)
    square = similarity.view(1, 1, grid, grid)
    full = functional.interpolate(square, (height, width), mode="bilinear", align_corners=False)[0, 0]
    surplus = (full - threshold).cpu().numpy()
    found = []
    for crop, left, top in components(surplus >= 0):
        h, w = crop.shape
        if crop.sum() >= LEAST_AREA * height * width:
            mean = float(surplus[top : top + h, left : left + w][crop].mean())
            code = encode_crop(crop, left, top, height, width)
            found.append(
                Finding(1 / (1 + exp(-STEEPNESS * mean)), label, (left, top, left + w, top + h), code)
            )
    return sorted(found, key=lambda finding: -finding.score)[:MOST]
