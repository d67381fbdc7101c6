"""Which families of drawn defects show which class of which set: the one table of insa-mini.

The 27 classes of the in-domain sets share no family, so that whichever classes are held out as unseen,
no seen class is drawn like them. Six of the 13 classes of the cross-domain sets show one of these families
again, on products that training never meets; seven show a family that no in-domain class has.
"""

from collections.abc import Mapping
from types import MappingProxyType

Families = tuple[str, ...]
Products = Mapping[str, Mapping[str, Families]]

# Set -> product -> class as the release spells it -> families. A class of several shows them together.
CLASSES: Mapping[str, Products] = MappingProxyType(
    {
        "GC10": {
            "": {
                "1_chongkong": ("Bubble",),
                "2_hanfeng": ("WeldLine",),
                "3_yueyawan": ("Crescent",),
                "4_shuiban": ("WaterSpot",),
                "5_youban": ("OilSpot",),
                "6_siban": ("SilkSpot",),
                "7_yiwu": ("Scale",),
                "8_yahen": ("RolledPit",),
                "9_zhehen": ("Crease",),
                "10_yaozhe": ("Reground",),
            }
        },
        "MagneticTile": {
            "": {
                "Blowhole": ("Blowhole",),
                "Break": ("Chip",),
                "Crack": ("Hairline",),
                "Fray": ("RaggedEdge",),
                "Uneven": ("Uneven",),
            }
        },
        "RealIAD": {
            "audiojack": {"BX": ("Bent",), "HS": ("Scratch",), "ZW": ("Abrasion",)},
            "toy_brick": {"AK": ("Pitting",), "QS": ("Missing",), "ZW": ("Contamination",)},
        },
        "MVTec": {
            "grid": {"glue": ("Glue",), "metal_contamination": ("Rust",), "thread": ("Thread",)},
            "wood": {"color": ("Burn",), "combined": ("Wrinkle", "Delamination"), "liquid": ("Stain",)},
        },
        "3CAD": {
            "Aluminum_New_Ipad": {"bump": ("Bubble",), "scratche": ("Scratch",)},
            "Iron_Stator": {"bruise": ("Dent",), "scratches": ("Chatter",)},
        },
        "VISION": {
            "Cable": {"break": ("Fray",), "thunderbolt": ("Crack",)},
            "Groove": {"s_burr": ("Flash",), "s_scratch": ("Smear",)},
        },
        "VisA": {
            "candle": {"Chunk Of Wax Missing": ("Chip",), "Extra Wax in Candle": ("Glue",)},
            "pcb1": {"Bent": ("Bent",), "Melt": ("Melt",), "Missing": ("Missing",)},
        },
    }
)

# What a mask of VisA marks besides the classes of the benchmark.
OTHER = "OTHER"
UNLISTED = "value outside the release's table"
BESIDES: Mapping[str, Families] = MappingProxyType({OTHER: ("Stain",), UNLISTED: ("Contamination",)})


def families_of(set_name: str, product: str, defects: tuple[str, ...]) -> dict[str, Families]:
    """Families that show each of the defects, by defect."""
    table = {**BESIDES, **CLASSES[set_name][product]}
    return {defect: table[defect] for defect in defects}
