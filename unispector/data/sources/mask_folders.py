"""Your own images and masks: `images/<defect>/**/name.*` and `masks/<defect>/**/name.png`.

The first folder below `images` names the defect; images that lie directly in `images` have the defect
`defect`. A mask has the name of its image, with or without `_mask` behind it. Every pixel of a mask that is
not black is defect, so that masks of 0 and 1 count like those of 0 and 255; soft edges belong to it, the
noise of lossy compression does not (`unispector.ops.mask_values`).
"""

from collections import defaultdict
from collections.abc import Iterator

from unispector.data.sources import reasons
from unispector.data.sources.rows import BinaryMask, Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

UNNAMED = "defect"
_IMAGE = r"images/((?:([^/]+)/)?(?:.*/)?[^/]+)\.(?i:png|jpe?g|bmp|tiff?|webp)"
_MASK = r"masks/(.+)\.(?i:png|bmp|tiff?)"


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    masks: defaultdict[str, list[str]] = defaultdict(list)
    for match in tree.matching(_MASK):
        masks[match[1]].append(match[0])
    image_of: dict[str, str] = {}
    for match in tree.matching(_IMAGE):
        image, stem, defect = match[0], match[1], match[2] or UNNAMED
        found = [mask for name in (stem, f"{stem}_mask") for mask in masks.get(name, ())]
        if not found:
            yield Dropped(reasons.NO_MASK, image)
            continue
        mask = found[0]
        if len(found) > 1:
            raise tree.error(image, f"has two masks, {mask} and {found[1]}; remove one of them")
        if mask in image_of:
            raise tree.error(image, f"has one mask, {mask}, with {image_of[mask]}; rename one of the images")
        image_of[mask] = image
        yield Entry(image, "", (BinaryMask(mask, defect),))
    for match in tree.matching(_MASK):
        if match[0] not in image_of:
            yield Dropped(reasons.NO_IMAGE, match[0])


MASKS = Source(
    title="images with masks",
    layout="images/[<defect>/]*.jpg or .png, masks/[<defect>/]*.png of the same name or with _mask behind it",
    published="your own: masks painted in any image editor, or written by a labelling or segmentation tool",
    rows=_rows,
)
