"""PerSAM and PerSAM-F (arXiv 2305.03048): SAM told by one marked example what to look for, nearly untrained.

As in the authors' repository (ZrrSkywalker/Personalize-SAM): the marked region's mean feature is compared
with all features of an image; the place most alike is SAM's positive point, and two more passes refine the
mask. PerSAM adds a negative point and guides the decoder's attention (`Guidance`); PerSAM-F weighs SAM's
three masks by two learned numbers instead.

Decided here, because paper and repository segment one object of one reference on one image:

- A class's feature is the mean over its prompts. The repository's PerSAM-F takes half mean, half maximum of
  a reference's features, and so does this one.
- Several instances: what was found is masked out of the similarity and the search repeated, at most `MOST`
  times and until the best similarity left is below `LEAST` of the first; a mask found again ends the search,
  as in the repository's script for several objects (which blacks out the image and encodes it anew).
- Classes: each is looked for alone, in the same features. A score has to rank masks of all images: it is the
  similarity at the point times SAM's own estimate of the mask's IoU.
- Similarity lies on the grid of SAM's masks, four pixels of its frame, and the guidance on that of its
  features in the same frame; the repository stretches it where an image is not square.
- The repository refines with the box of the mask before, and stops with an error where that is empty; here
  the box is left out then.
- UniSpector's paper tunes PerSAM-F on the seen classes: `fit` finds one pair of numbers for many seen
  instances. In the repository they are tuned on each prompt; that is done here where `fit` was not called.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from unispector.config import Roi
from unispector.data.coco import Annotations, InstanceRecord
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.losses.terms import dice_loss, focal_loss
from unispector.ops.files import atomic_write_bytes, read_image
from unispector.ops.rle import BoolArray
from unispector.systems.detector import check_prompted
from unispector.systems.findings import Finding, as_detections
from unispector.systems.hub import read_trained
from unispector.systems.sam import (
    UPSCALED,
    FrozenSam,
    Guess,
    Guidance,
    Scene,
    covered,
    marked_cells,
    prompt_mask,
)

MOST = 10  # instances of one class in one image
LEAST = 0.5  # of the first similarity; below it nothing is looked for any more
SAME = 0.8  # IoU from which on two masks are one
STEPS, RATE = 1000, 1e-3  # of the tuning, as in the repository
LESSONS = 64  # seen instances that two numbers are tuned on, at most
OUTSIDE = -20.0  # logit of what is surely no part of a mask
TRAINED = "persam-f.safetensors"


@dataclass(frozen=True)
class Target:
    """What a class looks like."""

    direction: Tensor  # [D] unit vector that similarity is measured to
    embedding: Tensor  # [D] mean feature
    mix: Tensor | None = None  # [3] weights of SAM's masks, sum 1; None = PerSAM has no use for them


@dataclass(frozen=True)
class Place:
    """Where a class is looked for; cells are those of SAM's masks where the image is."""

    similarity: Tensor  # [h, w] in [-1, 1], lowest where something was found before
    points: Tensor  # [2, 2] x, y of the cells most and least alike, in pixels of SAM's frame


@dataclass(frozen=True)
class Lessons:
    """What PerSAM-F makes of n marked instances, and what is right."""

    logits: Tensor  # [n, 3, R] of SAM's masks, `OUTSIDE` where the frame shows no image
    truth: Tensor  # [n, R] share of the instance's mask, in [0, 1]


