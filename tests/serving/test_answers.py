"""A running service answers exactly what the library finds."""

import errno
import os
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from live_service import assert_equal, encoded, follow, serving
from unispector.inference.calibration import Calibration
from unispector.inference.detector import Prompt
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.serving import batching
from unispector.serving.limits import Limits
from unispector.serving.prompts import FixedPrompts, StoredPrompts

BOXES = [[5, 5, 20, 10], [40, 30, 10, 10]]
ALL_SCORES = {"min_score": "0"}


def test_detections_equal_the_library_s(fixed, files, pictures, detector, bank):
    sent = [("images", (f"{n}.png", data)) for n, data in enumerate(files)]
    answer = fixed.client.post("/detect", files=sent, data=ALL_SCORES).json()
    assert answer["model"] == {"reference": "a model", "version": "", "fingerprint": detector.fingerprint}
    assert [each["name"] for each in answer["pictures"]] == [f"{n}.png" for n in range(len(files))]
    for picture, message in zip(pictures, answer["pictures"], strict=True):
        assert message["detections"]
        assert_equal(message, detector.detect([picture], bank)[0])


def test_many_clients_at_once_get_their_own_answers(fixed, files, pictures, detector, bank):
    before = fixed.metric("unispector_pictures_total"), fixed.metric("unispector_batch_pictures_count")
    turns = [n % len(files) for n in range(30)]

    def asked(n: int):
        answer = fixed.client.post("/detect", files={"images": files[n]}, data=ALL_SCORES)
        assert answer.status_code == 200, answer.text
        return answer.json()["pictures"][0]

    with ThreadPoolExecutor(10) as pool:
        messages = list(pool.map(asked, turns))
    expected = [detector.detect([picture], bank)[0] for picture in pictures]
    for n, message in zip(turns, messages, strict=True):
        assert_equal(message, expected[n])
    looked = fixed.metric("unispector_pictures_total") - before[0]
    taken = fixed.metric("unispector_batch_pictures_count") - before[1]
    assert looked == 30
    assert taken < 30  # some shared a turn
    assert fixed.metric("unispector_queue_pictures") == 0


def test_classes_scores_and_limits(fixed, files, pictures, detector, bank):
    def asked(**data: object):
        return fixed.client.post("/detect", files={"images": files[1]}, data=ALL_SCORES | data).json()[
            "pictures"
        ][0]

    found = detector.detect([pictures[1]], bank)[0]
    middle = float(found.scores.median())
    assert 0 < len(found.above(middle)) < len(found)
    assert_equal(asked(min_score=repr(middle)), found.above(middle))
    assert_equal(asked(limit="3"), detector.detect([pictures[1]], bank, limit=3)[0])
    for classes in (["line"], ["line", "spot"], ["spot", "spot"]):
        own = bank.select(list(dict.fromkeys(classes)))
        assert_equal(asked(classes=classes), detector.detect([pictures[1]], own)[0])


def test_without_a_score_findings_count_from_their_classs_threshold(
    tiny_model, files, pictures, detector, bank, tmp_path
):
    found = detector.detect([pictures[1]], bank)[0]
    scores = [sorted(found.scores[found.labels == row].tolist()) for row in range(2)]
    thresholds = tuple(own[len(own) // 2] for own in scores)
    told = bank.calibrated(
        {name: Calibration(threshold=t) for name, t in zip(bank.class_names, thresholds, strict=True)}
    )
    told.save(tmp_path / "bank.safetensors")
    with serving(follow(tiny_model), FixedPrompts(tmp_path / "bank.safetensors")) as service:
        answer = service.client.post("/detect", files={"images": files[1]}).json()
    assert answer["thresholds"] == pytest.approx(dict(zip(bank.class_names, thresholds, strict=True)))
    expected = found.above(thresholds)
    assert 0 < len(expected) < len(found)
    assert_equal(answer["pictures"][0], expected)


def test_different_questions_do_not_share_a_pass(fixed, files, pictures, detector, bank):
    questions = [{}, {"classes": "line"}, {"limit": "2"}, {"classes": "spot"}] * 4

    def asked(data):
        return fixed.client.post("/detect", files={"images": files[2]}, data=ALL_SCORES | data).json()[
            "pictures"
        ][0]

    with ThreadPoolExecutor(8) as pool:
        messages = list(pool.map(asked, questions))
    for data, message in zip(questions, messages, strict=True):
        own = bank.select([data["classes"]]) if "classes" in data else bank
        assert_equal(message, detector.detect([pictures[2]], own, limit=int(data.get("limit", 300)))[0])


def test_a_broken_picture_fails_only_its_own_request(fixed, files):
    def asked(data: bytes):
        return fixed.client.post(
            "/detect", files=[("images", ("ok.png", files[0])), ("images", ("p.png", data))]
        )

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(asked, [files[1], files[1][:60], files[2], b"no image", files[3], b""]))
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400, 200, 400]
    for answer in answers[1::2]:
        assert answer.json()["error"].startswith("p.png: not a readable")


