"""Another model or other prompts take over while requests are answered; what cannot be loaded does not."""

import fcntl
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from live_service import assert_equal, serving
from unispector.errors import RegistryError
from unispector.inference.detector import Prompt, UniSpector
from unispector.prompts import store
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.serving import service
from unispector.serving.engine import WantedModel
from unispector.serving.prompts import FixedPrompts, StoredPrompts

BOXES = [[5, 5, 20, 10]]


@dataclass
class Champion:
    """Stands for a version that a test may change; none to begin with."""

    folder: Path | None = None
    version: str = "1"

    def __call__(self) -> WantedModel:
        if self.folder is None:
            raise RegistryError("unispector: no version with the alias champion")
        return WantedModel("models:/unispector@champion", self.version, lambda folder=self.folder: folder)


@pytest.fixture
def filled(tmp_path: Path, files: list[bytes]) -> PromptStore:
    store = PromptStore(tmp_path / "prompts")
    store.add("spot", [MarkedImage(files[0], "p.png", BOXES)], "a test", "", {})
    return store


def test_no_request_is_dropped_while_models_and_prompts_change(
    tiny_model, other_tiny_model, filled, files, pictures
):
    champion = Champion(tiny_model)
    stop, trouble, answers = threading.Event(), [], []

    with serving(champion, StoredPrompts(filled)) as live:

        def client():
            while not stop.is_set():
                answer = live.client.post("/detect", files={"images": files[1]}, data={"min_score": "0"})
                (answers if answer.status_code == 200 else trouble).append(answer.json())

        def answered(model: int, bank: int) -> bool:
            named = (str(model), str(bank))
            return any((a["model"]["version"], a["bank_version"]) == named for a in answers)

        threads = [threading.Thread(target=client) for _ in range(6)]
        for thread in threads:
            thread.start()
        for number in range(2, 6):
            champion.version, champion.folder = (
                str(number),
                other_tiny_model if number % 2 == 0 else tiny_model,
            )
            live.wait_for(lambda state, n=number: state["model"]["version"] == str(n))
            live.wait_for(lambda _, n=number: answered(n, n - 1))
            filled.add(
                "line", [MarkedImage(files[number - 2], "p.png", [[9, 9, 20 + number, 9]])], "", "", {}
            )
            live.wait_for(lambda state, n=number: state["bank_version"] == str(n))
            live.wait_for(lambda _, n=number: answered(n, n))
        stop.set()
        for thread in threads:
            thread.join()
        assert live.metric("unispector_reloads_total", outcome="done") == 9
    assert trouble == []

    # Every answer is exactly that of the model and the prompts that it names.
    detectors = {d.fingerprint: d for d in map(UniSpector.load, (tiny_model, other_tiny_model))}
    expected = {}
    seen = {(a["model"]["fingerprint"], a["bank_version"], a["model"]["version"]) for a in answers}
    for fingerprint, version, _ in seen:
        stored = filled.version(int(version)).classes
        prompts = [
            Prompt(filled.folder / "pictures" / mark.picture, mark.boxes_xywh, label=label)
            for label, marks in stored.items()
            for mark in marks
        ]
        detector = detectors[fingerprint]
        expected[fingerprint, version] = detector.detect([pictures[1]], detector.encode(prompts))[0]
    assert len(seen) >= 8  # each of the states that were waited for
    for answer in answers:
        own = expected[answer["model"]["fingerprint"], answer["bank_version"]]
        assert_equal(answer["pictures"][0], own)


def test_it_starts_before_the_first_promotion(tiny_model, filled, files):
    champion = Champion()
    with serving(champion, StoredPrompts(filled), ready=False) as live:
        state = live.wait_for(lambda state: "no version" in state["reason"])
        assert (state["ready"], state["model"]) == (False, None)
        for answer in (live.client.get("/ready"), live.client.post("/detect", files={"images": files[0]})):
            assert answer.status_code == 503
            assert "no version with the alias champion" in answer.json()["error"]
        assert live.client.get("/health").status_code == 200
        champion.folder = tiny_model
        live.wait_for(lambda state: state["ready"])
        assert live.client.get("/ready").status_code == 200
        assert live.client.post("/detect", files={"images": files[0]}).json()["model"]["version"] == "1"


