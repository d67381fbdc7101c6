"""insa-mini's MVTec AD: `<product>/test/<defect>/NNN.png`, masks `ground_truth/<defect>/NNN_mask.png`.

Planted, as the release has them: a product of grey images (mode L); a class `combined` of two kinds of
defect under one label; a tail class, with a third of the others' images; sound parts for training and
testing; licence and read-me beside the products.
"""

from pathlib import Path

from unispector.data.mini.files import Files
from unispector.data.mini.instances import exact
from unispector.data.mini.layouts.layout import Drawn, Layout, Shot, classes_alone, write_text
from unispector.data.mini.render import RenderedImage


def _files(shot: Shot, picture: RenderedImage) -> Files:
    if not shot.defects:
        part = ("train", "test")[shot.index % 2]
        return [(f"{shot.product}/{part}/good/{shot.index // 2:03d}.png", picture.image)]
    place = f"{shot.defects[0]}/{shot.index:03d}"
    mask = f"{shot.product}/ground_truth/{place}_mask.png"
    return [(f"{shot.product}/test/{place}.png", picture.image), (mask, exact(picture.mask))]


def _finish(root: Path, drawn: list[Drawn]) -> None:
    write_text(root / "license.txt", "Drawn by this project and under its licence.\n")
    write_text(root / "readme.txt", f"{len(drawn)} drawn images in the layout of the MVTec AD release.\n")


MVTEC_AD = Layout("MVTec", classes_alone("MVTec"), _files, _finish, tail="color")
