"""Requests to the page, to Label Studio's routes and to the service, mutated: answered, or refused.

`tests/serving/test_hostile.py` sends what is hostile on purpose; here no value is as a route expects it.
"""

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.mutations import CORPUS, TEXTS, changed_bytes, changed_json, check_line, examples
from unispector.detections import label_studio_config
from unispector.inference.detector import Prompt, UniSpector
from unispector.serving.engine import Reloader, WantedModel
from unispector.serving.label_studio.images import StudioImages
from unispector.serving.metrics import Metrics
from unispector.serving.prompts import FixedPrompts
from unispector.serving.server import listening, make_server
from unispector.serving.service import Service
from unispector.serving.ui import LIMITS, in_use
from unispector.workbench.bench import Bench

IMAGES = CORPUS / "annotations/coco"
BOX = [4.0, 5.0, 12.0, 8.0]
CHANGES: list[dict[str, Any]] = [
    {"kind": "box", "image": "a.png", "label": "dent", "box": BOX, "negative": False},
    {"kind": "paint", "image": "a.png", "label": "dent", "strokes": [{"points": [4, 5, 9, 9], "radius": 3}]},
    {
        "kind": "paint",
        "image": "a.png",
        "label": "x",
        "strokes": [{"points": [4, 5], "radius": 3}],
        "mark": "m",
    },
    {"kind": "change", "mark": "m", "box": BOX, "label": "scratch"},
    {"kind": "remove", "mark": "m"},
    {"kind": "unprompt", "image": "a.png", "label": "dent"},
    {"kind": "judge", "image": "a.png", "finding": "f", "accept": True},
    {"kind": "class", "name": "dent"},
    {"kind": "rename", "name": "dent", "to": "scratch"},
    {"kind": "drop", "name": "dent"},
    {"kind": "threshold", "name": "dent", "value": 0.5},
    {"kind": "review", "image": "a.png", "done": True},
    {"kind": "good", "images": ["a.png", "b.png"], "good": True},
]
TASK = {"id": 1, "data": {"image": "/data/local-files/?d=a.png"}, "annotations": []}
CONFIG = label_studio_config(("dent",))
Request = dict[str, Any]


def asked(method: str, path: str, body: Any = None, /, **query: Any) -> Request:
    return {"method": method, "path": path, "query": query, "body": body}


