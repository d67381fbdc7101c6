"""A set of drawn defects on many kinds of parts, drawn ones or photographs of sound parts, to train on.

What a detector of unseen classes learns depends on how many classes it has seen more than on how many
images; insa-mini has forty classes on twelve kinds of parts. Here every kind of part has classes of its own,
and the defects of a class resemble one another.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import numpy.typing as npt

from unispector.data.mini.alike import Alike
from unispector.data.mini.defects import FAMILIES, paint_defects
from unispector.data.mini.files import Progress, draw_folder, save
from unispector.data.mini.instances import Instance, Mask, instances_of
from unispector.data.mini.layouts.products import ramp
from unispector.data.mini.noise import as_field
from unispector.data.mini.render import DEFECT_FREE, DESIGN_SIZE, as_mask, render
from unispector.data.mini.scene import Scene
from unispector.data.mini.textures import SURFACES
from unispector.errors import DataError
from unispector.ops.files import list_images, read_image
from unispector.ops.json_text import parse_json
from unispector.project.progress import progress_bar

COLOURED = 0.55  # share of the drawn kinds of parts that are not grey
ATTEMPTS = 6  # images that are tried where a defect finds no room ...
ANOTHER = 100_000  # ... their numbers so far apart
WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue in a grey value
DARKEST = 0.03  # reflectance of a photograph at least
LONGEST = 1.6  # sides of an image at most, relative to its nominal height
LEAST_CUT = 0.55  # share of a photograph's sides that an image shows at least

_INFO = {"description": "drawn by `unispector data draw`"}  # what may be replaced by another drawn set


@dataclass(frozen=True)
class DrawnSet:
    """The settings of a drawn set."""

    seed: int
    parts: int  # kinds of parts, at least 1
    classes: int  # of each kind of part: families, chosen at random
    images: int  # of each class
    good: int  # images without a defect, of each kind of part
    size: int  # nominal height of an image in pixels
    left_out: tuple[str, ...] = ()  # families that are not drawn
    surfaces: tuple[Path, ...] = ()  # photographs of sound parts, dealt out to the parts; none = drawn too


@dataclass(frozen=True)
class _Shot:
    """One image to draw; `family` is `DEFECT_FREE` for a sound part."""

    part: int
    family: str
    index: int

    @property
    def file(self) -> str:
        if self.family == DEFECT_FREE:
            return f"good/{self.part:02d}/{self.index:03d}.jpg"
        return f"images/{self.class_name}/{self.index:03d}.jpg"

    @property
    def class_name(self) -> str:
        return f"{self.part:02d}_{self.family}"


@dataclass(frozen=True)
class _Record:
    """A written image: size in pixels, and the defects."""

    width: int
    height: int
    instances: tuple[Instance, ...]


def draw(drawn: DrawnSet, surfaces: Path | None, out: Path) -> int:
    """Draw a set on the images of sound parts in the folder `surfaces` (None = parts are drawn too).

    Returns the number of images.

    Raises:
        DataError: see `draw_set`; or the folder has no image.
    """
    if surfaces is not None:
        drawn = replace(drawn, surfaces=tuple(list_images([surfaces])))
    with progress_bar(out.name) as progress:
        return draw_set(drawn, out, progress)


def draw_set(drawn: DrawnSet, out: Path, progress: Progress | None = None, *, workers: int = 0) -> int:
    """Write `images/<part>_<family>/*.jpg`, `good/<part>/*.jpg` and the COCO file `annotations.json`.

    `out` appears complete or not at all; it replaces an older drawn set there. Returns the number of images.
    `progress` is called with (images done, images in all) after every image; `workers` processes draw, 0 =
    one per core.

    Raises:
        DataError: unknown families, more classes than families or more parts than photographs, a photograph
            that cannot be read, no room for a defect, or `out` cannot be written, holds the photographs or
            is a folder of files that no drawn set has.
    """
    if strange := sorted(set(drawn.left_out) - set(FAMILIES)):
        raise DataError(f"no family {strange[0]!r} of defects; known: {', '.join(FAMILIES)}")
    families = [family for family in FAMILIES if family not in drawn.left_out]
    if drawn.classes > len(families):
        raise DataError(
            f"{drawn.classes} classes a part, but {len(families)} families of defects; ask for fewer"
        )
    if drawn.surfaces and len(drawn.surfaces) < drawn.parts:
        raise DataError(f"{drawn.parts} parts, but {len(drawn.surfaces)} photographs; ask for fewer parts")
    shots = [
        _Shot(part, family, index)
        for part in range(drawn.parts)
        for family, count in (
            *((name, drawn.images) for name in _families(drawn, part, families)),
            (DEFECT_FREE, drawn.good),
        )
        for index in range(count)
    ]
    _refuse_other_files(out, drawn.surfaces)
    finish = partial(_finish, shots=shots)
    return draw_folder(out, shots, partial(_write, drawn=drawn), finish, progress, workers)


def _refuse_other_files(out: Path, surfaces: Sequence[Path]) -> None:
    """Raise DataError where a new set would replace anything but an older drawn set."""
    if any(out.resolve() in file.resolve().parents for file in surfaces):
        raise DataError(f"{out}: the images to draw on are in this folder; choose another to draw to")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        drawn = parse_json((out / "annotations.json").read_bytes())["info"] == _INFO
    except (OSError, ValueError, LookupError, TypeError):
        drawn = False
    if not drawn:
        raise DataError(f"{out}: has files that are no drawn set; choose another folder, or empty it first")


def _finish(root: Path, records: list[_Record], shots: list[_Shot]) -> int:
    """Write the annotations; return the number of images."""
    content = _coco([(s, r) for s, r in zip(shots, records, strict=True) if s.family != DEFECT_FREE])
    text = json.dumps({"info": _INFO, **content})
    (root / "annotations.json").write_text(text, encoding="utf-8")
    return len(shots)


def _families(drawn: DrawnSet, part: int, families: Sequence[str]) -> list[str]:
    """The families that a kind of part shows."""
    order = np.random.default_rng([drawn.seed, part, 1]).permutation(len(families))
    return [families[place] for place in order[: drawn.classes].tolist()]


def _write(shot: _Shot, root: Path, drawn: DrawnSet) -> _Record:
    """Draw and write one image; runs in a worker."""
    draw: Callable[[_Shot, DrawnSet, int], tuple[Mask, Mapping[str, Mask]]] = _on_drawn_part
    if drawn.surfaces:
        files = drawn.surfaces[shot.part :: drawn.parts]
        photograph = read_image(files[_rng(drawn, shot, shot.index).integers(len(files))])
        draw = partial(_on_photograph, photograph=photograph)
    for attempt in range(ATTEMPTS):
        try:
            image, masks = draw(shot, drawn, shot.index + attempt * ANOTHER)
            break
        except DataError as error:
            if attempt == ATTEMPTS - 1:
                raise DataError(
                    f"no room for {shot.family} on an image of {drawn.size} pixels; raise the size"
                ) from error
    save(root / shot.file, image)
    return _Record(image.shape[1], image.shape[0], tuple(instances_of(masks)))


def _rng(drawn: DrawnSet, shot: _Shot, *numbers: int) -> np.random.Generator:
    """The randomness of a class, or of one of its images."""
    return np.random.default_rng([drawn.seed, shot.part, crc32(shot.family.encode()), *numbers])


def _on_drawn_part(shot: _Shot, drawn: DrawnSet, index: int) -> tuple[Mask, Mapping[str, Mask]]:
    """An image, and the defects' masks by family (255 = all of a pixel)."""
    of_part = np.random.default_rng([drawn.seed, shot.part])
    surface = str(of_part.choice(sorted(SURFACES)))
    colours = _colours(of_part) if of_part.random() < COLOURED else None
    seed, alike = drawn.seed % 2**31 << 32 | shot.part, Alike(_rng(drawn, shot))
    families = () if shot.family == DEFECT_FREE else (shot.family,)
    rendered = render(families, index, seed=seed, size=drawn.size, surface=surface, alike=alike)
    image = rendered.image if colours is None else ramp(colours, _rng(drawn, shot, index, 1))[rendered.image]
    return image, rendered.masks


