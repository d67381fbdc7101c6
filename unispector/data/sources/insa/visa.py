"""The VisA release: `<object>/Data/Images/Anomaly/000.JPG` with `<object>/Data/Masks/Anomaly/000.png`.

The values of a mask are the classes of its object, and several may occur in one image; `OTHER` is left out
(paper appendix 1.1). `image_anno.csv` words the classes differently, so it is only a check on the files.
"""

import csv
import io
from collections.abc import Iterator

from unispector.data.sources import reasons
from unispector.data.sources.rows import ClassMask, Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

OTHER = "OTHER"
_PCB = "Bent, Melt, Scratch, Missing"
# In the order of the mask values, from 1; the spelling is the release's.
_CLASSES = {
    "candle": "Chunk Of Wax Missing, Damaged Corner of Packaging, weird candle wick, Different Colour Spot, "
    "Extra Wax in Candle, Foreign Particals on Candle, Wax Melded out of the candle, OTHER",
    "capsules": "Bubble, Discolor, Scratch, Leak, Misshape",
    "cashew": "Burnt, Corner or Edge Breakage, Different Colour Spot, Middle Breakage, Small Holes, "
    "Small Scratches, Stuck Together, Same Colour Spot, OTHER",
    "chewinggum": "Chunk of gum missing, Corner Missing, Scratches, Similar Colour Spot, Small Cracks, OTHER",
    "fryum": "Burnt, Corner or Edge Breakage, Different Colour Spot, Fryum Stuck Together, Middle Breakage, "
    "Similar Colour Spot, Small Scratches, OTHER",
    "macaroni1": "Chip Around Edge And Corner, Different Colour Spot, Middle Breakage, Similar Colour Spot, "
    "Small Cracks, Small Scratches, OTHER",
    "macaroni2": "Breakage down the middle, Color spot similar to the Object, Different Color spot, "
    "Small chip around edge, Small Cracks, Small Scratches, OTHER",
    "pcb1": _PCB,
    "pcb2": _PCB,
    "pcb3": _PCB,
    "pcb4": "Burnt, Scratch, Missing, Damage, Extra, Wrong Place, Dirt",
    "pipe_fryum": "Burnt, Corner And Edge Breakage, Different Colour Spot, Middle Breakage, "
    "Similar Colour Spot, Small Scratches, Stuck Together, Small Cracks, OTHER",
}
CLASSES = {product: names.split(", ") for product, names in _CLASSES.items()}
DEFECTS = {
    product: {
        value: name.lower().replace(" ", "_") for value, name in enumerate(names, start=1) if name != OTHER
    }
    for product, names in CLASSES.items()
}
LEFT_OUT = {
    product: {value: name for value, name in enumerate(names, start=1) if name == OTHER}
    for product, names in CLASSES.items()
}
_OBJECT = rf"((?:.*/)?({'|'.join(CLASSES)}))"


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    for match in tree.matching(rf"{_OBJECT}/Data/Images/Normal/[^/]+\.(?i:jpe?g|png)"):
        yield Dropped(reasons.DEFECT_FREE, match[0])
    masks = set()
    for match in tree.matching(rf"{_OBJECT}/Data/Images/Anomaly/([^/]+)\.(?i:jpe?g|png)"):
        image, folder, product, stem = match.group(0, 1, 2, 3)
        mask = f"{folder}/Data/Masks/Anomaly/{stem}.png"
        if mask in masks:
            raise tree.error(image, "two images share this name and so one mask; rename one of them")
        masks.add(mask)
        if mask in tree:
            yield Entry(image, product, (ClassMask(mask, DEFECTS[product], LEFT_OUT[product]),))
        else:
            yield Dropped(reasons.NO_MASK, image)
    for match in tree.matching(rf"{_OBJECT}/Data/Masks/Anomaly/[^/]+\.png"):
        if match[0] not in masks:
            yield Dropped(reasons.NO_IMAGE, match[0])
    for match in tree.matching(rf"{_OBJECT}/image_anno\.csv"):
        images = _listed_images(tree, match[0], match[1].rpartition("/")[0])
        yield from (Dropped(reasons.ORPHAN, image) for image in images if image not in tree)


def _listed_images(tree: ReleaseTree, file: str, folder: str) -> list[str]:
    """The images a table names, each once; its paths start at the folder of the objects."""
    table = csv.DictReader(io.StringIO(tree.read_text(file), newline=""), strict=True)
    images: dict[str, None] = {}
    try:
        if not {"image", "label", "mask"} <= set(table.fieldnames or ()):
            raise tree.error(file, "has no columns image, label and mask; restore the file")
        for row in table:
            if None in row or None in row.values() or not row["image"]:
                raise tree.error(file, f"line {table.line_num} is not image,label,mask; restore the file")
            tree.below(folder, row["mask"], file)
            images[tree.below(folder, row["image"], file)] = None
    except csv.Error as error:
        raise tree.error(file, f"not valid CSV ({error}); restore the file") from error
    return list(images)


VISA = Source(
    title="VisA",
    layout="<object>/Data/Images/Anomaly/*.JPG, each with <object>/Data/Masks/Anomaly/*.png of the same name",
    published="github.com/amazon-science/spot-diff; CC BY 4.0",
    rows=_rows,
    insa_name="VisA",
    domain="cross",
    categories=frozenset(
        f"{product}_{defect}" for product, defects in DEFECTS.items() for defect in defects.values()
    ),
)
