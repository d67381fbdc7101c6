"""The MVTec AD release: `<product>/test/<defect>/NNN.png`, masks in `<product>/ground_truth/<defect>/`.

Folders called `combined` hold several kinds of defect under one label and are classes like the others.
"""

from collections.abc import Iterator

from unispector.data.sources.insa.product_folders import product_rows
from unispector.data.sources.rows import Dropped, Entry
from unispector.data.sources.source import Source
from unispector.data.sources.tree import ReleaseTree

MASK_ENDING = "_mask.png"
DEFECTS = {
    "bottle": "broken_large broken_small contamination",
    "cable": "bent_wire cable_swap combined cut_inner_insulation cut_outer_insulation missing_cable "
    "missing_wire poke_insulation",
    "capsule": "crack faulty_imprint poke scratch squeeze",
    "carpet": "color cut hole metal_contamination thread",
    "grid": "bent broken glue metal_contamination thread",
    "hazelnut": "crack cut hole print",
    "leather": "color cut fold glue poke",
    "metal_nut": "bent color flip scratch",
    "pill": "color combined contamination crack faulty_imprint pill_type scratch",
    "screw": "manipulated_front scratch_head scratch_neck thread_side thread_top",
    "tile": "crack glue_strip gray_stroke oil rough",
    "toothbrush": "defective",
    "transistor": "bent_lead cut_lead damaged_case misplaced",
    "wood": "color combined hole liquid scratch",
    "zipper": "broken_teeth combined fabric_border fabric_interior rough split_teeth squeezed_teeth",
}


def _rows(tree: ReleaseTree) -> Iterator[Entry | Dropped]:
    return product_rows(tree, MASK_ENDING)


MVTEC_AD = Source(
    title="MVTec AD",
    layout="<product>/test/<defect>/NNN.png with masks <product>/ground_truth/<defect>/NNN_mask.png",
    published="mvtec.com/company/research/datasets/mvtec-ad ; CC BY-NC-SA 4.0",
    rows=_rows,
    insa_name="MVTec",
    domain="in",
    categories=frozenset(
        f"{product}_{defect}" for product, defects in DEFECTS.items() for defect in defects.split()
    ),
)
