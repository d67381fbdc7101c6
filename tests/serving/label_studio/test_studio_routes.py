"""A running service as Label Studio's backend, and a stand-in for Label Studio that has the images."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from live_service import Live, follow, serving
from unispector.detections import label_studio_config
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.rle import decode_rle
from unispector.ops.tool_rle import decode_brush
from unispector.serving.label_studio.images import StudioImages
from unispector.serving.limits import Limits
from unispector.serving.prompts import FixedPrompts

KEY = "studio key"
TOKEN = "a long random text"


@dataclass
class Studio:
    """Serves files below /data/ to those who carry the key, redirects, and notes what it was asked for."""

    url: str
    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def studio(files: list[bytes]) -> Iterator[Studio]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            if self.headers.get("Authorization") != f"Token {KEY}":
                self.send_error(401)
            elif self.path == "/data/upload/away.png":
                self.send_response(302)
                self.send_header("Location", "/data/upload/1/a.png")
                self.end_headers()
            elif self.path in served.files:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(served.files[self.path])
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    served = Studio(url, {"/data/upload/1/a.png": files[1], "/data/upload/1/b%20c.png": files[2]})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def backend(tiny_model: Path, bank_file: Path, studio: Studio) -> Iterator[Live]:
    source = StudioImages(studio.url, None, KEY)
    limits = Limits(body_mib=1)
    with serving(follow(tiny_model), FixedPrompts(bank_file), limits, TOKEN, studio=source) as live:
        yield live


def asked(live: Live, path: str, body: dict[str, Any], password: str = TOKEN) -> httpx.Response:
    """Send what Label Studio sends: JSON, its agent's name, a user and a password."""
    code = base64.b64encode(f"studio:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {code}", "User-Agent": "heartex/1.13.0"}
    return httpx.post(f"{live.url}/label-studio/{path}", json=body, headers=headers, timeout=60)


def predict(live: Live, *addresses: object, config: str = "", key: str = "image") -> httpx.Response:
    tasks = [
        {"id": number, "data": {key: address}, "annotations": [], "predictions": [], "project": 1}
        for number, address in enumerate(addresses, start=7)
    ]
    body = {
        "tasks": tasks,
        "model_version": "",
        "project": "1.1700000000",
        "label_config": config or label_studio_config(("spot", "line")),
        "params": {"login": None, "password": None, "context": None},
    }
    return asked(live, "predict", body)


def test_predictions_are_the_librarys(
    backend: Live, studio: Studio, detector: UniSpector, bank: PromptBank, pictures: list[np.ndarray]
) -> None:
    answer = predict(backend, "/data/upload/1/a.png", f"{studio.url}/data/upload/1/b%20c.png").json()
    assert len(answer["results"]) == 2
    for result, found in zip(answer["results"], detector.detect(pictures[1:3], bank), strict=True):
        wanted = found.above(bank.thresholds)
        assert len(wanted) > 0
        assert [mark["value"]["brushlabels"] for mark in result["result"]] == [
            [wanted.class_names[label]] for label in wanted.labels.tolist()
        ]
        assert [mark["score"] for mark in result["result"]] == pytest.approx(wanted.scores.tolist(), abs=1e-6)
        assert result["score"] == pytest.approx(float(wanted.scores.max()), abs=1e-6)
        height, width = wanted.image_hw
        for mark, rle in zip(result["result"], wanted.masks_rle, strict=True):
            assert (mark["original_height"], mark["original_width"]) == (height, width)
            mask = decode_rle(rle)
            if mask.any():
                assert (decode_brush(mark["value"]["rle"], height, width) == mask).all()
        assert result["model_version"] == answer["model_version"]


def test_the_labelling_interface_decides(backend: Live) -> None:
    config = (
        '<View><Image name="img" value="$photo"/><Choices name="c" toName="img"><Choice value="x"/></Choices>'
        '<RectangleLabels name="kind" toName="img"><Label value="line"/><Label value="x"/></RectangleLabels>'
        "</View>"
    )
    (result,) = predict(backend, "/data/upload/1/a.png", config=config, key="photo").json()["results"]
    assert result["result"]
    for mark in result["result"]:
        assert (mark["from_name"], mark["to_name"], mark["type"]) == ("kind", "img", "rectanglelabels")
        assert mark["value"]["rectanglelabels"] == ["line"]


def test_many_tasks_are_answered(backend: Live) -> None:
    """More than a request to /detect may carry."""
    answer = predict(backend, *["/data/upload/1/a.png"] * 20).json()
    assert len(answer["results"]) == 20
    assert all(result == answer["results"][0] for result in answer["results"])
    assert backend.service.memory.used == backend.service.queue.used == 0


