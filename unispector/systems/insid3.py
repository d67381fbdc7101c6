"""INSID3: what a marked region shows, found by one frozen vision transformer without training.

Method: Cuttano et al., "INSID3: Training-Free In-Context Segmentation with DINOv3" (arXiv 2603.28480,
CVPR 2026); what the paper leaves open as in visinf/INSID3. Per image and class:

1. Features know where they stand in the image. The first directions of an SVD over the features of an image
   without content span that; they are taken out of all features before images are compared.
2. Candidates are cells that are like the mean marked feature (cosine above 0) and whose nearest cell, in at
   least half of the prompt images, is marked.
3. The image's own features, positions left in, are clustered (average linkage, cosine).
4. The seed is the cluster with candidates that is most like the mean marked feature. Every cluster scores
   its likeness to that mean x its likeness to the seed x its share of candidates; those above a threshold
   make the mask.

The paper segments one concept in one image and gives no scores. Decided here, by AP50 of boxes / masks of 7
classes of corrosion, fabric and steel (10 targets each, box prompts; none is of Magnetic Tile):

- An instance is a connected part of the mask; classes are looked for side by side and know nothing of each
  other, so their masks may overlap.
- A part's score is the mean of its clusters' scores x votes, votes being the share of prompt images whose
  nearest cell is marked: a number in [0, 1]. The first factor compares parts of one image, the second
  images, too: 17.9 / 15.2, without votes 11.8 / 10.4 (5 classes).
- Of a DINOv2, whose last block tells textures apart badly, blocks at half and at three quarters of the depth
  are joined: 23.0 / 19.3; the last block 15.7 / 10.3, with clusters joined down to 0.8.
- Of a DINOv2 one direction in 24 is taken out: 23.0 / 19.3, none 22.2 / 18.8, the paper's share 20.9 / 16.6.
- The thresholds are the paper's (0.7 for clusters: 23.6 / 18.0), and for other networks all settings are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from unispector.config import Roi
from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.ops.files import read_image
from unispector.systems.cells import marked_cells
from unispector.systems.detector import check_prompted
from unispector.systems.findings import Finding, as_detections
from unispector.systems.parts import parts_of
from unispector.systems.vit_features import VitFeatures

GRID = 32  # cells a side; the paper has 64, and 48 was no better: 19.6 / 21.0
POSITION, POSITION_DINOV2 = 500 / 1024, 1 / 24  # directions taken out, as a share of the width; see above
ALIKE = 0.6  # mean cosine down to which clusters are joined (the paper's tau)
LEAST_SCORE = 0.2  # of a cluster that joins the mask (the paper's merge threshold)
FEW = 0.9  # quantile of likeness that candidates exceed where no cell is like the prompts


@dataclass(frozen=True)
class Insid3Prompts:
    """P prompt images of K classes."""

    names: tuple[str, ...]
    features: Tensor  # [P, C, D] unit vectors without positions
    marked: Tensor  # [K, P, C] bool cells that the prompts of each class mark
    means: Tensor  # [K, D] unit vectors: mean over images of the mean over marked cells


class Insid3Detector:
    """INSID3, boxes or masks as prompts; a box is a filled mask."""

    def __init__(self, roi: Roi = "box", weights: str = "", grid: int = GRID) -> None:
        """Load the transformer, on the GPU where there is one, and learn what positions add to features.

        Args:
            roi: a prompt is an instance's box or its mask.
            weights: see `VitFeatures`; empty = the packaged DINOv2-S.
            grid: cells a side.

        Raises:
            ConfigError: `weights` names no vision transformer of timm.
            CheckpointError: the weights cannot be had.
        """
        self._roi, self._grid = roi, grid
        self._features = VitFeatures(weights, grid, "cuda" if torch.cuda.is_available() else "cpu")
        self.parameters = self._features.parameters
        blank = np.zeros((self._features.side, self._features.side, 3), dtype=np.uint8)
        share = POSITION_DINOV2 if self._features.dinov2 else POSITION
        self._position = _position(self._features(blank), share)

    def encode_prompts(self, prompts: Annotations, images: Path) -> Insid3Prompts:
        """Features of the prompt images, and what each class marks in them.

        Args:
            prompts: every instance is a prompt of its category.

        Raises:
            DataError: a class has no prompt, or an image is unreadable.
        """
        features = torch.stack(
            [
                self._placeless(self._features(read_image(images / image.file_name)))
                for image in prompts.images
            ]
        )
        marked = torch.stack(
            [marked_cells(prompts, image, self._grid, self._roi) for image in prompts.images], dim=1
        ).to(features.device)
        check_prompted(prompts.class_names, marked.any(2).any(1).tolist())
        return Insid3Prompts(prompts.class_names, features, marked, _means(features, marked))

    def detect(self, images: Sequence[Path], prompts: Insid3Prompts) -> Iterator[Detections]:
        """Connected parts of each class's mask, image by image."""
        for path in images:
            pixels = read_image(path)
            image_hw = (pixels.shape[0], pixels.shape[1])
            found = self._found(self._features(pixels), prompts, image_hw)
            yield as_detections(found, prompts.names, image_hw)

    def _placeless(self, cells: Tensor) -> Tensor:
        """[C, D] unit vectors without what positions add."""
        return functional.normalize(cells - (cells @ self._position) @ self._position.T, dim=1)

    def _found(self, cells: Tensor, prompts: Insid3Prompts, image_hw: tuple[int, int]) -> list[Finding]:
        placeless = self._placeless(cells)
        likeness = prompts.means @ placeless.T
        votes = _votes(placeless, prompts)
        candidates = _above(likeness) & (votes >= 0.5)
        scores = _scores(cells, placeless, likeness, candidates, prompts.means)
        judged = scores * votes
        found: list[Finding] = []
        for label in candidates.any(1).nonzero()[:, 0].tolist():
            mask = _enlarged((scores[label] > LEAST_SCORE).float(), image_hw) >= 0.5
            found += parts_of(label, mask, _enlarged(judged[label], image_hw), _in_range)
        return found


