"""The layout of MVTec AD, which other releases copied: a folder per product, in it one per defect.

`<product>/train/good/*` and `<product>/test/good/*` show no defect, `<product>/test/<defect>/*` do; their
masks lie in `<product>/ground_truth/<defect>/`. An image has one defect, the one its folder names.
"""

import re
from collections.abc import Collection, Iterator

from unispector.data.sources import reasons
from unispector.data.sources.rows import BinaryMask, Dropped, Entry
from unispector.data.sources.tree import ReleaseTree

GOOD = "good"
_IMAGE = r"((?:.*/)?)([^/]+)/(train(?=/good/)|test)/([^/]+)/([^/]+)\.(?i:png|jpe?g)"
_MASK = r"(?:.*/)?[^/]+/ground_truth/[^/]+/[^/]+"


def product_rows(
    tree: ReleaseTree, mask_ending: str, left_out: Collection[str] = ()
) -> Iterator[Entry | Dropped]:
    """The rows of such a release; any pixel of a mask that is not black is defect.

    Its products may lie in a folder of their own, all in the same one. `mask_ending` follows an image's stem
    in the name of its mask; `left_out` are defects the benchmark does not take, in
    lower case with `-` for `_`.

    Raises:
        DataError: products lie in two folders, or two images have one mask.
    """
    masks: set[str] = set()
    places: set[str] = set()
    for match in tree.matching(_IMAGE):
        image, (place, product, part, defect, stem) = match[0], match.groups()
        places.add(place)
        if len(places) > 1:
            raise tree.error(image, "products lie in another folder too; give the folder of one release")
        if part == "train":
            yield Dropped(reasons.DEFECT_FREE, image)
            continue
        mask = f"{place}{product}/ground_truth/{defect}/{stem}{mask_ending}"
        if mask in masks:
            raise tree.error(image, "two images share this name and so one mask; rename one of them")
        masks.add(mask)
        reason = _why_dropped(defect, mask in tree, left_out)
        if reason:
            tree.account_for(mask)
            yield Dropped(reason, image)
        else:
            yield Entry(image, product, (BinaryMask(mask, defect),))
    for match in tree.matching(_MASK + re.escape(mask_ending)):
        if match[0] not in masks:
            yield Dropped(reasons.NO_IMAGE, match[0])


def _why_dropped(defect: str, has_mask: bool, left_out: Collection[str]) -> str:
    if defect == GOOD:
        return reasons.DEFECT_FREE
    if defect.lower().replace("_", "-") in left_out:
        return reasons.LEFT_OUT_CLASS
    return "" if has_mask else reasons.NO_MASK
