"""The VISION release: `<Product>/{train,val}/_annotations.coco.json` with the images beside it.

Category ids start at 0 in every file, so a class is known by its product and its name in that file. The
split `inference` has no labels and is left out (paper appendix 1.1).
"""

from collections.abc import Iterator

from unispector.data.sources import reasons
from unispector.data.sources.coco_json import Listing
from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

WITHOUT_LABELS = "split without labels"
DEFECTS = {
    "Cable": ("break", "thunderbolt"),
    "Capacitor": ("0",),
    "Casting": ("Inclusoes", "Rechupe"),
    "Console": ("Collision", "Dirty", "Gap", "Scratch"),
    "Cylinder": ("Chip", "PistonMiss", "Porosity", "RCS"),
    "Electronics": ("damage",),
    "Groove": ("s_burr", "s_scratch"),
    "Hemisphere": ("Defect-A", "Defect-B", "Defect-C", "Defect-D"),
    "Lens": ("Fiber", "Flash Particle", "Hole", "Surface Damage", "Tear"),
    "PCB_1": ("missing_hole", "mouse_bite", "open_circuit", "short", "spur", "spurious_copper"),
    "PCB_2": ("defect1", "defect2", "defect3", "defect4", "defect5", "defect6", "defect7"),
    "Ring": ("t_contamination", "t_scratch", "unfinished_surface"),
    "Screw": ("defect",),
    "Wood": ("impurities", "pits"),
}


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    listed = set()
    for match in tree.matching(r"((?:.*/)?([^/]+)/(?:train|val))/_annotations\.coco\.json"):
        file, folder, product = match.group(0, 1, 2)
        listing = Listing(tree)
        listing.add(file, tree.read_json(file), (folder,))
        for row in listing.rows(product):
            listed.add(row.file_name)
            yield row
    for match in tree.matching(r"(?:.*/)?[^/]+/(?:train|val)/[^/]+\.(?i:jpe?g|png)"):
        if match[0] not in listed:
            yield Dropped(reasons.NO_ANNOTATION, match[0])
    for match in tree.matching(r"(?:.*/)?[^/]+/inference/[^/]+"):
        yield Dropped(WITHOUT_LABELS, match[0])


VISION = Source(
    title="VISION",
    layout="<Product>/{train,val}/_annotations.coco.json with the images beside it",
    published="VISION-Workshop/VISION-Datasets on Hugging Face, on request; CC BY-NC 4.0, non-commercial",
    rows=_rows,
    insa_name="VISION",
    domain="cross",
    categories=frozenset(f"{product}_{defect}" for product, defects in DEFECTS.items() for defect in defects),
)
