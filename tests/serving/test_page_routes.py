"""The page's routes over HTTP: who may ask, what is refused, and what is exported."""

import csv
import io
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from live_page import LivePage, page_server
from unispector.errors import DataError
from unispector.inference.prompt_bank import PromptBank
from unispector.serving.prompts import FixedPrompts
from unispector.workbench.project import Project

BOX = [5, 6, 20, 14]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: list[np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    for name, pixels in zip(("a.png", "b.png", "sub/c.png"), pictures, strict=False):
        Image.fromarray(pixels).save(folder / name)
    turned = Image.fromarray(pictures[3])
    exif = turned.getexif()
    exif[0x0112] = 8
    turned.save(folder / "turned.jpg", exif=exif)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:400])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture
def live(images: Path, tiny_model: Path, tmp_path: Path) -> Iterator[LivePage]:
    with page_server(images, tiny_model, home=tmp_path, session=tmp_path / "session") as live:
        yield live


def wait_done(live: LivePage) -> list[dict[str, Any]]:
    """All results, once every image is searched with the newest marks."""
    project, end = live.bench.project, time.monotonic() + 60
    while True:
        news = live.client.get("/bench/news", params={"after": -1, "version": -1}).json()
        newest = news["run"]["state"] == "done" and project.bank_marks == project.used_marks()
        if newest and {own["key"] for own in news["results"]} == {news["run"]["key"]}:
            return news["results"]
        assert time.monotonic() < end, news["run"]
        time.sleep(0.05)


def export(live: LivePage, kind: str) -> bytes:
    state = live.client.post("/bench/export", json={"kind": kind}).json()
    end = time.monotonic() + 60
    while not state["ready"]:
        assert not state["trouble"], state
        assert time.monotonic() < end
        time.sleep(0.02)
        state = live.client.get("/bench/export").json()
    return live.client.get("/bench/export/file", params={"number": state["number"]}).content


def test_images_are_listed_below_the_folder_and_upright(live: LivePage) -> None:
    listed = live.client.get("/bench/images").json()
    assert listed["names"] == ["a.png", "b.png", "broken.png", "sub/c.png", "turned.jpg"]
    assert live.client.get("/bench/size", params={"image": "turned.jpg"}).json() == {
        "width": 44,
        "height": 120,
    }
    assert live.change(kind="box", image="turned.jpg", label="x", box=[0, 100, 44, 20]).status_code == 200
    assert live.bench.project.history.now.marks[0].hw == (120, 44)


def test_results_have_every_image_and_name_the_one_that_is_unreadable(live: LivePage) -> None:
    live.change(kind="box", image="a.png", label="spot", box=BOX)
    results = {own["image"]: own for own in wait_done(live)}
    assert sorted(results) == ["a.png", "b.png", "broken.png", "sub/c.png", "turned.jpg"]
    assert results["broken.png"]["trouble"].startswith("broken.png: not a readable image")
    detector, root = live.bench._model().detector, live.bench.project.folder.root
    (expected,) = detector.detect([str(root / "b.png")], live.bench.project.bank)
    kept = expected.above(0.01)
    own = results["b.png"]
    assert own["hw"] == list(expected.image_hw)
    assert own["scores"] == pytest.approx(sorted(kept.scores.tolist(), reverse=True)[:100], abs=1e-4)
    findings = live.client.get("/bench/findings", params={"image": "b.png"}).json()
    assert [each["id"] for each in findings] == own["ids"]


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "notes.txt", ".hidden.png", "gone.png", ""])
@pytest.mark.parametrize("path", ["thumbnail", "size", "tile"])
def test_nothing_but_the_folder_s_images_is_shown(live: LivePage, path: str, name: str) -> None:
    place = {"level": 0, "column": 0, "row": 0} if path == "tile" else {}
    answer = live.client.get(f"/bench/{path}", params={"image": name, **place})
    assert answer.status_code == 400
    assert "not in the folder any more" in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"kind": "box", "image": "a.png", "label": "x", "box": [1, 1, 0, 5]}, "less than a pixel"),
        ({"kind": "box", "image": "a.png", "label": "x", "box": [900, 900, 5, 5]}, "less than a pixel"),
        ({"kind": "box", "image": "gone.png", "label": "x", "box": BOX}, "not in the folder"),
        ({"kind": "box", "image": "broken.png/../a.png", "label": "x", "box": BOX}, "not in the folder"),
        ({"kind": "box", "image": "a.png", "label": "<b>", "box": BOX}, "not the name of a class"),
        ({"kind": "box", "image": "a.png", "label": "x", "box": "far"}, "change"),
        ({"kind": "nonsense"}, "change"),
        ({"kind": "remove", "mark": "none"}, "gone"),
        ({"kind": "judge", "image": "a.png", "finding": "none", "accept": True}, "gone"),
        ({"kind": "threshold", "name": "x", "value": 7}, "value"),
    ],
)
def test_a_change_that_cannot_be_made_is_one_line(live: LivePage, change: dict[str, Any], line: str) -> None:
    answer = live.change(**change)
    assert answer.status_code == 400
    (key, text), *more = answer.json().items()
    assert (key, more) == ("error", [])
    assert line in text
    assert "\n" not in text
    assert live.client.get("/bench/session").json()["version"] == 0