def test_unknown_classes_are_refused(fixed, files):
    answer = fixed.client.post("/detect", files={"images": files[0]}, data={"classes": ["spot", "hole"]})
    assert answer.status_code == 400
    assert answer.json() == {"error": "classes: 'hole' has no prompt; GET /prompts lists those that have"}


def test_classes_of_a_bank_file_have_any_name(tiny_model, detector, pictures, files, tmp_path):
    names = ["crack (deep)", "a" * 90]
    bank = detector.encode([Prompt(pictures[0], BOXES, label=name) for name in names])
    bank.save(tmp_path / "bank.safetensors")
    with serving(follow(tiny_model), FixedPrompts(tmp_path / "bank.safetensors")) as live:
        for name in names:
            answer = live.client.post("/detect", files={"images": files[1]}, data={"classes": name})
            assert {each["label"] for each in answer.json()["pictures"][0]["detections"]} == {name}


def test_a_large_image_is_looked_at_in_the_tiles_of_the_bank(tiny_model, detector, bank, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 190, 3), dtype=np.uint8)
    bank.tiled(64).save(tmp_path / "bank.safetensors")
    with serving(follow(tiny_model), FixedPrompts(tmp_path / "bank.safetensors")) as live:
        answer = live.client.post("/detect", files={"images": encoded(pixels)}, data=ALL_SCORES).json()
    found, whole = (detector.detect(pixels, each, 1) for each in (bank.tiled(64), bank))
    assert_equal(answer["pictures"][0], found)
    assert list(found.masks_rle) != list(whole.masks_rle)


def test_a_bank_file_is_listed_and_never_changed(fixed, files):
    listing = fixed.client.get("/prompts").json()
    assert listing["classes"] == [
        {"label": "spot", "marks": 2, "negatives": 0},
        {"label": "line", "marks": 1, "negatives": 0},
    ]
    assert (listing["changeable"], listing["history"]) == (False, [])
    assert listing["served"] == listing["version"]
    data = {"label": "spot", "boxes": "[[1,1,9,9]]"}
    assert fixed.client.post("/prompts", files={"image": files[0]}, data=data).status_code == 409
    assert fixed.client.delete("/prompts/spot").status_code == 409


def test_prompts_are_looked_for_at_once(growing, files, pictures, detector, tmp_path):
    refused = growing.client.post("/detect", files={"images": files[1]})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert growing.client.get("/ready").status_code == 503

    data = {"label": "set/spot", "boxes": str(BOXES), "note": "first", "by": "anna"}
    added = growing.client.post("/prompts", files={"image": ("p.png", files[0])}, data=data).json()
    assert added["classes"] == [{"label": "set/spot", "marks": 2, "negatives": 0}]
    assert (added["version"], added["served"]) == ("1", "1")
    assert (added["history"][0]["by"], added["history"][0]["note"]) == ("anna", "first")
    assert growing.client.get("/ready").status_code == 200

    answer = growing.client.post("/detect", files={"images": files[1]}, data=ALL_SCORES).json()
    bank = detector.encode([Prompt(pictures[0], BOXES, label="set/spot")])
    assert answer["bank_version"] == "1"
    assert_equal(answer["pictures"][0], detector.detect([pictures[1]], bank)[0])
    assert [
        len(stored.marks()) for stored in PromptStore(tmp_path / "prompts").current().classes["set/spot"]
    ] == [2]

    against = {"label": "set/spot", "boxes": "[[2, 2, 20, 20]]", "negative": "true"}
    opposed = growing.client.post("/prompts", files={"image": ("q.png", files[2])}, data=against).json()
    assert opposed["classes"] == [{"label": "set/spot", "marks": 2, "negatives": 1}]
    answer = growing.client.post("/detect", files={"images": files[1]}, data=ALL_SCORES).json()
    bank = detector.with_negatives(bank, Prompt(pictures[2], [(2, 2, 20, 20)], label="set/spot"))
    assert_equal(answer["pictures"][0], detector.detect([pictures[1]], bank)[0])
    strange = growing.client.post("/prompts", files={"image": files[2]}, data=against | {"label": "new"})
    assert strange.status_code == 400
    assert "new: no image shows the defect yet" in strange.json()["error"]

    gone = growing.client.delete("/prompts/set/spot").json()
    assert (gone["classes"], gone["version"], gone["served"]) == ([], "3", "3")
    assert growing.client.delete("/prompts/set/spot").status_code == 404


