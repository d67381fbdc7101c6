"""What is to be drawn, what was drawn, and what a layout has to know to write it down."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import families_of
from unispector.data.mini.layouts.looks import LOOKS, surface_of
from unispector.data.mini.render import DEFECT_FREE, RenderedImage, render, render_several

Grey = npt.NDArray[np.uint8]

JPEG_QUALITY = 92
MULTI_LABEL = 3  # single-label images of a class for one image of each combination of classes
PLANTED = 90_000  # index of the first image that exists for a quirk's sake, beyond all others


@dataclass(frozen=True)
class Shot:
    """One image to draw.

    Attributes:
        product: what it shows, as the release spells it; "" where the release has no products.
        defects: classes on it, as the release spells them; none = a sound part.
        index: its number among those of the same product and defects.
        quirk: what is odd about it; "" = nothing.
    """

    product: str
    defects: tuple[str, ...]
    index: int
    quirk: str = ""


@dataclass(frozen=True)
class Picture:
    """A drawn image.

    Attributes:
        image: [h, w] grey or [h, w, 3] RGB.
        clean: the same without its defects.
        masks: defect -> [h, w], share of a pixel it covers times 255.
        exposure: step of the exposure series, 1 (dark) to 6 (bright).
    """

    image: npt.NDArray[np.uint8]
    clean: npt.NDArray[np.uint8]
    masks: Mapping[str, Grey]
    exposure: int

    @property
    def mask(self) -> Grey:
        """The masks of all defects together; [h, w]."""
        blank = np.zeros(self.image.shape[:2], np.uint8)
        return np.asarray(np.maximum.reduce([blank, *self.masks.values()]))


@dataclass(frozen=True)
class Instance:
    """One 8-connected component of a defect's exact mask.

    Attributes:
        defect: its class.
        box: left, top, width, height in pixels.
        outline: polygon x0, y0, x1, y1, ... a quarter of a pixel inside the component's outer edge; it
            covers the component and its holes.
    """

    defect: str
    box: tuple[int, int, int, int]
    outline: tuple[float, ...]


@dataclass(frozen=True)
class Drawn:
    """An image that was drawn and written.

    Attributes:
        shot: what was asked for.
        file: posix path of the image, relative to the set's folder.
        width, height: in pixels.
        instances: the defects on it.
    """

    shot: Shot
    file: str
    width: int
    height: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Layout:
    """How one set is written.

    Attributes:
        folder: the set's folder and name.
        shots: the images it has; larger numbers add images and leave the others as they are.
        write: writes an image and its mask below the set's folder, returns the image's path relative to it.
        finish: writes what needs all images: annotation files, copies, quirks. Gets the set's folder.
    """

    folder: str
    shots: Callable[[MiniConfig], Iterator[Shot]]
    write: Callable[[Path, Shot, Picture], str]
    finish: Callable[[Path, list[Drawn]], None]


def shots_of(product: str, kinds: Iterable[tuple[str, ...]], images: int) -> Iterator[Shot]:
    """The images of a product: `images` of each single class, a third of that of each combination."""
    for defects in kinds:
        count = images if len(defects) == 1 else max(1, images // MULTI_LABEL)
        yield from (Shot(product, defects, index) for index in range(count))


def sound_shots(products: tuple[str, ...], images: int) -> Iterator[Shot]:
    """`images` sound parts, shared out among the products."""
    for index in range(images):
        yield Shot(products[index % len(products)], (), index // len(products))


def cross_domain_images(config: MiniConfig) -> int:
    """Images per class of a set that is only tested on: half of those of a set that is trained on."""
    return max(1, config.images_per_class // 2)


def take(set_name: str, shot: Shot, config: MiniConfig) -> Picture:
    """Draw an image: a pure function of its arguments.

    Raises:
        DataError: an image of `config.size` cannot hold the defects.
    """
    name = f"{set_name}/{shot.product}"
    # Every product is a kind of part of its own; all its images show that kind.
    seed = config.seed % 2**31 << 32 | crc32(name.encode())
    families = families_of(set_name, shot.product, shot.defects)
    every = [family for names in families.values() for family in names]
    rendered = _rendered(every, shot.index, seed, config.size, surface_of(name, shot.defects))
    masks = {
        defect: np.maximum.reduce([rendered.masks[family] for family in names])
        for defect, names in families.items()
    }
    image, clean = rendered.image, rendered.clean
    if name in LOOKS:
        kind = crc32("+".join(shot.defects).encode())
        ramp = LOOKS[name].ramp(np.random.default_rng([seed, kind, shot.index]))
        image, clean = ramp[image], ramp[clean]
    return Picture(image, clean, masks, rendered.exposure)


def _rendered(families: list[str], index: int, seed: int, size: int, surface: str) -> RenderedImage:
    if len(families) > 1:
        return render_several(families, index, seed=seed, size=size, surface=surface)
    return render(families[0] if families else DEFECT_FREE, index, seed=seed, size=size, surface=surface)


def exact(mask: Grey) -> Grey:
    """The pixels a soft mask marks, as 0 and 255."""
    return np.where(mask > 127, np.uint8(255), np.uint8(0))


def instances_of(masks: Mapping[str, Grey]) -> Iterator[Instance]:
    """The components of the exact masks, defect by defect."""
    for defect, mask in masks.items():
        marked = exact(mask)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
        for label in range(1, count):
            left, top, width, height = (int(side) for side in stats[label, : cv2.CC_STAT_AREA])
            crop = (labels[top : top + height, left : left + width] == label).astype(np.uint8)
            yield Instance(defect, (left, top, width, height), _outline(crop, left, top))


def _outline(crop: Grey, left: int, top: int) -> tuple[float, ...]:
    # Every pixel as two by two, so that the path of centres encloses the pixels' own centres.
    doubled = crop.repeat(2, axis=0).repeat(2, axis=1)
    paths, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points = (paths[0].reshape(-1, 2) + 0.5) / 2 + (left, top)
    return tuple(points.ravel().tolist())


def save(path: Path, image: npt.NDArray[np.uint8] | Image.Image) -> None:
    """Write an image in the format of its name; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, quality=JPEG_QUALITY, compress_level=1)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
