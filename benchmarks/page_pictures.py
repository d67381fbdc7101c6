"""The pictures of docs/page.md: the page on drawn images, as a person sees it.

    python benchmarks/page_pictures.py docs/images

Needs Chromium; takes two minutes on 2 CPU cores.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

DEMO = ("--parts", "1", "--classes", "3", "--images", "4", "--good", "2", "--seed", "7")
MARKS = {
    "bubble": ("00_Bubble/000.jpg", "00_Bubble/003.jpg"),
    "oil spot": ("00_OilSpot/000.jpg", "00_OilSpot/003.jpg"),
}
THRESHOLDS = {"bubble": 0.4, "oil spot": 0.7}
TOUR = "images/00_Bubble/001.jpg"


@contextmanager
def page_on(folder: Path) -> Iterator[str]:
    """The address of the page on a folder of images."""
    command = [sys.executable, "-m", "unispector.cli", "ui", str(folder), "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:  # noqa: S603 - our own
        try:
            said = program.stdout.readline() if program.stdout else ""
            yield re.findall(r"http://\S+", said)[0]
        finally:
            program.terminate()


def mark(address: str, folder: Path) -> None:
    """Mark every instance on the images of `MARKS`, and move the sliders."""
    coco = json.loads((folder / "annotations.json").read_text())
    images = {image["file_name"]: image["id"] for image in coco["images"]}
    changes: list[dict[str, Any]] = []
    for label, files in MARKS.items():
        for file in files:
            name = f"images/{file}"
            number = images.get(name, images.get(file))
            changes += [
                {"kind": "box", "image": name, "label": label, "box": own["bbox"]}
                for own in coco["annotations"]
                if own["image_id"] == number
            ]
    changes += [{"kind": "threshold", "name": name, "value": value} for name, value in THRESHOLDS.items()]
    changes += [{"kind": "review", "image": f"images/{MARKS['bubble'][0]}", "done": True}]
    with httpx.Client(base_url=address) as client:
        for version, change in enumerate(changes):
            body = {"version": version, "change": change}
            client.post("/bench/session", json=body).raise_for_status()


def opened(browser: Browser, address: str, width: int, height: int, scheme: str) -> Page:
    """The page in a new window, on a tablet where that is narrow; everything searched."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        has_touch=width < 1000,
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_timeout(1500)
    page.locator('[data-testid="status"][data-state="done"]').wait_for(timeout=300_000)
    page.wait_for_timeout(1500)
    return page


def take(browser: Browser, address: str, out: Path) -> None:
    """Take the pictures."""

    def keep(page: Page, name: str) -> None:
        page.mouse.move(5, 895)
        page.wait_for_timeout(600)
        page.screenshot(path=out / f"{name}.jpg", type="jpeg", quality=86)

    page = opened(browser, address, 1440, 900, "light")
    keep(page, "page-grid")
    for name in (TOUR, "images/00_Bubble/002.jpg"):
        page.locator(f'[data-image="{name}"]').hover()
        page.get_by_label(f"Pick {name}").check(force=True)
    page.keyboard.press("c")
    page.wait_for_timeout(1500)
    keep(page, "page-compare")
    page.close()

    page = opened(browser, address, 1440, 900, "dark")
    page.locator(f'[data-image="{TOUR}"]').click()
    page.wait_for_timeout(1500)
    page.keyboard.press("ArrowDown")
    keep(page, "page-image")
    page.close()

    page = opened(browser, address, 820, 1100, "light")
    page.locator('[data-image="images/00_OilSpot/001.jpg"]').click()
    page.wait_for_timeout(1500)
    page.keyboard.press("m")
    keep(page, "page-tablet")
    page.close()


def main() -> None:
    """Draw the images, open the page on them, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the pictures")
    out = parser.parse_args().out
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        demo = Path(folder) / "demo"
        command = [sys.executable, "-m", "unispector.cli", "data", "draw", str(demo), *DEMO]
        subprocess.run(command, check=True)  # noqa: S603 - our own
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        with page_on(demo) as address:
            mark(address, demo)
            take(browser, address, out)
        browser.close()


if __name__ == "__main__":
    main()