def test_masks_are_prompts_too(growing, files, pictures, detector):
    mask = np.zeros(pictures[0].shape[:2], dtype=np.uint8)
    mask[10:30, 12:20] = 200
    sent = {"image": ("p.png", files[0]), "mask": ("m.png", encoded(mask))}
    assert growing.client.post("/prompts", files=sent, data={"label": "spot"}).status_code == 200
    bank = detector.encode([Prompt(pictures[0], masks=mask, label="spot")])
    answer = growing.client.post("/detect", files={"images": files[1]}, data=ALL_SCORES).json()
    assert_equal(answer["pictures"][0], detector.detect([pictures[1]], bank)[0])


def test_marks_that_cannot_be_used_leave_no_trace(growing, files):
    wrong_size = encoded(np.full((9, 9), 255, dtype=np.uint8))
    black = encoded(np.zeros((50, 70), dtype=np.uint8))
    cases = [
        ({"image": ("p.png", files[0])}, {"label": "a", "boxes": "[[500,500,5,5]]"}),
        ({"image": ("p.png", files[0])}, {"label": "a", "boxes": "[[1,1,-5,5]]"}),
        ({"image": ("p.png", files[0])}, {"label": "a", "boxes": "[[1,1,5,5],[1,1,5,5]]"}),
        ({"image": ("p.png", files[0][:50])}, {"label": "a", "boxes": "[[1,1,5,5]]"}),
        ({"image": ("p.png", files[0]), "mask": ("m", wrong_size)}, {"label": "a"}),
        ({"image": ("p.png", files[0]), "mask": ("m", black)}, {"label": "a"}),
        ({"image": ("p.png", files[0]), "mask": ("m", b"no mask")}, {"label": "a"}),
    ]
    for sent, data in cases:
        answer = growing.client.post("/prompts", files=sent, data=data)
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), answer.text
        assert "/" not in answer.json()["error"]
    assert growing.client.get("/prompts").json()["version"] == "0"


def test_a_long_name_can_be_deleted(growing, files):
    label, image = "a" * 80, {"image": files[0]}
    added = growing.client.post("/prompts", files=image, data={"label": label, "boxes": str(BOXES)})
    assert added.json()["served"] == "1"
    assert growing.client.delete(f"/prompts/{label}").json()["classes"] == []


def test_damage_of_the_store_is_told_in_one_line(growing, files, tmp_path):
    def added(label: str):
        data = {"label": label, "boxes": str(BOXES)}
        return growing.client.post("/prompts", files={"image": files[0]}, data=data)

    assert [added(label).status_code for label in ("spot", "line")] == [200, 200]
    (tmp_path / "prompts" / "versions" / "000001.json").write_text("damaged")
    answer = added("hole")
    assert answer.status_code == 200
    assert [each["version"] for each in answer.json()["history"]] == ["3", "2", "1"]
    assert "000001.json" in answer.json()["history"][2]["note"]
    assert str(tmp_path) not in answer.text
    (tmp_path / "prompts" / "CURRENT").write_text("nonsense")
    for answer in (growing.client.get("/prompts"), added("crack"), growing.client.delete("/prompts/spot")):
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("CURRENT: not the number of the newest version")


def test_a_change_that_was_not_begun_in_time_is_never_made(tiny_model, files, tmp_path):
    prompts = StoredPrompts(PromptStore(tmp_path / "prompts"))
    data, done = {"label": "spot", "boxes": str(BOXES)}, threading.Event()
    with serving(follow(tiny_model), prompts, Limits(request_seconds=1), ready=False) as live:
        live.wait_for(lambda state: state["model"] is not None)
        live.service._loader.submit(done.wait)
        answer = live.client.post("/prompts", files={"image": files[0]}, data=data)
        done.set()
        assert (answer.status_code, answer.json()) == (503, {"error": "took too long"})
    assert prompts.version() == "0"


