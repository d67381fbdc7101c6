"""The session in the browser: reopened, in two windows, and through a lost connection."""

import shutil
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from live_page import BOX, FIRST, SECOND, Hands, LivePage, page_server


def test_a_session_is_there_again_after_a_restart(
    folder: Path, tiny_model: Path, tmp_path: Path, page: Page, hands: Hands
) -> None:
    with page_server(folder, tiny_model, home=tmp_path) as live:
        page.goto(live.url)
        hands.open_image(FIRST)
        hands.draw_box(*BOX)
        hands.name_class("bubble")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.keyboard.press("d")
        expect(page.get_by_role("button", name="Reviewed")).to_be_visible()
        hands.wait_done()
        port, before = live.port, dict(live.bench.project.results._places)
    expect(page.get_by_test_id("offline")).to_be_visible()
    for _ in range(2):
        page.keyboard.press("d")  # not saved, and said so
        expect(page.get_by_text("no connection to UniSpector")).to_be_visible()
    expect(page.get_by_text("no connection to UniSpector")).to_have_count(1)
    with page_server(folder, tiny_model, home=tmp_path, port=port) as live:
        expect(page.get_by_test_id("offline")).to_have_count(0)
        expect(page.get_by_text("UniSpector was started again")).to_be_visible()
        expect(page.get_by_test_id("mark")).to_have_count(1)
        expect(page.get_by_role("button", name="Reviewed")).to_be_visible()
        hands.wait_done()
        # What was found before was not searched again.
        assert live.bench.project.results._places == before


def test_a_change_in_one_window_appears_in_the_other(
    tiny: LivePage, context: BrowserContext, page: Page, hands: Hands
) -> None:
    tiny.change(kind="class", name="bubble")
    other = context.new_page()
    for each in (page, other):
        each.goto(tiny.url)
        Hands(each).open_image(FIRST)
    hands.draw_box(*BOX)
    expect(other.get_by_test_id("mark")).to_have_count(1)
    Hands(other).draw_box(200, 200, 50, 50)
    expect(page.get_by_test_id("mark")).to_have_count(2)


def test_a_change_of_an_old_state_is_refused_with_a_line(tiny: LivePage, page: Page, hands: Hands) -> None:
    tiny.change(kind="class", name="bubble")
    page.goto(tiny.url)
    hands.open_image(FIRST)
    # The other window's change is not heard of before this one's.
    page.route("**/bench/news*", lambda route: route.abort())
    page.wait_for_timeout(2500)
    assert tiny.change(kind="box", image=SECOND, label="bubble", box=[1, 2, 30, 40]).status_code == 200
    page.route(
        "**/bench/session",
        lambda route: route.continue_() if route.request.method == "POST" else route.fallback(),
    )
    hands.draw_box(*BOX)
    expect(page.get_by_text("changed in another window meanwhile")).to_be_visible()
    assert [mark.image for mark in tiny.bench.project.history.now.marks] == [SECOND]
    hands.draw_box(*BOX)  # of the newest state now
    expect(page.get_by_test_id("mark")).to_have_count(1)
    assert [mark.image for mark in tiny.bench.project.history.now.marks] == [SECOND, FIRST]


def test_the_start_screen_opens_a_folder(tiny_model: Path, folder: Path, tmp_path: Path, page: Page) -> None:
    with page_server(None, tiny_model, home=tmp_path) as live:
        page.goto(live.url)
        page.get_by_role("button", name="parts").click()
        expect(page.get_by_label("Folder")).to_have_value(str(folder))
        page.get_by_role("button", name="Open this folder").click()
        expect(page.locator(f'[data-image="{FIRST}"]')).to_be_visible()
        assert (folder / ".unispector").is_dir()


def test_images_are_chosen_without_a_folder(
    tiny_model: Path, drawn: Path, tmp_path: Path, page: Page
) -> None:
    with page_server(None, tiny_model, home=tmp_path) as live:
        page.goto(live.url)
        page.get_by_label("Images", exact=True).set_input_files(
            [drawn / "images" / FIRST, drawn / "images" / SECOND]
        )
        expect(page.locator('[data-image="000.jpg"]')).to_be_visible()
        expect(page.locator('[data-image="001.jpg"]')).to_be_visible()
        assert (tmp_path / "unispector-images/000.jpg").read_bytes() == (
            drawn / "images" / FIRST
        ).read_bytes()


def test_the_demo_images_are_drawn_and_opened(
    tiny_model: Path, tmp_path: Path, page: Page, hands: Hands
) -> None:
    with page_server(None, tiny_model, home=tmp_path) as live:
        page.goto(live.url)
        page.get_by_role("button", name="Draw and open them").click()
        expect(page.locator("[data-image]").first).to_be_visible(timeout=60_000)
        assert len(live.bench.project.folder.files) == 14


def test_images_come_and_go(tiny: LivePage, folder: Path, page: Page) -> None:
    page.goto(tiny.url)
    expect(page.locator("[data-image]")).to_have_count(4)
    shutil.copy(folder / FIRST, folder / "new.jpg")
    expect(page.locator('[data-image="new.jpg"]')).to_be_visible()
    (folder / SECOND).unlink()
    expect(page.get_by_text(f"{SECOND} is gone from the folder")).to_be_visible()
    expect(page.locator(f'[data-image="{SECOND}"]')).to_have_count(0)