def test_what_cannot_be_loaded_leaves_the_model_before(tiny_model, filled, files, tmp_path):
    champion = Champion(tiny_model)
    with serving(champion, StoredPrompts(filled)) as live:
        fingerprint = live.client.get("/health").json()["model"]["fingerprint"]
        champion.version, champion.folder = "2", tmp_path / "no model"
        state = live.wait_for(lambda state: state["trouble"])
        assert state["ready"]
        assert state["model"]["version"] == "1"
        assert "(version 2)" in state["trouble"]
        assert "(version 1) stays in use" in state["trouble"]
        assert str(tmp_path) not in state["trouble"]
        assert (
            live.metric("unispector_reloads_total", outcome="failed") == 1
        )  # and is not tried at every look
        assert live.metric("unispector_reload_trouble") == 1
        answer = live.client.post("/detect", files={"images": files[0]}).json()
        assert (answer["model"]["version"], answer["model"]["fingerprint"]) == ("1", fingerprint)
        champion.folder = None  # the registry is away
        live.wait_for(lambda state: "no version" in state["trouble"] and state["ready"])
        champion.version, champion.folder = "3", tiny_model
        live.wait_for(lambda state: state["model"]["version"] == "3" and not state["trouble"])
        assert live.metric("unispector_reload_trouble") == 0


@pytest.mark.parametrize("trouble", ["no version", "cannot be used"])
def test_prompts_are_taken_in_while_the_model_that_should_be_in_use_cannot_be(
    tiny_model, filled, files, tmp_path, trouble
):
    champion = Champion(tiny_model)
    data = {"label": "line", "boxes": str(BOXES)}
    with serving(champion, StoredPrompts(filled)) as live:
        if trouble == "no version":
            champion.folder = None
        else:
            champion.version, champion.folder = "2", tmp_path / "no model"
        live.wait_for(lambda state: trouble in state["trouble"])
        added = live.client.post("/prompts", files={"image": files[1]}, data=data)
        assert (added.status_code, added.json()["served"], added.json()["trouble"]) == (200, "2", "")
        assert live.client.delete("/prompts/spot").json()["served"] == "3"
        found = live.client.post("/detect", files={"images": files[0]}).json()
        assert (found["model"]["version"], found["bank_version"]) == ("1", "3")
        assert {each["label"] for each in found["pictures"][0]["detections"]} == {"line"}
        assert trouble in live.client.get("/health").json()["trouble"]


def test_prompts_that_cannot_be_taken_in_are_said_to_wait(filled, files):
    with serving(Champion(), StoredPrompts(filled), ready=False) as live:
        live.wait_for(lambda state: "no version" in state["reason"])
        data = {"label": "line", "boxes": str(BOXES)}
        for answer in (
            live.client.post("/prompts", files={"image": files[1]}, data=data),
            live.client.delete("/prompts/spot"),
        ):
            assert (answer.status_code, answer.json()["served"]) == (202, "")
            assert "no version with the alias champion" in answer.json()["trouble"]
    assert list(filled.current().classes) == ["line"]


def test_a_held_lock_is_neither_waited_for_without_end_nor_kept_secret(
    tiny_model, filled, files, monkeypatch
):
    monkeypatch.setattr(store, "LOCK_SECONDS", 1.0)
    monkeypatch.setattr(service, "SLOW_SECONDS", 0.3)
    told: list[str] = []
    with (
        serving(Champion(tiny_model), StoredPrompts(filled)) as live,
        (filled.folder / ".lock").open("a") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)

        def ask_health():
            while not told:
                told.extend(filter(None, [live.client.get("/health").json()["trouble"]]))

        asking = threading.Thread(target=ask_health)
        asking.start()
        data = {"label": "line", "boxes": str(BOXES)}
        with httpx.Client(base_url=live.url, timeout=60) as writer:
            answer = writer.post("/prompts", files={"image": files[1]}, data=data)
        asking.join()
        assert answer.status_code == 503
        assert "cannot be written (held for 1 s by another program)" in answer.json()["error"]
        assert str(filled.folder) not in answer.text
        assert told[0].startswith("loading a model or prompts, or writing prompts, has taken")
        fcntl.flock(lock, fcntl.LOCK_UN)
        live.wait_for(lambda state: not state["trouble"])
        assert live.client.post("/prompts", files={"image": files[1]}, data=data).status_code == 200


def test_a_bank_file_stays_with_the_model_that_made_it(tiny_model, other_tiny_model, bank_file, files):
    champion = Champion(tiny_model)
    with serving(champion, FixedPrompts(bank_file)) as live:
        champion.version, champion.folder = "2", other_tiny_model
        state = live.wait_for(lambda state: state["trouble"])
        assert "was made by model" in state["trouble"]
        assert (state["model"]["version"], state["ready"]) == ("1", True)
        assert live.client.post("/detect", files={"images": files[0]}).status_code == 200


def test_damaged_prompts_leave_those_before(tiny_model, filled, files):
    with serving(Champion(tiny_model), StoredPrompts(filled)) as live:
        filled.add("line", [MarkedImage(files[1], "p.png", BOXES)], "", "", {})
        live.wait_for(lambda state: state["bank_version"] == "2")
        (filled.folder / "CURRENT").write_text("nonsense")
        state = live.wait_for(lambda state: state["trouble"])
        assert (state["bank_version"], state["ready"]) == ("2", True)
        assert live.client.post("/detect", files={"images": files[0]}).json()["bank_version"] == "2"
