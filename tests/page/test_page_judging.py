"""Findings accepted and rejected by a key, and undone."""

from playwright.sync_api import Page, expect

from live_page import BOX, FIRST, SECOND, Hands, LivePage


def test_an_accepted_finding_is_a_mark_a_rejected_one_a_negative_and_both_can_be_undone(
    live: LivePage, page: Page, hands: Hands
) -> None:
    live.change(kind="box", image=FIRST, label="bubble", box=BOX)
    live.change(kind="threshold", name="bubble", value=0.15)
    page.goto(live.url)
    hands.wait_done()
    # A marked image has its mark, which is no finding any more, on the card and in the panel.
    card = page.locator(f'[data-image="{FIRST}"]')
    (covered,) = [own for own in live.bench.project.news(-1, -1, 0).results if own[0].image == FIRST]
    least = 0.15
    assert any(
        verdict == 1 and score >= least for score, verdict in zip(covered[0].scores, covered[1], strict=True)
    )
    others = sum(
        verdict == 0 and score >= least for score, verdict in zip(covered[0].scores, covered[1], strict=True)
    )
    expect(card).to_contain_text("1 mark")
    expect(card.locator("[data-finding]")).to_have_count(others)
    hands.open_image(FIRST)
    expect(page.get_by_test_id("finding")).to_have_count(others)
    best = max(score for score, verdict in zip(covered[0].scores, covered[1], strict=True) if verdict == 0)
    slider = round(best + 0.0001, 4)
    live.change(kind="threshold", name="bubble", value=slider)
    digits = next(digits for digits in (2, 3, 4) if f"{best:.{digits}f}" != f"{slider:.{digits}f}")
    at = (
        f"scores {best:.{digits}f}, it stands at {slider:.{digits}f}."
        if digits > 2
        else f"scores {best:.2f}."
    )
    expect(page.get_by_text("Nothing besides your mark reaches the slider.")).to_contain_text(at)
    live.change(kind="threshold", name="bubble", value=0.15)
    expect(page.get_by_text("besides your mark")).to_have_count(int(others == 0))
    hands.back()
    order = page.locator("[data-image]").evaluate_all("(all) => all.map((own) => own.dataset.image)")
    hands.open_image(SECOND)
    findings, marks = page.get_by_test_id("finding"), page.get_by_test_id("mark")
    before = findings.count()
    assert before >= 2
    best = live.bench.project.results.whole(SECOND).findings[0]

    page.keyboard.press("a")
    expect(marks).to_have_count(1)
    accepted = live.bench.project.history.now.marks[-1]
    assert (accepted.image, accepted.label, accepted.negative) == (SECOND, "bubble", False)
    assert accepted.mask == best.mask
    assert accepted.origin == "accepted"
    hands.wait_done()  # it is looked for anew, with two marks
    assert live.bench.project.bank.counts == (2,)

    rejected_score = page.get_by_test_id("finding").first.locator(".mantine-Text-root").nth(1).inner_text()
    count = hands.count("bubble")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("r")
    expect(marks).to_have_count(2)
    negative = live.bench.project.history.now.marks[-1]
    assert (negative.negative, negative.origin, negative.label) == (True, "rejected", "bubble")
    expect(page.get_by_text(rejected_score, exact=True)).to_have_count(0)
    assert hands.count("bubble") == count - 1

    # The order stays while an image is open, whatever was rejected on it.
    place = page.get_by_test_id("place")
    at = int(place.inner_text().split()[1])
    assert order[at - 1] == SECOND
    page.keyboard.press("ArrowLeft" if at == len(order) else "ArrowRight")
    next_one = order[at - 2] if at == len(order) else order[at]
    expect(page.get_by_test_id("name")).to_have_text(next_one)
    page.keyboard.press("Control+z")  # of what was done on the other image
    expect(page.get_by_text("undone: reject of bubble on 001.jpg")).to_be_visible()
    page.get_by_role("button", name="001.jpg").click()
    expect(page.get_by_test_id("name")).to_have_text(SECOND)
    expect(marks).to_have_count(1)
    page.keyboard.press("Control+z")  # seen, so nothing is said
    expect(marks).to_have_count(0)
    expect(page.get_by_text("undone: accept")).to_have_count(0)
    page.keyboard.press("Control+Shift+z")
    expect(marks).to_have_count(1)
    assert live.bench.project.history.now.marks[-1] == accepted

    # Nor does it move when an image is done with, until all are seen again.
    hands.back()
    page.get_by_label("Order").first.click()
    page.get_by_role("option", name="Not reviewed first").click()
    cards = page.locator("[data-image]")
    first, second = (cards.nth(at).get_attribute("data-image") or "" for at in (0, 1))
    hands.open_image(first)
    page.keyboard.press("d")
    expect(page.get_by_role("button", name="Reviewed")).to_be_visible()
    expect(place).to_have_text("· 1 of 4")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_test_id("name")).to_have_text(second)
    page.keyboard.press("Escape")
    expect(cards.last).to_have_attribute("data-image", first)
