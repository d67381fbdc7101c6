"""The prompt doctor and the choice of a threshold in the browser."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from live_page import FIRST, SECOND, THIRD, Hands, LivePage, page_server
from unispector.inference.prompt_bank import PromptBank
from unispector.project.progress import progress_bar
from unispector.workbench import joined
from unispector.workbench.joined import Advice

BOXES = {FIRST: (110, 66, 34, 38), SECOND: (100, 100, 30, 30), THIRD: (200, 150, 40, 30)}
TEXT = "drop it: without it AP50 41 in place of 33 elsewhere"


@pytest.fixture
def marked(tiny: LivePage) -> LivePage:
    """Three images marked, one of them twice."""
    for image, box in BOXES.items():
        tiny.change(kind="box", image=image, label="bubble", box=box)
    tiny.change(kind="box", image=SECOND, label="bubble", box=[20, 20, 30, 30])
    return tiny


@pytest.fixture
def permits(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Lets the doctor, who says the same of every class, do one trial each."""
    permits = threading.Semaphore(0)

    def check(model: object, marks: object, root: object, labels: list[str], bit_depth: int) -> list[Advice]:
        with progress_bar("doctor") as show:
            for number in range(4):
                show(number, 4)
                assert permits.acquire(timeout=30)
            show(4, 4)
        return [
            own
            for label in labels
            for own in (Advice(label, SECOND, TEXT, drop=True), Advice(label, None, "enough"))
        ]

    monkeypatch.setattr(joined, "check", check)
    return permits


def test_advice_stands_beside_its_mark_and_is_followed_and_undone(
    marked: LivePage, page: Page, hands: Hands, permits: threading.Semaphore
) -> None:
    page.goto(marked.url)
    row = page.get_by_test_id("class-bubble")
    row.get_by_role("button", name="Check the marks").click()
    expect(row.get_by_test_id("job")).to_contain_text("0 of 4 trials")
    permits.release(2)
    expect(row.get_by_test_id("job")).to_contain_text("2 of 4 trials")
    permits.release(2)
    expect(row.get_by_text(TEXT)).to_be_visible()
    expect(row.get_by_text("enough")).to_be_visible()
    expect(page.get_by_test_id("job")).to_have_count(0)

    row.get_by_text(TEXT).click()  # opens its image
    advice = page.get_by_test_id("mark-advice")
    expect(page.get_by_test_id("mark")).to_have_count(2)
    expect(advice).to_have_count(1)
    expect(advice).to_contain_text(TEXT)
    advice.get_by_role("button", name="Drop it").click()
    expect(page.get_by_test_id("mark")).to_have_count(0)
    expect(row.get_by_text(TEXT)).to_have_count(0)
    expect(row.get_by_text("the marks have changed since they were checked")).to_be_visible()
    assert {mark.image for mark in marked.bench.project.history.now.marks} == {FIRST, THIRD}
    page.keyboard.press("Control+z")
    expect(page.get_by_test_id("mark")).to_have_count(2)
    expect(advice).to_contain_text(TEXT)  # it holds for these marks again


def test_a_check_ends_when_marks_change_and_when_it_is_stopped(
    marked: LivePage, page: Page, hands: Hands, permits: threading.Semaphore
) -> None:
    marked.change(kind="box", image=FIRST, label="dent", box=[200, 200, 20, 20])
    marked.change(kind="box", image=THIRD, label="dent", box=[20, 200, 20, 20])
    page.goto(marked.url)
    page.get_by_role("button", name="Check all marks").click()
    expect(page.get_by_test_id("job")).to_contain_text("0 of 4 trials")
    hands.open_image(FIRST)
    marks = len(marked.bench.project.used_marks())
    page.get_by_role("button", name="Remove the mark").first.click()
    deadline = time.monotonic() + 20
    while len(marked.bench.project.used_marks()) == marks:  # the trial goes on once the program knows
        assert time.monotonic() < deadline
        time.sleep(0.02)
    permits.release()
    expect(page.get_by_text("given up, since the marks have changed")).to_be_visible()
    expect(page.get_by_test_id("job")).to_have_count(0)

    page.get_by_test_id("class-bubble").get_by_role("button", name="Check the marks").click()
    page.get_by_role("button", name="Stop").click()
    permits.release()
    expect(page.get_by_test_id("job")).to_have_count(0)
    assert marked.bench.project.checked == {}


