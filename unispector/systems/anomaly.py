"""PatchCore and EfficientAD over anomalib (Apache-2.0): they learn from good images what is normal.

PatchCore (arXiv 2106.08265) keeps a core set of the features of good images; a cell is as strange as it is
far from all of them. EfficientAD (arXiv 2303.14535) trains a student and an autoencoder to repeat a teacher's
features of good images; a cell is as strange as they fail. anomalib's networks are used and its engine is
not, so nothing is downloaded or logged.

Decided here, because neither finds instances or names them:

- A model is trained per set on all its good images together, also where a set shows several products.
- Every fifth good image is held out. 97 % of the values of their maps lie below the threshold. It was chosen
  on every sixth image of fabric_sach, of which nothing is judged: AP50 of nameless boxes was 12.9 at 0.95,
  14.0 at 0.97, 12.3 at 0.98 and 0.5 at the highest value, which one odd good image sets. A single good image
  is used for both.
- PatchCore reads 512 pixels, as the nearest prototypes do; 256 gave about half there.
- Instances are the 8-connected parts of the map above the threshold, in the image's pixels. The score is
  peak / (peak + threshold), so that it lies between 0.5 and 1.
- What a finding is called: see `in_every_class`.
"""

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from unispector.config import BackboneConfig
from unispector.data.coco import Annotations
from unispector.data.transforms import resize_image
from unispector.detections import Detections
from unispector.errors import ConfigError, DataError
from unispector.modeling.build import build_backbone
from unispector.ops.files import atomic_path, read_image
from unispector.systems.findings import Finding, as_detections
from unispector.systems.parts import parts_of

HELD_OUT = 5  # every so many good images one for the threshold
THRESHOLD_SHARE = 0.97  # of the values of the maps of held-out good images that lie below the threshold
CORE = 0.01  # of the features of good images, PatchCore's smallest published share
MOST_CELLS = 100_000  # features that the core set is chosen from, at random; 600 MB at 1,536 channels
LEAST_CORE = 1024  # features that are kept in any case, where there are so many


def in_every_class(found: Sequence[Finding], names: tuple[str, ...], image_hw: tuple[int, int]) -> Detections:
    """Nameless findings, as the benchmark judges them: each is given to every prompted class.

    With one class prompted, this is a fair one. With several, each finding is right for at most one class and
    a false one for all others: what it costs not to name the defect. To give it to one would be a guess.
    """
    each = [replace(finding, label=label) for finding in found for label in range(len(names))]
    return as_detections(each, names, image_hw)


def of_anomalib(module: str) -> Any:
    """A module of anomalib.models, imported without the warnings of what it imports.

    Raises:
        ModuleNotFoundError: anomalib is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"anomalib.models.{module}")


def cut(strange: Tensor, threshold: float, image_hw: tuple[int, int]) -> list[Finding]:
    """Nameless parts of a map [h, w] of the image that lie above the threshold, in the image's pixels."""
    full = functional.interpolate(strange[None, None], image_hw, mode="bilinear", align_corners=False)[0, 0]
    pixels = full.cpu().numpy()

    def score(values: npt.NDArray[np.float32]) -> float:
        peak = float(values.max())
        return peak / (peak + threshold)

    return parts_of(0, pixels > threshold, pixels, score)


