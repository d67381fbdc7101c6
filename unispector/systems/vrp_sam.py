"""VRP-SAM (arXiv 2402.17726): an encoder makes tokens that prompt SAM, of marked images and the one at hand.

As in the authors' repository (syp2ysy/VRP-SAM): a frozen ResNet describes both images; of the marked one a
mean feature is taken, of the other a pseudo mask, which is the best cosine to what is marked; 50 learned
queries read the marked image, then the other, and are SAM's prompt. Only the encoder is trained. Images are
stretched to a square.

Decided here, because paper and repository give one mask of one class an image:

- Instances are the mask's 8-connected components, but those narrower or lower than `MIN_SIDE` of the image,
  which the benchmark's own annotations leave out. A score is the component's mean probability times SAM's
  estimate of the mask's IoU. A class that an image does not show still gets a mask.
- Each image that shows a class is one shot of it, with all its instances; the tokens of all shots are joined,
  as in the repository.
- SAM sees the image at its own size; the repository enlarges it from the ResNet's 512 pixels.
- A prompt by boxes marks each instance's box; the repository takes one box around all of a class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from unispector.config import Roi
from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.errors import CheckpointError
from unispector.ops.components import components
from unispector.ops.files import atomic_write_bytes, read_image
from unispector.ops.rle import encode_crop
from unispector.systems.detector import check_prompted
from unispector.systems.findings import Finding, as_detections
from unispector.systems.hub import read_trained
from unispector.systems.sam import FrozenSam, class_mask
from unispector.systems.vrp_encoder import Eye, FrozenResNet, VrpEncoder, pseudo_mask
from unispector.systems.vrp_training import Lessons, train

SIDE = 512  # of the image that the ResNet sees
EPOCHS = 50
MIN_SIDE = 0.01  # share of the image's sides under which a component is dropped, as in the benchmark
MOST = 100  # instances of one class in one image
TRAINED = "vrp-sam.safetensors"


@dataclass(frozen=True)
class Shot:
    """A marked image as the encoder has read it."""

    mean: Tensor  # [1, width, 1, 1]
    memory: Tensor  # [1, r * r, width]
    vectors: Tensor  # [k, c] unit vectors of what is marked


class VrpSam:
    """VRP-SAM, its encoder trained by `fit` or read from a file."""

    def __init__(self, weights: str, roi: Roi = "box", side: int = SIDE, epochs: int = EPOCHS) -> None:
        """Load SAM and the ResNet.

        Args:
            weights: folder of transformers' SamModel and folder of timm's resnet50, or their names in the
                hub's local cache, with a comma between; after another comma, the file that `fit` has left,
                which then trains nothing.
            roi: a prompt is an instance's box or its mask.
            side: of the image that the ResNet sees, in pixels, a multiple of 8.
            epochs: of the training.

        Raises:
            CheckpointError: they cannot be read.
        """
        sam, _, others = weights.partition(",")
        resnet, _, trained = others.partition(",")
        if not resnet:
            raise CheckpointError("VRP-SAM needs two checkpoints; give --weights SAM,RESNET50[,ENCODER]")
        self._sam, self._roi, self._epochs = FrozenSam(sam), roi, epochs
        self._eye = Eye(FrozenResNet(resnet).to(self._sam.device), side)
        self._encoder = VrpEncoder(self._eye.resnet.width, self._sam.width).to(self._sam.device)
        self._trained = bool(trained)
        if trained:
            shapes = {name: tuple(weight.shape) for name, weight in self._encoder.state_dict().items()}
            self._encoder.load_state_dict(read_trained(trained, shapes))
        networks = (self._eye.resnet, self._encoder.eval())
        counts = (weight.numel() for network in networks for weight in network.parameters())
        self.parameters = self._sam.parameters + sum(counts)

    def fit(self, annotations: Annotations, images: Path, out: Path) -> None:
        """Train the encoder on pairs of seen images of one class, and keep it in `out`.

        Raises:
            DataError: no class is shown by two images, or an image is unreadable.
        """
        if self._trained:
            return
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = VrpEncoder(self._eye.resnet.width, self._sam.width).to(self._sam.device)
            train(encoder, Lessons(annotations, images, self._roi, self._eye, self._sam), self._epochs)
        self._encoder, self._trained = encoder.eval(), True
        tensors = {name: weight.cpu().contiguous() for name, weight in encoder.state_dict().items()}
        atomic_write_bytes(out / TRAINED, save(tensors))

    @torch.no_grad()
    def encode_prompts(self, prompts: Annotations, images: Path) -> dict[str, tuple[Shot, ...]]:
        """The shots of each class.

        Args:
            prompts: every instance is a prompt of its category.

        Returns:
            Class name -> shots, in the order of `prompts.class_names`.

        Raises:
            CheckpointError: the encoder was not trained.
            DataError: a class has no prompt, or an image is unreadable.
        """
        if not self._trained:
            raise CheckpointError(
                "VRP-SAM's encoder is untrained; call fit, or name its file as third weights"
            )
        shots: list[list[Shot]] = [[] for _ in prompts.class_names]
        for image in prompts.images:
            for category in sorted(prompts.labels_of(image.id)):
                mask = class_mask(prompts, image, category, self._roi)
                marked = self._eye.read(read_image(images / image.file_name), mask)
                shot = Shot(*self._encoder.read(marked.features, marked.cells), marked.vectors)
                shots[prompts.class_index[category]].append(shot)
        check_prompted(prompts.class_names, map(bool, shots))
        return dict(zip(prompts.class_names, map(tuple, shots), strict=True))

    @torch.no_grad()
    def detect(self, images: Sequence[Path], prompts: dict[str, tuple[Shot, ...]]) -> Iterator[Detections]:
        """Components of each class's mask, image by image; what is seen of one is kept for all classes."""
        for path in images:
            pixels = read_image(path)
            scene = self._sam.see(pixels, stretched=True)
            features, above = self._eye.see(pixels)
            found = []
            for label, shots in enumerate(prompts.values()):
                tokens = [
                    self._encoder(features, pseudo_mask(above, shot.vectors), shot.mean, shot.memory)
                    for shot in shots
                ]
                guess = self._sam.decode(scene.features, torch.cat(tokens, dim=1), several=False)
                logits = self._sam.on_image(scene, guess.logits[0, 0])
                found += instances(label, logits, float(guess.quality[0, 0]))
            yield as_detections(found, tuple(prompts), scene.image_hw)


def instances(label: int, logits: Tensor, quality: float) -> list[Finding]:
    """The best instances of a class, of its mask's logits [h, w] and the IoU that SAM predicts."""
    height, width = logits.shape
    probability = logits.sigmoid().cpu().numpy()
    found = []
    for crop, left, top in components((logits > 0).cpu().numpy()):
        h, w = crop.shape
        if h / height >= MIN_SIDE and w / width >= MIN_SIDE:
            mean = float(probability[top : top + h, left : left + w][crop].mean())
            code = encode_crop(crop, left, top, height, width)
            score = mean * min(max(quality, 0.0), 1.0)
            found.append(Finding(score, label, (left, top, left + w, top + h), code))
    return sorted(found, key=lambda each: -each.score)[:MOST]
