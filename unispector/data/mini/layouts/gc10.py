"""insa-mini's GC10: `<1..10>/*.jpg`, a folder per dominant defect, and `lable/*.xml` in VOC format.

Planted, as the release has them: several defects on an image whose folder names one, holes and crescents
together with welding lines above all; the spelling `10_yaozhed`; an object named `d`; an image without
XML; an image in two folders, the same pixels with other metadata; an XML whose `filename` is another
image's.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import CLASSES
from unispector.data.mini.layouts.shots import (
    PLANTED,
    Drawn,
    Instance,
    Layout,
    Picture,
    Shot,
    save,
    shots_of,
    write_text,
)

FOLDER = "GC10"
XML_FOLDER = "lable"
NO_XML = "no XML"
WITH_WELD = ("1_chongkong", "2_hanfeng")
COMBINATIONS = (WITH_WELD, ("3_yueyawan", "2_hanfeng"), ("4_shuiban", "5_youban", "7_yiwu"))
KINDS = (*((name,) for name in CLASSES[FOLDER][""]), *COMBINATIONS)
FOREIGN_NAME = "img_01_0000000000_00000.jpg"
COMMENT = b"copied"


def _shots(config: MiniConfig) -> Iterator[Shot]:
    yield from shots_of("", KINDS, config.images_per_class)
    yield Shot("", ("6_siban",), PLANTED, NO_XML)


def _write(root: Path, shot: Shot, picture: Picture) -> str:
    kind = KINDS.index(shot.defects) + 1
    stem = f"img_0{1 + shot.index % 8}_{4_400_000_000 + 1_000_000 * kind:010d}_{shot.index + 1:05d}"
    file = f"{_number(shot.defects[0])}/{stem}.jpg"
    save(root / file, picture.image)
    return file


def _number(defect: str) -> str:
    return defect.partition("_")[0]


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for image in drawn:
        if image.shot.quirk != NO_XML:
            write_text(root / XML_FOLDER / f"{Path(image.file).stem}.xml", _voc(image))
        if image.shot.defects == WITH_WELD and image.shot.index == 0:
            _copy_with_comment(root / image.file, root / _number("2_hanfeng"))


def _voc(image: Drawn) -> str:
    """The image's annotation; corners count from 1 and belong to the box."""
    first = image.shot.index == 0
    root = ElementTree.Element("annotation")
    foreign = first and image.shot.defects == ("4_shuiban",)
    _leaves(root, filename=FOREIGN_NAME if foreign else Path(image.file).name)
    _leaves(ElementTree.SubElement(root, "size"), width=image.width, height=image.height, depth=1)
    for position, instance in enumerate(image.instances):
        misspelt = first and position == 0 and image.shot.defects == ("10_yaozhe",)
        _add_object(root, image, instance, "10_yaozhed" if misspelt else instance.defect)
    if first and image.shot.defects == ("7_yiwu",):
        _add_object(root, image, image.instances[0], "d")
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


def _copy_with_comment(image: Path, folder: Path) -> None:
    """The same JPEG with a comment after its start marker."""
    data = image.read_bytes()
    segment = b"\xff\xfe" + (len(COMMENT) + 2).to_bytes(2, "big") + COMMENT
    (folder / image.name).write_bytes(data[:2] + segment + data[2:])


GC10 = Layout(FOLDER, _shots, _write, _finish)
