"""The page on a free port of loopback, and a headless browser that opens it."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

from unispector.prompts.store import PromptStore
from unispector.serving.engine import Reloader, WantedModel
from unispector.serving.metrics import Metrics
from unispector.serving.prompts import Prompts, StoredPrompts
from unispector.serving.server import listening, make_server
from unispector.serving.service import Service
from unispector.serving.ui import LIMITS, in_use
from unispector.workbench.bench import Bench

BOX = (110, 66, 34, 38)
"""Of the bubble on the drawn image `FIRST`: left, top, width, height."""
FIRST, SECOND, THIRD = "00_Bubble/000.jpg", "00_Bubble/001.jpg", "00_Bubble/002.jpg"

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass(frozen=True)
class LivePage:
    """A running program with its page."""

    url: str
    port: int
    bench: Bench
    client: httpx.Client

    def change(self, **change: Any) -> httpx.Response:
        """A change of the session as it is now."""
        version = self.client.get("/bench/session").json()["version"]
        return self.client.post("/bench/session", json={"version": version, "change": change})


@contextmanager
def page_server(
    folder: Path | None,
    model: Path,
    *,
    home: Path,
    session: Path | None = None,
    prompts: Prompts | None = None,
    token: str = "",
    port: int = 0,
    bit_depth: int = 16,
) -> Iterator[LivePage]:
    metrics = Metrics()
    reloader = Reloader(
        lambda: WantedModel("a model", "", lambda: model),
        prompts or StoredPrompts(PromptStore(home / "prompts")),
        metrics,
    )
    bench = Bench(lambda: in_use(reloader), home, session, bit_depth)
    if folder is not None:
        bench.open(folder, fixed=True)
    sock = listening("127.0.0.1", port)
    port = sock.getsockname()[1]
    server = make_server(Service(reloader, metrics, LIMITS, token, bench=bench))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, timeout=60, headers=headers) as client:
            yield LivePage(url, port, bench, client)
    finally:
        bench.close()
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def launch(playwright: Playwright) -> Browser:
    """The distribution's Chromium, or Playwright's own; without one the test is skipped, in CI it fails."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    own = Path(playwright.chromium.executable_path)
    if found is None and not own.is_file():
        message = "no Chromium: apt-get install chromium, or playwright install chromium"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return playwright.chromium.launch(executable_path=found or str(own), args=["--no-sandbox"])


@dataclass
class Hands:
    """A person at the page."""

    page: Page

    def open_image(self, name: str) -> None:
        self.page.locator(f'[data-image="{name}"]').click()
        expect(self.page.locator(".canvas canvas").first).to_be_visible()

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the shown image is on the screen."""
        canvas = self.page.locator(".canvas")
        canvas.wait_for()
        frame = self._frame()
        while (moved := self._frame()) != frame:  # until the image has come to rest
            frame = moved
        bounds = canvas.bounding_box()
        assert bounds is not None
        return bounds["x"] + frame["x"] + x * frame["scale"], bounds["y"] + frame["y"] + y * frame["scale"]

    def _frame(self) -> dict[str, float]:
        self.page.wait_for_timeout(50)
        frame: dict[str, float] = self.page.locator(".canvas").evaluate(
            "(own) => JSON.parse(own.dataset.frame)"
        )
        return frame

    def drag(self, *points: tuple[float, float]) -> None:
        """Press at the first pixel, move through the others, release at the last."""
        mouse = self.page.mouse
        mouse.move(*self.place(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.place(*point), steps=4)
        mouse.up()

    def draw_box(self, left: float, top: float, width: float, height: float) -> None:
        self.page.keyboard.press("b")
        self.drag((left, top), (left + width, top + height))

    def name_class(self, name: str) -> None:
        field = self.page.get_by_label("Name of the defect")
        field.fill(name)
        field.press("Enter")

    def wait_done(self, seconds: float = 90) -> None:
        """Until every image is searched with the newest marks."""
        self.page.wait_for_timeout(900)  # marks settle first
        self.page.locator('[data-testid="status"][data-state="done"]').wait_for(timeout=seconds * 1000)

    def back(self) -> None:
        self.page.get_by_role("button", name="All images").click()
        expect(self.page.get_by_test_id("grid")).to_be_visible()

    def count(self, label: str) -> int:
        """Findings that the panel counts of a class."""
        return int(self.page.get_by_test_id(f"count-{label}").locator("b").first.inner_text())
