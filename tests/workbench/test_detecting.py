"""Detection in the background: what is seen first, and a new start when marks change."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unispector.detections import Detections
from unispector.errors import DataError
from unispector.workbench import detecting
from unispector.workbench.detecting import Detecting
from unispector.workbench.joined import Model
from unispector.workbench.project import Project
from unispector.workbench.session import AddBox, RemoveMark

NAMES = [f"{number:02d}.png" for number in range(10)]


@dataclass
class Stepped:
    """A detector that looks at one batch for each permit."""

    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    seen: list[int] = field(default_factory=list)  # the brightness of each image tells its number
    device: Any = field(default_factory=lambda: SimpleNamespace(type="cpu"))
    fingerprint: str = "f"

    def stream(self, images: list[np.ndarray], bank: object, progress: object) -> Iterator[Detections]:
        assert self.permits.acquire(timeout=20)
        for image in images:
            self.seen.append(int(image[0, 0, 0]))
            yield Detections(
                torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), (), ("dent",), (8, 8)
            )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for number, name in enumerate(NAMES):
        Image.new("L", (8, 8), number).save(tmp_path / name)
    return Project(tmp_path)


@pytest.fixture
def detector(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    bank = SimpleNamespace(class_names=("dent",), bit_depth=16, memory=None)
    monkeypatch.setattr(detecting, "encode", lambda model, marks, root, depth: bank)
    monkeypatch.setattr(detecting, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(detecting, "POLL_SECONDS", 0.01)
    detector = Stepped()
    running = Detecting(project, lambda: Model(detector, None, ""))  # type: ignore[arg-type]
    running.start()
    yield detector
    running.stop()
    detector.permits.release(100)


def mark(project: Project, name: str = NAMES[0]) -> None:
    project.change(AddBox(name, "dent", [1, 1, 4, 4]), project.history.version)


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_is_seen_is_looked_at_first(project: Project, detector: Stepped) -> None:
    project.look(["07.png", "03.png", "gone.png"])
    mark(project)
    detector.permits.release()
    until(lambda: project.run.done == 2)
    project.look(["09.png"])
    detector.permits.release(100)
    until(lambda: project.run.state == "done")
    assert detector.seen[:2] == [7, 3]
    assert 9 in detector.seen[2:6]  # two may have been chosen before
    assert sorted(detector.seen) == list(range(10))


def test_another_mark_starts_anew_and_none_ends_it(project: Project, detector: Stepped) -> None:
    mark(project)
    detector.permits.release()
    until(lambda: project.run.done == 2)
    mark(project, NAMES[1])
    first = project.run.key
    detector.permits.release()  # what was being looked at
    until(lambda: project.run.key != first)
    detector.permits.release(100)
    until(lambda: project.run.state == "done")
    assert len(detector.seen) == 4 + 10
    for own in project.history.now.marks:
        project.change(RemoveMark(own.id), project.history.version)
    until(lambda: project.run.state == "idle")
    assert project.results.summary(NAMES[0]) is None


def test_marks_that_cannot_be_used_are_an_error_once(
    project: Project, detector: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refuse(model: object, marks: object, root: object, depth: int) -> None:
        tries.append(1)
        raise DataError("00.png: this mark is bad; draw another")

    monkeypatch.setattr(detecting, "encode", refuse)
    mark(project)
    until(lambda: project.run.state == "error")
    time.sleep(0.2)
    assert project.run.line == "00.png: this mark is bad; draw another"
    assert len(tries) == 1


def test_findings_that_cannot_be_kept_are_told_in_a_line_and_looked_for_again(
    project: Project, detector: Stepped, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(detecting, "RETRY_SECONDS", 0.05)
    detector.permits.release(100)
    blocked = project.session / "findings"
    blocked.write_text("no folder")
    mark(project)
    until(lambda: project.run.state == "error")
    assert project.run.line == f"{blocked}: findings cannot be kept (File exists); make room"
    assert not caplog.records
    blocked.unlink()
    until(lambda: project.run.state == "done")


def test_an_image_that_is_added_or_replaced_is_looked_at(
    project: Project, detector: Stepped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unispector.workbench.project.RESCAN_SECONDS", 0.0)
    detector.permits.release(100)
    mark(project)
    until(lambda: project.run.state == "done")
    Image.new("L", (8, 8), 77).save(tmp_path / "new.png")
    Image.new("L", (9, 8), 88).save(tmp_path / NAMES[4])
    project.news(-1, -1, 0)
    until(lambda: len(detector.seen) == 12)
    assert sorted(detector.seen[10:]) == [77, 88]


def test_a_large_image_is_given_up_in_the_middle_when_marks_change(
    project: Project, detector: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Semaphore(0)

    def tiles(images: list[np.ndarray], bank: object, progress: Any) -> Iterator[Detections]:
        for number in range(1000):
            assert told.acquire(timeout=20)
            progress(number, 1000)
        yield from ()

    monkeypatch.setattr(detector, "stream", tiles)
    mark(project)
    told.release()
    until(lambda: "0 of 1000 tiles" in project.run.line)
    mark(project, NAMES[1])
    first = project.run.key
    told.release()
    until(lambda: project.run.key != first)
    assert project.results.done(project.folder.files) == set()
    told.release(2000)
