"""`unispector export`: what `detect` found, written for labelling tools."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

import torch

from unispector.detections import Detections, Shape, cvat_file, label_studio_config
from unispector.errors import DataError
from unispector.names import is_text, name_problem
from unispector.ops.files import atomic_write_text, replaced_folder
from unispector.ops.json_text import parse_json
from unispector.ops.rle import decode_rle
from unispector.scores import DEFAULT_SCORE

Tool = Literal["label_studio", "cvat", "labelme", "yolo"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its LOCAL_FILES_DOCUMENT_ROOT."""


@dataclass(frozen=True)
class FoundImage:
    """An image and what was found on it."""

    path: str  # as `detections.json` calls it
    found: Detections


def export(
    record: Path,
    tool: Tool,
    out: Path,
    *,
    shape: Shape = "mask",
    min_score: float = DEFAULT_SCORE,
    address: str = LOCAL_FILES,
) -> list[FoundImage]:
    """Write the detections of a `detections.json` as pre-annotations.

    Args:
        record: a COCO file whose annotations have scores.
        out: folder to write to; it must be empty or not there.
        shape: what a detection becomes; LabelMe always gets masks.
        min_score: detections that score less are left out.
        address: what Label Studio's address of an image begins with; its path follows.

    Returns:
        The images, with the detections that were written.

    Raises:
        DataError: the record cannot be used, or the folder is not empty or cannot be written.
    """
    images = [FoundImage(each.path, each.found.above(min_score)) for each in read_record(record)]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: holds something already; give a folder that is empty or new")
    names = _short_names([each.path for each in images])
    if tool != "label_studio":
        _refuse_doubles(
            record, images, [_stem(name) if tool in ("labelme", "yolo") else name for name in names]
        )
    try:
        with replaced_folder(out) as folder:
            for file, text in _files(tool, images, names, out, shape=shape, address=address).items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                atomic_write_text(folder / file, text)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}); check permissions and space"
        ) from error
    return images


def _files(
    tool: Tool, images: Sequence[FoundImage], names: Sequence[str], out: Path, *, shape: Shape, address: str
) -> dict[str, str]:
    """Name and content of the files a tool reads."""
    classes = images[0].found.class_names
    named = list(zip(names, images, strict=True))
    if tool == "label_studio":
        # In a query a name may not hold & or #; object stores and servers of files know it as it is.
        said = [address + (quote(name) if "?" in address else name) for name in names]
        tasks = [each.found.to_label_studio(at, shape) for at, each in zip(said, images, strict=True)]
        config = label_studio_config(classes, shape)
        return {"tasks.json": json.dumps(tasks) + "\n", "labelling.xml": config}
    if tool == "cvat":
        items = (each.found.to_cvat(name, shape, number) for number, (name, each) in enumerate(named))
        return {"annotations.xml": cvat_file(items)}
    if tool == "labelme":
        return {
            f"{_stem(name)}.json": json.dumps(each.found.to_labelme(_relative(each.path, out, name))) + "\n"
            for name, each in named
        }
    labels = {f"labels/{_stem(name)}.txt": each.found.to_yolo(shape != "box") for name, each in named}
    listing = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(classes))
    return {"data.yaml": f"path: .\ntrain: images\nval: images\nnames:\n{listing}", **labels}


def _refuse_doubles(record: Path, images: Sequence[FoundImage], files: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for image, file in zip(images, files, strict=True):
        if file in first:
            raise DataError(
                f"{record}: {first[file]} and {image.path} would share a file; "
                "rename one of them and detect again"
            )
        first[file] = image.path


def read_record(record: Path) -> list[FoundImage]:
    """The images of a `detections.json` and what was found on them, in the order of the file.

    Raises:
        DataError: it cannot be read, or is no COCO file with scores.
    """
    try:
        content = parse_json(record.read_text(encoding="utf-8-sig"))
        names = {each["id"]: str(each["name"]) for each in content["categories"]}
        classes = {id_: number for number, id_ in enumerate(names)}
        rows: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in content["images"]}
        for row in content["annotations"]:
            rows[row["image_id"]].append(row)
        images = [
            FoundImage(
                str(image["file_name"]),
                _detections(
                    rows[image["id"]], (image["height"], image["width"]), classes, tuple(names.values())
                ),
            )
            for image in content["images"]
        ]
    except OSError as error:
        raise DataError(
            f"{record}: cannot be read ({error.strerror}); give detect's detections.json"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, DataError) as error:
        raise DataError(
            f"{record}: no record of detections ({error}); give the detections.json of `unispector detect`"
        ) from error
    for name in names.values():
        if problem := name_problem(name):
            raise DataError(f"{record}: class {name[:80]!a} {problem}; rename it and detect again")
    for name in (image.path for image in images):
        if not name or not is_text(name):
            raise DataError(f"{record}: {name!a} is no line of UTF-8; rename that image and detect again")
    if not images:
        raise DataError(f"{record}: lists no image; give the detections.json of `unispector detect`")
    return images


def _detections(
    rows: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    classes: Mapping[Any, int],
    names: tuple[str, ...],
) -> Detections:
    ranked = sorted(rows, key=lambda row: -row["score"])
    for row in ranked:
        if decode_rle(row["segmentation"]).shape != size:
            raise ValueError(f"the mask of annotation {row['id']} is not of its image's size")
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in ranked)]
    return Detections(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([row["score"] for row in ranked], dtype=torch.float32),
        labels=torch.tensor([classes[row["category_id"]] for row in ranked], dtype=torch.int64),
        masks_rle=tuple(row["segmentation"] for row in ranked),
        class_names=names,
        image_hw=size,
    )


def _short_names(paths: Sequence[str]) -> list[str]:
    """Paths relative to the folder that holds all images, with slashes; none leaves that folder."""
    whole = [Path(os.path.normpath(Path.cwd() / path)) for path in paths]
    top = Path(os.path.commonpath({str(path.parent) for path in whole}))
    return [path.relative_to(top).as_posix() for path in whole]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _relative(image: str, out: Path, name: str) -> str:
    """The way from an image's file of LabelMe to the image."""
    folder = (out / name).parent
    return Path(os.path.relpath(image, folder)).as_posix()
