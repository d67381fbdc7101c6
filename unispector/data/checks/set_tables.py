"""A set as the tables that `expectations` judges: one row per image, instance, ...; `where` names the row.

What is in a column is computed anew, from masks and the survey, not taken over from the conversion. No image
is opened.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.errors import DataError
from unispector.ops.rle import segmentation_to_rle

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]


def image_table(annotations: Annotations, survey: "pd.DataFrame") -> "pd.DataFrame":
    """One row per image with what the survey found in its file.

    Returns columns `where` and `file` (the file), `id`, `width`, `height`, `surveys` (rows of the survey),
    `problem`, `file_width`, `file_height`, `dhash` and `mask_difference` of the first of them, `instances`,
    and `mask_share`, the share of the image that its masks cover. Where there is no row, or the file could
    not be decoded, size and hash are made to fit: that fault is reported once.
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
            "mask_share": [
                _mask_share(image, annotations.instances_of(image.id)) for image in annotations.images
            ],
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


def _mask_share(image: ImageRecord, instances: Sequence[InstanceRecord]) -> float:
    """Share of an image that masks cover; rectangles of boxes, which nobody painted, are none."""
    codes = []
    for instance in instances:
        if isinstance(instance.segmentation, dict):
            with suppress(DataError):  # told by `instance_table`
                codes.append(segmentation_to_rle(instance.segmentation, image.height, image.width))
    return float(coco_mask.area(coco_mask.merge(codes))) / (image.width * image.height) if codes else 0.0


def _measure_masks(
    instances: Sequence[InstanceRecord], owners: Sequence[ImageRecord]
) -> tuple[Floats, Floats, list[str]]:
    """Edges [n, 4] and areas [n] of the masks, NaN where there is none, and what is wrong with each."""
    problems, places, codes = [""] * len(instances), [], []
    for place, (instance, image) in enumerate(zip(instances, owners, strict=True)):
        if instance.segmentation is None:
            continue
        try:
            codes.append(segmentation_to_rle(instance.segmentation, image.height, image.width))
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
