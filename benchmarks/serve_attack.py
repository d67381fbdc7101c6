"""The service under attack: how long a good client waits, and what the service's memory does.

    python benchmarks/serve_attack.py --seconds 30 --requests 10000 --out reports/serve_attack.md

Starts `unispector serve` on loopback with the model of the package. One attacker sends one kind of hostile
request in a loop, as fast as it is answered, while one good client asks for drawn images of 640 x 480 pixels.
Then hostile, malformed and good requests come in random order, and the memory of the service and of its
decoding processes is compared with what it was at the start. Attacker, client and service share the machine.
"""

import argparse
import collections
import io
import json
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from serve_load import PICTURES, Service, as_png, drawn, settled, started

from unispector.inference.detector import Prompt, UniSpector
from unispector.tracking.model_reference import find_model

BODY = 60 * 2**20  # bytes of the largest floods; the service takes 64 MiB
GOOD_SHARE = 0.1  # of the mixed requests
LARGE, LARGE_SHARE = "49 megapixels", 0.005
PERCENTILES = (50, 95, 99)


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hostile_images() -> dict[str, bytes]:
    """One image of each kind that costs its reader much more than its sender."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    large = Image.fromarray(np.zeros((7000, 7000, 3), dtype=np.uint8))
    jpeg, png = stored(noise, "JPEG", progressive=True), as_png(np.asarray(noise))
    comments, private = b"\xff\xfe\0\2", chunk(b"prVt", b"")
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    entries = b"".join(struct.pack("<HHII", 270 + n, 4, 2**24, 8) for n in range(40))
    tiff = b"II*\0" + struct.pack("<IH", 8, 40) + entries + bytes(4)
    return {
        "JPEG, 15 million comments": jpeg[:2] + comments * (BODY // 4) + jpeg[2:],
        "JPEG, padding": jpeg[:2] + b"\xff" * BODY + jpeg[2:],
        "JPEG, 1,000 scans": jpeg[:-2] + scan * 1000 + jpeg[-2:],
        "JPEG, 99 scans of 49 megapixels": many_scans(large),
        "PNG, 5 million chunks": png[:33] + private * (BODY // 12) + png[33:],
        "PNG, 49 megapixels": stored(large, "PNG"),
        "PNG, 1 x 5,000,000": stored(Image.new("L", (1, 5_000_000)), "PNG"),
        "PNG, text of 1 GB": png[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**30))) + png[33:],
        "WebP, 49 megapixels": stored(large, "WEBP", method=0),
        "TIFF, tags of 16 million values": tiff + rng.bytes(BODY // 4),
        "cut off": png[: len(png) // 2],
        "noise": b"\x89PNG\r\n\x1a\n" + rng.bytes(2**20),
    }


def many_scans(image: Image.Image) -> bytes:
    """A JPEG with as many scans as are taken, each over all its pixels."""
    jpeg = stored(image, "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + scan * (99 - jpeg.count(b"\xff\xda")) + jpeg[-2:]


def form_of(data: bytes) -> Mapping[str, bytes]:
    """The form of an image."""
    return {"images": data}


def odd_requests() -> dict[str, Callable[[httpx.Client], httpx.Response]]:
    """Requests that are malformed elsewhere than in the image."""
    image = as_png(drawn(0))
    deep = b"[" * 60_000
    return {
        "no such path": lambda http: http.get("/%2e%2e/etc/passwd"),
        "no form": lambda http: http.post("/detect", json={"images": [1]}),
        "deep JSON": lambda http: http.post(
            "/prompts", files={"image": image}, data={"label": "a", "boxes": deep}
        ),
        "NaN": lambda http: http.post("/detect", files={"images": image}, data={"min_score": "nan"}),
        "other class": lambda http: http.post("/detect", files={"images": image}, data={"classes": "x\x1b"}),
        "foreign page": lambda http: http.post(
            "/detect", files={"images": image}, headers={"Origin": "http://x.example"}
        ),
    }


def under(service: Service, files: Sequence[bytes], seconds: float, attack: bytes | None) -> list[str]:
    """A row of the table: waits of the good client while one attacker sends an image in a loop."""
    waits: list[float] = []
    statuses: collections.Counter[int] = collections.Counter()
    wrong, ended = [0], threading.Event()

    def attacker() -> None:
        with httpx.Client(base_url=service.url, timeout=180) as http:
            while attack is not None and not ended.is_set():
                statuses[http.post("/detect", files=form_of(attack)).status_code] += 1

    thread = threading.Thread(target=attacker)
    thread.start()
    time.sleep(1)
    end = time.monotonic() + seconds
    with httpx.Client(base_url=service.url, timeout=180) as http:
        while time.monotonic() < end:
            began = time.perf_counter()
            answer = http.post("/detect", files=form_of(files[len(waits) % len(files)]))
            waits.append(time.perf_counter() - began)
            wrong[0] += answer.status_code != 200
    ended.set()
    thread.join()
    told = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    figures = [f"{value * 1000:.0f}" for value in np.percentile(waits, PERCENTILES)]
    return [str(len(waits)), *figures, str(wrong[0]), told or "none", f"{service.rss_mib():.0f}"]


def mixed(service: Service, files: Sequence[bytes], hostile: Mapping[str, bytes], count: int) -> str:
    """What became of requests in random order, four at a time."""
    odd = list(odd_requests().values())
    # Those of 60 MB would make this a test of loopback, and the large ones take seconds each.
    small = [data for name, data in hostile.items() if len(data) < 2**22 and LARGE not in name]
    large = [data for name, data in hostile.items() if LARGE in name]
    statuses: collections.Counter[str] = collections.Counter()
    left, lock = iter(range(count)), threading.Lock()

    def client(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with httpx.Client(base_url=service.url, timeout=180) as http:
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                if rng.random() < GOOD_SHARE:
                    answer = http.post("/detect", files=form_of(files[rng.integers(len(files))]))
                    told = f"good: {answer.status_code}"
                elif rng.random() < LARGE_SHARE:
                    answer = http.post("/detect", files=form_of(large[rng.integers(len(large))]))
                    told = f"large image: {answer.status_code}"
                elif rng.random() < 0.5:
                    answer = http.post("/detect", files=form_of(small[rng.integers(len(small))]))
                    told = f"hostile image: {answer.status_code}"
                else:
                    answer = odd[rng.integers(len(odd))](http)
                    told = f"malformed: {answer.status_code}"
                with lock:
                    statuses[told] += 1

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return json.dumps(dict(sorted(statuses.items())))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fast")
    parser.add_argument("--seconds", type=float, default=30, help="for each kind of attack")
    parser.add_argument("--requests", type=int, default=10_000, help="in random order, after that")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    pixels = [drawn(number) for number in range(PICTURES)]
    bank = UniSpector.load(find_model(options.model)).encode(
        [Prompt(pixels[0], [(50, 60, 35, 20)], label="spot")]
    )
    files, attacks = [as_png(each) for each in pixels], hostile_images()
    lines = [
        "| attack | MB | asked | p50 ms | p95 ms | p99 ms | not 200 | the attacker got | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "bank.safetensors"
        bank.save(file)
        with started(options.model, file, Path(scratch) / "log") as service:
            start = settled(service, files)
            for name, attack in {"none": None, **attacks}.items():
                size = f"{len(attack or b'') / 1e6:.1f}"
                lines.append(
                    f"| {' | '.join([name, size, *under(service, files, options.seconds, attack)])} |"
                )
                print(lines[-1], flush=True)
            told = mixed(service, files, attacks, options.requests)
            end = service.rss_mib()
    lines += ["", f"{options.requests} mixed requests, four clients: {told}."]
    lines += [f"Memory: {start:.0f} MiB at the start, {end:.0f} at the end, {end / start:.2f} times.", ""]
    text = "\n".join(lines)
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
