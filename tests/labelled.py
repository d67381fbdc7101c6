"""Annotations for splits: images that show classes, and a set that trains beside one that does not."""

from collections.abc import Sequence

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import BenchmarkSet


def labelled(images: Sequence[Sequence[str]], names: Sequence[str] | None = None) -> Annotations:
    """A set whose n-th image (n.png, id n, from 1) shows the n-th classes, one instance each."""
    names = sorted({name for image in images for name in image}) if names is None else names
    ids = {name: position for position, name in enumerate(names, start=1)}
    shown = [(image_id, ids[name]) for image_id, image in enumerate(images, start=1) for name in image]
    box = (1.0, 1.0, 2.0, 2.0)
    return Annotations(
        tuple(ImageRecord(n, f"{n}.png", 9, 9) for n in range(1, len(images) + 1)),
        tuple(InstanceRecord(n, *pair, box, 4.0, None) for n, pair in enumerate(shown, start=1)),
        tuple(CategoryRecord(id_, name, "p") for name, id_ in ids.items()),
    )


FOUR_CLASSES = [[f"c{1 + position // 12}"] for position in range(48)]
"""Twelve images of each of four classes."""


def two_sets(images: Sequence[Sequence[str]]) -> list[BenchmarkSet]:
    """`In`, which trains, and `Out`, which does not, of the same images."""
    annotations = labelled(images)
    return [
        BenchmarkSet("In", "raw/in", "in", annotations),
        BenchmarkSet("Out", "raw/out", "cross", annotations),
    ]
