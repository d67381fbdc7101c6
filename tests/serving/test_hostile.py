"""Requests nobody means well with: each a 4xx in one shape, cheap, and without effect on the next one."""

import io
import json
import logging
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from live_service import follow, multipart, serving, tiled_tiff
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.serving.limits import Limits
from unispector.serving.prompts import FixedPrompts, StoredPrompts

LIMITS = Limits(body_mib=2, megapixels=1, pictures=4, queue=8, marks=20)
SECONDS = 1.0  # of processor time, whatever else the machine does


@dataclass(frozen=True)
class Bad:
    """One request: as it goes over the wire, without the headers that all have."""

    kind: str
    method: str
    path: bytes
    headers: tuple[bytes, ...]
    body: bytes


Rng = np.random.Generator


def picture(rng: Rng, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def form(path: str, *parts: tuple[str, str | None, bytes], kind: str = "") -> Bad:
    headers = (b"Content-Type: multipart/form-data; boundary=xyz",)
    return Bad(kind, "POST", path.encode(), headers, multipart(*parts))


def detect(data: bytes, *fields: tuple[str, bytes], name: str = "p.png") -> Bad:
    return form("/detect", ("images", name, data), *((key, None, value) for key, value in fields))


def prompt(rng: Rng, label: bytes = b"spot", boxes: bytes = b"[[1,1,9,9]]", data: bytes | None = None) -> Bad:
    image = picture(rng) if data is None else data
    return form("/prompts", ("image", "p.png", image), ("label", None, label), ("boxes", None, boxes))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes) -> bytes:
    """A PNG of zeros: a few hundred bytes that say how large they are."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + chunk(b"IEND", b"")


def one_of(rng: Rng, values: list):
    return values[int(rng.integers(len(values)))]


def noise(rng: Rng) -> Bad:
    start = one_of(
        rng, [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"]
    )
    return detect(start + rng.bytes(int(rng.integers(0, 5000))))


def cut_off(rng: Rng) -> Bad:
    data = picture(rng, one_of(rng, ["PNG", "JPEG", "TIFF", "WEBP", "BMP"]))
    data = data[: int(rng.integers(1, len(data) * 3 // 4))]
    return one_of(rng, [detect(data), prompt(rng, data=data)])


def pixel_bomb(rng: Rng) -> Bad:
    side = int(rng.integers(1100, 2**31 - 1))
    data = png(side, one_of(rng, [side, 2**20]))
    return one_of(rng, [detect(data), prompt(rng, data=data)])


def tile_bomb(rng: Rng) -> Bad:
    side = 16 * int(rng.integers(70, 4096))
    data = tiled_tiff(side, zlib.compress(bytes(2**20)))
    return one_of(rng, [detect(data), prompt(rng, data=data)])


def text_bomb(rng: Rng) -> Bad:
    packed = zlib.compress(bytes(int(rng.integers(2, 60)) * 2**20))
    kind = one_of(rng, [(b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")])
    return detect(png(500, 500, chunk(kind[0], kind[1] + packed)))


def flood_of_parts(rng: Rng) -> Bad:
    jpeg, image = picture(rng, "JPEG"), picture(rng)
    data = one_of(
        rng,
        [
            jpeg[:2] + b"\xff\xfe\0\2" * 500_000 + jpeg[2:],
            jpeg[:-2] + b"\xff\xfe\0\2" * 500_000 + jpeg[-2:],
            jpeg[:2] + b"\xff" * 2_000_000 + jpeg[2:],
            image[:33] + chunk(b"prVt", b"") * 160_000 + image[33:],
            image[:33] + chunk(b"IDAT", b"") * 160_000 + image[33:],
        ],
    )
    return one_of(rng, [detect(data), prompt(rng, data=data)])


def thread(rng: Rng) -> Bad:
    long = int(rng.integers(5001, 10**6))
    data = png(*one_of(rng, [(1, long), (long, 1)]))
    return one_of(rng, [detect(data), prompt(rng, data=data)])


def archive(rng: Rng) -> Bad:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(2**22))
    return detect(stream.getvalue(), name=one_of(rng, ["a.zip", "a.png", "../../a.png"]))


def other_format(rng: Rng) -> Bad:
    svg = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>'
    pickle = b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85"
    gif = picture(rng, "GIF")
    return detect(
        one_of(rng, [svg, pickle, gif, b"%!PS-Adobe-3.0 EPSF-3.0", b"%PDF-1.7", picture(rng, "PPM")])
    )


def tiff_of_lies(rng: Rng) -> Bad:
    entries = b"".join(
        struct.pack("<HHII", int(tag), 4, int(rng.integers(1, 2**32)), int(rng.integers(2**32)))
        for tag in rng.integers(254, 340, int(rng.integers(1, 40)))
    )
    return detect(b"II*\0" + struct.pack("<IH", 8, len(entries) // 12) + entries + struct.pack("<I", 8))


def score(rng: Rng) -> Bad:
    values = [
        b"nan",
        b"NaN",
        b"inf",
        b"-inf",
        b"-1",
        b"7e2",
        b"1e999",
        b"",
        b"0x1",
        b"[]",
        b"\xff",
        b"9" * 60_000,
    ]
    return detect(picture(rng), (one_of(rng, ["min_score", "limit"]), one_of(rng, values)))


def boxes(rng: Rng) -> Bad:
    number = one_of(
        rng, [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-5", b"0", b"null", b'"1"', b"true", b"[]"]
    )
    values = [
        b"[[1,1,%s,9]]" % number,
        b"[[1,1,9,%s]]" % number,
        b"[[70,50,9,9]]",
        b"[[1e300,1e300,1e300,1e300]]",
        b"[" * int(rng.integers(1, 60_000)),
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 9000 + b"1" + b"}" * 9000,
        b"[[1,1,9," + b"9" * 50_000 + b"]]",
        json.dumps([[1, 1, 9, 9]] * int(rng.integers(21, 3000))).encode(),
        b"[]",
        b"{}",
        b"\xff\xfe[",
        b"[[1,1,9,9]],",
        b"[[1,1,9,9],[1,1,9,9]]",
        b"__import__('os')",
    ]
    return prompt(rng, boxes=one_of(rng, values))


def label(rng: Rng) -> Bad:
    values = [
        "../x", "..", "a/../../b", "/etc/passwd", "a\0b", "a\nb", "<script>", "' OR 1=1", "$(id)",
        "{{7*7}}",
    ]  # fmt: skip
    values += ["", " ", "a" * int(rng.integers(81, 60_000)), "a\u202eb", "%2e%2e", "\\\\host\\x", "a\x1b[2J"]
    raw = [value.encode() for value in values] + [b"\xff\xfe\x80", b"\xc0\xaf", b"\xed\xa0\x80"]
    return one_of(rng, [prompt(rng, one_of(rng, raw)), detect(picture(rng), ("classes", one_of(rng, raw)))])


def mask(rng: Rng) -> Bad:
    wrong = Image.fromarray(np.full((9, int(rng.integers(1, 50))), 255, dtype=np.uint8))
    stream = io.BytesIO()
    wrong.save(stream, "PNG")
    data = one_of(rng, [stream.getvalue(), b"", rng.bytes(500), png(2**15, 2**15)])
    return form("/prompts", ("image", "p", picture(rng)), ("label", None, b"a"), ("mask", "m", data))


def parts(rng: Rng) -> Bad:
    good = ("images", "p.png", picture(rng))
    odd = one_of(rng, ["image", "Images", "__proto__", "images[]", "file", "", "ä" * 900])
    many = ("classes", None, b"spot")
    return one_of(
        rng,
        [
            form("/detect"),
            form("/detect", *[good] * 5),
            form("/detect", good, *[many] * int(rng.integers(100, 400))),
            form("/detect", good, (odd, None, b"x")),
            form("/detect", good, (odd, "f", b"x")),
            form("/detect", ("images", None, b"x")),
            form("/detect", good, ("classes", None, b"a" * 70_000)),
            form("/prompts", good),
            form("/prompts", ("image", "p", good[2]), ("image", "q", good[2]), ("label", None, b"a")),
        ],
    )


def framing(rng: Rng) -> Bad:
    bad = detect(picture(rng))
    body = one_of(
        rng,
        [
            bad.body[: int(rng.integers(0, len(bad.body) - 10))],
            rng.bytes(3000),
            b"--xyz\r\n" * 1000,
            b"--xyz\r\n" + b"A: b\r\n" * 5000,
            b"--xyz\r\n" + b"A" * 100_000,
            b'--xyz\r\nContent-Disposition: form-data; name="images\r\n\r\nx\r\n--xyz--\r\n',
            b"",
        ],
    )
    return Bad("", bad.method, bad.path, bad.headers, body)


def kind_of_body(rng: Rng) -> Bad:
    bad = detect(picture(rng))
    kinds = [
        b"application/json",
        b"text/plain",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=other",
        b"multipart/form-data; boundary=" + b"x" * 5000,
        b"multipart/form-data; boundary=xyz; charset=punycode",
        b"multipart/form-data; boundary=xyz; charset=idna",
        b"application/x-www-form-urlencoded",
        b"\xff\xff",
        b"multipart/form-data; boundary=\xff",
        b";" * 5000,
    ]
    headers: tuple[bytes, ...] = (b"Content-Type: " + one_of(rng, kinds),)
    if rng.random() < 0.2:
        headers = (*bad.headers, b"Content-Encoding: " + one_of(rng, [b"gzip", b"br", b"deflate", b"x"]))
        return Bad("", bad.method, bad.path, headers, zlib.compress(bytes(2**20)))
    return Bad("", bad.method, bad.path, headers, bad.body)


def too_long(rng: Rng) -> Bad:
    return detect(rng.bytes(2**21 + int(rng.integers(1, 2**19))))


def address(rng: Rng) -> Bad:
    paths = [
        b"/", b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/prompts/../x", b"/prompts/..%2fx",
        b"//",
    ]  # fmt: skip
    paths += [
        b"/prompts/%00",
        b"/prompts/%ff%fe",
        b"/prompts/" + b"a" * 5000,
        b"/detect/",
        b"/docs",
        b"/.env",
    ]
    paths += [b"/prompts/nothing", b"http://evil.example/", b"/detect?images=x"]
    method = one_of(rng, ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "ODD", "CONNECT"])
    return Bad("", method, one_of(rng, paths), (), b"")


def stranger(rng: Rng) -> Bad:
    bad = detect(picture(rng))
    host = one_of(
        rng, [b"evil.example", b"localhost.evil.example", b"10.0.0.1", b"", b"a@localhost.x", b"[::1"]
    )
    origin = one_of(rng, [b"http://evil.example", b"null", b"file://", b"https://127.0.0.1.evil.example"])
    extra = one_of(rng, [b"Host: " + host, b"Origin: " + origin])
    return Bad("", bad.method, bad.path, (*bad.headers, extra), bad.body)


def not_http(rng: Rng) -> Bad:
    lines = [
        b"Content-Length: -1",
        b"Content-Length: 1e3",
        b"Transfer-Encoding: gzip, chunked",
        b"X y: z",
        b": z",
    ]
    lines += [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"X: \x00",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]
    return Bad("", "POST", b"/detect", (one_of(rng, lines),), b"")


KINDS: list[Callable[[Rng], Bad]] = [
    noise, cut_off, pixel_bomb, tile_bomb, text_bomb, flood_of_parts, thread, archive,
    other_format, tiff_of_lies, score, boxes, label,
    mask, parts, framing, kind_of_body, too_long, address, stranger, not_http,
]  # fmt: skip


def wire(bad: Bad) -> bytes:
    headers = list(bad.headers)
    if not any(line.startswith(b"Host:") for line in headers):
        headers.insert(0, b"Host: localhost")
    if not any(line.startswith((b"Content-Length", b"Transfer-Encoding")) for line in headers):
        headers.append(b"Content-Length: %d" % len(bad.body))
    start = bad.method.encode() + b" " + bad.path + b" HTTP/1.1"
    return b"\r\n".join((start, *headers, b"Connection: close", b"", b"")) + bad.body


def sent(port: int, raw: bytes) -> bytes:
    """What comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        received = b""
        with suppress(OSError):  # refused before all was sent
            sock.sendall(raw)
        with suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                received += piece
    return received


