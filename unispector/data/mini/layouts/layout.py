"""What is to be drawn, what was drawn, and how a set is written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

import numpy as np

from unispector.config import MiniConfig
from unispector.data.mini.files import Files, save
from unispector.data.mini.instances import Instance, instances_of
from unispector.data.mini.layouts.products import BESIDES, CLASSES, LOOKS, ramp, surface_of
from unispector.data.mini.render import RenderedImage, render

FEWER = 3  # images of a class for one of a tail class, or of a combination of classes
PLANTED = 90_000  # index of the first image that exists for a quirk's sake, beyond all others
Kinds: TypeAlias = Mapping[str, Sequence[tuple[str, ...]]]


@dataclass(frozen=True)
class Shot:
    """One image to draw."""

    product: str  # as the release spells it; "" where the release has no products
    defects: tuple[str, ...]  # classes on it, as the release spells them; none = a sound part
    index: int  # its number among those of the same product and defects
    quirk: str = ""  # what is odd about it


@dataclass(frozen=True)
class Drawn:
    """An image that was drawn and written."""

    shot: Shot
    file: str  # posix path relative to the set's folder
    width: int  # pixels
    height: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Layout:
    """How one set is written."""

    folder: str  # the set's folder and name
    kinds: Kinds  # product -> the classes that are seen together
    files: Callable[[Shot, RenderedImage], Files]
    # Writes what needs all images: annotation files, copies, quirks. Gets the set's folder.
    finish: Callable[[Path, list[Drawn]], None]
    planted: tuple[Shot, ...] = ()
    sound: bool = True  # the release has sound parts
    tail: str = ""  # class that has fewer images
    cross_domain: bool = False  # only tested on: half as many images

    def shots(self, config: MiniConfig) -> Iterator[Shot]:
        """The images it has; larger numbers add images and leave the others as they are."""
        products = tuple(self.kinds)
        for index in range(config.defect_free_images if self.sound else 0):
            yield Shot(products[index % len(products)], (), index // len(products))
        most = config.images_per_class
        if self.cross_domain:
            most = max(1, most // 2)
        for product, kinds in self.kinds.items():
            for defects in kinds:
                fewer = len(defects) > 1 or defects == (self.tail,)
                count = max(1, most // FEWER) if fewer else most
                yield from (Shot(product, defects, index) for index in range(count))
        yield from self.planted

    def write(self, root: Path, shot: Shot, picture: RenderedImage) -> Drawn:
        """Write an image and its mask below the set's folder."""
        files = self.files(shot, picture)
        for file, pixels in files:
            save(root / file, pixels)
        height, width = picture.image.shape[:2]
        return Drawn(shot, files[0][0], width, height, tuple(instances_of(picture.masks)))


def classes_alone(set_name: str) -> Kinds:
    """Every class of every product by itself."""
    return {product: [(name,) for name in classes] for product, classes in CLASSES[set_name].items()}


def take(set_name: str, shot: Shot, config: MiniConfig) -> RenderedImage:
    """Draw an image with masks by class: a pure function of its arguments.

    Raises:
        DataError: an image of `config.size` cannot hold the defects.
    """
    name = f"{set_name}/{shot.product}"
    # Every product is a kind of part of its own; all its images show that kind.
    seed = config.seed % 2**31 << 32 | crc32(name.encode())
    table = {**BESIDES, **CLASSES[set_name][shot.product]}
    families = {defect: table[defect].split("+") for defect in shot.defects}
    every = [family for names in families.values() for family in names]
    surface = surface_of(name, shot.defects)
    picture = render(every, shot.index, seed=seed, size=config.size, surface=surface)
    masks = {
        defect: np.maximum.reduce([picture.masks[family] for family in names])
        for defect, names in families.items()
    }
    image, clean, colours = picture.image, picture.clean, LOOKS[name][1]
    if colours:
        kind = crc32("+".join(shot.defects).encode())
        tones = ramp(colours, np.random.default_rng([seed, kind, shot.index]))
        image, clean = tones[image], tones[clean]
    return replace(picture, image=image, clean=clean, masks=masks)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
