"""The systems that stand on this project's detector: UniSpector, DINOv, T-Rex2 and MaskDINO.

The last three are trained by the same recipe on the same backbone (`train.ablation`), without what is
ours: no spectrum, no aligner, no contrastive loss, no similarity prior, no rule on boxes and masks.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unispector.config import Config, ModelConfig, Roi
from unispector.config.evaluation import KEPT_PAIRS
from unispector.config.training import RIVALS
from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.errors import CheckpointError
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling.build import build_model
from unispector.modeling.official_weights import fitting_model
from unispector.modeling.prompt_encoder import ClassEmbeddings
from unispector.modeling.saved_model import SavedModel, find_device, load_model, model_folder
from unispector.modeling.starting_weights import load_tensors, read_weights
from unispector.ops.files import read_image_size
from unispector.structures import EncodedPrompts
from unispector.systems.findings import as_detections

DINOV_SIDE = 720  # of the network input in pixels (paper, appendix 3.4)


class PromptedDetector:
    """A detector of this project as the benchmark calls one, one image at a time."""

    def __init__(self, detector: UniSpector, roi: Roi, limit: int = KEPT_PAIRS) -> None:
        """Wrap a loaded model."""
        self.fingerprint, self.parameters = detector.fingerprint, detector.parameters
        self._detector, self._roi, self._limit = detector, roi, limit

    def encode_prompts(self, prompts: Annotations, images: Path) -> PromptBank:
        """One embedding a class; see `UniSpector.encode_annotations`."""
        return self._detector.encode_annotations(prompts, images, self._roi)

    def detect(self, images: Sequence[Path], prompts: PromptBank) -> Iterator[Detections]:
        """Results in the order of the images, each with the time of one image alone."""
        return self._detector.stream(images, prompts, batch_size=1, limit=self._limit)


def unispector(weights: str, roi: Roi) -> PromptedDetector:
    """UniSpector: a packaged model by its name, or a folder."""
    return _trained_here("unispector", weights, roi)


def trex2(weights: str, roi: Roi) -> PromptedDetector:
    """T-Rex2's visual prompts: a folder that the training of `trex2` wrote."""
    return _trained_here("trex2", weights, roi)


def _trained_here(system: str, weights: str, roi: Roi) -> PromptedDetector:
    """A model of this project, refused where it is another system's.

    Raises:
        CheckpointError: it cannot be read, or is another system's.
    """
    saved = load_model(model_folder(weights), find_device(None))
    model = saved.config.model
    kind = next((rival for rival in RIVALS if model.as_rival(rival) == model), "unispector")
    if kind != system:
        raise CheckpointError(f"{weights}: a model of {kind}; run `unispector benchmark {kind}` with it")
    return PromptedDetector(UniSpector(saved), roi)


def dinov(weights: str, roi: Roi) -> PromptedDetector:
    """DINOv: a folder that the training of `dinov` wrote, or the published weights as they are.

    Args:
        weights: such a folder; or a published checkpoint, or what `unispector weights convert` made of it.

    Raises:
        CheckpointError: it is neither, or the file lacks a part of the detector.
    """
    if Path(weights).is_dir():
        return _trained_here("dinov", weights, roi)
    return PromptedDetector(UniSpector(published_dinov(Path(weights))), roi)


def published_dinov(file: Path, side: int = DINOV_SIDE) -> SavedModel:
    """Build DINOv around its published weights.

    Args:
        side: of the network input in pixels.

    Raises:
        CheckpointError: the file cannot be read, or lacks a part of the detector.
    """
    given = read_weights(file)
    sizes = fitting_model(given, str(file))
    settings = {**sizes, "image_size": side, "backbone": {**sizes["backbone"], "weights": "none"}}
    config = ModelConfig.model_validate(settings).as_rival("dinov")
    model = build_model(config, load_weights=False)
    report = load_tensors(model, given, str(file))
    if report.new:
        raise CheckpointError(
            f"{file}: lacks {report.new[0]} ({len(report.new)} tensors of DINOv); bring its file whole"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    device = find_device(None)
    return SavedModel(model.eval().to(device), Config(model=config), digest, {"source": file.name})


class ClosedSetDetector:
    """A detector of the classes it was trained on, whatever the prompts show (MaskDINO)."""

    def __init__(self, weights: str) -> None:
        """Load a folder that the training of `maskdino` wrote.

        Raises:
            CheckpointError: it cannot be read, or is a model with prompts.
        """
        saved = load_model(Path(weights), find_device(None))
        table = saved.model.prompt_encoder
        if not isinstance(table, ClassEmbeddings):
            raise CheckpointError(
                f"{weights}: a model with prompts; give one that `train.ablation: [maskdino]` made"
            )
        self._detector = UniSpector(saved)
        self._side, self._classes = saved.config.model.image_size, saved.config.model.classes
        self._data = saved.config.data
        self._table: Tensor = table.table.weight.detach().float().cpu()
        self.fingerprint, self.parameters = saved.fingerprint, self._detector.parameters

    def encode_prompts(self, prompts: Annotations, images: Path) -> PromptBank | None:
        """The learned embeddings of the prompted classes that it knows; None where it knows none.

        Training calls a class SET/CLASS and a set's own files call it CLASS; the folder of the images, as the
        parameters of the training have it, says which set it is.
        """
        folders = {name: (self._data.root / own.path).parts for name, own in self._data.sets.items()}
        sets = [name for name, parts in folders.items() if images.parts[-len(parts) :] == parts]
        rows = {known: row for row, known in enumerate(self._classes)}
        places = {
            name: rows[f"{own}/{name}"]
            for own in sets
            for name in prompts.class_names
            if f"{own}/{name}" in rows
        }
        if not places:
            return None
        known, embeddings = tuple(places), self._table[list(places.values())]
        labels, sides = torch.arange(len(known)), (self._side,) * len(known)
        return PromptBank.from_instances(
            EncodedPrompts(embeddings, None), labels, known, self.fingerprint, sides
        )

    def detect(self, images: Sequence[Path], prompts: PromptBank | None) -> Iterator[Detections]:
        """Results in the order of the images; of classes that it does not know there are none."""
        if prompts is not None:
            yield from self._detector.stream(images, prompts, batch_size=1, limit=KEPT_PAIRS)
            return
        for image in images:
            width, height = read_image_size(image)
            yield as_detections([], (), (height, width))
