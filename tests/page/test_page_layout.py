"""Widths, colours, help, comparing, and a token."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from live_page import BOX, FIRST, SECOND, Hands, LivePage, page_server

APART = """(all) => all.map((own) => own.getBoundingClientRect()).filter((own) => own.width && own.height)
.map((own) => [own.left, own.right, own.top, own.bottom])"""
SMALL = """() => {
    const controls = [...document.querySelectorAll('button, input, a, [role=slider]')];
    return controls.filter((own) => own.checkVisibility()).flatMap((own) => {
        const slider = own.closest('.mantine-Slider-trackContainer');
        const parts = own.labels?.length ? [...own.labels] : [slider ?? own];
        const places = parts.map((part) => part.getBoundingClientRect());
        const side = Math.max(...places.map((at) => Math.min(at.width, at.height)));
        return side < 39.5 ? [`${own.ariaLabel || own.textContent || own.outerHTML}: ${side}`] : [];
    });
}"""
"""What a finger can hardly hit: controls of less than 40 pixels."""


@pytest.mark.parametrize(("width", "height"), [(820, 1180), (1440, 900)])
def test_nothing_sticks_out_or_overlaps(tiny: LivePage, browser: Browser, width: int, height: int) -> None:
    touch = width < 1000
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=touch)
    page = context.new_page()
    hands = Hands(page)
    tiny.change(kind="box", image=FIRST, label="a rather long name of a defect", box=BOX)
    page.goto(tiny.url)
    hands.wait_done()
    for view in ("grid", "image"):
        if view == "image":
            hands.open_image(FIRST)
            page.keyboard.press("m")
        sizes = page.evaluate(
            "() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert sizes == [width, height]
        bars = page.locator(".bar, .tools, .filters")
        for bar in range(bars.count()):
            own = bars.nth(bar)
            if not own.is_visible():
                continue
            inside = own.evaluate("(element) => element.scrollWidth <= element.clientWidth")
            assert inside, own.get_attribute("class")
            parts = own.locator("> *").evaluate_all(APART)
            for at, (left, right, top, bottom) in enumerate(parts):
                for other in parts[at + 1 :]:
                    apart = (
                        right <= other[0] + 1
                        or other[1] <= left + 1
                        or bottom <= other[2] + 1
                        or other[3] <= top + 1
                    )
                    assert apart, (view, parts)
        if touch:
            assert page.evaluate(SMALL) == [], view
    count = page.get_by_test_id("count-a rather long name of a defect")
    assert count.evaluate("(own) => own.scrollWidth <= own.clientWidth")
    expect(page.get_by_test_id("name")).to_have_text(FIRST)
    expect(page.get_by_test_id("place")).to_contain_text("of 4")
    expect(page.get_by_text("Masks")).to_be_visible()
    page.get_by_role("button", name="Remove the mark").click()
    expect(page.get_by_text("Choose the box above" if touch else "Press B")).to_be_visible()
    hands.back()
    for name in (FIRST, SECOND):
        page.locator(f'[data-image="{name}"]').hover()
        page.get_by_label(f"Pick {name}").check(force=True)
    page.get_by_role("button", name="Compare 2").click()
    panes = page.locator(".pane").evaluate_all(APART)
    end, start = (3, 2) if height > width else (1, 0)  # one under the other, or beside it
    assert panes[0][end] <= panes[1][start] + 1
    context.close()


def test_it_follows_the_system_s_colours_and_can_be_switched(tiny: LivePage, browser: Browser) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(tiny.url)
    brightness = (
        "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    expect(page.locator("[data-image]").first).to_be_visible()
    assert max(page.evaluate(brightness)) < 60
    page.get_by_role("button", name="Light colours").click()
    assert min(page.evaluate(brightness)) > 200
    page.reload()
    expect(page.get_by_role("button", name="Dark colours")).to_be_visible()
    context.close()


def test_help_lists_the_keys(tiny: LivePage, page: Page) -> None:
    page.goto(tiny.url)
    expect(page.locator("[data-image]").first).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("accept the chosen finding")


def test_images_side_by_side_zoom_together(tiny: LivePage, page: Page) -> None:
    page.goto(tiny.url)
    for name in (FIRST, SECOND):
        page.locator(f'[data-image="{name}"]').hover()
        page.get_by_label(f"Pick {name}").check(force=True)
    page.keyboard.press("c")
    panes = page.locator(".pane .canvas")
    expect(panes).to_have_count(2)
    page.wait_for_timeout(800)
    scales = "(all) => all.map((own) => JSON.parse(own.dataset.frame).scale)"
    before = panes.evaluate_all(scales)
    bounds = panes.first.bounding_box()
    assert bounds is not None
    page.mouse.move(bounds["x"] + 100, bounds["y"] + 100)
    for _ in range(4):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(120)
    page.wait_for_timeout(1200)
    after = panes.evaluate_all(scales)
    growth = [new / old for new, old in zip(after, before, strict=True)]
    assert growth[0] > 1.8
    assert growth[1] == pytest.approx(growth[0], rel=0.02)


def test_the_page_asks_for_the_token_once(folder: Path, tiny_model: Path, tmp_path: Path, page: Page) -> None:
    with page_server(folder, tiny_model, home=tmp_path, token="s3cret") as live:
        page.goto(live.url)
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("textbox", name="Token")).to_be_visible()
        page.get_by_role("textbox", name="Token").fill("s3cret")
        page.get_by_role("button", name="Open").click()
        picture = page.locator(f'[data-image="{FIRST}"] img')
        expect(picture).to_be_visible()
        page.wait_for_function("(own) => own.naturalWidth > 0", arg=picture.element_handle())
        page.reload()
        expect(page.locator(f'[data-image="{FIRST}"]')).to_be_visible()
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/bench")
        assert "s3cret" not in cookie["value"]