def test_health_setup_and_training(backend: Live) -> None:
    head = {"Authorization": "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode()}
    health = httpx.get(f"{backend.url}/label-studio/health", headers=head)
    assert (health.status_code, health.json()["status"]) == (200, "UP")
    body = {"project": "1.17", "schema": label_studio_config(("spot",)), "hostname": "", "access_token": "x"}
    answer = asked(backend, "setup", body)
    assert answer.json()["model_version"].startswith("unispector ")
    assert predict(backend, "/data/upload/1/a.png").json()["model_version"] == answer.json()["model_version"]
    refused = asked(backend, "setup", body | {"schema": label_studio_config(("dent",))})
    assert refused.status_code == 400
    assert "labels (dent) are none of the classes with prompts (spot, line)" in refused.json()["error"]
    assert asked(backend, "webhook", {"action": "ANNOTATION_CREATED"}).status_code == 200


@pytest.mark.parametrize("path", ["predict", "setup", "health", ""])
def test_without_the_token_nothing_is_answered(backend: Live, studio: Studio, path: str) -> None:
    url = f"{backend.url}/label-studio/{path}"
    for header in (
        "",
        "Basic",
        "Basic !!",
        "Basic " + base64.b64encode(b"studio:wrong").decode(),
        "Basic Og==",
    ):
        assert httpx.get(url, headers={"Authorization": header}).status_code == 401
    # The password is Label Studio's only; nothing else takes it.
    code = base64.b64encode(f"studio:{TOKEN}".encode()).decode()
    assert httpx.get(f"{backend.url}/prompts", headers={"Authorization": f"Basic {code}"}).status_code == 401
    assert studio.asked == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/data/upload/1/gone.png", "Label Studio answers 404, no image"),
        ("/data/upload/away.png", "Label Studio answers 302, a redirect, which is not followed"),
        (
            "http://127.0.0.1:1/data/upload/1/a.png",
            "on another server than Label Studio's, which is not asked",
        ),
        ("http://169.254.169.254/data/x", "on another server"),
        ("https://127.0.0.1/data/upload/1/a.png", "on another server"),
        ("file:///etc/passwd", "needs --label-studio-files FOLDER"),
        ("s3://bucket/a.png", "needs --label-studio-files FOLDER"),
        ("/api/users/", "not below /data/ of Label Studio"),
        ("/data/../api/users/", "not below /data/"),
        ("/data/%2e%2e/api/users/", "not below /data/"),
        ("//127.0.0.1:1/data/upload/1/a.png", "on another server"),
        ("data:image/png;base64,AAAA", "has no address of Label Studio"),
        ("", "has no address of Label Studio"),
        ("data/upload/1/a.png", "has no address of Label Studio"),
        ("http://[", "the address of the image is none"),
        (7, "no image where the labelling configuration reads it"),
        ("/data/upload/text.png", "not a readable PNG"),
        ("/data/upload/long.png", "more than 1 MiB"),
    ],
)
def test_images_that_are_not_read(backend: Live, studio: Studio, address: object, message: str) -> None:
    studio.files["/data/upload/text.png"] = b"no image"
    studio.files["/data/upload/long.png"] = bytes(2**20 + 1)
    answer = predict(backend, address)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("task 7: ")
    assert message in answer.json()["error"]
    assert all(path.startswith("/data/") and ".." not in path for path in studio.asked)
    # Among others it does not stop them, and is not taken for one without a defect.
    results = predict(backend, "/data/upload/1/a.png", address).json()["results"]
    assert [bool(result["result"]) for result in results] == [True, False]
    assert results[1]["model_version"] == "image not read"


def test_a_wrong_key_is_told(tiny_model: Path, bank_file: Path, studio: Studio) -> None:
    source = StudioImages(studio.url, None, "another")
    with serving(follow(tiny_model), FixedPrompts(bank_file), None, TOKEN, studio=source) as live:
        assert (
            "answers 401, no image; check LABEL_STUDIO_API_KEY" in predict(live, "/data/upload/1/a.png").text
        )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("<View>", "no XML"),
        ('<!DOCTYPE x [<!ENTITY b "b">]><View>&b;</View>', "no XML"),
        ('<View><Image name="i" value="$image"/></View>', "has no Brush-, Polygon- or RectangleLabels"),
        ('<View><Text name="t" value="$t"/><BrushLabels name="l" toName="t"/></View>', "has no Brush-"),
    ],
)
def test_a_labelling_interface_that_cannot_be_used(backend: Live, config: str, message: str) -> None:
    answer = predict(backend, "/data/upload/1/a.png", config=config)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"tasks": 3}', b'{"tasks": [{"id": 1}]}', b"[" * 10000])
def test_bodies_that_are_no_request(backend: Live, body: bytes) -> None:
    answer = backend.client.post(
        "/label-studio/predict", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert list(json.loads(answer.text)) == ["error"]


def test_a_json_body_that_is_too_large_is_refused_as_such(backend: Live) -> None:
    """What reads JSON hides why it could not."""
    headers = {"Content-Type": "application/json"}
    for content in (b"[" * 2**21, iter([b"[" * 2**20] * 2)):
        answer = backend.client.post("/label-studio/predict", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"][:27]) == (413, "a body of more than 1 MiB; ")


def test_a_service_without_the_option_has_no_such_paths(fixed: Live) -> None:
    assert fixed.client.get("/label-studio/health").status_code == 404
