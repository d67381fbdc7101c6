"""Files that the product wrote itself, damaged: read as meant, or told in a line that names them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.mutations import CORPUS, changed_bytes, changed_json, check_line, examples, outcome
from unispector.data.defect_free import defect_free_images
from unispector.data.survey import SurveyRow, _write, read_survey
from unispector.evaluation.results import EvaluationReport
from unispector.inference.export import export
from unispector.ops.rle import encode_rle
from unispector.pipeline.fingerprint import read_fingerprints
from unispector.project.retrain import LastRetraining
from unispector.project.timings import read_timings
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.prompts.versions import list_classes, list_history, show_version
from unispector.registry.register import read_lineage
from unispector.reporting.report import terminal_table
from unispector.tracking.recorder import RunRecord
from unispector.workbench.findings import Finding, Result, Results
from unispector.workbench.folder import ImageFile
from unispector.workbench.marks import Mark, outlines
from unispector.workbench.session import SessionClass, State
from unispector.workbench.session_file import FILE, read_state, write_state

HW = (30, 40)
BOX = (4.0, 5.0, 12.0, 8.0)
PICTURE = (CORPUS / "annotations/coco/a.png").read_bytes()


def code() -> dict[str, Any]:
    mask = np.zeros((1, *HW), np.bool_)
    mask[0, 5:13, 4:16] = True
    return encode_rle(mask)[0]


@dataclass(frozen=True)
class Kept:
    """A file of the product, and who reads it."""

    file: str  # below the folder
    content: Any  # plain lists and dicts, or bytes
    read: Callable[[Path], object]  # given the folder


RECORD = {
    "images": [{"id": 1, "file_name": "in/a.png", "width": 40, "height": 30, "picture": "pictures/a.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9, "segmentation": code()}
    ],
    "categories": [{"id": 1, "name": "dent"}],
}


def exported(folder: Path) -> object:
    """Every export of a record; nothing is written beside the folder."""
    out = folder / "out"
    for tool in ("label_studio", "labelme", "yolo", "cvat"):
        shutil.rmtree(out, ignore_errors=True)
        export(folder / "detections.json", tool, out, min_score=0.0)  # type: ignore[arg-type]
        assert {path.name for path in folder.iterdir()} <= {"detections.json", "out"}
    return None


FILES = {
    "detections": Kept("detections.json", RECORD, exported),
    "timings": Kept(
        "artifacts/timings/train.json", {"seconds": 1.5, "ended": "2026-01-01T00:00:00Z"}, read_timings
    ),
    "retraining": Kept(
        "artifacts/retraining.json", asdict(LastRetraining("k", "decided", "r", 3, "t")), LastRetraining.read
    ),
    "fingerprints": Kept("data/training-fingerprints.json", {"1": "a" * 64}, read_fingerprints),
    "run": Kept(
        "run.json",
        asdict(RunRecord("e", "n", {"a": "b"}, {"c": "d"})),
        lambda folder: RunRecord.read(folder / "run.json"),
    ),
    "dropped": Kept(
        "dropped.csv",
        b"reason,file_name,instances\nimage without a defect,a.png,0\nother,b.png,1\n",
        lambda folder: defect_free_images(folder / "dropped.csv", 3, 0),
    ),
    "lineage": Kept(
        "lineage.json",
        {
            "trained_classes": ["a"],
            "data": "d",
            "commit": "c" * 40,
            "dirty": "false",
            "split_seed": 1,
            "seeds": [1],
            "training_run": "",
            "metrics": {"seen_bbox_AP50": 1.5},
            "thresholds": {"s": 0.5},
        },
        lambda folder: read_lineage(folder).alarm_threshold,
    ),
}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@given(data=st.data())
@examples(200)
def test_records(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FILES)))
    kept, root = FILES[name], folder / name
    assert_reads(kept, root, kept.content)
    text = kept.content if isinstance(kept.content, bytes) else json.dumps(kept.content).encode()
    damaged = changed_bytes(text)
    content = data.draw(
        damaged if isinstance(kept.content, bytes) else st.one_of(damaged, changed_json(kept.content))
    )
    write(root / kept.file, content)
    outcome(lambda: kept.read(root), str(root))


def assert_reads(kept: Kept, root: Path, content: Any) -> None:
    write(root / kept.file, content)
    kept.read(root)


@given(data=st.data())
@examples(100)
def test_the_evaluation(folder: Path, evaluation: EvaluationReport, data: st.DataObject) -> None:
    content = json.loads(evaluation.evaluation_json())
    content["rows"] = content["rows"][:2]
    path = folder / "evaluation.json"
    write(path, data.draw(st.one_of(changed_json(content), changed_bytes(json.dumps(content).encode()))))
    report = outcome(lambda: EvaluationReport.read(path), str(path))
    if report is not None:
        outcome(lambda: terminal_table(report), str(path))


@given(data=st.data())
@examples(60)
def test_the_survey(folder: Path, data: st.DataObject) -> None:
    path = folder / "survey.parquet"
    _write(iter([SurveyRow("a.png", 40, 30, "", 0, "0" * 64, 1200)]), path)
    write(path, data.draw(changed_bytes(path.read_bytes())))
    frame = outcome(lambda: read_survey(path), str(path))
    assert frame is None or len(frame) >= 0


STATE = State(
    (SessionClass("dent", 0.5),),
    (
        Mark("1", "a.png", "dent", BOX, HW),
        Mark("2", "a.png", "dent", BOX, HW, code(), negative=True, origin="rejected"),
    ),
    frozenset({"a.png"}),
    frozenset({"b.png"}),
)


@given(data=st.data())
@examples(150)
def test_the_session(folder: Path, data: st.DataObject) -> None:
    root = folder / "session"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    write_state(root, STATE, 7)
    assert read_state(root) == (STATE, 7, "")
    text = (root / FILE).read_bytes()
    damaged = data.draw(st.one_of(changed_bytes(text), changed_json(json.loads(text))))
    write(root / FILE, damaged)
    before = (root / FILE).read_bytes()
    state, version, told = read_state(root)
    if told:
        check_line(told, str(root / FILE))
        assert (state, version) == (State(), 0)
        assert (root / "session.damaged-1.json").read_bytes() == before
    else:
        for mark in state.marks:
            assert mark.mask is None or outlines(mark.mask)
        write_state(root, state, version)
        assert read_state(root) == (state, version, "")


@given(data=st.data())
@examples(100)
def test_findings(folder: Path, data: st.DataObject) -> None:
    root = folder / "findings"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    found = Finding("f", "dent", 0.5, BOX, code(), outlines(code()))
    result = asdict(Result("a.png", "s", HW, "", [found]))
    line = data.draw(st.one_of(changed_bytes(json.dumps(result).encode()), changed_json(result)))
    write(root / "k.jsonl", line)
    results = Results(root)
    results.begin("k", {"a.png": ImageFile("a.png", "s")})
    summary = results.summary("a.png")
    if summary is not None:
        results.done({"a.png": ImageFile("a.png", "s")})
        whole = results.whole("a.png")
        assert whole is None or len(whole.findings) == len(summary.ids)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt store of two versions."""
    store = PromptStore(tmp_path_factory.mktemp("store") / "prompts")
    store.add("dent", [MarkedImage(PICTURE, "a.png", [BOX])], "me", "why", {"a": "b"})
    store.add("dent", [MarkedImage(PICTURE, "b.png", masks_rle=[code()])], "me", "why", {})
    return store.folder


@given(data=st.data())
@examples(150)
def test_the_prompt_store(filled: Path, folder: Path, data: st.DataObject) -> None:
    root = folder / "store"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(filled, root)
    files = sorted(
        path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name != ".lock"
    )
    path = root / data.draw(st.sampled_from(files))
    before = path.read_bytes()
    if path.suffix == ".json" and data.draw(st.booleans()):
        content = json.loads(before)
        content.pop("sha256")
        content = data.draw(changed_json(content))
        if isinstance(content, dict):  # as one who knows the checksum would forge it
            plain = {key: value for key, value in content.items() if key != "format"}
            text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
            content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        write(path, content)
    else:
        write(path, data.draw(changed_bytes(before)))
    store = PromptStore(root)
    now = outcome(store.current, str(root))
    if now is not None:
        outcome(lambda: store.annotations(now), str(root))
    outcome(lambda: store.version(1), str(root))
    for ask in (list_classes, list_history):
        told = outcome(partial(ask, store), str(root))
        for line in (told or "-").splitlines():
            check_line(line)
    outcome(lambda: show_version(store, 2), str(root))
