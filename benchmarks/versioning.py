"""What DVC takes to version a release of many small files: loose, and packed as `data add` does it.

    python benchmarks/versioning.py --images 114585 --bytes 8192

Makes that many files in Real-IAD's layout (30 products) in a temporary folder, and a DVC project each for
the loose and the packed form; prints seconds and their ratio. Takes several minutes at the default size,
and about four times the files' volume on disk.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from unispector.data.packing import bring_in
from unispector.ops import packed

PRODUCTS = 30
PER_FOLDER = 5  # views of a sample lie in one folder


def make_release(root: Path, images: int, size: int) -> None:
    """Files of random bytes, which no file system or archive can compress."""
    source = random.Random(7)  # noqa: S311 (content only has to differ)
    for number in range(images):
        product, sample = number % PRODUCTS, number // PRODUCTS // PER_FOLDER
        folder = root / "realiad_1024" / f"product_{product:02d}" / "NG" / "AK" / f"S{sample:04d}"
        if number // PRODUCTS % PER_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:06d}.jpg").write_bytes(source.randbytes(size))


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def dvc(project: Path, *arguments: str) -> None:
    """Run the environment's own DVC in a project."""
    command = [str(Path(sys.executable).with_name("dvc")), *arguments]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)  # noqa: S603


def measure(project: Path, bring: Callable[[Path], object]) -> dict[str, float]:
    """Bring the release into a fresh project and version it."""
    project.mkdir()
    dvc(project, "init", "--quiet", "--no-scm")
    dvc(project, "config", "cache.type", "hardlink,symlink")
    data = project / "data"
    took = {"copy or pack": seconds(lambda: bring(data))}
    took["files"] = sum(1 for path in data.rglob("*") if path.is_file())
    took["dvc add"] = seconds(lambda: dvc(project, "add", "--quiet", "data"))
    took["dvc status, nothing changed"] = seconds(lambda: dvc(project, "status", "--quiet"))
    shutil.rmtree(data)
    took["dvc checkout"] = seconds(lambda: dvc(project, "checkout", "--quiet"))
    took["list all names"] = seconds(lambda: sum(1 for _ in packed.list_files(data)))
    return took


def main() -> None:
    """Measure both forms and print them side by side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", type=int, default=114_585, help="files; Real-IAD's test images by default"
    )
    parser.add_argument("--bytes", type=int, default=8192, help="size of a file")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (default: the system's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        release = Path(scratch) / "release"
        print(f"making {options.images} files of {options.bytes} bytes", flush=True)
        make_release(release, options.images, options.bytes)
        print("loose", flush=True)
        loose = measure(Path(scratch) / "loose", lambda data: shutil.copytree(release, data))
        print("packed", flush=True)
        archived = measure(Path(scratch) / "packed", lambda data: bring_in(release, data))
    print(f"\n{'':30}{'loose':>10}{'packed':>10}{'ratio':>8}")
    for step, took in loose.items():
        print(f"{step:30}{took:10.1f}{archived[step]:10.1f}{archived[step] / took:8.3f}")


if __name__ == "__main__":
    main()
