"""A service on a free port of loopback, in a thread of the test's process."""

import io
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from unispector.detections import Detections
from unispector.ops.rle import decode_rle
from unispector.serving.engine import Reloader, WantedModel
from unispector.serving.label_studio.images import StudioImages
from unispector.serving.limits import Limits
from unispector.serving.metrics import Metrics
from unispector.serving.prompts import Prompts
from unispector.serving.server import listening, make_server
from unispector.serving.service import Service


@dataclass(frozen=True)
class Live:
    """A running service and a client of it."""

    url: str
    port: int
    client: httpx.Client
    service: Service

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """/health as soon as it fulfils a condition."""
        deadline = time.monotonic() + 30
        alone = {"Connection": "close"}  # one that is kept may be closed for being idle just as it is used
        while not condition(state := self.client.get("/health", headers=alone).json()):
            assert time.monotonic() < deadline, state
            time.sleep(0.02)
        return state

    def metric(self, name: str, **labels: str) -> float:
        """One figure of /metrics, 0 where it is not there."""
        wanted = "{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}" if labels else ""
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(x.rpartition(" ")[2]) for x in lines if x.startswith(f"{name}{wanted} ")), 0.0)


def follow(folder: Path, version: str = "") -> Callable[[], WantedModel]:
    """What tells that the model in a folder is wanted."""
    return lambda: WantedModel("a model", version, lambda: folder)


@contextmanager
def serving(
    wanted: Callable[[], WantedModel],
    prompts: Prompts,
    limits: Limits | None = None,
    token: str = "",
    ready: bool = True,
    studio: StudioImages | None = None,
) -> Iterator[Live]:
    metrics = Metrics()
    service = Service(
        Reloader(wanted, prompts, metrics), metrics, limits or Limits(), token, 0.05, studio=studio
    )
    sock = listening("127.0.0.1", 0)
    port = sock.getsockname()[1]
    server = make_server(service)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            live = Live(url, port, client, service)
            if ready:
                live.wait_for(lambda state: state["ready"])
            yield live
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def assert_equal(message: dict[str, Any], found: Detections) -> None:
    """An image's answer says exactly what the library found."""
    assert (message["height"], message["width"]) == found.image_hw
    assert [each["score"] for each in message["detections"]] == found.scores.tolist()
    assert [each["label"] for each in message["detections"]] == [
        found.class_names[label] for label in found.labels.tolist()
    ]
    corners = [
        [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        for box in (each["box"] for each in message["detections"])
    ]
    assert np.array_equal(np.float32(corners).reshape(-1, 4), found.boxes_xyxy.numpy())
    for each, rle in zip(message["detections"], found.masks_rle, strict=True):
        assert np.array_equal(decode_rle(each["mask"]), decode_rle(rle))


def multipart(*parts: tuple[str, str | None, bytes]) -> bytes:
    """A form of (name, file name, content), with the boundary `xyz`."""
    pieces = []
    for name, filename, data in parts:
        disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
        pieces.append(f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join(pieces) + b"--xyz--\r\n"


def tiled_tiff(side: int, content: bytes) -> bytes:
    """A TIFF of 16 x 16 pixels in one square tile."""
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: side, 323: side, 324: 500, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(500, b"\0") + content
