"""Readers of raw releases: one module per layout, all found in `SOURCES`."""

from unispector.data.sources.coco import COCO
from unispector.data.sources.cvat import CVAT
from unispector.data.sources.insa.gc10 import GC10
from unispector.data.sources.insa.magnetic_tile import MAGNETIC_TILE
from unispector.data.sources.insa.mvtec_ad import MVTEC_AD
from unispector.data.sources.insa.real_iad import REAL_IAD
from unispector.data.sources.insa.three_cad import THREE_CAD
from unispector.data.sources.insa.visa import VISA
from unispector.data.sources.insa.vision import VISION
from unispector.data.sources.label_studio import LABEL_STUDIO
from unispector.data.sources.labelme import LABELME
from unispector.data.sources.mask_folders import MASKS
from unispector.data.sources.source import Source
from unispector.data.sources.voc import VOC
from unispector.data.sources.yolo import YOLO

__all__ = ["SOURCES", "Source"]

SOURCES = {
    "gc10": GC10,
    "magnetic_tile": MAGNETIC_TILE,
    "real_iad": REAL_IAD,
    "mvtec_ad": MVTEC_AD,
    "three_cad": THREE_CAD,
    "vision": VISION,
    "visa": VISA,
    "coco": COCO,
    "voc": VOC,
    "yolo": YOLO,
    "labelme": LABELME,
    "label_studio": LABEL_STUDIO,
    "cvat": CVAT,
    "masks": MASKS,
}