def _colours(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Any colour between a darker one, behind the part, and a brighter one, in its glare: [3, 3]."""
    middle = rng.uniform(20, 235, 3)
    dark, bright = middle * rng.uniform(0, 0.25, 3), np.clip(middle + rng.uniform(60, 200, 3), 0, 255)
    return np.rint([dark, middle, bright])


def _on_photograph(
    shot: _Shot, drawn: DrawnSet, index: int, photograph: Mask
) -> tuple[Mask, Mapping[str, Mask]]:
    """A cut-out of a photograph with defects on it, and their masks."""
    rng, of_class = _rng(drawn, shot, index, 2), _rng(drawn, shot)
    alike, share = Alike(of_class), of_class.random()
    cut = _cut_out(photograph, rng, drawn.size)
    if shot.family == DEFECT_FREE:
        return cut, {}
    colours = cut.astype(np.float32)
    grey = as_field(np.clip(colours @ WEIGHTS / 255, DARKEST, 1))
    unit = min(grey.shape) / DESIGN_SIZE
    scene = Scene(grey, np.ones_like(grey), 0.05, float(rng.uniform(0, 2 * np.pi)), unit)
    reflectance, coverages = paint_defects(scene, rng, (shot.family,), alike)
    # Classes differ in whether they multiply the colours or add to them.
    gain = (np.clip(reflectance, 0, 1.2) / grey)[..., None]
    added = 255 * (reflectance - grey)[..., None]
    painted = np.clip(np.rint(share * colours * gain + (1 - share) * (colours + added)), 0, 255)
    image = np.where(np.abs(added) > 0.03, painted, colours).astype(np.uint8)
    return image, {shot.family: as_mask(coverages[shot.family])}


def _cut_out(image: Mask, rng: np.random.Generator, size: int) -> Mask:
    """Most of a photograph, mirrored or not, about `size` pixels on its shorter side."""
    height, width = image.shape[:2]
    share = rng.uniform(LEAST_CUT, 1)
    across = rng.uniform(max(LEAST_CUT, share - 0.15), min(1, share + 0.15))
    rows, columns = max(int(height * share), 1), max(int(width * across), 1)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    cut = image[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    scale = min(size * rng.uniform(0.9, 1.1) / min(rows, columns), LONGEST * size / max(rows, columns))
    shape = (max(round(columns * scale), 1), max(round(rows * scale), 1))
    how = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(np.ascontiguousarray(cut), shape, interpolation=how), np.uint8)


def _coco(images: Sequence[tuple[_Shot, _Record]]) -> dict[str, object]:
    """The images with defects as COCO; ids count from 1."""
    names = list(dict.fromkeys(shot.class_name for shot, _ in images))
    listed, annotations = list[dict[str, object]](), list[dict[str, object]]()
    for number, (shot, record) in enumerate(images, start=1):
        size = {"width": record.width, "height": record.height}
        listed.append({"id": number, "file_name": shot.file, **size})
        for instance in record.instances:
            outline = np.array(instance.outline, np.float32).reshape(-1, 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(shot.class_name) + 1,
                    "bbox": list(instance.box),
                    "area": cv2.contourArea(outline),
                    "segmentation": [list(instance.outline)],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": place, "name": name} for place, name in enumerate(names, start=1)]
    return {"images": listed, "annotations": annotations, "categories": categories}