def _position(blank: Tensor, share: float) -> Tensor:
    """[D, share x D] directions in which the features [C, D] of an image without content differ most."""
    centred = blank - blank.mean(0, keepdim=True)
    directions: Tensor = torch.linalg.svd(centred.T, full_matrices=False)[0]
    return directions[:, : round(share * blank.shape[1])].contiguous()


def _means(features: Tensor, marked: Tensor) -> Tensor:
    """[K, D] unit mean marked feature of each class, each image that shows it counting alike."""
    counts = marked.sum(2, keepdim=True)
    means = torch.einsum("kpc,pcd->kpd", marked.float(), features) / counts.clamp(min=1)
    return functional.normalize(means.sum(1), dim=1)  # an image without a mark adds zero


def _votes(cells: Tensor, prompts: Insid3Prompts) -> Tensor:
    """[K, C] share of a class's prompt images in which the cell's nearest one [C, D] is marked."""
    nearest = torch.stack([(cells @ features.T).argmax(1) for features in prompts.features])
    hits = prompts.marked.gather(2, nearest.expand(len(prompts.marked), -1, -1)).sum(1)
    return hits / prompts.marked.any(2).sum(1, keepdim=True)


def _above(likeness: Tensor) -> Tensor:
    """[K, C] cells that are like the prompts; where a class has none, those that are least unlike."""
    positive = likeness > 0
    few = likeness > likeness.quantile(FEW, dim=1, keepdim=True)
    return torch.where(positive.any(1, keepdim=True), positive, few)


def _scores(cells: Tensor, placeless: Tensor, likeness: Tensor, candidates: Tensor, means: Tensor) -> Tensor:
    """[K, C] score of the cluster that each cell belongs to.

    Args:
        cells, placeless: [C, D] unit vectors with and without positions.
        likeness: [K, C] cosine to the prompts.
        candidates: [K, C] bool.
        means: [K, D] of the prompts.
    """
    clusters = _clusters(cells).to(cells.device)
    member = functional.one_hot(clusters).T.float()
    sizes = member.sum(1)
    share = candidates.float() @ member.T / sizes
    alike = (means @ functional.normalize(member @ placeless, dim=1).T).masked_fill(share == 0, -torch.inf)
    seed = alike.argmax(1)
    own = functional.normalize(member @ cells, dim=1)
    share[torch.arange(len(seed)), seed] = 1
    return ((likeness @ member.T / sizes) * (own[seed] @ own.T) * share)[:, clusters]


def _clusters(cells: Tensor) -> Tensor:
    """[C] number of each cell's cluster, from 0, whose cells [C, D] have a mean cosine of `ALIKE` or more."""
    from scipy.cluster.hierarchy import fcluster, linkage

    above = torch.triu_indices(len(cells), len(cells), 1)
    distances = 1 - (cells @ cells.T)[above[0], above[1]].clamp(-1, 1)
    tree = linkage(distances.double().cpu().numpy(), "average")
    return torch.from_numpy(fcluster(tree, 1 - ALIKE, "distance").astype(np.int64) - 1)


def _enlarged(values: Tensor, image_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A map [C] in the image's pixels: [H, W]."""
    grid = round(len(values) ** 0.5)
    square = values.view(1, 1, grid, grid)
    full = functional.interpolate(square, image_hw, mode="bilinear", align_corners=False)[0, 0]
    return full.cpu().numpy()


def _in_range(values: npt.NDArray[np.float32]) -> float:
    return min(max(float(values.mean()), 0.0), 1.0)  # rounding, and where a map falls to a neighbour's
