"""Marks drawn with mouse and finger: boxes, masks, and what becomes of them."""

import math

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from live_page import BOX, FIRST, Hands, LivePage
from unispector.ops.rle import decode_rle


def marks(live: LivePage) -> tuple:
    return live.bench.project.history.now.marks


def start(live: LivePage, page: Page, hands: Hands) -> None:
    live.change(kind="class", name="bubble")
    page.goto(live.url)
    hands.open_image(FIRST)


def test_a_box_waits_for_a_name_that_is_taken(tiny: LivePage, page: Page, hands: Hands) -> None:
    page.goto(tiny.url)
    hands.open_image(FIRST)
    left, top, width, height = BOX
    page.keyboard.press("b")
    hands.drag((left + width, top + height), (left, top))  # backwards: the same box
    dialog = page.get_by_role("dialog")
    field, save = page.get_by_label("Name of the defect"), page.get_by_role("button", name="Look for it")
    field.fill("Riss: innen")  # said while one types
    expect(dialog).to_contain_text("“:” cannot be in a name")
    expect(save).to_be_disabled()
    field.fill("a//b")  # the program knows better
    save.click()
    expect(dialog).to_contain_text("not the name of a class")
    expect(field).to_have_value("a//b")
    assert marks(tiny) == ()
    field.fill("O\u0308l & Fett (innen)")  # a decomposed letter, as some keyboards send it
    field.press("Enter")
    expect(page.get_by_test_id("mark")).to_have_count(1)
    expect(dialog).to_have_count(0)
    (own,) = marks(tiny)
    assert own.label == "Öl & Fett (innen)"
    assert np.allclose(own.box, BOX, atol=1.5)
    assert own.hw == (377, 518)

    hands.draw_box(200, 200, 50, 50)  # with the same name, which is active
    expect(page.get_by_test_id("mark")).to_have_count(2)
    page.get_by_role("button", name="Add a class").click()
    page.get_by_label("Name of the class").fill("..")
    page.get_by_label("Name of the class").press("Enter")
    panel = page.get_by_role("complementary", name="Classes")
    expect(panel).to_contain_text("not the name of a class")
    page.get_by_label("Name of the class").fill("dent")
    page.get_by_label("Name of the class").press("Enter")
    expect(page.get_by_test_id("class-dent")).to_be_visible()

    # Esc drops what is being drawn, and then leaves the image at once.
    page.mouse.move(*hands.place(100, 200))
    page.mouse.down()
    page.mouse.move(*hands.place(150, 250), steps=3)
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator(".canvas")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("grid")).to_be_visible()
    assert len(marks(tiny)) == 2


def test_a_click_and_a_box_beside_the_image_draw_nothing(tiny: LivePage, page: Page, hands: Hands) -> None:
    start(tiny, page, hands)
    page.keyboard.press("b")
    hands.drag((100, 100), (100, 100))
    hands.drag((100, -30), (200, -8))
    expect(page.get_by_text("less than a pixel inside the image")).to_be_visible()
    assert marks(tiny) == ()
    hands.drag((500, 300), (540, 340))  # half outside: cut at the edge
    expect(page.get_by_test_id("mark")).to_have_count(1)
    assert marks(tiny)[0].box[0] + marks(tiny)[0].box[2] == 518


def test_a_box_is_moved_resized_and_removed(tiny: LivePage, page: Page, hands: Hands) -> None:
    tiny.change(kind="box", image=FIRST, label="bubble", box=[200, 100, 100, 80])
    page.goto(tiny.url)
    hands.open_image(FIRST)
    page.get_by_test_id("mark").click()
    hands.drag((250, 140), (280, 160))
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    page.wait_for_timeout(300)
    assert np.allclose(marks(tiny)[0].box, [230, 120, 100, 80], atol=2)
    hands.drag((330, 200), (360, 240))  # the corner
    page.wait_for_timeout(300)
    assert np.allclose(marks(tiny)[0].box, [230, 120, 130, 120], atol=3)
    page.keyboard.press("Delete")
    expect(page.get_by_test_id("mark")).to_have_count(0)
    assert marks(tiny) == ()


