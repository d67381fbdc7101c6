"""Products of insa-mini: the families that show each class, and the surface and colours of each product.

The 27 classes of the in-domain sets share no family, so that whichever classes are held out as unseen,
no seen class is drawn like them. Six of the 13 classes of the cross-domain sets show one of these families
again, on products that training never meets; seven show a family that no in-domain class has.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue, 0 to 255
Colours: TypeAlias = tuple[Colour, Colour, Colour]

MIDDLE = 115  # grey value that takes the middle colour
VARIATION = 6.0  # standard deviation of an image's colours about its product's, of 255

# Set -> product ("" where the release has none) -> class as the release spells it -> families, joined by "+".
CLASSES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "GC10": {
        "": {
            "1_chongkong": "Bubble",
            "2_hanfeng": "WeldLine",
            "3_yueyawan": "Crescent",
            "4_shuiban": "WaterSpot",
            "5_youban": "OilSpot",
            "6_siban": "SilkSpot",
            "7_yiwu": "Scale",
            "8_yahen": "RolledPit",
            "9_zhehen": "Crease",
            "10_yaozhe": "Reground",
        }
    },
    "MagneticTile": {
        "": {
            "Blowhole": "Blowhole",
            "Break": "Chip",
            "Crack": "Hairline",
            "Fray": "RaggedEdge",
            "Uneven": "Uneven",
        }
    },
    "RealIAD": {
        "audiojack": {"BX": "Bent", "HS": "Scratch", "ZW": "Abrasion"},
        "toy_brick": {"AK": "Pitting", "QS": "Missing", "ZW": "Contamination"},
    },
    "MVTec": {
        "grid": {"glue": "Glue", "metal_contamination": "Rust", "thread": "Thread"},
        "wood": {"color": "Burn", "combined": "Wrinkle+Delamination", "liquid": "Stain"},
    },
    "3CAD": {
        "Aluminum_New_Ipad": {"bump": "Bubble", "scratche": "Scratch"},
        "Iron_Stator": {"bruise": "Dent", "scratches": "Chatter"},
    },
    "VISION": {
        "Cable": {"break": "Fray", "thunderbolt": "Crack"},
        "Groove": {"s_burr": "Flash", "s_scratch": "Smear"},
    },
    "VisA": {
        "candle": {"Chunk Of Wax Missing": "Chip", "Extra Wax in Candle": "Glue"},
        "pcb1": {"Bent": "Bent", "Melt": "Melt", "Missing": "Missing"},
    },
}

# What a mask of VisA marks besides the classes of the benchmark.
OTHER = "OTHER"
UNLISTED = "value outside the release's table"
BESIDES: Mapping[str, str] = {OTHER: "Stain", UNLISTED: "Contamination"}

# Product -> surface of all its classes, as in a factory, and colours of black (mostly what lies behind the
# part), of a middle grey (the part itself) and of white; products without stay grey.
LOOKS: Mapping[str, tuple[str, Colours | None]] = {
    "GC10/": ("rolled metal", None),
    "MagneticTile/": ("sintered magnet", None),
    "RealIAD/audiojack": ("plastic", ((8, 10, 28), (96, 116, 150), (236, 244, 255))),
    "RealIAD/toy_brick": ("ceramic tile", ((18, 30, 22), (200, 78, 52), (255, 232, 190))),
    "MVTec/grid": ("fabric", None),
    "MVTec/wood": ("wood", ((30, 10, 6), (164, 104, 58), (255, 226, 176))),
    "3CAD/Aluminum_New_Ipad": ("brushed metal", ((0, 22, 30), (118, 130, 126), (250, 244, 232))),
    "3CAD/Iron_Stator": ("ground steel", ((36, 6, 24), (152, 92, 112), (255, 226, 206))),
    "VISION/Cable": ("fabric", ((14, 12, 44), (206, 150, 26), (255, 246, 160))),
    "VISION/Groove": ("ground steel", ((4, 20, 34), (44, 136, 146), (206, 255, 240))),
    "VisA/candle": ("ceramic tile", ((46, 22, 66), (186, 118, 168), (255, 240, 226))),
    "VisA/pcb1": ("board", ((8, 10, 6), (38, 142, 66), (232, 250, 170))),
}
# GC10 has three grades of sheet.
GRADES: Mapping[str, str] = {
    **dict.fromkeys(("4_shuiban", "5_youban", "7_yiwu"), "brushed metal"),
    **dict.fromkeys(("8_yahen", "9_zhehen", "10_yaozhe"), "ground steel"),
}


def surface_of(product: str, defects: tuple[str, ...]) -> str:
    """The surface on which a product ("<set>/<product>") shows these classes."""
    return GRADES.get(defects[0] if defects else "", LOOKS[product][0])


def ramp(colours: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The colour of every grey value, slightly different for every image: [256, 3].

    `colours` [3, 3] are red, green and blue (0 to 255) of black, of a middle grey and of white.
    """
    stops = np.asarray(colours) + rng.normal(0, VARIATION, (3, 3))
    channels = [np.interp(np.arange(256), [0, MIDDLE, 255], np.clip(stop, 0, 255)) for stop in stops.T]
    return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)
