"""The Magnetic Tile release: `MT_<Defect>/Imgs/<stem>.jpg` with its mask `<stem>.png` beside it.

Each folder but `MT_Free` is one defect. Masks have soft grey edges, so a pixel counts as defect above
127; 8-connected components are the instances (paper appendix 1.1).
"""

from collections.abc import Iterator

from unispector.data.sources import reasons
from unispector.data.sources.rows import BinaryMask, Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

PRODUCT = "magnetic_tile"
DEFECTS = ("blowhole", "break", "crack", "fray", "uneven")
FREE = "free"
THRESHOLD = 127


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    for match in tree.matching(r"((?:.*/)?MT_(\w+)/Imgs/[^/]+)\.(?:jpe?g|JPE?G)"):
        image, stem, defect = match[0], match[1], match[2].lower()
        if len(_images_of(tree, stem)) > 1:
            raise tree.error(image, "two images share this name and so one mask; rename one of them")
        mask = f"{stem}.png"
        if defect == FREE:
            tree.account_for(mask)
            yield Dropped(reasons.DEFECT_FREE, image)
        elif mask not in tree:
            yield Dropped(reasons.NO_MASK, image)
        else:
            yield Entry(image, PRODUCT, (BinaryMask(mask, defect, THRESHOLD),))
    for match in tree.matching(r"((?:.*/)?MT_\w+/Imgs/[^/]+)\.png"):
        if not _images_of(tree, match[1]):
            yield Dropped(reasons.NO_IMAGE, match[0])


def _images_of(tree: ReleaseTree, stem: str) -> list[str]:
    suffixes = (".jpg", ".jpeg", ".JPG", ".JPEG")
    return [f"{stem}{suffix}" for suffix in suffixes if f"{stem}{suffix}" in tree]


MAGNETIC_TILE = Source(
    title="Magnetic Tile",
    layout="MT_<Defect>/Imgs/*.jpg, each with a mask of the same name ending in .png",
    published="github.com/abin24/Magnetic-tile-defect-datasets. ; no licence stated, cite Huang et al. 2020",
    rows=_rows,
    insa_name="MagneticTile",
    domain="in",
    categories=frozenset(f"{PRODUCT}_{defect}" for defect in DEFECTS),
)
