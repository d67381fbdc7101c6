"""A place on a part where one instance of a defect goes, with what all painters share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from unispector.data.mini import noise, shapes
from unispector.data.mini.marks import shifted
from unispector.data.mini.noise import Field, Floats, as_field, blurred
from unispector.data.mini.scene import Scene
from unispector.data.mini.shapes import Points

FAINTEST = 0.6  # change of the faintest instance, relative to one that shows at a glance


@dataclass(frozen=True)
class Site(Scene):
    """A part, and a place on it; all fields that its methods make are [h, w]."""

    rng: np.random.Generator
    centre: Points  # [2] x, y in pixels
    extent: float  # length of the instance's longest side in pixels
    angle: float  # its direction in radians

    @property
    def radius(self) -> float:
        """Half the extent."""
        return self.extent / 2

    def uniform(self, low: float, high: float) -> float:
        """A random number in low..high."""
        return self.rng.uniform(low, high)

    def log_uniform(self, low: float, high: float) -> float:
        """A random number in low..high, uniform on a log scale."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def sign(self) -> np.float64:
        """-1 or 1 at random."""
        return np.float64(self.rng.choice([-1, 1]))

    def axes(self, angle: float | None = None, centre: Points | None = None) -> tuple[Field, Field]:
        """Coordinates (along, across) of every pixel about a point, the site's unless given, in pixels."""
        where = self.centre if centre is None else centre
        return shapes.local_axes(self.size, where, self.angle if angle is None else angle)

    def noise(self, scale: float) -> Field:
        """Soft random hills about `scale` pixels across."""
        return noise.smooth_noise(self.size, self.rng, scale)

    def fractal(self, scale: float, decay: float, octaves: int = 4) -> Field:
        """Hills upon hills, the largest about `scale` pixels across."""
        return noise.fractal_noise(self.size, self.rng, scale, octaves, decay)

    def grain(self, sigma: float) -> Field:
        """White noise blurred by `sigma` pixels."""
        return noise.grain(self.size, self.rng, sigma)

    def streaks(self, angle: float, length: float, width: float) -> Field:
        """Noise drawn out along `angle`."""
        return noise.rotated(self.size, angle, lambda size: noise.streaks(size, self.rng, length, width))

    def outline(self, elongation: float, lobes: float, roughness: float = 0.0, reach: float = 1.0) -> Points:
        """A random outline at the site, `reach` times as large as its extent."""
        around = shapes.outline(self.rng, reach * self.radius, self.angle, elongation, lobes, roughness)
        return self.centre + around

    def blob(self, elongation: float, lobes: float, roughness: float = 0.0) -> Field:
        """Coverage of a random outline of the site's extent."""
        return shapes.polygons(self.size, [self.outline(elongation, lobes, roughness)])

    def path(self, length: float, bend: float, jitter: float = 0.0) -> Points:
        """A random path [n, 2] of `length` pixels through the site; see `shapes.path`."""
        return shapes.path(self.rng, self.centre, length, self.angle, bend, jitter)

    def branch(self, root: Points, length: float, angle: float, bend: float, jitter: float = 0.0) -> Points:
        """A random path [n, 2] of `length` pixels that starts at `root`."""
        branch = shapes.path(self.rng, root, length, angle, bend, jitter)
        return np.asarray(branch + (root - branch[0]))

    def tone(self, coverage: Field) -> float:
        """Mean reflectance of what lies below `coverage`; a middle grey where it is empty."""
        below = self.reflectance[coverage > 0.5]
        return float(below.mean()) if below.size else 0.5

    def contrast(self, coverage: Field, low: float, high: float) -> float:
        """Size of a change that stands out from the texture below `coverage`, from faint to strong.

        By a factor, log-uniform: `low` still shows at a glance, `high` is the largest.
        """
        below = self.reflectance[coverage > 0.5]
        texture = float(below.std()) if below.size else 0.0
        return self.log_uniform(FAINTEST * low, high) * (0.045 + 0.7 * min(texture, 0.1))

    def signed_contrast(self, coverage: Field, low: float, high: float) -> float:
        """`contrast`, darker or brighter at random, but away from black and white."""
        change = self.contrast(coverage, low, high)
        if self.rng.random() < 0.5:
            change = -change
        return change if 0.06 < self.tone(coverage) + change < 0.96 else -change

    def ground(self, sigma: float) -> Field:
        """The part's reflectance without texture finer than `sigma` pixels; its edge does not blur in."""
        seen, weight = blurred(self.reflectance * self.part, sigma), blurred(self.part, sigma)
        return as_field(seen / np.maximum(weight, 0.02))

    def shadow(self, coverage: Field, reach: float, strength: float) -> Field:
        """The part darkened beside an object that covers `coverage` and stands up `reach` pixels."""
        shade = blurred(shifted(coverage, -reach, self.light), max(0.4 * reach, 0.4))
        return as_field(self.reflectance * (1 - strength * shade))


Mark: TypeAlias = tuple[Floats, Field]  # reflectance of the part with the defect on it, and its coverage
Painter: TypeAlias = Callable[[Site], Mark]
