"""One image of insa-mini: part, defects, lamp and camera, as a pure function of families, index and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from unispector.data.mini.alike import Alike
from unispector.data.mini.defects import paint_defects
from unispector.data.mini.kind import Kind
from unispector.data.mini.noise import Field, Size, as_field, blurred
from unispector.data.mini.scene import build_scene

DEFECT_FREE = "Free"
EXPOSURES = 6
DESIGN_SIZE = 256
# Highlights above this brightness are compressed, so that a defect in the glare still shows.
SHOULDER = 0.75
ROOM = 1 - SHOULDER


@dataclass(frozen=True)
class RenderedImage:
    """One image before compression: grey [h, w] or RGB [h, w, 3], uint8."""

    image: npt.NDArray[np.uint8]
    clean: npt.NDArray[np.uint8]  # the same part, lamp and camera noise without the defects
    # What defects cover of a pixel, times 255, [h, w] by their name; > 127 is the exact mask. Exact masks of
    # different families are at least two pixels apart.
    masks: Mapping[str, npt.NDArray[np.uint8]]
    exposure: int  # step of the exposure series, 1 (dark) .. 6 (bright)

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """The defects of all names together, as in `masks`; [h, w]."""
        blank = np.zeros(self.image.shape[:2], np.uint8)
        return np.asarray(np.maximum.reduce([blank, *self.masks.values()]))


def render(
    families: Sequence[str],
    index: int,
    *,
    seed: int,
    size: int,
    surface: str | None = None,
    alike: Alike | None = None,
) -> RenderedImage:
    """Draw image `index` of those that show `families`; the same arguments always give the same image.

    Args:
        families: some of `FAMILIES`, each once; another order is another image. Empty = a sound part.
        index: number of the image within its set of families, from 0.
        seed: seed of the whole set: one kind of part, shown in one kind of light.
        size: nominal height in pixels; the width is 0.6 to 1.6 times that.
        surface: one of `SURFACES`; another one is another kind of part. None = the seed draws it.
        alike: what the defects have in common; None = only what their family has.

    Raises:
        DataError: an image of this size cannot hold the defects.
    """
    name = "+".join(families) or DEFECT_FREE
    # A stream of its own per image and purpose: more images, or another defect, leave the rest as it is.
    part_rng, defect_rng, camera_rng = (
        np.random.default_rng([seed % 2**63, crc32(name.encode()), index, purpose]) for purpose in range(3)
    )
    common = np.random.default_rng([seed % 2**63, crc32((surface or "").encode())])
    part = Kind(common, part_rng)
    shape = (round(size * part_rng.uniform(0.88, 1.12)), round(size * part.uniform(0.6, 1.6)))
    camera = _Camera(Kind(common, camera_rng), shape, size / DESIGN_SIZE)
    scene = build_scene(part, surface, shape, size / DESIGN_SIZE)
    reflectance, coverages = paint_defects(scene, defect_rng, families, alike)
    masks = {family: as_mask(coverage) for family, coverage in coverages.items()}
    return RenderedImage(camera.take(reflectance), camera.take(scene.reflectance), masks, camera.exposure)


def as_mask(coverage: Field) -> npt.NDArray[np.uint8]:
    """Coverage in 0..1 as 0 to 255; [h, w]."""
    return np.rint(np.clip(coverage, 0, 1) * 255).astype(np.uint8)


class _Camera:
    """Lamp and camera of one image: uneven light, exposure, blur and noise, fixed once drawn."""

    def __init__(self, kind: Kind, size: Size, unit: float) -> None:
        rng = kind.rng
        height, width = size
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        angle, tilt = kind.any_angle(), kind.uniform(0, 0.3)
        vignette = kind.uniform(0, 0.25) * (x**2 + y**2)
        self.exposure = int(rng.integers(1, EXPOSURES + 1))
        gain = 0.62 * 1.14 ** (self.exposure - 1) * rng.uniform(0.92, 1.08)
        self._light = as_field(gain * (1 + tilt * (np.cos(angle) * x + np.sin(angle) * y) - vignette))
        self._blur = kind.uniform(0.0, 0.95) * unit
        self._noise = np.float32(kind.uniform(0.003, 0.018)) * rng.standard_normal(size, dtype=np.float32)

    def take(self, reflectance: Field) -> npt.NDArray[np.uint8]:
        """The image of a scene, [h, w]."""
        seen = as_field(np.clip(reflectance, 0.0, 1.2) * self._light)
        if self._blur > 0.3:
            seen = blurred(seen, self._blur)
        seen = np.where(seen > SHOULDER, SHOULDER + ROOM * np.tanh((seen - SHOULDER) / ROOM), seen)
        return np.asarray(np.rint(np.clip(seen + self._noise, 0, 1) * 255), np.uint8)
