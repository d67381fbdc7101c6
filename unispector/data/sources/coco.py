"""Own data as COCO files: any number of them (train, val, ...), merged by the names of their categories."""

from collections.abc import Iterator

from unispector.data.sources import reasons
from unispector.data.sources.coco_json import Listing, is_coco
from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

NOT_COCO = "JSON that is no COCO file"
GOOD = "good"  # a folder of images without a defect, as of MVTec AD


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    listing = Listing(tree)
    for match in tree.matching(r"(?:(.*)/)?([^/]+)\.(?i:json)"):
        content = tree.read_json(match[0])
        if is_coco(content):
            listing.add(match[0], content, _image_folders(match[1] or "", match[2]))
        else:
            yield Dropped(NOT_COCO, match[0])
    yield from listing.rows(product="")
    for match in tree.matching(r".*\.(?i:jpe?g|png|bmp|tiff?|webp)"):
        if match[0] not in listing:
            free = GOOD in match[0].split("/")[:-1]
            yield Dropped(reasons.DEFECT_FREE if free else reasons.NO_ANNOTATION, match[0])


def _image_folders(folder: str, stem: str) -> tuple[str, ...]:
    """List the folders where exporters put the images of `<folder>/<stem>.json`, the most likely first."""
    split = stem.rpartition("_")[2]  # annotations/instances_train.json goes with train/
    bases = (folder, folder.rpartition("/")[0])
    return tuple(f"{base}/{inner}" for base in bases for inner in ("", "images", split, f"images/{split}"))


COCO = Source(
    title="COCO",
    layout="*.json in COCO format; images beside it, in a folder `images`, or one named as the split; "
    "images without a defect listed without annotations, or in a folder `good`",
    published="own data: what any annotation tool exports as COCO JSON",
    rows=_rows,
    drops_small=False,
)
