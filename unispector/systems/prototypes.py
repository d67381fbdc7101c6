"""Nearest-prototype matching on frozen ImageNet features: the floor that every detector must beat.

Nothing is trained. A cell of an image's feature map shows a class as far as it is more alike to some
cell that the class's prompts mark than to every cell outside of all prompts.

A box holds more than the defect. Of its cells the half that is least like the surroundings counts as the
defect, as in the detector (`SimilarityPrior.remember`), and the other half counts as nothing: neither for
prototypes nor for the threshold. A threshold that fits whole boxes falls too low. AP50 of boxes / masks with
box prompts, 18 classes of corrosion, welds, cars, fabric and steel, none of Magnetic Tile: 6.5 / 4.3 with
whole boxes, 8.8 / 5.4 by halves (another draw of 15 of them: 12.8 / 7.9). Prototypes of whole boxes with the
threshold alone by halves: 8.2 / 6.0 (9.6 / 8.1). The other half as background: 8.9 / 5.6 (12.3 / 8.1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from unispector.config import BackboneConfig, Roi
from unispector.data.coco import Annotations, ImageRecord
from unispector.data.transforms import resize_image
from unispector.detections import Detections
from unispector.modeling.build import build_backbone
from unispector.ops.files import read_image
from unispector.systems.cells import cells_of
from unispector.systems.detector import check_prompted
from unispector.systems.findings import Finding, as_detections
from unispector.systems.parts import parts_of

STRIDE = 8
PROTOTYPES = 1024  # at most, of a class and as many of its background
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
        cells = torch.stack([self._cells(read_image(images / image.file_name)) for image in prompts.images])
        marks = [
            _marks(prompts, image, own, self._roi)
            for image, own in zip(prompts.images, cells.cpu(), strict=True)
        ]
        marked, defect = (torch.stack(masks).to(self._device) for masks in zip(*marks, strict=True))
        check_prompted(prompts.class_names, marked.any(2).any(0).tolist())
        known = {}
        for name, inside, kept in zip(prompts.class_names, marked.unbind(1), defect.unbind(1), strict=True):
            shown = inside.any(1)
            unsure = inside & ~kept
            known[name] = _class_prototypes(cells[shown], kept[shown], ~marked[shown].any(1), unsure[shown])
        return known

    def detect(self, images: Sequence[Path], prompts: dict[str, ClassPrototypes]) -> Iterator[Detections]:
        """Connected parts of each class's similarity above its threshold, image by image."""
        for path in images:
            pixels = read_image(path)
            image_hw = (pixels.shape[0], pixels.shape[1])
            cells, found = self._cells(pixels), []
            for label, known in enumerate(prompts.values()):
                similarity = _similarity(cells, known.foreground, known.background)
                found += _instances(label, similarity, known.threshold, image_hw)
            yield as_detections(found, tuple(prompts), image_hw)

    @torch.inference_mode()
    def _cells(self, pixels: np.ndarray) -> Tensor:
        """[C, D] unit vectors of an image's cells, row by row: strides 8 and 16 on the finer grid."""
        square = torch.from_numpy(resize_image(pixels, self._side)).permute(2, 0, 1)[None]
        _, fine, coarse, _ = self._backbone(square.to(self._device))
        coarse = functional.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        both = torch.cat([functional.normalize(level) for level in (fine, coarse)], dim=1)
        return functional.normalize(both)[0].flatten(1).T.contiguous()


def _marks(prompts: Annotations, image: ImageRecord, cells: Tensor, roi: Roi) -> tuple[Tensor, Tensor]:
    """Cells of an image [C, D] that prompts mark, and those of them that count as the defect.

    Returns:
        Twice [classes, C] bool, the second within the first.
    """
    grid = round(len(cells) ** 0.5)
    instances = prompts.instances_of(image.id)
    each = [cells_of(instance, image, grid, roi) for instance in instances]
    around = _drawn(cells[~torch.stack(each).any(0)]) if each else cells
    alike = (cells @ around.T).amax(1) if len(around) else None
    marked = torch.zeros(2, len(prompts.categories), len(cells), dtype=torch.bool)
    for instance, mark in zip(instances, each, strict=True):
        label = prompts.class_index[instance.category_id]
        is_box = roi == "box" or instance.segmentation is None
        marked[0, label] |= mark
        marked[1, label] |= mark if alike is None or not is_box else _distinctive(mark, alike)
    return marked[0], marked[1]


def _distinctive(mark: Tensor, alike: Tensor) -> Tensor:
    """[C] the half, rounded up, of the marked cells [C] that is least alike [C] to the surroundings."""
    inside = mark.nonzero()[:, 0]
    kept = torch.zeros_like(mark)
    kept[inside[alike[inside].argsort(stable=True)[: (len(inside) + 1) // 2]]] = True
    return kept


def _class_prototypes(cells: Tensor, inside: Tensor, free: Tensor, unsure: Tensor) -> ClassPrototypes:
    """Prototypes of P images [P, C, D], and the threshold that fits them best.

    Each image's map is made without its own cells, a single image's two halves without each other.

    Args:
        inside, free, unsure: [P, C] cells of the defect, outside of all prompts, and that may be either.
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
    threshold = _best_threshold(maps, inside, unsure)
    return ClassPrototypes(_drawn(cells[inside]), _drawn(cells[free]), threshold)


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


def _best_threshold(maps: Tensor, inside: Tensor, unsure: Tensor) -> float:
    """Return the threshold at which P maps [P, C] have the best mean IoU with the defect.

    Args:
        inside, unsure: [P, C] cells of the defect, and cells that count as neither right nor wrong.
    """
    low, high = float(maps.min()), float(maps.max())
    candidates = torch.linspace(low, high, THRESHOLDS, device=maps.device)
    above = (maps >= candidates[:, None, None]) & ~unsure
    ious = (above & inside).sum(2) / (above | inside).sum(2)
    return float(candidates[ious.mean(1).argmax()])


def _instances(label: int, similarity: Tensor, threshold: float, image_hw: tuple[int, int]) -> list[Finding]:
    """Best parts of one class [C], ranked by their mean similarity above the threshold."""
    grid = round(len(similarity) ** 0.5)
    square = similarity.view(1, 1, grid, grid)
    full = functional.interpolate(square, image_hw, mode="bilinear", align_corners=False)[0, 0]
    surplus = (full - threshold).cpu().numpy()
    return parts_of(label, surplus >= 0, surplus, _score)


def _score(surplus: npt.NDArray[np.float32]) -> float:
    return 1 / (1 + exp(-STEEPNESS * float(surplus.mean())))
