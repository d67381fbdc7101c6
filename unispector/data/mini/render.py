"""One image of insa-mini: part, defects, lamp and camera, as a pure function of family, index and seed."""

from dataclasses import dataclass
from math import pi
from zlib import crc32

import numpy as np
import numpy.typing as npt

from unispector.data.mini.defects import FAMILIES, paint_defects
from unispector.data.mini.noise import Field, Size, as_field, blurred
from unispector.data.mini.scene import build_scene
from unispector.errors import DataError

DEFECT_FREE = "Free"
EXPOSURES = 6
DESIGN_SIZE = 256
# Highlights above this brightness are compressed, so that a defect in the glare still shows.
SHOULDER = 0.75
ROOM = 1 - SHOULDER


@dataclass(frozen=True)
class RenderedImage:
    """One image before JPEG compression.

    Attributes:
        image: [h, w] uint8 grey values.
        mask: [h, w] uint8, share of a pixel that the defects cover times 255; > 127 is the exact mask.
        clean: [h, w] uint8, the same part, lamp and camera noise without the defects.
        exposure: step of the exposure series, 1 (dark) .. 6 (bright).
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    clean: npt.NDArray[np.uint8]
    exposure: int


def render(family: str, index: int, *, seed: int, size: int) -> RenderedImage:
    """Draw image `index` of `family`; the same arguments always give the same image.

    Args:
        family: one of `FAMILIES`, or "Free" for a sound part.
        index: number of the image within its family, from 0.
        seed: seed of the whole set.
        size: nominal height in pixels; the width is 0.6 to 1.6 times that.

    Raises:
        DataError: `family` is unknown, or an image of this size cannot hold the defect.
    """
    if family not in (*FAMILIES, DEFECT_FREE):
        raise DataError(f"mini: no family {family!r}; known: {', '.join(FAMILIES)}, {DEFECT_FREE}")
    # A stream of its own per image and purpose: more images, or another defect, leave the rest as it is.
    part_rng, defect_rng, camera_rng = (
        np.random.default_rng([seed % 2**63, crc32(family.encode()), index, purpose]) for purpose in range(3)
    )
    shape = (round(size * part_rng.uniform(0.88, 1.12)), round(size * part_rng.uniform(0.6, 1.6)))
    scene = build_scene(part_rng, shape, size / DESIGN_SIZE)
    camera = _Camera(camera_rng, shape, size / DESIGN_SIZE)
    clean = camera.take(scene.reflectance)
    if family == DEFECT_FREE:
        return RenderedImage(clean, np.zeros(shape, np.uint8), clean, camera.exposure)
    defects = paint_defects(scene, defect_rng, family)
    mask = np.rint(np.clip(defects.coverage, 0, 1) * 255).astype(np.uint8)
    return RenderedImage(camera.take(defects.reflectance), mask, clean, camera.exposure)


class _Camera:
    """Lamp and camera of one image: uneven light, exposure, blur and noise, fixed once drawn."""

    def __init__(self, rng: np.random.Generator, size: Size, unit: float) -> None:
        height, width = size
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        angle, tilt = rng.uniform(0, 2 * pi), rng.uniform(0, 0.3)
        vignette = rng.uniform(0, 0.25) * (x**2 + y**2)
        self.exposure = int(rng.integers(1, EXPOSURES + 1))
        gain = 0.62 * 1.14 ** (self.exposure - 1) * rng.uniform(0.92, 1.08)
        light = gain * (1 + tilt * (np.cos(angle) * x + np.sin(angle) * y) - vignette)
        self._light = as_field(light)
        self._blur = rng.uniform(0.0, 0.95) * unit
        self._noise = np.float32(rng.uniform(0.003, 0.018)) * rng.standard_normal(size, dtype=np.float32)

    def take(self, reflectance: Field) -> npt.NDArray[np.uint8]:
        """The picture of a scene, uint8 [h, w]."""
        seen = as_field(np.clip(reflectance, 0.0, 1.2) * self._light)
        if self._blur > 0.3:
            seen = blurred(seen, self._blur)
        seen = np.where(seen > SHOULDER, SHOULDER + ROOM * np.tanh((seen - SHOULDER) / ROOM), seen)
        return np.asarray(np.rint(np.clip(seen + self._noise, 0, 1) * 255), np.uint8)