def versions(store: PromptStore) -> list[str]:
    return sorted(file.name for file in (store.folder / "versions").iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("count", [84, pytest.param(525, marks=pytest.mark.slow)])
def test_hostile_requests(tiny_model, files, tmp_path, count, caplog):
    assert count % len(KINDS) == 0
    store = PromptStore(tmp_path / "prompts")
    store.add("spot", [MarkedImage(files[0], "p.png", [[5, 5, 20, 10]])], "a test", "", {})
    rng = np.random.default_rng(count)
    with serving(follow(tiny_model), StoredPrompts(store), LIMITS) as live:

        def good() -> dict:
            return live.client.post("/detect", files={"images": files[1]}).json()

        right, before = good(), versions(store)
        for number in range(count):
            make = KINDS[number % len(KINDS)]
            bad = make(rng)
            shown = make.__name__, bad.method, bad.path, bad.headers, bad.body[:300]
            began = time.process_time()
            answer = sent(live.port, wire(bad))
            spent = time.process_time() - began
            assert spent < SECONDS, (spent, shown)
            assert answer[:10] == b"HTTP/1.1 4", (answer[:500], shown)
            head, _, body = answer.partition(b"\r\n\r\n")
            if b" 405 " not in head or body:
                message = json.loads(body)
                assert list(message) == ["error"], shown
                assert 0 < len(message["error"]) < 500, shown
                assert message["error"].isprintable(), (message, shown)
                assert "/tmp" not in message["error"], (message, shown)
            if number % len(KINDS) == 0:
                assert good() == right
        assert good() == right
        assert versions(store) == before
        assert live.service.memory.used == live.service.queue.used == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "lines",
    [
        [b"POST /detect HTTP/1.1", b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"GET /health?" + b"a" * 20_000 + b" HTTP/1.1"],
        [b"GET /health HTTP/1.1", b"X-Long: " + b"a" * 20_000],
        [b"GET /health HTTP/1.1", *(b"X-%d: a" % number for number in range(2_500))],
    ],
    ids=["two lengths", "query", "header", "headers"],
)
def test_a_request_of_two_lengths_or_too_large_a_head_ends_its_connection(tiny_model, bank_file, lines):
    start, *rest = lines
    head = b"\r\n".join([start, b"Host: localhost", *rest, b"", b""])
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(follow(tiny_model), FixedPrompts(bank_file), LIMITS) as live:
        answer = sent(live.port, head + b"0\r\n\r\n" + smuggled)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer[:12] == b"HTTP/1.1 400"
        assert live.client.get("/health").status_code == 200
