"""Looks of the products: surface, and the ramp of colours that a grey rendering takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]

MIDDLE = 115  # grey value that takes a look's middle colour
VARIATION = 6.0  # standard deviation of an image's colours about its product's, of 255


@dataclass(frozen=True)
class Look:
    """Colours (red, green, blue, 0 to 255) of black, of a middle grey and of white.

    Dark is mostly what lies behind the part, the middle the part itself.
    """

    dark: Colour
    middle: Colour
    bright: Colour

    def ramp(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """The colour of every grey value, slightly different for every image: [256, 3]."""
        stops = np.array([self.dark, self.middle, self.bright]) + rng.normal(0, VARIATION, (3, 3))
        levels = np.arange(256)
        channels = [np.interp(levels, [0, MIDDLE, 255], np.clip(stop, 0, 255)) for stop in stops.T]
        return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)


# Products that are not named here stay grey.
LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "RealIAD/audiojack": Look((8, 10, 28), (96, 116, 150), (236, 244, 255)),
        "RealIAD/toy_brick": Look((18, 30, 22), (200, 78, 52), (255, 232, 190)),
        "MVTec/wood": Look((30, 10, 6), (164, 104, 58), (255, 226, 176)),
        "3CAD/Aluminum_New_Ipad": Look((0, 22, 30), (118, 130, 126), (250, 244, 232)),
        "3CAD/Iron_Stator": Look((36, 6, 24), (152, 92, 112), (255, 226, 206)),
        "VISION/Cable": Look((14, 12, 44), (206, 150, 26), (255, 246, 160)),
        "VISION/Groove": Look((4, 20, 34), (44, 136, 146), (206, 255, 240)),
        "VisA/candle": Look((46, 22, 66), (186, 118, 168), (255, 240, 226)),
        "VisA/pcb1": Look((8, 10, 6), (38, 142, 66), (232, 250, 170)),
    }
)

# All classes of a product lie on one surface, as in a factory; GC10 has three grades of sheet.
SURFACE: Mapping[str, str] = MappingProxyType(
    {
        "GC10/": "rolled metal",
        "MagneticTile/": "sintered magnet",
        "RealIAD/audiojack": "plastic",
        "RealIAD/toy_brick": "ceramic tile",
        "MVTec/grid": "fabric",
        "MVTec/wood": "wood",
        "3CAD/Aluminum_New_Ipad": "brushed metal",
        "3CAD/Iron_Stator": "ground steel",
        "VISION/Cable": "fabric",
        "VISION/Groove": "ground steel",
        "VisA/candle": "ceramic tile",
        "VisA/pcb1": "board",
    }
)
GRADES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("4_shuiban", "5_youban", "7_yiwu"), "brushed metal"),
        **dict.fromkeys(("8_yahen", "9_zhehen", "10_yaozhe"), "ground steel"),
    }
)


def surface_of(product: str, defects: tuple[str, ...]) -> str:
    """The surface on which a product ("<set>/<product>") shows these classes."""
    return GRADES.get(defects[0] if defects else "", SURFACE[product])
