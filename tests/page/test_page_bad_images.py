"""Images that cannot be shown, or are of an odd kind: one line each, and the rest works."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from live_page import FIRST, Hands, LivePage, page_server


def test_unreadable_images_say_why_and_the_rest_is_searched(
    tiny: LivePage, folder: Path, page: Page, hands: Hands
) -> None:
    (folder / "cut.jpg").write_bytes((folder / FIRST).read_bytes()[:3000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    tiny.change(kind="box", image=FIRST, label="bubble", box=[110, 66, 34, 38])
    page.goto(tiny.url)
    for name in ("cut.jpg", "empty.png", "text.png"):
        expect(page.locator(f'[data-image="{name}"]')).to_contain_text("not a readable image")
    hands.wait_done()
    expect(page.get_by_test_id("status")).to_have_text("7 images searched")
    page.locator('[data-image="text.png"]').click()
    expect(page.locator(".viewertrouble")).to_contain_text("not a readable image")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("grid")).to_be_visible()


def test_an_empty_folder_says_what_to_do(tiny_model: Path, tmp_path: Path, page: Page) -> None:
    (tmp_path / "empty").mkdir()
    with page_server(tmp_path / "empty", tiny_model, home=tmp_path) as live:
        page.goto(live.url)
        expect(page.get_by_text("No image in this folder")).to_be_visible()
        expect(page.get_by_role("button", name="Export")).to_be_disabled()
        Image.new("RGB", (40, 30), "red").save(tmp_path / "empty/new.png")
        expect(page.locator('[data-image="new.png"]')).to_be_visible()


def odd_images(folder: Path) -> None:
    """A bright square at (60, 20) of an upright image of 120 x 80 pixels, in many kinds of files."""
    pixels = np.full((80, 120), 60, np.uint8)
    pixels[20:40, 60:90] = 230
    grey = Image.fromarray(pixels)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(folder / "sixteen.png")
    grey.convert("P").save(folder / "palette.png")
    rgba = grey.convert("RGBA")
    rgba.putalpha(128)
    rgba.save(folder / "alpha.png")
    grey.convert("CMYK").save(folder / "cmyk.tif")
    grey.save(folder / "animated.webp", save_all=True, append_images=[grey.rotate(180)], lossless=True)
    turned = Image.fromarray(np.rot90(pixels, 1))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif, quality=95)
    Image.new("RGB", (1, 1), "white").save(folder / "one.png")
    Image.new("RGB", (30_000, 10), "white").save(folder / "long.png")


def test_dark_images_of_12_bits_are_told_once_and_read_with_the_option(
    tiny_model: Path, tmp_path: Path, page: Page
) -> None:
    folder = tmp_path / "dark"
    folder.mkdir()
    for number in range(3):
        values = np.random.default_rng(number).integers(3000, 4000, (60, 80), dtype=np.uint16)
        Image.fromarray(values).save(folder / f"{number}.png")
    with page_server(folder, tiny_model, home=tmp_path) as live:
        page.goto(live.url)
        expect(page.get_by_text("looks like 12-bit data")).to_have_count(1)
        expect(page.get_by_text("--bit-depth 12")).to_be_visible()
        dark = np.asarray(Image.open(io.BytesIO(live.client.get("/bench/thumbnail?image=0.png").content)))
    with page_server(folder, tiny_model, home=tmp_path, bit_depth=12) as live:
        bright = np.asarray(Image.open(io.BytesIO(live.client.get("/bench/thumbnail?image=0.png").content)))
        assert dark.mean() < 20 < 200 < bright.mean()


KINDS = ("sixteen.png", "palette.png", "alpha.png", "cmyk.tif", "animated.webp", "turned.jpg")


def test_odd_images_are_upright_and_marked_in_their_own_pixels(
    tiny_model: Path, tmp_path: Path, page: Page, hands: Hands
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd_images(folder)
    with page_server(folder, tiny_model, home=tmp_path) as live:
        live.change(kind="class", name="square")
        live.change(kind="threshold", name="square", value=1)  # no finding lies over the pixels
        page.goto(live.url)
        for name in KINDS:
            hands.open_image(name)
            hands.draw_box(60, 20, 30, 20)
            expect(page.get_by_test_id("mark")).to_have_count(1)
            mark = live.bench.project.history.now.marks[-1]
            assert (mark.image, mark.hw) == (name, (80, 120))
            assert np.allclose(mark.box, [60, 20, 30, 20], atol=1)
            # What the screen shows in the middle of the box and beside it.
            page.keyboard.press("v")
            page.keyboard.press("h")
            places = [hands.place(*at) for at in ((75, 30), (30, 60))]
            for _ in range(20):  # until the tiles are there
                screen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L")).astype(int)
                inside, beside = (screen[round(y), round(x)] for x, y in places)
                if inside > 215 and beside < 75:
                    break
            assert (name, inside > 215, beside < 75) == (name, True, True)
            page.keyboard.press("h")
            hands.back()
        hands.wait_done()
        assert not any(own.trouble for own in live.bench.project.results._known.values())


@pytest.mark.parametrize(
    ("name", "drawn", "kept"),
    [
        ("one.png", (0.2, 0.2, 0.6, 0.6), (0, 0, 1, 1)),
        ("long.png", (14_900, -5, 100, 20), (14_900, 0, 100, 10)),
    ],
)
def test_extreme_sizes_are_shown_and_marked(
    tiny_model: Path,
    tmp_path: Path,
    page: Page,
    hands: Hands,
    name: str,
    drawn: tuple[float, ...],
    kept: tuple[float, ...],
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd_images(folder)
    with page_server(folder, tiny_model, home=tmp_path) as live:
        live.change(kind="class", name="all")
        page.goto(live.url)
        hands.open_image(name)
        if name == "long.png":
            for _ in range(14):
                page.keyboard.press("+")
        hands.draw_box(*drawn)
        expect(page.get_by_test_id("mark")).to_have_count(1)
        assert np.allclose(live.bench.project.history.now.marks[0].box, kept, atol=1)
        hands.wait_done()
        assert live.bench.project.run.state == "done"
