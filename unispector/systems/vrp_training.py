"""Training of VRP-SAM's encoder on pairs of images of one class.

Loss, optimiser, schedule and number of epochs are those of the authors' repository (syp2ysy/VRP-SAM); there
four processes take two pairs a step each. Decided here: an epoch sees every image and class once, each with
another image of the class, drawn at random; a class that only one image shows teaches nothing. Images are not
changed at random, as in the repository.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from cachetools import LRUCache, cached
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm import tqdm

from unispector.config import Roi
from unispector.data.coco import Annotations, ImageRecord
from unispector.data.transforms import resize_mask
from unispector.errors import DataError
from unispector.losses.terms import dice_loss
from unispector.ops.files import read_image
from unispector.systems.sam import FrozenSam, class_mask
from unispector.systems.vrp_encoder import Eye, VrpEncoder, pseudo_mask

BATCH, RATE, DECAY = 8, 1e-4, 1e-6
HELD_BYTES = 2 << 30  # of SAM's features, which are kept from epoch to epoch


@dataclass(frozen=True)
class Pair:
    """Two images of a class."""

    category: int  # its id
    shot: ImageRecord  # the one that is marked
    image: ImageRecord  # the one that is looked at


@dataclass(frozen=True)
class Lessons:
    """What the encoder learns from."""

    annotations: Annotations
    images: Path  # folder of its images
    roi: Roi  # what marks a shot
    eye: Eye
    sam: FrozenSam

    def epoch(self) -> Iterator[list[Pair]]:
        """Batches of pairs in random order, each image and class once.

        Raises:
            DataError: no class is shown by two images.
        """
        shown: dict[int, list[ImageRecord]] = {id_: [] for id_ in self.annotations.class_index}
        for image in self.annotations.images:
            for category in self.annotations.labels_of(image.id):
                shown[category].append(image)
        pairs = [
            Pair(category, images[_another(place, len(images))], image)
            for category, images in shown.items()
            if len(images) > 1
            for place, image in enumerate(images)
        ]
        if not pairs:
            raise DataError("VRP-SAM learns from two images of a class; no class of these has as many")
        order = torch.randperm(len(pairs)).tolist()
        for start in range(0, len(order), BATCH):
            yield [pairs[i] for i in order[start : start + BATCH]]

    def loss(self, encoder: VrpEncoder, pairs: list[Pair], see: Callable[[Path], Tensor]) -> Tensor:
        """Binary cross-entropy and dice of the masks of a batch; `see` gives SAM's features of an image."""
        shots, seen, pseudo, truth = [], [], [], []
        for pair in pairs:
            mask = class_mask(self.annotations, pair.shot, pair.category, self.roi)
            shots.append(self.eye.read(read_image(self.images / pair.shot.file_name), mask))
            features, above = self.eye.see(read_image(self.images / pair.image.file_name))
            seen.append(features)
            pseudo.append(pseudo_mask(above, shots[-1].vectors))
            mask = class_mask(self.annotations, pair.image, pair.category, "mask")
            truth.append(torch.from_numpy(resize_mask(mask, self.eye.side)).flatten())
        mean, memory = encoder.read(
            torch.cat([shot.features for shot in shots]), torch.cat([shot.cells for shot in shots])
        )
        tokens = encoder(torch.cat(seen), torch.cat(pseudo), mean, memory)
        frames = torch.cat([see(self.images / pair.image.file_name) for pair in pairs])
        masks = self.sam.decode(frames, tokens, several=False).logits
        size = (self.eye.side, self.eye.side)
        logits = functional.interpolate(masks, size, mode="bilinear", align_corners=True).flatten(1)
        wanted = torch.stack(truth).to(logits)
        entropy = functional.binary_cross_entropy_with_logits(logits, wanted)
        return entropy + dice_loss(logits, wanted, len(pairs))


def train(encoder: VrpEncoder, lessons: Lessons, epochs: int) -> None:
    """Train an encoder in place; all chance is torch's.

    Raises:
        DataError: no class is shown by two images, or an image is unreadable.
    """

    @cached(LRUCache(HELD_BYTES, getsizeof=lambda features: features.nbytes))
    def see(path: Path) -> Tensor:
        return lessons.sam.see(read_image(path), stretched=True).features

    plan = [batch for _ in range(epochs) for batch in lessons.epoch()]
    optimiser = AdamW(encoder.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = CosineAnnealingLR(optimiser, len(plan))
    for pairs in tqdm(plan, desc="vrp-sam", unit="batch", disable=None):
        loss = lessons.loss(encoder, pairs, see)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _another(place: int, count: int) -> int:
    """A place of `count` at random, but not this one."""
    other = int(torch.randint(count - 1, ()))
    return other + (other >= place)
