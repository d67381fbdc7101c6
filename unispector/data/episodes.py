"""Sampling of a training step: a few classes with several images each, and images without a defect."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from unispector.data.coco import Annotations, ImageRecord
from unispector.errors import ConfigError, TrainingError

SampleKey = tuple[int, int]
"""Index of an image and the epoch seed it is drawn with."""

SAME_SET = 0.6  # chance that a further class comes from the first one's set: that is what confuses in use


@dataclass(frozen=True)
class EpisodeImage:
    """The facts about a training image that sampling a step needs."""

    labels: tuple[int, ...]  # class indices that it shows, ascending, each once; crowds do not count
    set_name: str  # the set it is of; empty where that cannot be told
    sound: bool  # it has no defect at all, not even a crowd


def episode_images(annotations: Annotations) -> tuple[EpisodeImage, ...]:
    """The images of a merged training file (`data.protocol.splits.merge_training`), in its order.

    An image with instances is of the set that its classes, `<set>/<class>`, name. One without is of the set
    whose images share the deepest folder with it.
    """
    names = {category.id: category.name for category in annotations.categories}
    owners: dict[PurePosixPath, set[str]] = {}
    for image in annotations.images:
        for category_id in annotations.labels_of(image.id):
            for folder in PurePosixPath(image.file_name).parents:
                owners.setdefault(folder, set()).add(_set_of(names[category_id]))

    def told(image: ImageRecord) -> EpisodeImage:
        instances = annotations.instances_of(image.id)
        labels = {annotations.class_index[item.category_id] for item in instances if not item.iscrowd}
        set_name = _set_of(names[instances[0].category_id]) if instances else _owner(image.file_name, owners)
        return EpisodeImage(tuple(sorted(labels)), set_name, sound=not instances)

    return tuple(told(image) for image in annotations.images)


def _set_of(class_name: str) -> str:
    return class_name.partition("/")[0] if "/" in class_name else ""


def _owner(file_name: str, owners: Mapping[PurePosixPath, Collection[str]]) -> str:
    known = (owners[folder] for folder in PurePosixPath(file_name).parents if folder in owners)
    nearest = next(known, ())
    return next(iter(nearest)) if len(nearest) == 1 else ""


class EpisodeSampler:
    """Draws each step's images class by class, so that a class comes with several images.

    A step begins with a set, all sets being equally likely so that no large one dominates, and a class of
    it. A further class is of the same set with chance `SAME_SET`, where it has another, else of another set.
    Within a set a class is drawn with a chance that grows with the root of its number of images. Of each
    class images are drawn until `images_per_class` of the step's show it (an image counts for every class
    in it), until the step is full; when the classes run out, another round adds as many again. Up to
    `defect_free` images without a defect come last, of the first class's set where it has any. No image
    comes twice before all have come. Step `i` needs no earlier step, so a resumed run continues exactly.

    Args:
        images: all training images; those that are neither labelled nor sound are never drawn.
        batch_size: images per step over all workers, those without a defect among them.
        images_per_class: images of one class that go together.
        defect_free: images without a defect per step, below `batch_size`; fewer where there are fewer.
        views: epoch seeds are drawn from 0 to `views` - 1; 0 = each is used once only.
        seed: of all draws.
        rank: which of `world` equal, contiguous slices of a step's images to hand out.
        world: number of workers that share a step.

    Raises:
        TrainingError: no image has a label.
        ConfigError: `batch_size` cannot be shared equally.
    """

    def __init__(
        self,
        images: Sequence[EpisodeImage],
        *,
        batch_size: int,
        images_per_class: int,
        defect_free: int,
        views: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world:
            raise ConfigError(
                f"train.batch_size {batch_size} cannot be shared by {world} workers; make it a multiple"
            )
        labels = sorted({label for image in images for label in image.labels})
        if not labels:
            raise TrainingError("no training image has an annotated instance; check the training file")
        column = {label: position for position, label in enumerate(labels)}
        shows = np.zeros((len(labels), len(images)), dtype=np.bool_)
        for index, image in enumerate(images):
            shows[[column[label] for label in image.labels], index] = True
        self._shows = shows
        self._labelled = np.array([len(image.labels) > 0 for image in images])
        self._weights = np.sqrt(shows.sum(axis=1))
        homes = [images[int(np.argmax(row))].set_name for row in shows]
        self._classes = {
            name: tuple(i for i, home in enumerate(homes) if home == name) for name in sorted(set(homes))
        }
        self._sound = np.array([index for index, image in enumerate(images) if image.sound], dtype=np.intp)
        self._sound_sets = np.array([images[index].set_name for index in self._sound], dtype=np.str_)
        self._batch_size = batch_size
        self._images_per_class = images_per_class
        self._defect_free = min(defect_free, len(self._sound))
        self._views = views
        self._seed = seed
        share = batch_size // world
        self._slice = slice(rank * share, (rank + 1) * share)

    def batch_at(self, step: int) -> list[SampleKey]:
        """The images of step `step` (from 0) for this rank: index and epoch seed of each."""
        rng = np.random.default_rng((self._seed, step))
        indices = self._draw(rng)
        if self._views:
            epochs = rng.integers(self._views, size=len(indices)).tolist()
        else:
            first = step * self._batch_size
            epochs = list(range(first, first + len(indices)))
        return list(zip(indices, epochs, strict=True))[self._slice]

    def _draw(self, rng: np.random.Generator) -> list[int]:
        home = list(self._classes)[rng.integers(len(self._classes))]
        sound = self._draw_sound(home, rng)
        return self._draw_labelled(home, self._batch_size - len(sound), rng) + sound

    def _draw_sound(self, home: str, rng: np.random.Generator) -> list[int]:
        """Images without a defect, those of the set `home` before others."""
        order = rng.permutation(len(self._sound))
        order = order[np.argsort(self._sound_sets[order] != home, kind="stable")]
        return [int(index) for index in self._sound[order[: self._defect_free]]]

    def _draw_labelled(self, home: str, count: int, rng: np.random.Generator) -> list[int]:
        drawn: list[int] = []
        fresh = self._labelled.copy()
        shown = np.zeros(len(self._shows), dtype=np.int64)
        wanted = 0
        while True:
            wanted += self._images_per_class
            for label in self._classes_from(home, rng):
                candidates = np.flatnonzero(self._shows[label] & fresh)
                missing = min(wanted - shown[label], count - len(drawn), len(candidates))
                if missing > 0:
                    picked = rng.choice(candidates, missing, replace=False)
                    drawn += picked.tolist()
                    fresh[picked] = False
                    shown += self._shows[:, picked].sum(axis=1)
                if len(drawn) == count:
                    return drawn
            if not fresh.any():
                fresh = self._labelled.copy()

    def _classes_from(self, home: str, rng: np.random.Generator) -> Iterator[int]:
        """Every class once, the first one of the set `home`."""
        left = {name: list(labels) for name, labels in self._classes.items()}
        name = home
        while left:
            labels = left[name]
            weights = self._weights[labels]
            label = labels[rng.choice(len(labels), p=weights / weights.sum())]
            yield label
            labels.remove(label)
            if not labels:
                del left[name]
            others = [other for other in left if other != home]
            if home in left and (not others or rng.random() < SAME_SET):
                name = home
            elif others:
                name = others[rng.integers(len(others))]
