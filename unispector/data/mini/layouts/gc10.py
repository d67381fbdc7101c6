"""insa-mini's GC10: `<1..10>/*.jpg`, a folder per dominant defect, and `lable/*.xml` in VOC format.

Planted, as the release has them: several defects on an image whose folder names one, holes and crescents
together with welding lines above all; the spelling `10_yaozhed`; an object named `d`; an image without XML;
an image in two folders, the same pixels with other metadata; an XML whose `filename` is another image's.
"""

from pathlib import Path
from xml.etree import ElementTree

from unispector.data.mini.files import Files
from unispector.data.mini.instances import Instance
from unispector.data.mini.layouts.layout import PLANTED, Drawn, Layout, Shot, classes_alone, write_text
from unispector.data.mini.render import RenderedImage

NO_XML = "no XML"
WITH_WELD = ("1_chongkong", "2_hanfeng")
COMBINATIONS = (WITH_WELD, ("3_yueyawan", "2_hanfeng"), ("4_shuiban", "5_youban", "7_yiwu"))
KINDS = (*classes_alone("GC10")[""], *COMBINATIONS)
FOREIGN_NAME = "img_01_0000000000_00000.jpg"
COMMENT = b"copied"


def _files(shot: Shot, picture: RenderedImage) -> Files:
    kind = KINDS.index(shot.defects) + 1
    stem = f"img_0{1 + shot.index % 8}_{4_400_000_000 + 1_000_000 * kind:010d}_{shot.index + 1:05d}"
    return [(f"{shot.defects[0].partition('_')[0]}/{stem}.jpg", picture.image)]


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for image in drawn:
        if image.shot.quirk != NO_XML:
            write_text(root / "lable" / f"{Path(image.file).stem}.xml", _voc(image))
        if image.shot.defects == WITH_WELD and image.shot.index == 0:
            # The same JPEG with a comment after its start marker.
            data = (root / image.file).read_bytes()
            segment = b"\xff\xfe" + (len(COMMENT) + 2).to_bytes(2, "big") + COMMENT
            (root / "2" / Path(image.file).name).write_bytes(data[:2] + segment + data[2:])


def _voc(image: Drawn) -> str:
    """The image's annotation; corners count from 1 and belong to the box."""
    odd = image.shot.defects if image.shot.index == 0 else ()
    root = ElementTree.Element("annotation")
    _leaves(root, filename=FOREIGN_NAME if odd == ("4_shuiban",) else Path(image.file).name)
    _leaves(ElementTree.SubElement(root, "size"), width=image.width, height=image.height, depth=1)
    named = [(instance.defect, instance) for instance in image.instances]
    if odd == ("10_yaozhe",):
        named[0] = ("10_yaozhed", image.instances[0])
    if odd == ("7_yiwu",):
        named.append(("d", image.instances[0]))
    for name, instance in named:
        _add_object(root, image, instance, name)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_object(root: ElementTree.Element, image: Drawn, instance: Instance, name: str) -> None:
    left, top, width, height = instance.box
    right, bottom = left + width, top + height
    cut_off = left == 0 or top == 0 or right == image.width or bottom == image.height
    item = ElementTree.SubElement(root, "object")
    _leaves(item, name=name, pose="Unspecified", truncated=int(cut_off), difficult=0)
    box = ElementTree.SubElement(item, "bndbox")
    _leaves(box, xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)


def _leaves(parent: ElementTree.Element, **texts: str | int) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


GC10 = Layout("GC10", {"": KINDS}, _files, _finish, (Shot("", ("6_siban",), PLANTED, NO_XML),), sound=False)