@pytest.mark.parametrize("slow", ["add", "refresh"])
def test_a_change_that_was_made_is_told(tiny_model, files, tmp_path, monkeypatch, slow):
    prompts = StoredPrompts(PromptStore(tmp_path / "prompts"))
    data = {"label": "spot", "boxes": str(BOXES)}
    with serving(follow(tiny_model), prompts, Limits(request_seconds=1), ready=False) as live:
        live.wait_for(lambda state: state["model"] is not None)
        owner = prompts if slow == "add" else live.service.reloader
        right = getattr(owner, slow)

        def late(*args):
            if slow == "add" or prompts.version() == "1":
                time.sleep(2)
            return right(*args)

        monkeypatch.setattr(owner, slow, late)
        answer = live.client.post("/prompts", files={"image": files[0]}, data=data)
        assert (answer.status_code, answer.json()["version"], answer.json()["served"]) == (202, "1", "0")
        assert answer.json()["trouble"] == "the newest prompts are still being encoded"
        live.wait_for(lambda state: state["bank_version"] == "1" and state["ready"])


def test_pictures_of_a_client_that_is_gone_are_not_looked_at(tiny_model, bank_file, files, monkeypatch):
    began, go, right = threading.Event(), threading.Event(), batching._detected

    def held(*args):
        began.set()
        go.wait(60)
        return right(*args)

    monkeypatch.setattr(batching, "_detected", held)
    with (
        serving(follow(tiny_model), FixedPrompts(bank_file), Limits(batch=1)) as live,
        ThreadPoolExecutor(1) as pool,
    ):
        stays = pool.submit(live.client.post, "/detect", files={"images": files[0]})
        assert began.wait(20)  # otherwise the other client's image may be the one looked at
        with httpx.Client(base_url=live.url, timeout=1) as client, pytest.raises(httpx.ReadTimeout):
            client.post("/detect", files=[("images", files[1])] * 3)
        deadline = time.monotonic() + 20
        while live.service.queue.used > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert live.service.queue.used == 1
        go.set()
        assert stays.result().status_code == 200
        live.client.post("/detect", files={"images": files[0]})
        assert live.metric("unispector_pictures_total") == 2


def test_the_pixels_of_a_mask_take_room_too(tiny_model, tmp_path):
    limits = Limits(body_mib=1, megapixels=1, memory_mib=20)
    picture = encoded(np.zeros((1000, 1000, 3), dtype=np.uint8))
    mask = encoded(np.full((1000, 1000), 255, dtype=np.uint8))
    prompts = StoredPrompts(PromptStore(tmp_path / "prompts"))
    with serving(follow(tiny_model), prompts, limits, ready=False) as live:
        live.wait_for(lambda state: state["model"] is not None)
        sent = {"image": picture, "mask": mask}
        answer = live.client.post("/prompts", files=sent, data={"label": "a"})
        assert (answer.status_code, answer.json()["error"][:9]) == (413, "more than")


def test_a_mask_of_too_many_runs_is_refused_before_it_is_coded(growing):
    rows = np.zeros((1000, 1000), dtype=np.uint8)
    rows[::2] = 255
    sent = {"image": encoded(np.zeros((1000, 1000, 3), dtype=np.uint8)), "mask": encoded(rows)}
    answer = growing.client.post("/prompts", files=sent, data={"label": "a"})
    assert (answer.status_code, answer.json()["error"][:40]) == (
        413,
        "the mask has more than 100000 runs; draw",
    )


def test_prompts_changed_by_another_process_take_over(growing, files, tmp_path):
    other = PromptStore(tmp_path / "prompts")
    other.add("spot", [MarkedImage(files[0], "p.png", BOXES)], "another", "", {})
    growing.wait_for(lambda state: state["bank_version"] == "1" and state["ready"])
    other.remove("spot", "another", "")
    growing.wait_for(lambda state: state["bank_version"] == "2" and not state["ready"])


