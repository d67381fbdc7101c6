"""insa-mini's VISION: `<Product>/{train,val,inference}/NNNNNN.jpg` and a `_annotations.coco.json` in each.

Planted, as the release has them: category ids that start at 0 in every product; images of two classes; a
box that exceeds its image; an inference split without annotations; resource forks of macOS (`._*`).
"""

import json
from pathlib import Path
from typing import Any

from unispector.data.mini.files import Files
from unispector.data.mini.layouts.layout import PLANTED, Drawn, Layout, Shot, write_text
from unispector.data.mini.layouts.products import CLASSES
from unispector.data.mini.render import RenderedImage

UNLABELLED = "inference"
RESOURCE_FORK = bytes.fromhex("00051607 00020000") + b"Mac OS X        "
# Every class alone, then all together.
KINDS = {name: [*((one,) for one in names), tuple(names)] for name, names in CLASSES["VISION"].items()}
ODD = tuple(Shot(name, KINDS[name][i], PLANTED + i, UNLABELLED) for name in KINDS for i in range(2))


def _files(shot: Shot, picture: RenderedImage) -> Files:
    kinds = KINDS[shot.product]
    number = shot.index % PLANTED * len(kinds) + kinds.index(shot.defects) + 1
    part = shot.quirk or ("train", "val")[shot.index % 2]
    return [(f"{shot.product}/{part}/{number:06d}.jpg", picture.image)]


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for folder in sorted({Path(image.file).parent for image in drawn}):
        images = [image for image in drawn if Path(image.file).parent == folder]
        (root / folder / f"._{Path(images[0].file).name}").write_bytes(RESOURCE_FORK)
        write_text(root / folder / "_annotations.coco.json", json.dumps(_coco(images)) + "\n")


def _coco(drawn: list[Drawn]) -> dict[str, Any]:
    """The annotation file of one folder; all its ids start at 0."""
    product = drawn[0].shot.product
    ids = {name: id_ for id_, name in enumerate(CLASSES["VISION"][product])}
    labelled = ((id_, image) for id_, image in enumerate(drawn) if not image.shot.quirk)
    pairs = ((id_, image, instance) for id_, image in labelled for instance in image.instances)
    annotations = [
        {
            "id": id_,
            "image_id": image_id,
            "category_id": ids[instance.defect],
            "bbox": _beyond(image) if id_ == 0 else list(instance.box),
            "segmentation": [list(instance.outline)],
            "area": instance.box[2] * instance.box[3],
            "iscrowd": 0,
        }
        for id_, (image_id, image, instance) in enumerate(pairs)
    ]
    return {
        "info": {"description": f"drawn images in the layout of VISION, {product}"},
        "images": [
            {"id": id_, "file_name": Path(image.file).name, "width": image.width, "height": image.height}
            for id_, image in enumerate(drawn)
        ],
        "annotations": annotations,
        "categories": [{"id": id_, "name": name, "supercategory": product} for name, id_ in ids.items()],
    }


def _beyond(image: Drawn) -> list[int]:
    """The box of the image's first instance, drawn on past the right border."""
    left, top, _, height = image.instances[0].box
    return [left, top, image.width - left + 1, height]


VISION = Layout("VISION", KINDS, _files, _finish, ODD, sound=False, cross_domain=True)
