"""The 3CAD release: `<Product>/test/<defect>/*.png`, masks of the same name below `ground_truth`.

Folders have English or Pinyin names; which ones is not published, so a folder's name is the class as it
stands. `Multiple-defects`, in whatever spelling, is no class of the benchmark (paper appendix 1.1).
"""

from collections.abc import Iterator

from unispector.data.sources.insa.product_folders import product_rows
from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

MASK_ENDING = ".png"
LEFT_OUT = ("multiple-defects", "multiple-defect")


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    return product_rows(tree, MASK_ENDING, LEFT_OUT)


THREE_CAD = Source(
    title="3CAD",
    layout="<Product>/test/<defect>/*.png with masks of the same name in <Product>/ground_truth/<defect>/",
    published="github.com/EnquanYang2022/3CAD ; no licence stated",
    rows=_rows,
    insa_name="3CAD",
    domain="cross",
)
