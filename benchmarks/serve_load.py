"""The service under load: requests a second, waiting times, errors, memory, and whether answers are right.

    python benchmarks/serve_load.py --seconds 120 --out reports/serve_load.md

Starts `unispector serve` on loopback with the model of the package (or `--model`) and a bank of two classes,
and sends it drawn images of 640 x 480 pixels, one a request, from 1, 4 and 16 clients at a time, each of
which asks again as soon as it is answered. Every answer is compared with what `UniSpector.detect` finds on
the same image in this process: all scores, boxes and masks must be equal to the last bit. Memory is the
service's resident set, after every image was asked for once, and at the end. Clients and service share the
machine.
"""

import argparse
import io
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from unispector.inference.detector import Prompt, UniSpector
from unispector.serving.messages import image_message
from unispector.tracking.model_reference import find_model

CLIENTS = (1, 4, 16)
PICTURES, HEIGHT, WIDTH = 12, 480, 640
STARTS_WITHIN = 180  # seconds


@dataclass(frozen=True)
class Load:
    """What a number of clients saw."""

    clients: int  # that asked at a time
    seconds: float  # that they asked for
    waits: tuple[float, ...]  # seconds of every answered request
    errors: int  # requests that were not answered with 200
    wrong: int  # answers that differ from the library's
    rss_mib: float  # the service's memory after them

    def row(self) -> str:
        """A row of the table."""
        waits = np.percentile(self.waits, (50, 95, 99)) * 1000
        rate = len(self.waits) / self.seconds
        right = "all" if self.wrong == 0 else f"all but {self.wrong}"
        return (
            f"| {self.clients} | {len(self.waits)} | {rate:.2f} | {waits[0]:.0f} | {waits[1]:.0f} | "
            f"{waits[2]:.0f} | {self.errors} | {right} | {self.rss_mib:.0f} |"
        )


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str  # where it answers
    process: psutil.Process

    def rss_mib(self) -> float:
        """Resident memory of it and of the processes that decode."""
        processes = [self.process, *self.process.children(recursive=True)]
        return float(sum(each.memory_info().rss for each in processes) / 2**20)


def drawn(number: int) -> np.ndarray:
    """A brushed plate with bright spots and dark lines, uint8 [h, w, 3]."""
    rng = np.random.default_rng(number)
    plate = rng.normal(128, 12, (HEIGHT, 1)) + rng.normal(0, 6, (HEIGHT, WIDTH))
    for value, (height, width) in ((235, (18, 30)), (30, (4, 90)), (235, (22, 24))):
        top, left = rng.integers(40, HEIGHT - 60), rng.integers(40, WIDTH - 120)
        plate[top : top + height, left : left + width] = value
    plate[60:80, 50:85], plate[200:204, 300:400] = 235, 30  # where the prompts are marked
    return np.repeat(plate.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def as_png(pixels: np.ndarray) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@contextmanager
def started(model: str, bank: Path, log: Path) -> Iterator[Service]:
    """The command itself, in a process of its own, until the block ends."""
    command = [sys.executable, "-m", "unispector.cli", "serve", "--model", model, "--bank", str(bank)]
    with log.open("w") as out:
        process = subprocess.Popen([*command, "--port", "0"], stdout=out, stderr=out)  # noqa: S603
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while "in use: " not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the service did not start: {log.read_text()}")
            time.sleep(0.1)
        url = re.search(r"answering on (\S+)", log.read_text())
        yield Service(url[1] if url else "", psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=60)


def settled(service: Service, files: Sequence[bytes]) -> float:
    """Memory in MiB after every image was asked for once."""
    for data in files:
        httpx.post(f"{service.url}/detect", files={"images": data}, timeout=120).raise_for_status()
    return service.rss_mib()


def asked(
    service: Service, clients: int, seconds: float, files: Sequence[bytes], right: list[object]
) -> Load:
    """Load with so many clients for so long."""
    waits: list[float] = []
    errors, wrong = [0], [0]
    lock = threading.Lock()
    began = time.perf_counter()

    def client(number: int) -> None:
        with httpx.Client(base_url=service.url, timeout=120) as http:
            turn = number
            while time.perf_counter() < began + seconds:
                turn += 1
                picture = turn % len(files)
                sent = time.perf_counter()
                answer = http.post("/detect", files={"images": ("p", files[picture])})
                waited = time.perf_counter() - sent
                fine = answer.status_code == 200
                equal = fine and answer.json()["pictures"] == [right[picture]]
                with lock:
                    waits.extend([waited] * fine)
                    errors[0] += not fine
                    wrong[0] += fine and not equal

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - began
    return Load(clients, spent, tuple(waits), errors[0], wrong[0], service.rss_mib())


def loads(model: str, seconds: float, clients: Sequence[int] = CLIENTS) -> tuple[float, list[Load]]:
    """Memory at the start in MiB, and the load of each number of clients."""
    detector = UniSpector.load(find_model(model))
    pixels = [drawn(number) for number in range(PICTURES)]
    marks = [
        Prompt(pixels[0], [(50, 60, 35, 20)], label="spot"),
        Prompt(pixels[0], [(300, 200, 100, 4)], label="line"),
    ]
    bank = detector.encode(marks)
    right: list[object] = [
        image_message("p", detector.detect([each], bank)[0]).model_dump() for each in pixels
    ]
    files = [as_png(each) for each in pixels]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "bank.safetensors"
        bank.save(file)
        with started(model, file, Path(scratch) / "log") as service:
            start = settled(service, files)
            return start, [asked(service, count, seconds, files, right) for count in clients]


def table(start: float, found: Sequence[Load]) -> str:
    """The figures as Markdown."""
    wait = statistics.median(found[0].waits)
    head = (
        "| clients | requests | requests/s | p50 ms | p95 ms | p99 ms | errors | equal | MiB |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    rows = "\n".join(load.row() for load in found)
    end = found[-1].rss_mib
    return (
        f"{head}\n{rows}\n\nOne image of {WIDTH} x {HEIGHT} pixels a request, each number of clients for "
        f"{found[0].seconds:.0f} s; alone a request takes {wait * 1000:.0f} ms. `equal`: answers that "
        "equal the library's to the last bit. Memory of the service: "
        f"{start:.0f} MiB at the start, {end:.0f} MiB at the end ({end - start:+.0f}).\n"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fast")
    parser.add_argument("--seconds", type=float, default=120, help="for each number of clients")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    text = table(*loads(options.model, options.seconds))
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