class AnomalyDetector(ABC):
    """What the systems share: the split of the good images, the threshold, the cutting."""

    side: ClassVar[int]  # of the square input in pixels

    def __init__(self, network: nn.Module) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network: Any = network.to(self._device).eval()
        self._threshold: float | None = None
        self.parameters = sum(weight.numel() for weight in network.parameters())

    def fit(self, annotations: Annotations, images: Path, out: Path) -> None:
        """Learn from good images what is normal; keeps what was learnt in out/weights.safetensors.

        Raises:
            DataError: there is no image, or one is unreadable.
        """
        paths = [images / image.file_name for image in annotations.images]
        if not paths:
            raise DataError(f"{images}: no good image to learn from")
        held = paths[HELD_OUT - 1 :: HELD_OUT] or paths[-1:]
        learnt = [path for path in paths if path not in held] or held
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self._learn(learnt, held)
        values = torch.stack([self._strange(path) for path in held]).cpu().numpy()
        # A map of zeros, as of images that are all alike, must not divide by zero.
        self._threshold = max(float(np.quantile(values, THRESHOLD_SHARE)), 1e-6)
        self._keep(out)

    def encode_prompts(self, prompts: Annotations, images: Path) -> tuple[str, ...]:  # noqa: ARG002
        """Names of the classes; no prompt is looked at."""
        return prompts.class_names

    def detect(self, images: Sequence[Path], prompts: tuple[str, ...]) -> Iterator[Detections]:
        """What is stranger than all good images, in every class.

        Raises:
            DataError: no good images were learnt from, or an image is unreadable.
        """
        if self._threshold is None:
            raise DataError("an anomaly detector learns from good images first; call fit")
        for path in images:
            pixels = read_image(path)
            hw = pixels.shape[0], pixels.shape[1]
            yield in_every_class(cut(self._map_of(pixels), self._threshold, hw), prompts, hw)

    @abstractmethod
    def _learn(self, paths: Sequence[Path], held: Sequence[Path]) -> None:
        """Learn from good images; `held` ones must not be learnt but may scale the maps."""

    @abstractmethod
    def _input(self, pixels: np.ndarray) -> Tensor:
        """[1, 3, side, side] as the network takes it."""

    @torch.inference_mode()
    def _map_of(self, pixels: np.ndarray) -> Tensor:
        """[side, side] how strange each place is."""
        strange: Tensor = self._network(self._input(pixels)).anomaly_map[0, 0]
        return strange

    def _strange(self, path: Path) -> Tensor:
        return self._map_of(read_image(path))

    def _square(self, pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(resize_image(pixels, self.side)).permute(2, 0, 1)[None].to(self._device)

    def _keep(self, out: Path) -> None:
        from safetensors.torch import save_file

        state = {name: value.contiguous() for name, value in self._network.state_dict().items()}
        with atomic_path(out / "weights.safetensors") as path:
            save_file(state, path, {"threshold": str(self._threshold)})


class _Levels(nn.Module):
    """Features of strides 8 and 16 of a backbone, by the names of the layers that PatchCore takes."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        _, fine, coarse, _ = self.backbone(images)
        return {"layer2": fine, "layer3": coarse}


class PatchCore(AnomalyDetector):
    """PatchCore with the backbone that is given."""

    side = 512

    def __init__(self, weights: str) -> None:
        """Build it.

        Args:
            weights: NAME=FILE, a timm network and its weights; FILE may be `packaged` or `none`, as of
                `model.backbone`.

        Raises:
            CheckpointError: the weights cannot be read.
            ConfigError: there is no such network.
            ModuleNotFoundError: anomalib is not installed.
        """
        name, _, file = weights.partition("=")
        if not file:
            raise ConfigError(f"--weights {weights}: give NAME=FILE, such as tf_efficientnet_lite0=packaged")
        # Its own network is replaced, so it may be a small one without weights.
        network = of_anomalib("image.patchcore.torch_model").PatchcoreModel(
            ("layer2", "layer3"), "resnet18", pre_trained=False
        )
        backbone = build_backbone(BackboneConfig(name=name, weights=file), self.side)
        network.feature_extractor = _Levels(backbone)
        super().__init__(network)

    def _input(self, pixels: np.ndarray) -> Tensor:
        return self._square(pixels).float()

    @torch.no_grad()
    def _learn(self, paths: Sequence[Path], held: Sequence[Path]) -> None:  # noqa: ARG002
        """Keep a core set of the features."""
        self._network.train()
        self._network.feature_extractor.eval()
        drawn = []
        for path in paths:
            cells = self._network(self._input(read_image(path)))
            drawn.append(cells[torch.randperm(len(cells))[: max(1, MOST_CELLS // len(paths))]])
            self._network.embedding_store.clear()
        self._network.eval()
        cells = torch.cat(drawn)
        size = min(len(cells), max(LEAST_CORE, round(CORE * len(cells))))
        self._network.memory_bank = core_set(cells, size)


def core_set(cells: Tensor, size: int) -> Tensor:
    """Of the features [n, D] those `size` that leave none far from all, chosen greedily (paper, algorithm 1).

    anomalib's own takes [n, D] anew in each step, which breaks the heap up: gigabytes for six images.
    """
    norms = cells.square().sum(1)
    farness = torch.full_like(norms, torch.inf)
    index = torch.randint(len(cells), (), device=cells.device)
    picked = []
    for _ in range(size):
        picked.append(int(index))
        farness = torch.minimum(farness, norms + norms[index] - 2 * (cells @ cells[index]))
        farness[index] = -torch.inf  # of equal ones none is taken twice
        index = farness.argmax()
    return cells[picked]
