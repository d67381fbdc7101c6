"""insa-mini's VISION: `<Product>/{train,val,inference}/NNNNNN.jpg` and a `_annotations.coco.json` in each.

Planted, as the release has them: category ids that start at 0 in every product; images of two classes; a
box that exceeds its image; an inference split without annotations; resource forks of macOS (`._*`).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unispector.config import MiniConfig
from unispector.data.mini.layouts.classes import CLASSES
from unispector.data.mini.layouts.shots import (
    PLANTED,
    Drawn,
    Layout,
    Picture,
    Shot,
    cross_domain_images,
    save,
    shots_of,
)

FOLDER = "VISION"
UNLABELLED = "inference"
SPLITS = ("train", "val", UNLABELLED)
ANNOTATIONS = "_annotations.coco.json"
INFERENCE_IMAGES = 2
RESOURCE_FORK = bytes.fromhex("00051607 00020000") + b"Mac OS X        "


def _kinds(product: str) -> list[tuple[str, ...]]:
    """Every class alone, then all together."""
    names = tuple(CLASSES[FOLDER][product])
    return [*((name,) for name in names), names]


def _shots(config: MiniConfig) -> Iterator[Shot]:
    for product, defects in CLASSES[FOLDER].items():
        yield from shots_of(product, _kinds(product), cross_domain_images(config))
        for index in range(INFERENCE_IMAGES):
            yield Shot(product, (list(defects)[index % len(defects)],), PLANTED + index, UNLABELLED)


def _write(root: Path, shot: Shot, picture: Picture) -> str:
    kinds = _kinds(shot.product)
    number = shot.index % PLANTED * len(kinds) + kinds.index(shot.defects) + 1
    part = UNLABELLED if shot.quirk else ("train", "val")[shot.index % 2]
    file = f"{shot.product}/{part}/{number:06d}.jpg"
    save(root / file, picture.image)
    return file


def _finish(root: Path, drawn: list[Drawn]) -> None:
    for product in CLASSES[FOLDER]:
        for part in SPLITS:
            folder = f"{product}/{part}"
            images = [image for image in drawn if image.file.startswith(f"{folder}/")]
            if images:
                fork = root / folder / f"._{Path(images[0].file).name}"
                fork.write_bytes(RESOURCE_FORK)
                content = _coco(product, images, labelled=part != UNLABELLED)
                (root / folder / ANNOTATIONS).write_text(json.dumps(content) + "\n", encoding="utf-8")


def _coco(product: str, drawn: list[Drawn], *, labelled: bool) -> dict[str, Any]:
    """The annotation file of one folder; all its ids start at 0."""
    ids = {name: id_ for id_, name in enumerate(CLASSES[FOLDER][product])}
    pairs = [(id_, image, one) for id_, image in enumerate(drawn) if labelled for one in image.instances]
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


VISION = Layout(FOLDER, _shots, _write, _finish)
