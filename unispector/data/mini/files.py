"""Folders of drawn images: drawn by several processes, complete or not there at all."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from unispector.errors import DataError
from unispector.ops.files import replaced_folder
from unispector.ops.parallel import map_in_order, worker_count

Pixels: TypeAlias = npt.NDArray[np.uint8] | Image.Image
Files: TypeAlias = list[tuple[str, Pixels]]  # paths and pixels of an image and of its mask
Progress: TypeAlias = Callable[[int, int], None]
Job = TypeVar("Job")
Result = TypeVar("Result")
Report = TypeVar("Report")

JPEG_QUALITY = 92


def draw_folder(
    out: Path,
    jobs: Sequence[Job],
    draw: Callable[..., Result],
    finish: Callable[[Path, list[Result]], Report],
    progress: Progress | None,
    workers: int,
) -> Report:
    """Make a folder of what `draw(job, root=folder)` writes for every job and `finish(folder, results)` adds.

    What lay at `out` is replaced. `progress` is called with (images done, images in all) after every image;
    `workers` processes draw, 0 = one per core. Returns what `finish` returns.

    Raises:
        DataError: `out` cannot be written.
    """
    try:
        with replaced_folder(out.absolute()) as draft:
            results = []
            drawn = map_in_order(partial(draw, root=draft), jobs, worker_count(workers, len(jobs)))
            for result in drawn:
                results.append(result)
                if progress is not None:
                    progress(len(results), len(jobs))
            return finish(draft, results)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}); check space, rights"
        ) from error


def save(path: Path, image: Pixels) -> None:
    """Write an image in the format of its name; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, quality=JPEG_QUALITY, compress_level=1)
