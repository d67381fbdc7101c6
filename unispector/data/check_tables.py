"""The tables that `expectations` judges: one row per image, instance or class, columns of equal length.

What is in a column is computed anew, from files and masks, not taken over from the step under check.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.data.split_tree import BenchmarkSet, SplitTree, TestPair
from unispector.errors import DataError
from unispector.ops.files import read_image
from unispector.ops.rle import segmentation_to_mask

Row = dict[str, Any]


def image_rows(annotations: Annotations, root: Path) -> list[Row]:
    """One row per image, opened from disk.

    Args:
        annotations: the set.
        root: folder its file names are relative to.

    Returns:
        Rows with `where` (the file), `id`, `width`, `height`, `file_width`, `file_height` (as stated
        where the file does not open), `problem` (empty where it does) and `instances`.
    """
    return [_image_row(annotations, image, root) for image in annotations.images]


def _image_row(annotations: Annotations, image: ImageRecord, root: Path) -> Row:
    height, width, problem = image.height, image.width, ""
    try:
        height, width = read_image(root / image.file_name).shape[:2]
    except DataError as error:
        problem = str(error)
    return {
        "where": image.file_name,
        "id": image.id,
        "width": image.width,
        "height": image.height,
        "file_width": width,
        "file_height": height,
        "problem": problem,
        "instances": len(annotations.instances_of(image.id)),
    }


def instance_rows(annotations: Annotations) -> list[Row]:
    """One row per instance with its mask's own measures.

    Returns:
        Rows with `where` (the image's file), `id`, the box's `left`, `top`, `right`, `bottom`, the
        image's `width` and `height`, the box's `width_share` and `height_share` of it, `area`, the
        same measures of the decoded mask (`mask_left`, ..., `mask_area`; the box's where there is no
        mask) and `problem` (empty where the mask decodes and marks something).
    """
    images = {image.id: image for image in annotations.images}
    return [_instance_row(instance, images[instance.image_id]) for instance in annotations.instances]


def _instance_row(instance: InstanceRecord, image: ImageRecord) -> Row:
    x, y, width, height = instance.bbox
    edges = [x, y, x + width, y + height]
    mask_edges, mask_area, problem = edges, instance.area, ""
    if instance.segmentation is not None:
        try:
            mask = segmentation_to_mask(instance.segmentation, image.height, image.width)
        except DataError as error:
            problem = str(error)
        else:
            ys, xs = np.nonzero(mask)
            if len(xs):
                mask_edges = [float(edge) for edge in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
                mask_area = float(len(xs))
            else:
                problem = "mask marks no pixel"
    names = ("left", "top", "right", "bottom")
    return {
        "where": f"{image.file_name} (annotation {instance.id})",
        "id": instance.id,
        **dict(zip(names, edges, strict=True)),
        "width": image.width,
        "height": image.height,
        "width_share": width / image.width,
        "height_share": height / image.height,
        "area": instance.area,
        **{f"mask_{name}": edge for name, edge in zip(names, mask_edges, strict=True)},
        "mask_area": mask_area,
        "problem": problem,
    }


@dataclass(frozen=True)
class SplitTables:
    """What the split files hold, looked up in the sets' own files.

    Attributes:
        training: a row per training image: `where`, `known` (1 = the set has it), `unseen_classes` it
            shows, `instances` listed, `set_instances` of it in the set's file.
        testing: a row per image of a prompt or target file: `where`, `known`, `prompt_classes` (classes it
            shows in all if it is a prompt image, else 1), `in_other` (1 = also in the pair's other file),
            `in_training`, `prompted_classes` it shows, `instances` and `set_instances` of those.
        classes: a row per class of a prompt and target pair: `where`, `trained` (1 = a seen class of the
            same seed though it is tested as unseen), `prompt_images` and `target_images` that show it.
    """

    training: list[Row]
    testing: list[Row]
    classes: list[Row]


def split_tables(
    sets: Sequence[BenchmarkSet], tree: SplitTree, split_seeds: Sequence[int], prompt_seeds: Sequence[int]
) -> SplitTables:
    """Read all split files back into tables.

    Raises:
        DataError: a file is missing or malformed.
    """
    tables = SplitTables([], [], [])
    inside = [_Lookup(member) for member in sets if member.domain == "in"]
    for seed in split_seeds:
        training = Annotations.read(tree.training(seed))
        unseen = {lookup.name: _unseen_of(tree, lookup.name, seed, prompt_seeds) for lookup in inside}
        trained_files = {image.file_name for image in training.images}
        trained_classes = set(training.class_names)
        tables.training.extend(_training_rows(tree.training(seed).name, training, inside, unseen))
        for lookup in inside:
            for pair in _pairs(tree, lookup.name, seed, prompt_seeds):
                _add_pair(tables, lookup, pair, trained_files, trained_classes)
    for member in sets:
        if member.domain == "cross":
            for prompt_seed in prompt_seeds:
                _add_pair(tables, _Lookup(member), tree.cross_domain(member.name, prompt_seed), set(), set())
    return tables


class _Lookup:
    """A set's own annotations by file name: the truth the split files are compared with."""

    def __init__(self, member: BenchmarkSet) -> None:
        self.name, self.folder = member.name, member.folder
        names = {category.id: category.name for category in member.annotations.categories}
        self.classes: dict[str, list[str]] = {
            image.file_name: [names[item.category_id] for item in member.annotations.instances_of(image.id)]
            for image in member.annotations.images
        }


def _pairs(tree: SplitTree, name: str, seed: int, prompt_seeds: Sequence[int]) -> Iterator[TestPair]:
    for prompt_seed in prompt_seeds:
        yield tree.in_domain(name, "unseen", seed, prompt_seed)
        seen = tree.in_domain(name, "seen", seed, prompt_seed)
        if seen.prompt.exists():  # there is none where too few images are kept for it
            yield seen


def _unseen_of(tree: SplitTree, name: str, seed: int, prompt_seeds: Sequence[int]) -> set[str]:
    pairs = (tree.in_domain(name, "unseen", seed, prompt_seed) for prompt_seed in prompt_seeds)
    return {class_name for pair in pairs for class_name in Annotations.read(pair.prompt).class_names}


def _training_rows(
    file: str, training: Annotations, inside: Sequence[_Lookup], unseen: Mapping[str, set[str]]
) -> Iterator[Row]:
    owner = {f"{lookup.folder}/{name}": (lookup, name) for lookup in inside for name in lookup.classes}
    for image in training.images:
        lookup, name = owner.get(image.file_name, (None, ""))
        shown = lookup.classes[name] if lookup else []
        yield {
            "where": f"{file}: {image.file_name}",
            "known": int(lookup is not None),
            "unseen_classes": len(set(shown) & unseen[lookup.name]) if lookup else 0,
            "instances": len(training.instances_of(image.id)),
            "set_instances": len(shown),
        }


def _add_pair(
    tables: SplitTables, lookup: _Lookup, pair: TestPair, trained_files: set[str], trained_classes: set[str]
) -> None:
    prompt, target = Annotations.read(pair.prompt), Annotations.read(pair.target)
    prompt_files, target_files = ({image.file_name for image in part.images} for part in (prompt, target))
    for role, part, other in (("prompt", prompt, target_files), ("target", target, prompt_files)):
        for image in part.images:
            shown = lookup.classes.get(image.file_name, [])
            prompted = [name for name in shown if name in part.class_names]
            tables.testing.append(
                {
                    "where": f"{role}/{pair.prompt.name}: {image.file_name}",
                    "known": int(image.file_name in lookup.classes),
                    "prompt_classes": len(set(shown)) if role == "prompt" else 1,
                    "in_other": int(image.file_name in other),
                    "in_training": int(f"{lookup.folder}/{image.file_name}" in trained_files),
                    "prompted_classes": len(set(prompted)),
                    "instances": len(part.instances_of(image.id)),
                    "set_instances": len(prompted),
                }
            )
    for class_name in sorted({*prompt.class_names, *target.class_names}):
        trained = f"{lookup.name}/{class_name}" in trained_classes
        tables.classes.append(
            {
                "where": f"{pair.prompt.name}: class {class_name}",
                "trained": int(trained and pair.part == "unseen"),
                "prompt_images": _images_showing(prompt, class_name),
                "target_images": _images_showing(target, class_name),
            }
        )


def _images_showing(annotations: Annotations, class_name: str) -> int:
    ids = {category.id for category in annotations.categories if category.name == class_name}
    return len({instance.image_id for instance in annotations.instances if instance.category_id in ids})
