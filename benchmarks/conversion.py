"""Conversion against bare decoding of the same files and against a plain scikit-image implementation.

    uv run --with scikit-image python benchmarks/conversion.py --images 600 --side 1024
    python benchmarks/conversion.py --memory

The release is made here, in Magnetic Tile's layout: colour images with one to five spots, their masks
as PNG. Every round runs all forms in turn; printed are medians, the ratios' medians and their
range over the rounds. `--memory` instead prints the peak memory for 1,000 and for 20,000 images.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil

from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.sources import SOURCES
from unispector.ops.files import read_image, read_image_size, read_mask
from unispector.ops.parallel import map_in_order

DISTINCT = 40  # images that are really drawn; the others are links to them


def make_release(root: Path, images: int, side: int) -> list[str]:
    """Image and mask pairs `<number>.jpg`, `<number>.png`; returns the images' names."""
    rng = np.random.default_rng(7)
    folder = root / "MT_Crack" / "Imgs"
    folder.mkdir(parents=True)
    for number in range(images):
        stem = folder / f"{number:06d}"
        if number < DISTINCT:
            noise = cv2.GaussianBlur(rng.integers(0, 256, (side, side, 3), np.uint8), (0, 0), 2)
            mask = np.zeros((side, side), np.uint8)
            for _ in range(rng.integers(1, 6)):
                centre, axes = rng.integers(0, side, 2), rng.integers(side // 60, side // 8, 2)
                cv2.ellipse(mask, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, 255, -1)
            cv2.imwrite(f"{stem}.jpg", noise)
            cv2.imwrite(f"{stem}.png", mask)
        else:
            for suffix in (".jpg", ".png"):
                os.link(folder / f"{number % DISTINCT:06d}{suffix}", f"{stem}{suffix}")
    return [f"MT_Crack/Imgs/{number:06d}.jpg" for number in range(images)]


def decode_all(name: str, root: Path) -> None:
    """Image and mask, decoded and thrown away."""
    read_image(root / name)
    read_mask((root / name).with_suffix(".png"))


def decode_needed(name: str, root: Path) -> None:
    """What a conversion needs: the image's size and its mask."""
    read_image_size(root / name)
    read_mask((root / name).with_suffix(".png"))


def plain(names: list[str], root: Path) -> None:
    """How one would write it down with scikit-image: one process, one full-size mask per component."""
    from pycocotools import mask as coco_mask
    from skimage import io, measure

    for name in names:
        height, width = io.imread(root / name).shape[:2]
        labels = measure.label(io.imread((root / name).with_suffix(".png")) > 0, connectivity=2)
        for region in measure.regionprops(labels):
            top, left, bottom, right = region.bbox
            if bottom - top < 0.01 * height or right - left < 0.01 * width:
                continue
            coco_mask.encode(np.asfortranarray((labels == region.label).astype(np.uint8)))


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def speed(root: Path, images: int, side: int, workers: int, rounds: int) -> None:
    """Time all forms and print images per second and ratios."""
    names = make_release(root / "release", images, side)
    files = ConversionFiles.beside(root / "out.json")
    source, release = SOURCES["magnetic_tile"], root / "release"
    convert = partial(convert_set, "Set", source, release, files, min_side=0.01, workers=workers)

    def drained(function: Callable[..., None]) -> None:
        for _ in map_in_order(partial(function, root=root / "release"), names, workers):
            pass

    forms: dict[str, Callable[[], object]] = {
        "conversion": convert,
        "decoding image and mask": lambda: drained(decode_all),
        "decoding the mask only": lambda: drained(decode_needed),
        "scikit-image, one process": lambda: plain(names, root / "release"),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for round_ in range(rounds + 1):
        for name, form in forms.items():
            took = seconds(form)
            if round_:  # the first warms caches and starts the workers
                times[name].append(took)
    print(f"{images} images of {side} x {side}, {workers} workers, {rounds} rounds")
    print(f"{'':28}{'images/s':>10}   conversion is faster by")
    for name, took in times.items():
        ratios = [other / own for other, own in zip(took, times["conversion"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:28}{images / statistics.median(took):10.1f}   {spread}")


def peak(root: Path, images: int, workers: int) -> None:
    """Convert in this process and print its own and its largest worker's peak memory in MiB."""
    make_release(root / "release", images, 128)
    largest = 0

    def look(done: int, total: int) -> None:
        nonlocal largest
        if done % 500 == 0 or done == total:
            workers_now = (child.pid for child in psutil.Process().children(recursive=True))
            largest = max([largest, *map(peak_memory, workers_now)])

    convert_set(
        "Set", SOURCES["magnetic_tile"], root / "release", ConversionFiles.beside(root / "out.json"),
        min_side=0.01, workers=workers, progress=look,
    )  # fmt: skip
    own = peak_memory(os.getpid())
    print(f"{images:7} images: main process {own / 1024:.1f} MiB, largest worker {largest / 1024:.1f} MiB")


def peak_memory(process: int) -> int:
    """The most memory a process ever held, in KiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0  # it has just ended


def main() -> None:
    """Measure speed, or memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--side", type=int, default=1024, help="of an image in pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of speed")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.peak_of:
            peak(Path(scratch), options.peak_of, options.workers)
        elif options.memory:
            for images in (1_000, 20_000):  # each in a process of its own
                command = [
                    sys.executable,
                    __file__,
                    "--peak-of",
                    str(images),
                    "--workers",
                    str(options.workers),
                ]
                subprocess.run(command, check=True)  # noqa: S603
        else:
            speed(Path(scratch), options.images, options.side, options.workers, options.rounds)


if __name__ == "__main__":
    main()
