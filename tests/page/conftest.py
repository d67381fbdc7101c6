"""Drawn images, a program with its page on them, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

from live_page import FIRST, SECOND, THIRD, Hands, LivePage, launch, page_server
from unispector.data.drawn_set import DrawnSet, draw_set
from unispector.modeling.saved_model import shipped_model


# Playwright keeps an event loop running, in which the tests of other files cannot start theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_set(DrawnSet(seed=7, parts=1, classes=3, images=4, good=2, size=400), folder, workers=1)
    return folder


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """Three images with bubbles and a good one, of a test's own."""
    out = tmp_path / "parts"
    for name in (FIRST, SECOND, THIRD):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / "images" / name, out / name)
    shutil.copy(drawn / "good/00/000.jpg", out / "good.jpg")
    return out


@pytest.fixture
def live(folder: Path, tmp_path: Path) -> Iterator[LivePage]:
    """The page on `folder`, with the model `fast`."""
    with page_server(folder, shipped_model("fast"), home=tmp_path) as live:
        yield live


@pytest.fixture
def tiny(folder: Path, tiny_model: Path, tmp_path: Path) -> Iterator[LivePage]:
    """The page on `folder`, with a model that finds nothing in particular, fast."""
    with page_server(folder, tiny_model, home=tmp_path) as live:
        yield live


@pytest.fixture
def requests() -> list[Request]:
    """All that the page has asked for."""
    return []


@pytest.fixture
def context(browser: Browser, requests: list[Request]) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    context.set_default_timeout(20_000)
    errors: list[str] = []
    context.on("request", lambda request: requests.append(request))  # noqa: PLW0108 - Playwright marks it
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def hands(page: Page) -> Hands:
    return Hands(page)
