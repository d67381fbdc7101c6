"""A set as the tables that `expectations` judges: one row per image, instance, ...; `where` names the row.

What is in a column is computed anew, from masks and the survey, not taken over from the conversion. No image
is opened.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.ops.rle import Rle, encode_rle, segmentation_to_mask

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]


def image_table(annotations: Annotations, survey: "pd.DataFrame") -> "pd.DataFrame":
    """One row per image with what the survey found in its file.

    Args:
        annotations: the set.
        survey: its survey (see `unispector.data.survey`).

    Returns:
        Columns `where` and `file` (the file), `id`, `width`, `height`, `surveys` (rows of the survey),
        `problem`, `file_width`, `file_height`, `dhash` and `mask_difference` of the first of them, and
        `instances`. Where there is none, or it could not be decoded, size and hash are made to fit: that
        fault is told once.
    """
    import pandas as pd

    files = [image.file_name for image in annotations.images]
    table = pd.DataFrame(
        {
            "where": files,
            "file": files,
            "id": [image.id for image in annotations.images],
            "width": [image.width for image in annotations.images],
            "height": [image.height for image in annotations.images],
            "instances": [len(annotations.instances_of(image.id)) for image in annotations.images],
        }
    )
    found = survey.drop_duplicates("file_name").set_index("file_name").reindex(files)
    found.index = table.index
    table["surveys"] = survey["file_name"].value_counts().reindex(files, fill_value=0).to_numpy()
    table["problem"] = found["problem"].fillna("")
    table["mask_difference"] = found["mask_difference"].fillna(0)
    decoded = (table["surveys"] > 0) & (table["problem"] == "")
    table["file_width"] = found["width"].where(decoded, table["width"])
    table["file_height"] = found["height"].where(decoded, table["height"])
    table["dhash"] = found["dhash"].where(decoded, "0" * 64)
    return table


def survey_table(annotations: Annotations, survey: "pd.DataFrame") -> "pd.DataFrame":
    """One row per row of the survey: `where` (the file) and `listed` (1 = an image of the set)."""
    import pandas as pd

    listed = survey["file_name"].isin({image.file_name for image in annotations.images})
    return pd.DataFrame({"where": survey["file_name"], "listed": listed.astype(int)})


def category_table(annotations: Annotations, categories: Collection[str]) -> "pd.DataFrame":
    """One row per category: `where` and `listed` (1 = on the release's list, in whatever case)."""
    import pandas as pd

    known = {category.casefold() for category in categories}
    names = annotations.class_names
    return pd.DataFrame(
        {
            "where": [f"category {name}" for name in names],
            "listed": [int(name.casefold() in known) for name in names],
        }
    )


def instance_table(annotations: Annotations) -> "pd.DataFrame":
    """One row per instance with its mask's own measures.

    Returns:
        Columns `where` (the image's file), `id`, the box's `left`, `top`, `right`, `bottom`, its image's
        `image_width` and `image_height`, the box's `width_share` and `height_share` of them, `area`, the
        same measures of the mask (`mask_left`, ..., `mask_area`) and `problem` (empty where the mask
        decodes and marks something). Where there is no mask its measures are the box's. A polygon's are too
        where they differ by no more than its rasterising: a pixel per edge.
    """
    import pandas as pd

    images = {image.id: image for image in annotations.images}
    owners = [images[instance.image_id] for instance in annotations.instances]
    boxes = np.array([instance.bbox for instance in annotations.instances], dtype=np.float64).reshape(-1, 4)
    sizes = np.array([(image.width, image.height) for image in owners], dtype=np.float64).reshape(-1, 2)
    areas = np.array([instance.area for instance in annotations.instances], dtype=np.float64)
    edges = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    mask_edges, mask_areas, problems = _measure_masks(annotations.instances, owners)

    unknown = np.array([bool(problem) for problem in problems]) | np.isnan(mask_areas)
    polygons = np.array([isinstance(instance.segmentation, list) for instance in annotations.instances])
    taken_over = unknown | (polygons & (np.abs(mask_areas - areas) <= boxes[:, 2:].sum(axis=1) + 1))
    mask_areas = np.where(taken_over, areas, mask_areas)
    taken_over = unknown[:, None] | (polygons[:, None] & (np.abs(mask_edges - edges) <= 1))
    mask_edges = np.where(taken_over, edges, mask_edges)

    names = ("left", "top", "right", "bottom")
    pairs = zip(owners, annotations.instances, strict=True)
    return pd.DataFrame(
        {
            "where": [f"{image.file_name} (annotation {instance.id})" for image, instance in pairs],
            "id": [instance.id for instance in annotations.instances],
            **dict(zip(names, edges.T, strict=True)),
            "image_width": sizes[:, 0],
            "image_height": sizes[:, 1],
            "width_share": boxes[:, 2] / sizes[:, 0],
            "height_share": boxes[:, 3] / sizes[:, 1],
            "area": areas,
            **{f"mask_{name}": column for name, column in zip(names, mask_edges.T, strict=True)},
            "mask_area": mask_areas,
            "problem": problems,
        }
    )


def _measure_masks(
    instances: Sequence[InstanceRecord], owners: Sequence[ImageRecord]
) -> tuple[Floats, Floats, list[str]]:
    """Edges [n, 4] and areas [n] of the masks, NaN where there is none, and what is wrong with each."""
    problems, places, codes = [""] * len(instances), [], []
    for place, (instance, image) in enumerate(zip(instances, owners, strict=True)):
        if instance.segmentation is None:
            continue
        try:
            codes.append(_code(instance, image))
            places.append(place)
        except DataError as error:
            problems[place] = str(error)
    edges, areas = np.full((len(instances), 4), np.nan), np.full(len(instances), np.nan)
    if codes:
        found = np.asarray(coco_mask.toBbox(codes))
        edges[places] = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
        areas[places] = [coco_mask.area(code) for code in codes]  # area() refuses lists of over 255
    for place in np.flatnonzero(areas == 0).tolist():
        problems[place] = "mask marks no pixel"
    return edges, areas, problems


def _code(instance: InstanceRecord, image: ImageRecord) -> Rle:
    """A code of the image's size that pycocotools can be trusted with: it does not check any itself."""
    code, size = instance.segmentation, [image.height, image.width]
    if isinstance(code, dict) and code["size"] == size and _fills(code["counts"], image.height * image.width):
        return code
    if isinstance(code, list) and _inside(code, image):
        merged: Rle = coco_mask.merge(coco_mask.frPyObjects(code, *size))
        return merged
    return encode_rle(segmentation_to_mask(code or [], image.height, image.width)[None])[0]


def _fills(counts: object, pixels: int) -> bool:
    """Whether a compressed code is well-formed and its runs make up an image, without decoding it."""
    if not isinstance(counts, str) or not counts.isascii():
        return False
    chars = np.frombuffer(counts.encode(), dtype=np.uint8) - np.uint8(48)  # below "0" wraps to over 63
    last = np.flatnonzero(chars < 32)  # base-32 digits, least first; all but a number's last have 32 added
    if len(last) == 0 or last[-1] != len(chars) - 1 or chars.max() > 63:
        return False
    first = np.concatenate(([0], last[:-1] + 1))
    place = np.arange(len(chars)) - np.repeat(first, last - first + 1)
    if place.max() > 6:
        return False
    runs = np.add.reduceat((chars & 31).astype(np.int64) << (5 * place), first)
    runs -= np.where(chars[last] & 16, np.int64(32) << (5 * place[last]), 0)
    runs[1::2] = runs[1::2].cumsum()  # from the fourth on, a run is stored as the difference
    runs[2::2] = runs[2::2].cumsum()  # to the run two places before it
    return bool(runs.min() >= 0 and runs.max() <= pixels and runs.sum() == pixels)


def _inside(polygons: Sequence[Sequence[float]], image: ImageRecord) -> bool:
    """Whether polygons are well-formed and near enough to the image to be drawn."""
    reach = 2.0 * max(image.width, image.height)
    return bool(polygons) and all(
        len(points) >= 6 and len(points) % 2 == 0 and -reach <= min(points) and max(points) <= reach
        for points in polygons
    )