def test_brush_and_eraser_make_a_mask(tiny: LivePage, page: Page, hands: Hands) -> None:
    start(tiny, page, hands)
    page.keyboard.press("m")
    page.get_by_label("Radius of the brush").fill("20")
    hands.drag((150, 150), (250, 150))
    expect(page.get_by_test_id("mark")).to_have_count(1)
    (own,) = marks(tiny)
    mask = decode_rle(own.mask)
    scale = page.locator(".canvas").evaluate("(element) => JSON.parse(element.dataset.frame).scale")
    radius = 20 / scale
    assert mask.sum() == pytest.approx(100 * 2 * radius + math.pi * radius**2, rel=0.08)
    assert mask[150, 150:251].all()
    page.keyboard.press("e")
    hands.drag((200, 120), (200, 180))
    page.wait_for_timeout(400)
    (own,) = marks(tiny)
    erased = decode_rle(own.mask)
    assert not erased[150, 200]
    assert erased[150, 150]
    assert erased[150, 250]
    # Drawn goes on with the mask that is chosen.
    page.keyboard.press("m")
    hands.drag((300, 200), (320, 200))
    page.wait_for_timeout(400)
    assert len(marks(tiny)) == 1
    assert decode_rle(marks(tiny)[0].mask)[200, 310]


def test_a_mask_is_moved(tiny: LivePage, page: Page, hands: Hands) -> None:
    start(tiny, page, hands)
    page.keyboard.press("m")
    page.get_by_label("Radius of the brush").fill("20")
    hands.drag((150, 150), (250, 150))
    expect(page.get_by_test_id("mark")).to_have_count(1)
    (before,) = marks(tiny)
    page.keyboard.press("v")
    hands.drag((200, 150), (260, 190))
    page.wait_for_timeout(400)
    (after,) = marks(tiny)
    assert np.allclose(np.subtract(after.box, before.box), [60, 40, 0, 0], atol=2)
    right, down = (round(after.box[axis] - before.box[axis]) for axis in (0, 1))
    was, now = decode_rle(before.mask), decode_rle(after.mask)
    assert (now[down:, right:] == was[: was.shape[0] - down, : was.shape[1] - right]).all()
    # It is grasped at its new place, and stands where it is.
    hands.drag((260, 190), (200, 150))
    page.wait_for_timeout(400)
    assert np.allclose(marks(tiny)[0].box, before.box, atol=2)


def test_what_is_not_the_defect_is_drawn_too(tiny: LivePage, page: Page, hands: Hands) -> None:
    start(tiny, page, hands)
    page.keyboard.press("n")
    hands.draw_box(*BOX)
    expect(page.get_by_text("not bubble")).to_be_visible()
    assert marks(tiny)[0].negative


def test_a_finger_draws_and_two_fingers_zoom(tiny: LivePage, browser: Browser) -> None:
    tiny.change(kind="class", name="bubble")
    context = browser.new_context(viewport={"width": 820, "height": 1100}, has_touch=True)
    page = context.new_page()
    hands = Hands(page)
    page.goto(tiny.url)
    page.locator(f'[data-image="{FIRST}"]').tap()
    page.get_by_role("button", name="Draw a box").tap()
    touch = context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    left, top, width, height = BOX
    fingers("touchStart", hands.place(left, top))
    fingers("touchMove", hands.place(left + width / 2, top + height / 3))
    fingers("touchMove", hands.place(left + width, top + height))
    fingers("touchEnd")
    expect(page.get_by_test_id("mark")).to_have_count(1)
    assert np.allclose(marks(tiny)[0].box, BOX, atol=2)

    scale = "(element) => JSON.parse(element.dataset.frame).scale"
    before = page.locator(".canvas").evaluate(scale)
    a, b = hands.place(200, 200), hands.place(260, 200)
    fingers("touchStart", a)
    fingers("touchStart", a, b)
    for step in range(1, 9):
        fingers("touchMove", (a[0] - 6 * step, a[1]), (b[0] + 6 * step, b[1]))
    fingers("touchEnd")
    page.wait_for_timeout(400)
    assert page.locator(".canvas").evaluate(scale) > 1.4 * before
    assert len(marks(tiny)) == 1  # nothing was drawn by it
    context.close()
