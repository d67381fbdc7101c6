"""insa-mini in the native layouts of the seven releases: one module per layout, their quirks included."""

from unispector.data.mini.layouts.gc10 import GC10
from unispector.data.mini.layouts.magnetic_tile import MAGNETIC_TILE
from unispector.data.mini.layouts.mvtec_ad import MVTEC_AD
from unispector.data.mini.layouts.real_iad import REAL_IAD
from unispector.data.mini.layouts.three_cad import THREE_CAD
from unispector.data.mini.layouts.visa import VISA
from unispector.data.mini.layouts.vision import VISION

__all__ = ["LAYOUTS"]

LAYOUTS = (GC10, MAGNETIC_TILE, REAL_IAD, MVTEC_AD, THREE_CAD, VISION, VISA)