@pytest.mark.parametrize(
    "limits", [Limits(pictures=2, queue=2, batch=1, megapixels=1), Limits(memory_mib=82, megapixels=1)]
)
def test_what_does_not_fit_is_told_to_come_back(tiny_model, bank_file, limits):
    picture = encoded(np.zeros((1000, 1000, 3), dtype=np.uint8))
    with serving(follow(tiny_model), FixedPrompts(bank_file), limits) as live:

        def asked(_):
            return live.client.post("/detect", files=[("images", picture)] * 2)

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(asked, range(16)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 503}
        busy = answers[codes.index(503)]
        assert busy.headers["retry-after"] == "2"
        assert busy.json() == {"error": "too busy; try again in a moment"}
        assert asked(0).status_code == 200  # all room is given back
        assert live.service.memory.used == live.service.queue.used == 0


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "the service's disk is full"), (errno.EMFILE, "no open files left")]
)
def test_a_lack_is_told_and_to_come_back(fixed, files, caplog, monkeypatch, number, text):
    def full(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(tempfile.SpooledTemporaryFile, "write", full)
        for _ in range(9):
            answer = fixed.client.post("/detect", files={"images": files[0]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert text in answer.json()["error"]
    assert [record.exc_info for record in caplog.records] == [None]  # one line, for all that follow too
    assert fixed.client.post("/detect", files={"images": files[0]}).status_code == 200


def test_an_error_inside_tells_an_id_that_is_in_the_log(fixed, files, caplog, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("secret /place")

    with monkeypatch.context() as patch:
        patch.setattr(fixed.service.reloader.engine.detector, "detect", broken, raising=True)
        answer = fixed.client.post("/detect", files={"images": files[0]})
    assert answer.status_code == 500
    identity = re.fullmatch(
        r"internal error ([0-9a-f]{12}); the service's log says more", answer.json()["error"]
    )
    assert identity is not None
    assert identity[1] in caplog.text
    assert "secret" in caplog.text
    assert "secret" not in answer.text
    assert fixed.client.post("/detect", files={"images": files[0]}).status_code == 200


def test_metrics_count_requests_by_what_is_known(fixed, files):
    def count(route: str, method: str, status: str) -> float:
        return fixed.metric("unispector_requests_total", route=route, method=method, status=status)

    before = count("/detect", "POST", "400")
    fixed.client.post("/detect", files={"images": b"x"})
    assert count("/detect", "POST", "400") == before + 1
    for n in range(5):
        fixed.client.get(f"/nothing/{n}")
        fixed.client.request(f"ODD{n}", "/detect")
    text = fixed.client.get("/metrics").text
    assert "nothing" not in text
    assert "ODD" not in text
    assert count("unknown", "", "404") >= 5
    assert count("unknown", "", "405") >= 5
    fingerprint = fixed.client.get("/health").json()["model"]["fingerprint"]
    assert f'fingerprint="{fingerprint}"' in text
    assert fixed.metric("process_resident_memory_bytes") > 1e6


def test_the_description_says_how_to_ask(fixed):
    spec = fixed.client.get("/openapi.json").json()
    assert sorted(spec["paths"]) == [
        "/detect",
        "/health",
        "/metrics",
        "/prompts",
        "/prompts/{label}",
        "/ready",
    ]
    shapes = spec["components"]["schemas"]

    def form(path: str) -> dict:
        content = spec["paths"][path]["post"]["requestBody"]["content"]
        assert list(content) == ["multipart/form-data"]
        return shapes[content["multipart/form-data"]["schema"]["$ref"].rpartition("/")[2]]

    asked, shown = form("/detect"), form("/prompts")
    assert sorted(asked["properties"]) == ["classes", "images", "limit", "min_score"]
    assert sorted(shown["properties"]) == ["boxes", "by", "image", "label", "mask", "negative", "note"]
    assert (asked["required"], shown["required"]) == (["images"], ["image", "label"])
    assert asked["additionalProperties"] is shown["additionalProperties"] is False
    score, limit = asked["properties"]["min_score"]["anyOf"][0], asked["properties"]["limit"]
    assert (score["minimum"], score["maximum"], limit["minimum"], limit["maximum"]) == (0, 1, 1, 300)
    boxes = shown["properties"]["boxes"]
    assert (boxes["type"], boxes["contentMediaType"]) == ("string", "application/json")
    for path in spec["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
            assert {"200", "403", "500"} <= set(operation["responses"])
            assert "422" not in operation["responses"]
    assert {"400", "401", "408", "413", "415", "503"} <= set(spec["paths"]["/detect"]["post"]["responses"])
    for path, method in (("/prompts", "post"), ("/prompts/{label}", "delete")):
        assert {"202", "400", "401", "409", "503"} <= set(spec["paths"][path][method]["responses"])
    assert {"DetectAnswer", "ImageMessage", "DetectionMessage", "ErrorAnswer"} <= set(shapes)