def test_a_change_of_an_old_version_is_refused(live: LivePage) -> None:
    change = {"kind": "class", "name": "x"}
    assert live.client.post("/bench/session", json={"version": 0, "change": change}).status_code == 200
    late = live.client.post("/bench/session", json={"version": 0, "change": {"kind": "class", "name": "y"}})
    assert late.status_code == 409
    assert live.client.post("/bench/undo", json={"version": 0}).status_code == 409
    assert [own["name"] for own in live.client.get("/bench/session").json()["classes"]] == ["x"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "HOST"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),  # another program of this machine
        ({"Origin": "null"}, 403),
        ({"Origin": "http://[::1"}, 403),  # no address at all
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 403),  # a name that was bound to loopback later
    ],
)
def test_other_sites_pages_may_not_drive_it(live: LivePage, headers: dict[str, str], status: int) -> None:
    own = {name: live.url if value == "HOST" else value for name, value in headers.items()}
    change = {"kind": "class", "name": "x"}
    answer = live.client.post("/bench/session", json={"version": 0, "change": change}, headers=own)
    assert answer.status_code == status
    assert live.client.get("/bench/images", headers=own).status_code == status


def test_a_form_of_another_site_is_no_change(live: LivePage) -> None:
    text = json.dumps({"version": 0, "change": {"kind": "class", "name": "x"}})
    answer = live.client.post("/bench/session", content=text, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400


def test_with_a_token_only_the_page_s_files_come_without(
    images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with page_server(images, tiny_model, home=tmp_path, session=tmp_path / "s", token="t0ken") as live:
        with httpx.Client(base_url=live.url) as stranger:
            page = stranger.get("/")
            assert page.status_code == 200
            assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
            script = page.text.partition('src="')[2].partition('"')[0]
            assert stranger.get(script).status_code == 200
            for path in (
                "/bench/start",
                "/bench/session",
                "/bench/images",
                "/bench/thumbnail?image=a.png",
                "/metrics",
            ):
                assert stranger.get(path).status_code == 401
            stranger.cookies.set("unispector-page", "t0ken")
            assert stranger.get("/bench/start").status_code == 401
        cookie = live.client.post("/bench/login").headers["Set-Cookie"]
        with httpx.Client(base_url=live.url, headers={"Cookie": cookie.partition(";")[0]}) as page_client:
            assert page_client.get("/bench/thumbnail", params={"image": "a.png"}).status_code == 200
            assert page_client.get("/metrics").status_code == 401  # the cookie is the page's only


def test_exports_agree_with_marks_thresholds_and_verdicts(live: LivePage, images: Path) -> None:
    live.change(kind="box", image="a.png", label="spot", box=BOX)
    results = {own["image"]: own for own in wait_done(live)}
    scores = sorted(score for own in results.values() for score in own["scores"])
    assert len(scores) > 5
    least = (scores[len(scores) // 2] + scores[len(scores) // 2 - 1]) / 2
    live.change(kind="threshold", name="spot", value=least)
    victim = next(
        own
        for own in results.values()
        if own["scores"] and own["scores"][0] >= least and own["image"] != "a.png"
    )
    live.change(kind="judge", image=victim["image"], finding=victim["ids"][0], accept=False)
    results = {own["image"]: own for own in wait_done(live)}
    expected = {
        (name, round(score, 4))
        for name, own in results.items()
        for score, verdict in zip(own["scores"], own["verdicts"], strict=True)
        if score >= least and verdict == 0
    }

    coco = json.loads(export(live, "coco"))
    files = {own["id"]: own["file_name"] for own in coco["images"]}
    assert list(files.values()) == ["a.png", "b.png", "sub/c.png", "turned.jpg"]
    found = [own for own in coco["annotations"] if own["origin"] == "found"]
    assert {(files[own["image_id"]], round(own["score"], 4)) for own in found} == expected
    rejected = victim["boxes"][0]
    assert all(own["bbox"] != rejected or files[own["image_id"]] != victim["image"] for own in found)
    (drawn,) = [own for own in coco["annotations"] if own["origin"] == "drawn"]
    assert drawn["bbox"] == BOX
    assert (drawn["segmentation"], drawn["area"], "score" in drawn) == ([], BOX[2] * BOX[3], False)
    (coco_file := images.parent / "coco.json").write_text(json.dumps(coco))
    read = COCO(str(coco_file))
    assert all(read.annToMask(own).sum() > 0 for own in read.anns.values() if own["origin"] == "found")

    lines = list(csv.DictReader(io.StringIO(export(live, "csv").decode())))
    assert {
        (own["image"], round(float(own["score"]), 4)) for own in lines if own["origin"] == "found"
    } == expected
    assert [own["score"] for own in lines if own["origin"] == "drawn"] == [""]
    assert {own["image"] for own in lines} == set(files.values())

    with ZipFile(io.BytesIO(export(live, "images"))) as archive:
        stems = [name.rpartition(".")[0] for name in files.values()]
        assert sorted(archive.namelist()) == sorted(f"pictures/{stem}.jpg" for stem in stems)
        assert min(Image.open(io.BytesIO(archive.read("pictures/sub/c.jpg"))).size) >= 512

    counts = Counter(files[own["image_id"]] for own in coco["annotations"])
    with ZipFile(io.BytesIO(export(live, "yolo"))) as archive:
        assert archive.read("classes.txt").decode() == "spot\n"
        for name, count in counts.items():
            assert archive.read(f"labels/{name.rpartition('.')[0]}.txt").count(b"\n") == count
    with ZipFile(io.BytesIO(export(live, "labelme"))) as archive:
        drawn_on = json.loads(archive.read("a.json"))
        assert (drawn_on["imagePath"], len(drawn_on["shapes"])) == ("a.png", counts["a.png"])
        left, top, width, height = BOX
        box, *others = drawn_on["shapes"]
        corners = [[left, top], [left + width, top + height]]
        assert (box["shape_type"], box["points"], box["description"]) == ("rectangle", corners, "marked")
        assert "score" not in box
        assert all(own["shape_type"] == "mask" and own["score"] >= least for own in others)
        assert json.loads(archive.read("sub/c.json"))["imagePath"] == "c.png"

    (images.parent / "bank.safetensors").write_bytes(export(live, "bank"))
    bank = PromptBank.load(images.parent / "bank.safetensors")
    assert (bank.class_names, bank.counts, bank.negative_owners) == (("spot",), (1,), (0,))


@pytest.mark.parametrize("kind", ["coco", "csv", "yolo", "labelme", "images", "bank"])
def test_marks_on_an_image_that_was_replaced_by_one_of_another_size_are_kept_and_not_used(
    images: Path, tiny_model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unispector.workbench.project.RESCAN_SECONDS", 0.0)
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.open(images / name).save(folder / name)
    with page_server(folder, tiny_model, home=tmp_path) as live:
        for name in ("a.png", "b.png"):
            live.change(kind="box", image=name, label="spot", box=BOX)
        wait_done(live)
        Image.open(images / "a.png").resize((300, 200)).save(folder / "a.png")
        while [mark.image for mark in live.bench.project.bank_marks] != ["b.png"]:
            wait_done(live)
        wait_done(live)
        session = live.client.get("/bench/session").json()
        assert [mark["image"] for mark in session["marks"]] == ["a.png", "b.png"]
        assert "the image has changed (it had 70x50 pixels); its marks are kept" in str(session["advice"])
        exported = export(live, kind)
        if kind == "coco":
            content = json.loads(exported)
            assert (content["images"][0]["width"], content["images"][0]["height"]) == (300, 200)
            drawn = [own["image_id"] for own in content["annotations"] if own["origin"] == "drawn"]
            assert drawn == [2]


def test_an_export_of_nothing_says_so(live: LivePage) -> None:
    live.client.post("/bench/export", json={"kind": "bank"})
    time.sleep(0.3)
    assert "mark a defect first" in live.client.get("/bench/export").json()["trouble"]
    assert live.client.get("/bench/export/file", params={"number": 1}).status_code == 400


def test_prompts_of_a_bank_are_looked_for_beside_the_marks(
    images: Path, tiny_model: Path, bank_file: Path, tmp_path: Path
) -> None:
    prompts = FixedPrompts(bank_file)
    with page_server(images, tiny_model, home=tmp_path, session=tmp_path / "s", prompts=prompts) as live:
        wait_done(live)
        classes = live.client.get("/bench/session").json()["classes"]
        assert [(own["name"], own["prompted"]) for own in classes] == [("spot", True), ("line", True)]
        live.change(kind="box", image="a.png", label="dent", box=BOX)
        wait_done(live)
        assert set(live.bench.project.bank.class_names) == {"spot", "line", "dent"}


def job_of(live: LivePage) -> dict[str, Any]:
    """The newest work beside the search, once it has ended."""
    end = time.monotonic() + 60
    while (job := live.client.get("/bench/news", params={"after": -1, "version": -1}).json()["job"])[
        "running"
    ]:
        assert time.monotonic() < end
        time.sleep(0.05)
    return job


def test_marks_are_checked_over_http_and_the_advice_comes_with_the_session(live: LivePage) -> None:
    live.change(kind="box", image="a.png", label="spot", box=BOX)
    wait_done(live)  # the model is loaded
    refused = live.client.post("/bench/check", json={"label": "spot"})
    assert refused.status_code == 400
    assert "mark two images or more first" in refused.json()["error"]
    live.change(kind="box", image="b.png", label="spot", box=BOX)
    assert live.client.post("/bench/check", json={}).status_code == 204
    job = job_of(live)
    assert (job["number"], job["kind"], job["label"], job["line"]) == (1, "check", "", "")
    assert job["done"] == job["total"] > 0
    told = live.client.get("/bench/session").json()["advice"]
    assert [line["label"] for line in told] == ["spot"] * len(told)
    assert set(told[0]) == {"label", "image", "text", "drop"}
    assert live.client.post("/bench/stop").status_code == 204  # nothing runs; nothing happens


def test_good_images_and_budgets_are_refused_in_a_line(live: LivePage) -> None:
    for name in ("a.png", "b.png"):
        live.change(kind="box", image=name, label="spot", box=BOX)
    wait_done(live)
    assert live.change(kind="good", images=["sub/c.png"], good=True).json()["good"] == ["sub/c.png"]
    answer = live.change(kind="good", images=["a.png"], good=True)
    assert (answer.status_code, answer.json()["error"][:7]) == (400, "a.png: ")
    answer = live.client.post("/bench/threshold", json={"label": "spot", "one_in": 17})
    assert answer.status_code == 400
    assert "50 are needed" in answer.json()["error"]
    for wrong in (1, 0, -3, "many"):
        body = {"label": "spot", "one_in": wrong}
        assert live.client.post("/bench/threshold", json=body).status_code in (400, 422)
    # What only the program may say is no change that it takes.
    chosen = {"kind": "chosen", "name": "spot", "value": 0.5, "chosen": {}}
    assert live.change(**chosen).status_code in (400, 422)


def test_undone_marks_give_the_earlier_findings_without_a_search(live: LivePage) -> None:
    live.change(kind="box", image="a.png", label="spot", box=BOX)
    first = {own["image"]: own for own in wait_done(live)}
    live.change(kind="box", image="b.png", label="spot", box=BOX)
    second = {own["image"]: own for own in wait_done(live)}
    assert first["b.png"]["ids"] != second["b.png"]["ids"]
    version = live.client.get("/bench/session").json()["version"]
    live.client.post("/bench/undo", json={"version": version})
    again = {own["image"]: own for own in wait_done(live)}
    assert again["b.png"] == first["b.png"]
    # What was found with the first marks is still in its file, a line each.
    file = live.bench.project.session / "findings" / f"{again['b.png']['key']}.jsonl"
    assert len([line for line in file.read_text().splitlines() if line]) == len(first)


def test_a_folder_that_is_gone_or_a_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Project(tmp_path / "gone")


def test_a_read_only_folder_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DataError, match=r"--session"):
        Project(tmp_path)


def test_a_session_is_open_in_one_program_only(live: LivePage, images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="another `unispector ui` has this session open"):
        Project(images, tmp_path / "session")
    live.bench.close()
    Project(images, tmp_path / "session").end()


def test_the_start_s_folder_is_the_only_one(live: LivePage, tmp_path: Path) -> None:
    assert live.client.post("/bench/open", json={"folder": str(tmp_path)}).status_code == 400
    assert live.client.get("/bench/folders", params={"path": str(tmp_path)}).status_code == 403


def test_images_that_are_added_never_replace_another(live: LivePage, images: Path) -> None:
    data = (images / "a.png").read_bytes()
    try:
        assert live.client.put("/bench/images", params={"name": "a.png"}, content=data).json() == "a-2.png"
        assert (
            live.client.put("/bench/images", params={"name": "../../x.png"}, content=data).json() == "x.png"
        )
        assert live.client.put("/bench/images", params={"name": "x.exe"}, content=data).status_code == 400
        assert (images / "x.png").read_bytes() == data
    finally:
        for name in ("a-2.png", "x.png"):
            (images / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["a\0b.png", f"{'y' * 300}.png", f"{'y' * 252}.png"])
def test_a_name_that_no_file_can_have_is_one_line(live: LivePage, name: str) -> None:
    answer = live.client.put("/bench/images", params={"name": name}, content=b"x")
    assert answer.status_code == 400
    assert "cannot be put there" in answer.json()["error"]
    assert "rename it" in answer.json()["error"]


@pytest.mark.parametrize("path", ["a\0b", "~nobody-of-this-name", "/" + "y" * 300, "."])
def test_what_is_no_folder_is_one_line(tiny_model: Path, tmp_path: Path, path: str) -> None:
    with page_server(None, tiny_model, home=tmp_path) as live:
        body = json.dumps({"folder": path if path != "." else str(tmp_path / "gone")})
        answer = live.client.post("/bench/open", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert "no such folder; check the path" in answer.json()["error"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "/x/yolo.zip"), "/x/yolo.zip: cannot be written (No space"),
        (ValueError("a fault of ours"), "ValueError: a fault of ours"),
    ],
)
def test_an_export_that_fails_says_why_and_the_next_one_is_written(
    live: LivePage, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def failing(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("unispector.workbench.bench.export", failing)
        live.client.post("/bench/export", json={"kind": "yolo"})
        end = time.monotonic() + 10
        while not (state := live.client.get("/bench/export").json())["trouble"]:
            assert time.monotonic() < end
        assert state["trouble"].startswith(line)
    assert export(live, "csv")


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    from unispector.errors import ServiceError
    from unispector.serving.ui import PageOptions, ui

    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = PageOptions(None, tmp_path, "127.0.0.1", taken.getsockname()[1], browser=False)
        with pytest.raises(ServiceError, match="--port"):
            ui(options, "fast", None)


@pytest.mark.parametrize("name", ["a%0Ab", "%1B[2J", "%ED%A0%80"])
def test_a_name_does_not_make_two_lines_of_an_answer(live: LivePage, name: str) -> None:
    answer = live.client.get(f"/bench/size?image={name}")
    assert answer.status_code == 400
    assert answer.json()["error"].isprintable()