class PerSam:
    """PerSAM: nothing is trained."""

    def __init__(self, weights: str, roi: Roi = "box") -> None:
        """Load SAM.

        Args:
            weights: folder of transformers' SamModel, or its name in the hub's local cache.
            roi: a prompt is an instance's box or its mask.

        Raises:
            CheckpointError: they cannot be read.
        """
        self._sam, self._roi = FrozenSam(weights), roi
        self.parameters = self._sam.parameters

    def encode_prompts(self, prompts: Annotations, images: Path) -> dict[str, Target]:
        """What each class looks like.

        Args:
            prompts: every instance is a prompt of its category.

        Returns:
            Class name -> target, in the order of `prompts.class_names`.

        Raises:
            DataError: a class has no prompt, or an image is unreadable.
        """
        shown: list[list[Target]] = [[] for _ in prompts.class_names]
        for image in prompts.images:
            if instances := prompts.instances_of(image.id):
                scene = self._sam.see(read_image(images / image.file_name))
                for instance in instances:
                    mask = prompt_mask(instance, image, self._roi)
                    shown[prompts.class_index[instance.category_id]].append(self._target(scene, mask))
        check_prompted(prompts.class_names, map(bool, shown))
        targets = {}
        for name, own in zip(prompts.class_names, shown, strict=True):
            direction = torch.stack([each.direction for each in own]).mean(0)
            embedding = torch.stack([each.embedding for each in own]).mean(0)
            targets[name] = Target(functional.normalize(direction, dim=0), embedding)
        return targets

    @torch.no_grad()
    def detect(self, images: Sequence[Path], prompts: dict[str, Target]) -> Iterator[Detections]:
        """Instances of each class, image by image; an image's features are kept for all its classes."""
        for path in images:
            scene = self._sam.see(read_image(path))
            found = [
                Finding.of_mask(score, label, mask)
                for label, target in enumerate(prompts.values())
                for score, mask in self._instances(scene, target)
            ]
            yield as_detections(found, tuple(prompts), scene.image_hw)

    def _target(self, scene: Scene, mask: BoolArray) -> Target:
        """What one prompt, a mask [h, w] of the image, looks like; its direction is no unit vector yet."""
        share = covered(mask, scene.shown_hw, self._sam.side, self._sam.grid)
        cells = scene.features[0][:, marked_cells(share).to(self._sam.device)]
        return Target(self._pooled(cells), cells.mean(1))

    def _pooled(self, cells: Tensor) -> Tensor:
        """[D] the direction that similarity is measured to, of marked features [D, n]."""
        return cells.mean(1)

    def _similarity(self, scene: Scene, direction: Tensor) -> Tensor:
        """[h, w] cosine of each cell of SAM's masks where the image is."""
        features = functional.normalize(scene.features[0], dim=0)
        cosine = torch.einsum("d,dij->ij", functional.normalize(direction, dim=0), features)
        finer = functional.interpolate(cosine[None, None], scale_factor=float(UPSCALED), mode="bilinear")
        height, width = (-(-side // self._cell) for side in scene.shown_hw)
        return finer[0, 0, :height, :width]

    @property
    def _cell(self) -> int:
        """Pixels of the frame along a side of a cell of SAM's masks."""
        return self._sam.side // (UPSCALED * self._sam.grid)

    def _instances(self, scene: Scene, target: Target) -> Iterator[tuple[float, BoolArray]]:
        """Score and mask [h, w] of each instance of a class, in the order in which they are found."""
        similarity = self._similarity(scene, target.direction)
        free = torch.ones_like(similarity, dtype=torch.bool)
        known: list[Tensor] = []
        for _ in range(MOST):
            left = similarity.where(free, -torch.inf)
            peak = int(left.argmax())
            alike = float(left.flatten()[peak])
            if alike <= 0 or alike < LEAST * float(similarity.max()):
                return
            place = Place(similarity.where(free, similarity.min()), self._points(similarity, peak))
            logits, quality = self._segment(scene, target, place)
            inside = logits[: len(similarity), : similarity.shape[1]] > 0
            if any((inside & other).sum() >= SAME * (inside | other).sum().clamp(min=1) for other in known):
                return
            known.append(inside)
            free &= ~(inside | _around(similarity, peak))
            mask = (self._sam.on_image(scene, logits) > 0).cpu().numpy()
            if mask.any():
                yield min(alike, 1.0) * min(max(quality, 0.0), 1.0), mask

    def _points(self, similarity: Tensor, peak: int) -> Tensor:
        """[2, 2] x, y of a cell and of the least alike one, in pixels of the frame."""
        cells = torch.tensor([peak, int(similarity.argmin())], device=self._sam.device)
        row, column = cells // similarity.shape[1], cells % similarity.shape[1]
        return (torch.stack([column, row], dim=1) + 0.5) * self._cell - 0.5

    def _segment(self, scene: Scene, target: Target, place: Place) -> tuple[Tensor, float]:
        """Logits [4g, 4g] and predicted IoU of the instance at a place: target-guided, then refined twice."""
        guidance = Guidance(self._bias(place.similarity), target.embedding)
        tokens = self._sam.point_tokens(place.points, (1, 0))
        guess = self._sam.decode(scene.features, tokens, several=False, guidance=guidance)
        logits, _ = _best(self._sam.decode(scene.features, tokens, guess.logits[:, 0]))
        return self._boxed(scene, place.points, (1, 0), logits)

    def _bias(self, similarity: Tensor) -> Tensor:
        """[g * g] sigmoid of the standardised similarity; 0 where the frame shows no image."""
        standard = (similarity - similarity.mean()) / similarity.std(correction=0).clamp(min=1e-6)
        coarse = functional.avg_pool2d(standard[None], UPSCALED, ceil_mode=True)[0].sigmoid()
        rows, columns = (self._sam.grid - side for side in coarse.shape)
        return functional.pad(coarse, (0, columns, 0, rows)).flatten()

    def _boxed(
        self, scene: Scene, points: Tensor, labels: Sequence[int], logits: Tensor
    ) -> tuple[Tensor, float]:
        """A mask's logits [4g, 4g] refined with its own box; without one where the mask is empty."""
        inside = self._sam.in_frame(scene, logits) > 0
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        box = torch.cat([columns[0], rows[0], columns[-1], rows[-1]]) if len(rows) else None
        tokens = self._sam.point_tokens(points, labels, box)
        return _best(self._sam.decode(scene.features, tokens, logits[None]))


class PerSamF(PerSam):
    """PerSAM-F: two numbers are tuned, on seen classes or on the prompts."""

    def __init__(self, weights: str, roi: Roi = "box") -> None:
        """Load SAM.

        Args:
            weights: as of PerSam; after a comma, the file that `fit` has left, which then tunes nothing.
            roi: a prompt is an instance's box or its mask.

        Raises:
            CheckpointError: they cannot be read.
        """
        sam, _, trained = weights.partition(",")
        super().__init__(sam, roi)
        self._mix = read_trained(trained, {"mix": (3,)})["mix"].to(self._sam.device) if trained else None

    def fit(self, annotations: Annotations, images: Path, out: Path) -> None:
        """Tune the two numbers jointly on seen instances, `LESSONS` at most, and keep them in `out`.

        Raises:
            DataError: there is no instance, or an image is unreadable.
        """
        if self._mix is None:
            lot = torch.Generator().manual_seed(0)
            seen = [each for each in annotations.instances if not each.iscrowd]
            chosen = [seen[i] for i in torch.randperm(len(seen), generator=lot)[:LESSONS].tolist()]
            self._mix = tune(self._lessons(annotations, chosen, images))
            atomic_write_bytes(out / TRAINED, save({"mix": self._mix.cpu()}))

    def encode_prompts(self, prompts: Annotations, images: Path) -> dict[str, Target]:
        """As PerSam; where nothing was tuned before, each class's numbers are tuned on its prompts."""
        targets = super().encode_prompts(prompts, images)
        for label, (name, target) in enumerate(targets.items()):
            mix = self._mix
            if mix is None:
                own = [each for each in prompts.instances if prompts.class_index[each.category_id] == label]
                mix = tune(self._lessons(prompts, own[:LESSONS], images))
            targets[name] = replace(target, mix=mix)
        return targets

    def _pooled(self, cells: Tensor) -> Tensor:
        return (cells.mean(1) + cells.amax(1)) / 2

    def _segment(self, scene: Scene, target: Target, place: Place) -> tuple[Tensor, float]:
        """Logits [4g, 4g] and predicted IoU of the instance at a place: three masks mixed, refined twice."""
        logits = torch.einsum("n,nij->ij", cast("Tensor", target.mix), self._masks(scene, place.points))
        for _ in range(2):
            logits, quality = self._boxed(scene, place.points[:1], (1,), logits)
        return logits, quality

    def _masks(self, scene: Scene, points: Tensor) -> Tensor:
        """[3, 4g, 4g] logits of SAM's masks at the first point."""
        return self._sam.decode(scene.features, self._sam.point_tokens(points[:1], (1,))).logits[0]

    @torch.no_grad()
    def _lessons(self, annotations: Annotations, chosen: Sequence[InstanceRecord], images: Path) -> Lessons:
        """Each instance is its own prompt."""
        logits, truth = [], []
        finer = UPSCALED * self._sam.grid
        for image in annotations.images:
            own = [each for each in chosen if each.image_id == image.id]
            if not own:
                continue
            scene = self._sam.see(read_image(images / image.file_name))
            for instance in own:
                target = self._target(scene, prompt_mask(instance, image, self._roi))
                similarity = self._similarity(scene, target.direction)
                masks = self._masks(scene, self._points(similarity, int(similarity.argmax())))
                shown = masks[:, : len(similarity), : similarity.shape[1]]
                padding = (0, finer - shown.shape[2], 0, finer - shown.shape[1])
                logits.append(functional.pad(shown, padding, value=OUTSIDE).flatten(1))
                mask = prompt_mask(instance, image, "mask")
                truth.append(covered(mask, scene.shown_hw, self._sam.side, finer).flatten())
        if not logits:
            raise DataError("PerSAM-F has no marked instance to learn from; give it annotations with some")
        return Lessons(torch.stack(logits), torch.stack(truth).to(self._sam.device))


def tune(lessons: Lessons) -> Tensor:
    """[3] weights of SAM's masks, of which the last two are learned and the first makes the sum 1.

    Dice and focal loss, AdamW and a cosine to 0, as in the repository.
    """
    learnt = torch.full((2,), 1 / 3, device=lessons.logits.device, requires_grad=True)
    optimiser = AdamW([learnt], lr=RATE, eps=1e-4)
    schedule = CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        mixed = torch.einsum("k,nkr->nr", _summing_to_one(learnt), lessons.logits)
        loss = dice_loss(mixed, lessons.truth, len(mixed)) + focal_loss(mixed, lessons.truth, mixed.numel())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return _summing_to_one(learnt.detach())


def _summing_to_one(learnt: Tensor) -> Tensor:
    return torch.cat([1 - learnt.sum(0, keepdim=True), learnt])


def _best(guess: Guess) -> tuple[Tensor, float]:
    """Logits [4g, 4g] of the mask that SAM thinks best, and the IoU that it predicts."""
    best = int(guess.quality[0].argmax())
    return guess.logits[0, best], float(guess.quality[0, best])


def _around(similarity: Tensor, peak: int) -> Tensor:
    """[h, w] cells so near to a peak that SAM's features do not tell them apart."""
    rows, columns = (torch.arange(side, device=similarity.device) for side in similarity.shape)
    row, column = divmod(peak, similarity.shape[1])
    return ((rows - row).abs() <= UPSCALED)[:, None] & ((columns - column).abs() <= UPSCALED)
