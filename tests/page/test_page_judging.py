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

    page.keyboard.press("Control+z")
    expect(marks).to_have_count(1)
    page.keyboard.press("Control+z")
    expect(marks).to_have_count(0)
    page.keyboard.press("Control+Shift+z")
    expect(marks).to_have_count(1)
    assert live.bench.project.history.now.marks[-1] == accepted
