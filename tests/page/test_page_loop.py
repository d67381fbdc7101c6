"""The whole loop in a browser: draw a box, see the defect on other images, move the slider, export."""

import json
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page, Request, expect

from live_page import BOX, FIRST, SECOND, THIRD, Hands, LivePage


def test_from_a_box_to_an_export(
    live: LivePage, page: Page, hands: Hands, requests: list[Request], tmp_path: Path
) -> None:
    page.goto(live.url)
    expect(page.get_by_test_id("teach")).to_be_visible()
    hands.open_image(FIRST)
    hands.draw_box(*BOX)
    hands.name_class("bubble")
    expect(page.get_by_test_id("mark")).to_have_count(1)
    hands.wait_done()

    hands.back()
    for name in (SECOND, THIRD):
        assert page.locator(f'[data-image="{name}"] [data-finding="bubble"]').count() >= 1
    names = page.locator("[data-image]").evaluate_all("(all) => all.map((own) => own.dataset.image)")
    best = {
        name: max(live.bench.project.results.summary(name).scores, default=0)
        for name in live.bench.project.folder.files
    }
    assert names == sorted(best, key=lambda name: -best[name])

    count, asked = hands.count("bubble"), len(requests)
    slider = page.get_by_label("Threshold of bubble")
    slider.focus()
    for _ in range(80):
        slider.press("ArrowRight")
    least = float(page.get_by_test_id("threshold-bubble").inner_text())
    scores = [
        score
        for summary, verdicts in live.bench.project.news(-1, -1, 0).results
        for score, verdict in zip(summary.scores, verdicts, strict=True)
        if verdict == 0  # the marked one is no finding any more
    ]
    assert least > 0.3
    assert hands.count("bubble") == sum(score >= least for score in scores) < count
    assert page.locator('[data-finding="bubble"]').count() == hands.count("bubble")
    later = [urlsplit(request.url).path for request in requests[asked:]]
    assert set(later) <= {"/bench/news", "/bench/session", "/bench/findings", "/bench/seen"}
    page.wait_for_timeout(700)
    assert live.bench.project.run.state == "done"  # nothing was searched anew

    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
        page.get_by_role("menuitem", name="COCO JSON").click()
    expect(page.get_by_text("Export written: detections.json")).to_be_visible()
    coco = json.loads(Path(download.value.path()).read_text())
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    assert sorted(files.values()) == sorted(live.bench.project.folder.files)
    assert [category["name"] for category in coco["categories"]] == ["bubble"]
    marked = [own for own in coco["annotations"] if own["origin"] == "drawn"]
    assert [files[own["image_id"]] for own in marked] == [FIRST]
    assert all(abs(a - b) <= 2 for a, b in zip(marked[0]["bbox"], BOX, strict=True))
    found = [own for own in coco["annotations"] if own["origin"] == "found"]
    assert {files[own["image_id"]] for own in found} >= {SECOND, THIRD}
    assert all(own["score"] >= least for own in found)

    origins = {f"{urlsplit(own.url).scheme}://{urlsplit(own.url).netloc}" for own in requests}
    assert origins == {live.url}
