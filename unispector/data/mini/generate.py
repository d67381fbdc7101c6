"""Write insa-mini to disk: seven sets, each in the native layout of its release."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unispector.config import MiniConfig
from unispector.data.mini.layouts import LAYOUTS
from unispector.data.mini.layouts.classes import CLASSES
from unispector.data.mini.layouts.shots import PLANTED, Drawn, Layout, Shot, instances_of, take
from unispector.errors import DataError
from unispector.ops.files import replaced_folder
from unispector.ops.parallel import map_in_order, worker_count


@dataclass(frozen=True)
class MiniReport:
    """What was written, by set.

    Attributes:
        images: set -> number of images drawn; copies that a layout's quirks make are not counted.
        classes: set -> number of classes.
        instances: set -> number of 8-connected components of the exact masks of its classes, before
            the layout's quirks hide some.
        image_bytes: size of all files together.
    """

    images: dict[str, int]
    classes: dict[str, int]
    instances: dict[str, int]
    image_bytes: int


def generate_mini(
    config: MiniConfig,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    workers: int = 0,
) -> MiniReport:
    """Write the sets to the folders `GC10`, `MagneticTile`, `RealIAD`, `MVTec`, `3CAD`, `VISION`, `VisA`.

    `out` appears complete or not at all; an old one is replaced. The files' bytes depend on `config` alone.

    Args:
        config: seed, numbers of images and size.
        out: folder to make.
        progress: called with (images done, images in all) after every image.
        workers: processes that draw; 0 = one per core.

    Raises:
        DataError: `out` cannot be written, more images per class than numbers for them, or an image of
            this size cannot hold its defects.
    """
    if max(config.images_per_class, config.defect_free_images) >= PLANTED:
        raise DataError(f"mini: at most {PLANTED - 1} images per class; lower them in params.yaml")
    out = out.absolute()
    try:
        with replaced_folder(out) as draft:
            return _write_all(config, draft, progress, workers)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}); check space, rights"
        ) from error


def _write_all(
    config: MiniConfig, root: Path, progress: Callable[[int, int], None] | None, workers: int
) -> MiniReport:
    """Draw and write every image below `root`, then what each layout adds."""
    jobs = [(layout, shot) for layout in LAYOUTS for shot in layout.shots(config)]
    drawn: dict[str, list[Drawn]] = {layout.folder: [] for layout in LAYOUTS}
    draw = partial(_draw, root=root, config=config)
    results = map_in_order(draw, jobs, worker_count(workers, len(jobs)))
    for done, ((layout, _), image) in enumerate(zip(jobs, results, strict=True), start=1):
        drawn[layout.folder].append(image)
        if progress is not None:
            progress(done, len(jobs))
    for layout in LAYOUTS:
        layout.finish(root / layout.folder, drawn[layout.folder])
    return _report(drawn, root)


def _draw(job: tuple[Layout, Shot], root: Path, config: MiniConfig) -> Drawn:
    """One image; runs in a worker."""
    layout, shot = job
    picture = take(layout.folder, shot, config)
    file = layout.write(root / layout.folder, shot, picture)
    height, width = picture.image.shape[:2]
    return Drawn(shot, file, width, height, tuple(instances_of(picture.masks)))


def _report(drawn: dict[str, list[Drawn]], root: Path) -> MiniReport:
    classes = {
        name: {(product, defect) for product, defects in CLASSES[name].items() for defect in defects}
        for name in drawn
    }
    instances = Counter(
        name
        for name, images in drawn.items()
        for image in images
        for instance in image.instances
        if (image.shot.product, instance.defect) in classes[name]
    )
    return MiniReport(
        images={name: len(images) for name, images in drawn.items()},
        classes={name: len(found) for name, found in classes.items()},
        instances=dict(instances),
        image_bytes=sum(file.stat().st_size for file in root.rglob("*") if file.is_file()),
    )