@pytest.fixture
def line(tiny_model: Path, tmp_path: Path) -> Iterator[LivePage]:
    """Three images with a bright spot, and 20 without in a folder of their own."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "line"
    (folder / "good").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png", *(f"good/{number:02d}.png" for number in range(20))):
        pixels = rng.integers(90, 120, (64, 80, 3), dtype=np.uint8)
        if "/" not in name:
            pixels[20:34, 30:44] = 250
        Image.fromarray(pixels).save(folder / name)
    with page_server(folder, tiny_model, home=tmp_path) as live:
        for name in ("a.png", "b.png", "c.png"):
            live.change(kind="box", image=name, label="spot", box=[30, 20, 14, 14])
        yield live


def test_a_threshold_is_chosen_from_good_images_and_exported(
    line: LivePage, page: Page, hands: Hands
) -> None:
    page.goto(line.url)
    hands.open_image("a.png")
    page.keyboard.press("g")  # it shows a defect
    expect(page.get_by_text("a.png: a defect is marked on it")).to_be_visible()
    hands.back()
    hands.open_image("good/00.png")
    page.keyboard.press("g")
    good = page.get_by_role("button", name="Good", exact=True)
    expect(good).to_have_attribute("aria-pressed", "true")
    good.click()
    expect(good).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Shift+G")  # all of its folder
    expect(good).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("20 images of good/ are good")).to_be_visible()
    assert len(line.bench.project.history.now.good) == 20

    page.get_by_role("button", name="Good, more").click()  # the same without a keyboard
    expect(page.get_by_role("menuitem", name="good/")).to_be_visible()
    page.keyboard.press("Escape")  # closes the menu, not the image
    expect(page.get_by_role("menuitem", name="good/")).to_have_count(0)
    expect(page.locator(".canvas")).to_be_visible()
    page.get_by_role("button", name="Good, more").click()
    page.get_by_role("menuitem", name="No image of good/ is good").click()
    expect(good).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Good, more").click()
    page.get_by_role("menuitem", name="All images of good/ are good").click()
    expect(good).to_have_attribute("aria-pressed", "true")

    page.get_by_role("button", name="Menu of spot").click()
    page.get_by_role("menuitem", name="Choose the threshold").click()
    dialog, field = page.get_by_role("dialog"), page.get_by_label("False alarm on at most one good image in")
    expect(field).to_have_value("7")
    expect(dialog).to_contain_text("20 good images can prove 1 in 7")
    expect(dialog).to_contain_text("mark every one that is there")
    field.fill("17")
    expect(dialog.get_by_role("alert")).to_contain_text("50 are needed")
    choose = dialog.get_by_role("button", name="Choose", exact=True)
    expect(choose).to_be_disabled()
    field.fill("7")
    choose.click()
    promise = page.get_by_test_id("promise-spot")
    expect(promise).to_contain_text("at most 1 in 7 good images, 95% sure")
    expect(promise).to_contain_text("of 3 marks found")
    expect(promise).to_have_attribute("data-proved", "true")
    (own,) = line.bench.project.history.now.classes
    assert own.threshold is not None
    assert float(page.get_by_test_id("threshold-spot").inner_text()) == pytest.approx(
        own.threshold, abs=0.006
    )

    hands.wait_done()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
        page.get_by_role("menuitem", name="Prompt bank").click()
    assert own.chosen is not None
    saved = shutil.copy(download.value.path(), line.bench.home / "saved.safetensors")
    assert PromptBank.load(saved).calibrations == (own.chosen.calibration,)

    hands.draw_box(10, 10, 20, 20)
    expect(promise).to_contain_text("the marks have changed")
    expect(promise).to_have_attribute("data-proved", "false")
    expect(good).to_have_attribute("aria-pressed", "false")  # it shows a defect now
    page.keyboard.press("Control+z")
    expect(promise).to_have_attribute("data-proved", "true")
    expect(good).to_have_attribute("aria-pressed", "true")
