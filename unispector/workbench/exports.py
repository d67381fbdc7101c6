"""What a session found and marked, as files for other programs."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch

from unispector.errors import DataError
from unispector.ops.drawing import draw_detections
from unispector.ops.files import atomic_path, atomic_write_text, read_image
from unispector.ops.rle import Rle, encode_crop
from unispector.structures import Detections
from unispector.workbench.findings import verdicts
from unispector.workbench.marks import Box
from unispector.workbench.pictures import jpeg
from unispector.workbench.project import Project

Kind = Literal["coco", "csv", "images", "bank"]

FILES: dict[Kind, str] = {
    "coco": "detections.json",
    "csv": "detections.csv",
    "images": "pictures.zip",
    "bank": "bank.safetensors",
}
"""Name of the file that each kind of export makes."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Region:
    """A marked region, or one that was found and not rejected."""

    label: str
    score: float  # of a mark 1
    box: Box
    mask: Rle
    origin: str  # found, drawn or accepted


@dataclass(frozen=True)
class ImageRegions:
    """One image's regions."""

    image: str
    hw: tuple[int, int]
    regions: list[Region]  # best first


def regions_of(project: Project, name: str) -> ImageRegions:
    """The marks of an image, and what was found there with at least its class's threshold.

    What was rejected is left out, and what was found again where a mark is.

    Raises:
        DataError: the image is gone or unreadable.
    """
    with project.lock:
        marks = [mark for mark in project.history.now.marks if mark.image == name]
        result, summary = project.results.whole(name), project.results.summary(name)
    if result is not None and result.trouble:
        raise DataError(result.trouble)
    least = project.thresholds()
    hw = result.hw if result and all(result.hw) else project.size(name)
    regions = [
        Region(mark.label, 1.0, mark.box, mark.mask or _box_mask(mark.box, hw), mark.origin)
        for mark in marks
        if not mark.negative
    ]
    if result is not None and summary is not None:
        for own, verdict in zip(result.findings, verdicts(summary, marks), strict=True):
            if verdict == 0 and own.score >= least.get(own.label, 1.0):
                regions.append(Region(own.label, own.score, own.box, own.mask, "found"))
    return ImageRegions(name, hw, sorted(regions, key=lambda region: -region.score))


def export(project: Project, kind: Kind, folder: Path, progress: Progress) -> Path:
    """Write one kind of export into a folder, atomically.

    Args:
        progress: called with images done and images in all.

    Raises:
        DataError: there is nothing to export, or an image cannot be read.
    """
    file = folder / FILES[kind]
    if kind == "bank":
        bank = project.bank
        if bank is None:
            raise DataError("no prompts yet; mark a defect first")
        bank.save(file)
    elif kind == "images":
        with atomic_path(file) as temporary, ZipFile(temporary, "w", ZIP_STORED) as archive:
            for own in _all(project, progress):
                pixels = read_image(project.folder.path(own.image))
                drawn = draw_detections(pixels, _as_detections(own, project.class_names()))
                archive.writestr(f"pictures/{own.image}.jpg", jpeg(drawn, 92))
    elif kind == "csv":
        atomic_write_text(file, _as_csv(_all(project, progress)))
    else:
        coco = _as_coco(list(_all(project, progress)), project.class_names())
        atomic_write_text(file, json.dumps(coco, indent=1) + "\n")
    return file


def _all(project: Project, progress: Progress) -> Iterator[ImageRegions]:
    """Every readable image of the folder."""
    names = list(project.folder.files)
    for done, name in enumerate(names):
        progress(done, len(names))
        try:
            own = regions_of(project, name)
        except DataError:  # shown in the page; the others are exported
            continue
        yield own
    progress(len(names), len(names))


def _box_mask(box: Box, hw: tuple[int, int]) -> Rle:
    left, top = int(box[0]), int(box[1])
    right, bottom = min(-int(-(box[0] + box[2]) // 1), hw[1]), min(-int(-(box[1] + box[3]) // 1), hw[0])
    crop = np.ones((max(bottom - top, 1), max(right - left, 1)), np.bool_)
    return encode_crop(crop, left, top, *hw)


def _as_detections(own: ImageRegions, names: tuple[str, ...]) -> Detections:
    boxes = [[b[0], b[1], b[0] + b[2], b[1] + b[3]] for b in (region.box for region in own.regions)]
    return Detections(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([region.score for region in own.regions], dtype=torch.float32),
        labels=torch.tensor([names.index(region.label) for region in own.regions], dtype=torch.int64),
        masks_rle=tuple(region.mask for region in own.regions),
        class_names=names,
        image_hw=own.hw,
    )


def _as_csv(images: Iterator[ImageRegions]) -> str:
    """A line for each region, and one with empty fields for an image without any."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        ["image", "label", "score", "left", "top", "width", "height", "origin", "image_width", "image_height"]
    )
    for own in images:
        size = [own.hw[1], own.hw[0]]
        for region in own.regions:
            writer.writerow([own.image, region.label, region.score, *region.box, region.origin, *size])
        if not own.regions:
            writer.writerow([own.image, *[""] * 7, *size])
    return table.getvalue()


def _as_coco(images: list[ImageRegions], names: tuple[str, ...]) -> dict[str, object]:
    """COCO's layout; ids count from 1, `origin` says where a region comes from."""
    regions = [(number, region) for number, own in enumerate(images, 1) for region in own.regions]
    return {
        "info": {"description": "UniSpector, inspection bench"},
        "images": [
            {"id": number, "file_name": own.image, "width": own.hw[1], "height": own.hw[0]}
            for number, own in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": names.index(region.label) + 1,
                "bbox": list(region.box),
                "area": round(region.box[2] * region.box[3], 2),
                "segmentation": region.mask,
                "iscrowd": 0,
                "score": region.score,
                "origin": region.origin,
            }
            for number, (image, region) in enumerate(regions, 1)
        ],
    }