REQUESTS = [
    *(asked("POST", "/bench/session", {"version": 0, "change": change}) for change in CHANGES),
    asked("POST", "/bench/undo", {"version": 0, "redo": False}),
    asked("POST", "/bench/open", {"folder": "/nowhere"}),
    asked("POST", "/bench/seen", {"images": ["a.png"]}),
    asked("POST", "/bench/check", {"label": ""}),
    asked("POST", "/bench/threshold", {"label": "dent", "one_in": 100}),
    asked("GET", "/bench/threshold", label="dent", one_in=100),
    asked("POST", "/bench/export", {"kind": "csv"}),
    asked("GET", "/bench/export/file", number=1),
    asked("GET", "/bench/news", after=-1, version=-1),
    asked("GET", "/bench/findings", image="a.png"),
    asked("GET", "/bench/size", image="a.png"),
    asked("GET", "/bench/thumbnail", image="a.png"),
    asked("GET", "/bench/tile", image="a.png", level=0, column=0, row=0),
    asked("GET", "/bench/folders", path="/"),
    asked("PUT", "/bench/images", "no image", name="x.png"),
    asked("GET", "/assets/x.js"),
    asked("POST", "/label-studio/setup", {"project": "1", "schema": CONFIG, "extra_params": {}}),
    asked("POST", "/label-studio/predict", {"tasks": [TASK], "label_config": CONFIG, "params": {}}),
    asked("POST", "/label-studio/webhook", {"action": "X"}),
    asked("DELETE", "/prompts/dent"),
    asked("GET", "/prompts"),
    asked("POST", "/detect", {"images": "x"}),
]
HEADERS = [
    ("Host", "127.0.0.1"),
    ("Authorization", "Basic c3R1ZGlvOnRva2Vu"),
    ("Authorization", "Bearer x"),
    ("Cookie", "unispector-page=abc; b=\xe4; =; unispector-page"),
    ("Origin", "http://127.0.0.1"),
    ("Origin", "http://[::1"),
    ("Origin", "http://[v1.x]:99999"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Content-Type", "application/json"),
    ("Content-Type", "multipart/form-data; boundary=xyz"),
    ("Content-Type", "multipart/form-data; boundary=" + "x" * 3000),
    ("Content-Type", "text/plain; charset=utf-7"),
    ("Content-Length", "2"),
    ("Content-Length", "-1"),
    ("Transfer-Encoding", "chunked"),
    ("Content-Encoding", "gzip"),
    ("Expect", "100-continue"),
    ("Upgrade", "websocket"),
    ("Range", "bytes=0-1,2-3,4-"),
    ("Accept-Encoding", "\xff"),
    ("X-Forwarded-For", "1.2.3.4"),
    ("X", "y" * 10000),
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[int]:
    """The port of a service with all its routes and without a token."""
    home = tmp_path_factory.mktemp("home")
    (home / "images").mkdir()
    for name in ("a.png", "b.png"):
        (home / "images" / name).write_bytes((IMAGES / name).read_bytes())
    UniSpector.load(tiny_model).encode([Prompt(IMAGES / "a.png", [BOX], label="dent")]).save(
        home / "bank.safetensors"
    )
    metrics = Metrics()
    wanted = WantedModel("a model", "", lambda: tiny_model)
    reloader = Reloader(lambda: wanted, FixedPrompts(home / "bank.safetensors"), metrics)
    bench = Bench(lambda: in_use(reloader), home, home / "session")
    bench.open(home / "images", fixed=True)
    sock = listening("127.0.0.1", 0)
    service = Service(reloader, metrics, LIMITS, bench=bench, studio=StudioImages(folder=home / "images"))
    server = make_server(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield sock.getsockname()[1]
    bench.close()
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def check(port: int, request: Any) -> None:
    """Send a request, whatever of it is left, and look at the answer."""
    request = request if isinstance(request, dict) else {}
    query = request.get("query")
    pairs = query.items() if isinstance(query, dict) else ()
    address = (
        str(request.get("path", "/bench/start"))
        + "?"
        + "&".join(
            f"{escaped(key)}={escaped(value if isinstance(value, str) else json.dumps(value))}"
            for key, value in pairs
        )
    )
    body = json.dumps(request.get("body")).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(request["method"], address, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        check_answer(answer.status, answer.read())
    finally:
        connection.close()


def escaped(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"))


def check_answer(status: int, content: bytes) -> None:
    """Check that what is refused is told in the one shape of errors, and that nothing went wrong inside."""
    assert status in (200, 202, 204, 206) or 400 <= status < 500 or status == 503, (status, content)
    if status >= 400:
        told = json.loads(content)
        assert list(told) == ["error"], told
        check_line(told["error"])


@given(data=st.data())
@examples(400)
def test_values(live: int, data: st.DataObject, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    caplog.set_level(logging.ERROR, "unispector")
    request = data.draw(st.sampled_from(REQUESTS))
    inner = data.draw(changed_json({"query": request["query"], "body": request["body"]}))
    check(live, request | (inner if isinstance(inner, dict) else {"body": inner}))
    assert not caplog.records, caplog.text


@given(data=st.data())
@examples(150)
def test_paths(live: int, data: st.DataObject) -> None:
    parts = st.sampled_from(
        [*TEXTS, "bench", "label-studio", "prompts", "assets", "%2e%2e", "%00", "//", "session", "tile"]
    )
    path = "/" + "/".join(
        part if "%" in part else escaped(part) for part in data.draw(st.lists(parts, max_size=5))
    )
    method = data.draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]))
    check(live, asked(method, path))


@given(data=st.data())
@examples(200)
def test_headers(live: int, data: st.DataObject, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    caplog.set_level(logging.ERROR, "unispector")
    request = data.draw(st.sampled_from(REQUESTS))
    headers = [("Host", "127.0.0.1"), *data.draw(st.lists(st.sampled_from(HEADERS), max_size=6))]
    lines = [
        f"{request['method']} {request['path']} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers),
    ]
    raw = "\r\n".join([*lines, "Connection: close", "", "{}"]).encode("latin-1")
    send(live, data.draw(st.one_of(st.just(raw), changed_bytes(raw, most=2))))
    assert not caplog.records, caplog.text


def send(port: int, raw: bytes) -> None:
    """Send bytes and nothing after them; an answer, where there is one, is no error of the service."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while piece := connection.recv(2**16):
                received += piece
        except ConnectionResetError:
            pass
    statuses = [int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    for status in statuses:
        assert status < 500 or status == 503, received[:500]
