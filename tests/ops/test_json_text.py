"""JSON of any depth is read or refused in one line, at every door that reads it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from plain_values import plain_values
from unispector.data.coco import Annotations
from unispector.data.convert_release import convert_release
from unispector.errors import UniSpectorError
from unispector.evaluation.sweeps import SweepReport
from unispector.inference.detector import UniSpector
from unispector.inference.export import read_record
from unispector.ops.json_text import parse_json
from unispector.prompts.store import PromptStore
from unispector.workbench.session_file import read_state

DEEP = '{"a":' * 100_000


@given(plain_values)
def test_what_is_written_is_read(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", [DEEP, "[" * 100_000, "[" * 100_000 + "]" * 100_000, "{", "", b"\xff"])
def test_whatever_is_wrong_is_one_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


@pytest.mark.parametrize("text", ['{"a": 1, "b": 2, "a": 1}', '[{"b": {"a": [], "a": {}}}]'])
def test_a_key_twice_is_told(text):
    with pytest.raises(ValueError, match="key 'a' twice in an object; remove one of them"):
        parse_json(text)


def source(kind: str, name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> None:
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "a.png")
        (folder / name).write_text(DEEP)
        convert_release(kind, folder, folder.parent / "out.json", workers=1)

    return read


def model(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text(DEEP)
    UniSpector.load(folder)


def store(folder: Path) -> None:
    (folder / "CURRENT").write_text("1\n")
    (folder / "versions").mkdir()
    (folder / "versions/000001.json").write_text(DEEP)
    PromptStore(folder).current()


def written(name: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    def wrapped(folder: Path) -> object:
        (folder / name).write_text(DEEP)
        return read(folder / name)

    return wrapped


DOORS = {
    "COCO": written("a.json", Annotations.read),
    "record": written("detections.json", read_record),
    "sweeps": written("sweeps.json", SweepReport.read),
    "coco set": source("coco", "a.json"),
    "labelme set": source("labelme", "a.json"),
    "label studio set": source("label_studio", "a.json"),
    "model": model,
    "store": store,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_deep_file_is_refused_by_name_in_one_line(door: str, tmp_path: Path):
    folder = tmp_path / "set"
    folder.mkdir()
    with pytest.raises(UniSpectorError) as caught:
        DOORS[door](folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_deep_session_is_put_aside_and_said(tmp_path: Path):
    (tmp_path / "session.json").write_text(DEEP)
    state, _, told = read_state(tmp_path)
    assert state.marks == ()
    assert "\n" not in told
    assert "session" in told
