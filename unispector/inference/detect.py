"""`unispector detect`: images in, drawn images and one `detections.json` out."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.tiles import Tile
from unispector.ops.drawing import draw_detections, write_image
from unispector.ops.files import atomic_write_text, list_images, read_image
from unispector.project.progress import progress_bar
from unispector.structures import Detections

RECORDED_SCORE = 0.05


@dataclass(frozen=True)
class DetectionReport:
    """The result of a run of `detect`."""

    images: int
    detections: int  # detections recorded in `detections.json`
    drawn: int  # those with at least the score asked for, which the images show
    highest: float | None  # the highest score, 0 to 1; None without detections
    output: Path


def detect(
    model_directory: Path,
    targets: Sequence[Path],
    prompts: Sequence[Prompt] | Path,
    output: Path,
    *,
    min_score: float = 0.15,
    batch_size: int = 8,
    tile: Tile = "auto",
) -> DetectionReport:
    """Find the prompted classes on every target.

    Writes `pictures/<name>.png` per target and, last, `detections.json`: a COCO file of `images` (with
    their `picture`), `categories`, and `annotations` that carry a `score`; detections that score under
    0.05 and are not drawn are left out. Images that an earlier run drew into `output` are removed.

    Args:
        targets: image files, and folders whose images (not those of subfolders) are taken.
        min_score: lowest score that is drawn.
        tile: as of `UniSpector.encode`; auto = a saved bank is used as it is.

    Raises:
        DataError: a target or prompt is absent, unreadable or badly marked.
        CheckpointError: the model cannot be loaded.
        PromptBankError: the bank is unreadable or of another model.
    """
    files, earlier = list_images(targets), _drawn_before(output)
    detector = UniSpector.load(model_directory)
    if isinstance(prompts, Path):
        bank = PromptBank.load(prompts)
        bank = bank if tile == "auto" else bank.tiled(tile)
    else:
        bank = detector.encode(prompts, batch_size, tile)
    found: list[Detections] = []
    names = _image_names(files)
    images, shown = tee(map(read_image, files))  # an image is read once and kept until it is drawn
    with progress_bar("detect") as show, progress_bar("large image", "tile") as show_tiles:
        stream = detector.stream(images, bank, batch_size, progress=show_tiles)
        for name, image, detections in zip(names, shown, stream, strict=True):
            write_image(output / name, draw_detections(image, detections.above(min_score)))
            found.append(detections.above(min(RECORDED_SCORE, min_score)))
            show(len(found), len(files))
    record = _as_coco(files, names, found, bank)
    atomic_write_text(output / "detections.json", json.dumps(record, indent=1) + "\n")
    for name in earlier - set(names):
        with suppress(OSError, ValueError):  # what cannot be removed stays; the results are written
            (output / name).unlink()
    drawn = sum(len(detections.above(min_score)) for detections in found)
    highest = max((float(detections.scores.max()) for detections in found if len(detections)), default=None)
    return DetectionReport(len(files), sum(map(len, found)), drawn, highest, output)


def _drawn_before(output: Path) -> set[str]:
    """Names of the images that an earlier run drew into this folder; none behind a link."""
    try:
        images = json.loads((output / "detections.json").read_text(encoding="utf-8"))["images"]
        names = {str(image["picture"]) for image in images}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    if (output / "pictures").is_symlink():
        return set()
    return {name for name in names if name == f"pictures/{Path(name).stem}.png"}


def _image_names(files: Sequence[Path]) -> list[str]:
    """`pictures/a.png` for a file `a.jpg`; the second `a` becomes `pictures/a-2.png`."""
    names: dict[str, None] = {}
    for file in files:
        name, copy = f"pictures/{file.stem}.png", 1
        while name in names:
            copy += 1
            name = f"pictures/{file.stem}-{copy}.png"
        names[name] = None
    return list(names)


def _as_coco(
    files: Sequence[Path], pictures: Sequence[str], found: Sequence[Detections], bank: PromptBank
) -> dict[str, object]:
    """Detections in COCO's layout; ids count from 1."""
    images = []
    annotations: list[dict[str, object]] = []
    for image_id, (file, picture, detections) in enumerate(zip(files, pictures, found, strict=True), start=1):
        height, width = detections.image_hw
        images.append(
            {"id": image_id, "file_name": str(file), "width": width, "height": height, "picture": picture}
        )
        for row in range(len(detections)):
            left, top, right, bottom = (round(value, 2) for value in detections.boxes_xyxy[row].tolist())
            box_width, box_height = round(right - left, 2), round(bottom - top, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(detections.labels[row]) + 1,
                    "bbox": [left, top, box_width, box_height],
                    "area": round(box_width * box_height, 2),
                    "segmentation": detections.masks_rle[row],
                    "iscrowd": 0,
                    "score": round(float(detections.scores[row]), 6),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(bank.class_names, start=1)]
    return {
        "info": {"description": "UniSpector detections", "model": bank.fingerprint},
        "images": images,
        "categories": categories,
        "annotations": annotations,
    }
