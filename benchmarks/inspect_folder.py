"""Inspection of a folder by one process, and by Ray with one and with two workers.

    python benchmarks/inspect_folder.py --pictures 300 --side 512

The images are drawn here; model and code are the package's. Each way runs in a process of its own, in turn.
Printed are images a second once rows come, the time until the first ones do (Python's own start, Ray's and
the workers'), the CPU time of all processes together, which a busy machine changes less, and the peak of
their memory (PSS: what they share counts once).
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import psutil

POLL_SECONDS = 0.5
WAYS = {"one process": 0, "Ray, 1 worker": 1, "Ray, 2 workers": 2}


def draw(folder: Path, pictures: int, side: int) -> None:
    """Textures with a dark spot each, as JPEG."""
    rng = np.random.default_rng(7)
    for number in range(pictures):
        pixels = cv2.GaussianBlur(rng.integers(64, 192, (side, side, 3), np.uint8), (0, 0), 2)
        centre = rng.integers(side // 4, 3 * side // 4, 2)
        cv2.circle(pixels, centre.tolist(), side // 16, (20, 20, 20), -1)
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), pixels)


def inspect_once(folder: Path, workers: int) -> None:
    """One way, in this process; prints when rows came, in seconds since 1970, and how many."""
    from contextlib import nullcontext

    from unispector.batch.inspection import Inspection, look, one_thread
    from unispector.batch.ray_inspection import look_on_ray, prepare_ray
    from unispector.batch.source import ImageSource
    from unispector.environment import work_offline
    from unispector.inference.detector import Prompt, UniSpector
    from unispector.modeling.saved_model import shipped_model
    from unispector.training.ray_trainer import cluster

    work_offline(folder)
    prepare_ray()
    source = ImageSource.at(str(folder))
    files = source.pictures({".jpg"})
    model = shipped_model("fast")
    detector = UniSpector.load(model)
    side = cv2.imread(str(folder / files[0].path)).shape[0]
    bank = detector.encode([Prompt(folder / files[0].path, [[side // 4, side // 4, side // 2, side // 2]])])
    inspection = Inspection(source, model, bank, min_score=0.05)
    with one_thread(), cluster(workers) if workers else nullcontext():
        tables = (
            look_on_ray(inspection, files, workers, gpu=False)
            if workers
            else (look(detector, inspection, [file]) for file in files)
        )
        for table in tables:
            print(time.time(), len(table["path"].unique()), flush=True)


def measured(command: list[str]) -> tuple[list[tuple[float, int]], float, float, int]:
    """Lines of a command as (time, images), its start, CPU seconds and peak memory in bytes."""
    began = time.time()
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603
    peak = 0
    busy: dict[int, float] = {}

    def watch() -> None:
        nonlocal peak
        top = psutil.Process(running.pid)
        while running.poll() is None:
            total = 0
            try:
                for process in (top, *top.children(recursive=True)):
                    total += process.memory_full_info().pss
                    busy[process.pid] = sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
            peak = max(peak, total)
            time.sleep(POLL_SECONDS)

    threading.Thread(target=watch, daemon=True).start()
    output, _ = running.communicate()
    rows = [line.split() for line in output.splitlines() if line[:1].isdigit()]
    return [(float(at), int(count)) for at, count in rows], began, sum(busy.values()), peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--once", nargs=2, metavar=("FOLDER", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        inspect_once(Path(options.once[0]), int(options.once[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), options.pictures, options.side)
        for name, workers in WAYS.items():
            command = [sys.executable, __file__, "--once", folder, str(workers)]
            lines, began, busy, peak = measured(command)
            done = sum(count for _, count in lines)
            seconds = lines[-1][0] - lines[0][0]
            rate = (done - lines[0][1]) / seconds
            print(
                f"{name:14}  {rate:5.2f} pictures/s  first rows after {lines[0][0] - began:5.1f} s  "
                f"in all {lines[-1][0] - began:6.1f} s  "
                f"CPU {busy:6.1f} s  {peak / 2**30:4.2f} GiB  ({done} images)",
                flush=True,
            )


if __name__ == "__main__":
    main()
