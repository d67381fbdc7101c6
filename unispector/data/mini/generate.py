"""Write insa-mini to disk: seven sets, each in the native layout of its release."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unispector.config import MiniConfig
from unispector.data.mini.files import Progress, draw_folder
from unispector.data.mini.layouts.gc10 import GC10
from unispector.data.mini.layouts.layout import PLANTED, Drawn, Layout, Shot, take
from unispector.data.mini.layouts.magnetic_tile import MAGNETIC_TILE
from unispector.data.mini.layouts.mvtec_ad import MVTEC_AD
from unispector.data.mini.layouts.products import CLASSES
from unispector.data.mini.layouts.real_iad import REAL_IAD
from unispector.data.mini.layouts.three_cad import THREE_CAD
from unispector.data.mini.layouts.visa import VISA
from unispector.data.mini.layouts.vision import VISION
from unispector.errors import DataError

LAYOUTS = (GC10, MAGNETIC_TILE, REAL_IAD, MVTEC_AD, THREE_CAD, VISION, VISA)


@dataclass(frozen=True)
class MiniReport:
    """What was written, by set."""

    images: dict[str, int]  # drawn images; copies that a layout's quirks make are not counted
    classes: dict[str, int]
    # 8-connected components of the exact masks of the set's classes, before the layout's quirks hide some.
    instances: dict[str, int]
    image_bytes: int  # size of all files together


def generate_mini(
    config: MiniConfig, out: Path, progress: Progress | None = None, *, workers: int = 0
) -> MiniReport:
    """Write the sets to the folders `GC10`, `MagneticTile`, `RealIAD`, `MVTec`, `3CAD`, `VISION`, `VisA`.

    `out` appears complete or not at all; an old one is replaced. The files' bytes depend on `config` alone.
    `progress` is called with (images done, images in all) after every image; `workers` processes draw, 0 =
    one per core.

    Raises:
        DataError: `out` cannot be written, more images per class than numbers for them, or an image of
            this size cannot hold its defects.
    """
    if max(config.images_per_class, config.defect_free_images) >= PLANTED:
        raise DataError(f"mini: at most {PLANTED - 1} images per class; lower them in params.yaml")
    jobs = [(layout, shot) for layout in LAYOUTS for shot in layout.shots(config)]
    return draw_folder(out, jobs, partial(_draw, config=config), _finish, progress, workers)


def _draw(job: tuple[Layout, Shot], root: Path, config: MiniConfig) -> tuple[str, Drawn]:
    """One image of a set; runs in a worker."""
    layout, shot = job
    picture = take(layout.folder, shot, config)
    return layout.folder, layout.write(root / layout.folder, shot, picture)


def _finish(root: Path, drawn: list[tuple[str, Drawn]]) -> MiniReport:
    """Write what each layout adds, and count."""
    for layout in LAYOUTS:
        layout.finish(root / layout.folder, [image for folder, image in drawn if folder == layout.folder])
    return MiniReport(
        images=dict(Counter(folder for folder, _ in drawn)),
        classes={name: sum(map(len, products.values())) for name, products in CLASSES.items()},
        instances=dict(
            Counter(
                folder
                for folder, image in drawn
                for instance in image.instances
                if instance.defect in CLASSES[folder][image.shot.product]
            )
        ),
        image_bytes=sum(file.stat().st_size for file in root.rglob("*") if file.is_file()),
    )
