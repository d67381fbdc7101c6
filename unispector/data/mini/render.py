"""One image of insa-mini: part, defects, lamp and camera, as a pure function of families, index and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from unispector.data.mini.alike import Alike
from unispector.data.mini.defects import FAMILIES, paint_defects, paint_several
from unispector.data.mini.lot import Lot
from unispector.data.mini.noise import Field, Size, as_field, blurred
from unispector.data.mini.scene import Scene, build_scene
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
        masks: family -> [h, w] uint8, share of a pixel that its defects cover times 255; > 127 is the
            exact mask. Exact masks of different families are at least two pixels apart. Empty for "Free".
        clean: [h, w] uint8, the same part, lamp and camera noise without the defects.
        exposure: step of the exposure series, 1 (dark) .. 6 (bright).
    """

    image: npt.NDArray[np.uint8]
    masks: Mapping[str, npt.NDArray[np.uint8]]
    clean: npt.NDArray[np.uint8]
    exposure: int

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """The defects of all families together, as in `masks`; [h, w] uint8."""
        return np.asarray(np.max([np.zeros_like(self.clean), *self.masks.values()], axis=0), np.uint8)


def render(
    family: str, index: int, *, seed: int, size: int, surface: str | None = None, alike: Alike | None = None
) -> RenderedImage:
    """Draw image `index` of `family`; the same arguments always give the same image.

    Args:
        family: one of `FAMILIES`, or "Free" for a sound part.
        index: number of the image within its family, from 0.
        seed: seed of the whole set: one kind of part, shown in one kind of light.
        size: nominal height in pixels; the width is 0.6 to 1.6 times that.
        surface: the kind's, one of `SURFACES`; another surface is another kind. None = the seed draws it.
        alike: what the defects have in common; None = only what their family has.

    Raises:
        DataError: `family` is unknown, or an image of this size cannot hold the defect.
    """
    if family not in (*FAMILIES, DEFECT_FREE):
        raise DataError(f"mini: no family {family!r}; known: {', '.join(FAMILIES)}, {DEFECT_FREE}")
    scene, camera, rng = _sound_part(family, index, seed, size, surface)
    if family == DEFECT_FREE:
        return _picture(scene, camera, scene.reflectance, {})
    defects = paint_defects(scene, rng, family, alike)
    return _picture(scene, camera, defects.reflectance, {family: defects.coverage})


def render_several(
    families: Sequence[str], index: int, *, seed: int, size: int, surface: str | None = None
) -> RenderedImage:
    """Draw image `index` of those that show all of `families`, one or two instances of each.

    A single family gives what `render` gives.

    Args:
        families: some of `FAMILIES`, each once; another order is another image.
        index: number of the image within its set of families, from 0.
        seed: seed of the whole set: one kind of part, shown in one kind of light.
        size: nominal height in pixels; the width is 0.6 to 1.6 times that.
        surface: the kind's, one of `SURFACES`; another surface is another kind. None = the seed draws it.

    Raises:
        DataError: a family is unknown or named twice, there is none, or an image of this size cannot hold
            them all.
    """
    if not families or len(set(families)) < len(families) or not set(families) <= set(FAMILIES):
        raise DataError(
            f"mini: families must be known and differ, not {list(families)}; known: {', '.join(FAMILIES)}"
        )
    if len(families) == 1:
        return render(families[0], index, seed=seed, size=size, surface=surface)
    scene, camera, rng = _sound_part("+".join(families), index, seed, size, surface)
    reflectance, coverages = paint_several(scene, rng, families)
    return _picture(scene, camera, reflectance, coverages)


def _sound_part(
    name: str, index: int, seed: int, size: int, surface: str | None
) -> tuple[Scene, "_Camera", np.random.Generator]:
    """Part and camera of image `index` among those called `name`, and the randomness for its defects."""
    # A stream of its own per image and purpose: more images, or another defect, leave the rest as it is.
    part_rng, defect_rng, camera_rng = (
        np.random.default_rng([seed % 2**63, crc32(name.encode()), index, purpose]) for purpose in range(3)
    )
    kind = np.random.default_rng([seed % 2**63, crc32((surface or "").encode())])
    part, camera = Lot(kind, part_rng), Lot(kind, camera_rng)
    shape = (round(size * part_rng.uniform(0.88, 1.12)), round(size * part.uniform(0.6, 1.6)))
    lamp = _Camera(camera, shape, size / DESIGN_SIZE)
    return build_scene(part, surface, shape, size / DESIGN_SIZE), lamp, defect_rng


def _picture(
    scene: Scene, camera: "_Camera", reflectance: Field, coverages: Mapping[str, Field]
) -> RenderedImage:
    """The photograph of `reflectance`, with the coverages as masks."""
    masks = {
        family: np.rint(np.clip(coverage, 0, 1) * 255).astype(np.uint8)
        for family, coverage in coverages.items()
    }
    clean = camera.take(scene.reflectance)
    return RenderedImage(camera.take(reflectance), masks, clean, camera.exposure)


class _Camera:
    """Lamp and camera of one image: uneven light, exposure, blur and noise, fixed once drawn."""

    def __init__(self, lot: Lot, size: Size, unit: float) -> None:
        rng = lot.rng
        height, width = size
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        angle, tilt = lot.any_angle(), lot.uniform(0, 0.3)
        vignette = lot.uniform(0, 0.25) * (x**2 + y**2)
        self.exposure = int(rng.integers(1, EXPOSURES + 1))
        gain = 0.62 * 1.14 ** (self.exposure - 1) * rng.uniform(0.92, 1.08)
        light = gain * (1 + tilt * (np.cos(angle) * x + np.sin(angle) * y) - vignette)
        self._light = as_field(light)
        self._blur = lot.uniform(0.0, 0.95) * unit
        self._noise = np.float32(lot.uniform(0.003, 0.018)) * rng.standard_normal(size, dtype=np.float32)

    def take(self, reflectance: Field) -> npt.NDArray[np.uint8]:
        """The picture of a scene, uint8 [h, w]."""
        seen = as_field(np.clip(reflectance, 0.0, 1.2) * self._light)
        if self._blur > 0.3:
            seen = blurred(seen, self._blur)
        seen = np.where(seen > SHOULDER, SHOULDER + ROOM * np.tanh((seen - SHOULDER) / ROOM), seen)
        return np.asarray(np.rint(np.clip(seen + self._noise, 0, 1) * 255), np.uint8)
