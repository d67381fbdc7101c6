"""Write insa-mini to disk in the raw layout of the Magnetic Tile release."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import numpy.typing as npt

from unispector.config import MiniConfig
from unispector.data.mini.defects import FAMILIES
from unispector.data.mini.render import DEFECT_FREE, RenderedImage, render
from unispector.errors import DataError

SET_FOLDER = "MagneticTile"
JPEG_QUALITY = 92
NUMBERS_PER_FAMILY = 100_000


@dataclass(frozen=True)
class MiniReport:
    """What was written.

    Attributes:
        images: category -> number of images, defect-free ones under "Free".
        instances: category -> number of 8-connected components of the exact masks.
        image_bytes: size of all images and masks together.
    """

    images: dict[str, int]
    instances: dict[str, int]
    image_bytes: int


def generate_mini(
    config: MiniConfig, out: Path, progress: Callable[[int, int], None] | None = None
) -> MiniReport:
    """Write the set to `<out>/MagneticTile/MT_<Family>/Imgs/exp<E>_num_<N>.{jpg,png}`.

    The png is the mask of the jpg of the same stem: grey with an antialiased border, > 127 is the exact
    mask; black for the images of MT_Free. `out` appears complete or not at all; an old one is replaced.

    Args:
        config: seed, numbers of images and size.
        out: folder to make.
        progress: called with (images done, images in all) after every image.

    Raises:
        DataError: `out` cannot be written, or more images per family than numbers for them.
    """
    counts = {DEFECT_FREE: config.defect_free_images} | dict.fromkeys(FAMILIES, config.images_per_family)
    if max(counts.values()) >= NUMBERS_PER_FAMILY:
        raise DataError(
            f"mini: at most {NUMBERS_PER_FAMILY - 1} images per family; lower them in params.yaml"
        )
    out = out.absolute()
    # Its own random name: two runs into one folder never share a half-written one.
    draft = out.with_name(f".{out.name}.{uuid4().hex}.tmp")
    try:
        draft.mkdir(parents=True)
        report = _write_all(config, counts, draft, progress)
        _swap_in(draft, out)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}); check space, rights"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def _write_all(
    config: MiniConfig, counts: dict[str, int], root: Path, progress: Callable[[int, int], None] | None
) -> MiniReport:
    """Render and write every image below `root`."""
    instances = dict.fromkeys(counts, 0)
    done, size_bytes, total = 0, 0, sum(counts.values())
    for position, (family, count) in enumerate(counts.items()):
        folder = root / SET_FOLDER / f"MT_{family}" / "Imgs"
        folder.mkdir(parents=True)
        for index in range(count):
            picture = render(family, index, seed=config.seed, size=config.size)
            number = position * NUMBERS_PER_FAMILY + index + 1
            size_bytes += _write(picture, folder / f"exp{picture.exposure}_num_{number}")
            exact = (picture.mask > 127).astype(np.uint8)
            instances[family] += cv2.connectedComponents(exact, connectivity=8)[0] - 1
            done += 1
            if progress is not None:
                progress(done, total)
    return MiniReport(counts, instances, size_bytes)


def _write(picture: RenderedImage, stem: Path) -> int:
    """Write image and mask next to each other; returns their size in bytes."""
    image = _encoded(".jpg", picture.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    mask = _encoded(".png", picture.mask, [])
    return stem.with_suffix(".jpg").write_bytes(image) + stem.with_suffix(".png").write_bytes(mask)


def _encoded(kind: str, image: npt.NDArray[np.uint8], options: list[int]) -> bytes:
    done, data = cv2.imencode(kind, image, options)
    if not done:
        raise OSError(f"no {kind} could be made of an image of {image.shape}")
    return data.tobytes()


def _swap_in(draft: Path, out: Path) -> None:
    """Put the finished `draft` where `out` is; the old folder goes only once the new one is in place."""
    old = draft.with_suffix(".old")
    if out.exists():
        out.replace(old)
    try:
        draft.replace(out)
    except OSError:
        if old.exists():
            old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
