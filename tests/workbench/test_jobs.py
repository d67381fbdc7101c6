"""Marks checked and thresholds chosen beside the search: results, refusals, and what gives them up."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.inference.calibration import Calibration
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.prompts.doctor import PromptDiagnosis, diagnose_prompts
from unispector.workbench import jobs, joined
from unispector.workbench.bench import Bench
from unispector.workbench.detecting import SEARCH
from unispector.workbench.exports import export
from unispector.workbench.joined import Model
from unispector.workbench.marks import Stroke
from unispector.workbench.project import Job, Project
from unispector.workbench.session import AddBox, DropImage, MarkGood, Paint, RemoveMark, SetThreshold

MARKED, GOOD = ("a.png", "b.png", "c.png"), [f"good{number:02d}.png" for number in range(22)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "parts"
    root.mkdir()
    for name in (*MARKED, *GOOD):
        pixels = rng.integers(90, 120, (64, 80, 3), dtype=np.uint8)
        if name in MARKED:
            pixels[20:34, 30:44] = 250
        Image.fromarray(pixels).save(root / name)
    return root


@pytest.fixture
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model, "cpu")


@pytest.fixture
def bench(folder: Path, tmp_path: Path, detector: UniSpector) -> Iterator[Bench]:
    bench = Bench(lambda: Model(detector, None, ""), tmp_path)
    bench.open(folder)
    for name in MARKED:
        change(bench.project, AddBox(name, "spot", [30, 20, 14, 14]))
    yield bench
    bench.close()
    finished(bench.project)


def change(project: Project, *changes: Any) -> None:
    for each in changes:
        project.change(each, project.history.version)


def finished(project: Project) -> Job:
    end = time.monotonic() + 60
    while project.job.running:
        assert time.monotonic() < end
        time.sleep(0.01)
    return project.job


def searched(project: Project) -> None:
    end = time.monotonic() + 60
    while project.run.state != "done" or project.bank_marks != project.used_marks():
        assert time.monotonic() < end, project.run
        time.sleep(0.02)


def test_the_doctor_s_advice_is_that_of_its_own_run_and_comes_back_with_the_marks(
    bench: Bench, detector: UniSpector, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = bench.project
    change(
        project, Paint("a.png", "dent", [Stroke([5, 5, 20, 9], 4)]), AddBox("b.png", "dent", [50, 40, 9, 9])
    )
    bench.jobs.check("")
    assert finished(project).line == ""
    annotations = joined.as_annotations(project.used_marks())
    annotations.write(project.session / "marks.json")  # what is written can be read
    own = diagnose_prompts(
        detector, annotations.read(project.session / "marks.json"), project.folder.root, "mask", quick=True
    )
    expected = [
        (one.label, said.file_name or None, said.text, said.kind == "drop")
        for one in own.classes
        for said in one.advice
        if said.kind != "fine"
    ]
    assert {label for label, *_ in expected} == {"spot", "dent"}
    before = project.advice()
    assert [(a.label, a.image, a.text, a.drop) for a in before] == expected

    change(project, DropImage("c.png", "spot"))
    lines = [line.text for line in project.advice() if line.label == "spot"]
    assert lines == ["the marks have changed since they were checked: check them again"]
    assert [line for line in project.advice() if line.label == "dent"] == [
        line for line in before if line.label == "dent"
    ]
    project.undo(project.history.version)
    assert project.advice() == before


def test_marks_that_are_fine_are_said_to_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "diagnose_prompts", lambda *_, **__: PromptDiagnosis((), Path(), ""))
    bench.jobs.check("spot")
    finished(bench.project)
    assert bench.project.advice() == [joined.Advice("spot", None, "checked: nothing to mend")]


def test_one_class_is_checked_beside_the_others(bench: Bench) -> None:
    change(bench.project, *(AddBox(name, "dent", [5, 40, 9, 9]) for name in MARKED))
    bench.jobs.check("dent")
    finished(bench.project)
    assert set(bench.project.checked) == {"dent"}


def test_changed_marks_stop_work_and_so_does_a_person(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    project, permits = bench.project, threading.Semaphore(0)

    def slow(*_: object, **__: object) -> list[joined.Advice]:
        from unispector.project.progress import progress_bar

        with progress_bar("doctor spot") as show:
            for number in range(100):
                show(number, 100)
                assert permits.acquire(timeout=20)
        return []

    monkeypatch.setattr(jobs.joined, "check", slow)
    bench.jobs.check("spot")
    permits.release()
    with pytest.raises(DataError, match="other work is running"):
        bench.jobs.check("spot")
    change(project, AddBox("good00.png", "dent", [5, 40, 9, 9]))  # of another class: it goes on
    permits.release(5)
    while project.job.done < 4:
        time.sleep(0.01)
    assert (project.job.running, project.job.total) == (True, 100)
    change(project, RemoveMark(project.history.now.marks[0].id))
    permits.release()
    assert "marks have changed" in finished(project).line
    assert project.checked == {}

    bench.jobs.check("spot")
    bench.jobs.stop()
    permits.release(2)
    assert finished(project).line == "stopped"


def test_a_chosen_threshold_keeps_its_budget_on_the_good_images_and_is_exported(
    bench: Bench, detector: UniSpector, tmp_path: Path
) -> None:
    project = bench.project
    change(project, MarkGood(GOOD, good=True))
    bench.jobs.choose("spot", 7)
    assert finished(project).line == ""
    (own,) = project.history.now.classes
    assert own.chosen is not None
    assert own.threshold is not None
    told = own.chosen.calibration
    assert told.budget is not None
    assert (told.budget.good_images, told.marks) == (22, 3)
    searched(project)
    # What the page shows of the good images, rounded as it is, keeps the budget that was proved.
    shown = [max(project.results.summary(name).scores, default=0.0) for name in GOOD]
    assert sum(score >= own.threshold for score in shown) <= told.budget.alarms
    line = joined.promise(own.chosen, project.bank)
    assert line == f"a false alarm on at most 1 in 7 good images, 95% sure; {told.found} of 3 marks found"

    saved = PromptBank.load(export(project, "bank", tmp_path, lambda *_: None))
    assert saved.calibrations == (told,)
    found = detector.detect([str(project.folder.root / name) for name in GOOD], saved)
    alarms = sum(bool((each.scores >= told.threshold).any()) for each in found)
    assert alarms == told.budget.alarms

    change(project, DropImage("c.png", "spot"))
    (now,) = project.history.now.classes
    assert now.threshold == own.threshold
    assert "choose it again" in joined.promise(now.chosen, project.bank)
    searched(project)
    assert project.bank_to_keep().calibrations == (Calibration(),)
    project.undo(project.history.version)
    searched(project)
    assert project.bank_to_keep().calibrations == (told,)
    change(project, SetThreshold("spot", 0.5))
    assert project.bank_to_keep().calibrations == (Calibration(),)


def test_what_cannot_be_chosen_is_refused_at_once_in_a_line(bench: Bench, folder: Path) -> None:
    project = bench.project
    with pytest.raises(DataError, match=r"0 good images .* 50 are needed"):
        bench.jobs.choose("spot", 17)
    assert bench.jobs.provable("spot", 17).best == 0
    change(project, MarkGood(GOOD, good=True))
    with pytest.raises(DataError, match=r"22 good images .* 50 are needed, 22 can prove 1 in 7"):
        bench.jobs.choose("spot", 17)
    # The best that can be chosen is told, and is the best: one more is refused.
    said = bench.jobs.provable("spot", 17)
    assert (said.good, said.best) == (22, 7)
    assert "50 are needed" in said.refusal
    assert bench.jobs.provable("spot", said.best).refusal == ""
    assert "22 good images" in bench.jobs.provable("spot", said.best + 1).refusal
    change(project, AddBox("a.png", "dent", [1, 1, 9, 9]))
    with pytest.raises(DataError, match="dent: marked on 1 images"):
        bench.jobs.choose("dent", 7)
    with pytest.raises(DataError, match="two images or more"):
        bench.jobs.check("dent")
    (folder / "b.png").unlink()
    project.folder.refresh()
    with pytest.raises(DataError, match="spot: a marked image is gone"):
        bench.jobs.choose("spot", 7)
    assert project.job == Job()


def test_an_image_with_a_defect_is_not_good(bench: Bench) -> None:
    project = bench.project
    with pytest.raises(DataError, match=r"a\.png: a defect is marked on it"):
        change(project, MarkGood(["good01.png", "a.png"], good=True))
    change(project, MarkGood(["good00.png"], good=True))
    assert project.history.now.good == {"good00.png"}
    change(project, AddBox("good00.png", "spot", [1, 1, 9, 9], negative=True))
    assert project.history.now.good == {"good00.png"}
    change(project, AddBox("good00.png", "spot", [1, 1, 9, 9]))
    assert project.history.now.good == frozenset()
    project.undo(project.history.version)
    assert project.history.now.good == {"good00.png"}
    change(project, MarkGood(["good00.png"], good=False))
    assert project.history.now.good == frozenset()


def test_a_bank_s_own_class_is_not_calibrated_without_its_images(bench: Bench, detector: UniSpector) -> None:
    base = joined.encode(Model(detector, None, ""), bench.project.used_marks(), bench.project.folder.root, 16)
    bench.jobs._model = lambda: Model(detector, base, "1")
    change(bench.project, MarkGood(GOOD, good=True))
    with pytest.raises(DataError, match="calibrate that bank"):
        bench.jobs.choose("spot", 7)


def test_images_of_12_bits_are_checked_and_calibrated_as_those_of_8(
    bench: Bench, detector: UniSpector, folder: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    for name in (*MARKED, *GOOD):
        pixels = np.asarray(Image.open(folder / name).convert("L"))
        Image.fromarray(pixels).save(folder / name)
        Image.fromarray(pixels.astype(np.uint16) << 4).save(deep / name)
    other = Bench(lambda: Model(detector, None, ""), tmp_path, bit_depth=12)
    other.open(deep)
    try:
        said = []
        for own in (bench, other):
            if own is other:
                for name in MARKED:
                    change(other.project, AddBox(name, "spot", [30, 20, 14, 14]))
            change(own.project, MarkGood(GOOD, good=True))
            own.jobs.check("spot")
            assert finished(own.project).line == ""
            own.jobs.choose("spot", 7)
            assert finished(own.project).line == ""
            said.append((own.project.advice(), own.project.history.now.classes))
        assert said[0] == said[1]
        assert said[0][1][0].chosen.calibration.right + said[0][1][0].chosen.calibration.wrong > 0
    finally:
        other.close()


def test_the_end_waits_for_all_work(bench: Bench, tmp_path: Path) -> None:
    bench.jobs.check("")
    other = tmp_path / "other"
    other.mkdir()
    bench.open(other)  # the search of the first folder ends by itself
    bench.end()
    assert not [thread for thread in threading.enumerate() if thread.name in (SEARCH, jobs.JOB)]
