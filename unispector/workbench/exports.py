"""What a session found and marked, as files for other programs."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal
from zipfile import ZIP_DEFLATED, ZipFile

import torch

from unispector.detections import Detections, Json
from unispector.errors import DataError
from unispector.ops.drawing import draw_regions
from unispector.ops.files import atomic_path, atomic_write_text
from unispector.ops.images import as_pixels
from unispector.ops.rle import Rle
from unispector.workbench.findings import verdicts
from unispector.workbench.marks import Box
from unispector.workbench.pictures import jpeg
from unispector.workbench.project import Project

Kind = Literal["coco", "csv", "yolo", "labelme", "images", "bank"]

FILES: dict[Kind, str] = {
    "coco": "detections.json",
    "csv": "detections.csv",
    "yolo": "yolo.zip",
    "labelme": "labelme.zip",
    "images": "pictures.zip",
    "bank": "bank.safetensors",
}
"""Name of the file that each kind of export makes."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Region:
    """A marked region, or one that was found and not rejected."""

    label: str
    score: float | None  # None of a mark: nobody scored it
    box: Box
    mask: Rle | None  # None of a drawn box
    origin: str  # found, drawn or accepted


@dataclass(frozen=True)
class ImageRegions:
    """One image's regions."""

    image: str
    hw: tuple[int, int]
    regions: list[Region]  # marks, then findings, the best first


def regions_of(project: Project, name: str) -> ImageRegions:
    """The marks of an image, and what was found there with at least its class's threshold.

    What was rejected is left out, and what was found again where a mark is.

    Raises:
        DataError: the image is gone or unreadable.
    """
    with project.lock:
        marks = [mark for mark in project.used_marks() if mark.image == name]
        result, summary = project.results.whole(name), project.results.summary(name)
    if result is not None and result.trouble:
        raise DataError(result.trouble)
    least = project.thresholds()
    hw = project.size(name)
    if result is not None and result.hw != hw:
        result = None  # of the file that was there before
    regions = [
        Region(mark.label, None, mark.box, mark.mask, mark.origin) for mark in marks if not mark.negative
    ]
    if result is not None and summary is not None:
        for own, verdict in zip(result.findings, verdicts(summary, marks), strict=True):
            if verdict == 0 and own.score >= least.get(own.label, 1.0):
                regions.append(Region(own.label, own.score, own.box, own.mask, "found"))
    return ImageRegions(name, hw, sorted(regions, key=_rank, reverse=True))


def export(project: Project, kind: Kind, folder: Path, progress: Progress) -> Path:
    """Write one kind of export into a folder, atomically.

    Args:
        progress: called with images done and images in all.

    Raises:
        DataError: there is nothing to export, or an image cannot be read.
    """
    file = folder / FILES[kind]
    if kind == "bank":
        bank = project.bank_to_keep()
        if bank is None:
            raise DataError("no prompts yet; mark a defect first")
        bank.save(file)
    elif kind in ("images", "yolo", "labelme"):
        with atomic_path(file) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as archive:
            for name, content in _entries(project, kind, progress):
                archive.writestr(name, content)
    elif kind == "csv":
        atomic_write_text(file, _as_csv(_all(project, progress)))
    else:
        coco = _as_coco(_all(project, progress), project.class_names())
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


def _rank(region: Region) -> float:
    return 1.0 if region.score is None else region.score


def _as_detections(own: ImageRegions, names: tuple[str, ...]) -> Detections:
    """The regions with an empty mask where there is only a box, and 1 where there is no score."""
    height, width = own.hw
    empty: Rle = {"size": [height, width], "counts": [height * width]}
    boxes = [[b[0], b[1], b[0] + b[2], b[1] + b[3]] for b in (region.box for region in own.regions)]
    return Detections(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([_rank(region) for region in own.regions], dtype=torch.float32),
        labels=torch.tensor([names.index(region.label) for region in own.regions], dtype=torch.int64),
        masks_rle=tuple(region.mask or empty for region in own.regions),
        class_names=names,
        image_hw=own.hw,
    )


def _as_csv(images: Iterator[ImageRegions]) -> str:
    """A line for each region, of a mark without a score; one with empty fields for an image without any."""
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


def _as_coco(images: Iterable[ImageRegions], names: tuple[str, ...]) -> Json:
    """COCO's layout; `origin` says where a region comes from.

    A mark has no score, and a drawn box no segmentation.
    """
    whole: Json = {
        "info": {"description": "UniSpector, inspection bench"},
        "images": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [],
    }
    for number, own in enumerate(images, 1):
        one = _as_detections(own, names).to_coco(number, own.image, len(whole["annotations"]) + 1)
        whole["images"] += one["images"]
        for annotation, region in zip(one["annotations"], own.regions, strict=True):
            if region.score is None:
                del annotation["score"]
            if region.mask is None:
                annotation["segmentation"] = []
            whole["annotations"].append({**annotation, "origin": region.origin})
    return whole


def _as_labelme(own: ImageRegions, names: tuple[str, ...]) -> Json:
    """LabelMe's layout: a drawn box is a rectangle, anything else a mask."""
    content = _as_detections(own, names).to_labelme(PurePosixPath(own.image).name)
    for shape, region in zip(content["shapes"], own.regions, strict=True):
        if region.score is None:
            shape["description"] = "marked"
            del shape["score"]
    return content


def _drawn(own: ImageRegions, names: tuple[str, ...], path: Path, bit_depth: int) -> bytes:
    """The image as a JPEG with the regions drawn on it, the best on top."""
    shapes = [
        shape if region.score is not None else replace(shape, caption=f"{region.label} marked")
        for shape, region in zip(_as_detections(own, names).regions(), reversed(own.regions), strict=True)
    ]
    pixels = as_pixels(path, bit_depth)
    if pixels.shape[:2] != own.hw:
        raise DataError(f"{own.image}: has changed meanwhile; export again")
    return jpeg(draw_regions(pixels, shapes), 92)


def _entries(project: Project, kind: Kind, progress: Progress) -> Iterator[tuple[str, bytes | str]]:
    """Names and contents of an archive's files."""
    names, files = project.class_names(), project.folder.files
    stems = Counter(_stem(name) for name in files)
    if kind == "yolo":
        yield "classes.txt", "".join(f"{name}\n" for name in names)
    for own in _all(project, progress):
        # Of two images that only their suffixes tell apart, the suffix stays.
        stem = _stem(own.image)
        name = stem if stems[stem] == 1 and stem not in files else own.image
        if kind == "yolo":
            yield f"labels/{name}.txt", _as_detections(own, names).to_yolo()
        elif kind == "labelme":
            yield f"{name}.json", json.dumps(_as_labelme(own, names), indent=1) + "\n"
        else:
            path = project.folder.path(own.image)
            yield f"pictures/{name}.jpg", _drawn(own, names, path, project.bit_depth)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
