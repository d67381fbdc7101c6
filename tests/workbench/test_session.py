"""The session: changes, undo, and the file that keeps it, whatever happens to the file."""

import json
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from unispector.errors import DataError
from unispector.ops.rle import decode_rle, encode_rle
from unispector.workbench.history import History
from unispector.workbench.marks import Stroke
from unispector.workbench.session import (
    AddBox,
    AddClass,
    Around,
    Change,
    ChangeMark,
    Found,
    Judge,
    MarkGood,
    Paint,
    RemoveClass,
    RemoveMark,
    RenameClass,
    Review,
    SetThreshold,
    State,
)
from unispector.workbench.session_file import FILE, lock, prepare, read_state, write_state

HW = (60, 80)
MASK = np.zeros(HW, bool)
MASK[10:20, 30:50] = True
(CODE,) = encode_rle(MASK[None])
AROUND = Around(lambda name: HW, lambda image, own: Found(image, "dent", (30.0, 10.0, 20.0, 10.0), CODE, HW))


def after(*changes: Any) -> History:
    history = History()
    for change in changes:
        history.apply(change, AROUND)
    return history


def test_marks_bring_their_class_and_the_negative_of_any_class_none() -> None:
    history = after(
        AddBox("a.png", "dent", [30, 20, -10, -10]),
        Paint("b.png", "stain", [Stroke([5, 5, 9, 9], 2)]),
        AddBox("a.png", "*", [1, 1, 5, 5], negative=True),
    )
    state = history.now
    assert [own.name for own in state.classes] == ["dent", "stain"]
    assert [(mark.label, mark.negative, mark.mask is None) for mark in state.marks] == [
        ("dent", False, True),
        ("stain", False, False),
        ("*", True, True),
    ]
    assert state.marks[0].box == (20, 10, 10, 10)
    assert history.version == 3


def test_a_judged_finding_becomes_a_mark_with_its_mask() -> None:
    state = after(Judge("a.png", "x", accept=True), Judge("b.png", "y", accept=False)).now
    assert [(m.image, m.negative, m.origin, m.mask) for m in state.marks] == [
        ("a.png", False, "accepted", CODE),
        ("b.png", True, "rejected", CODE),
    ]


def test_a_class_renamed_to_another_joins_it() -> None:
    history = after(
        AddBox("a.png", "dent", [1, 1, 5, 5]),
        AddBox("a.png", "dint", [9, 9, 5, 5]),
        RenameClass("dint", "dent"),
    )
    assert [own.name for own in history.now.classes] == ["dent"]
    assert {mark.label for mark in history.now.marks} == {"dent"}
    history.apply(RemoveClass("dent"), AROUND)
    assert history.now == State()


@given(st.integers(-70, 70), st.integers(-50, 50))
def test_a_mask_moves_with_its_box_and_is_cut_at_the_edge(right: int, down: int) -> None:
    history = after(Judge("a.png", "x", accept=True))
    (mark,) = history.now.marks
    expected = {
        (y + down, x + right)
        for y, x in np.argwhere(MASK).tolist()
        if 0 <= y + down < HW[0] and 0 <= x + right < HW[1]
    }
    change = ChangeMark(mark.id, box=[30 + right + 0.3, 10 + down - 0.3, 20, 10])
    if not expected:
        with pytest.raises(DataError):
            history.apply(change, AROUND)
        return
    history.apply(change, AROUND)
    (now,) = history.now.marks
    assert now.mask is not None
    assert {(y, x) for y, x in np.argwhere(decode_rle(now.mask)).tolist()} == expected
    rows, columns = zip(*expected, strict=True)
    assert now.box == (
        min(columns),
        min(rows),
        max(columns) - min(columns) + 1,
        max(rows) - min(rows) + 1,
    )


@pytest.mark.parametrize(
    "change",
    [
        RemoveMark("gone"),
        ChangeMark("gone", label="a"),
        AddClass("../x"),
        AddBox("a", "b", [1, 1, 0, 5]),
    ],
)
def test_what_cannot_be_done_changes_nothing(change: Any) -> None:
    history = after(AddClass("dent"))
    before = history.now
    with pytest.raises(DataError):
        history.apply(change, AROUND)
    assert (history.now, history.version, len(history.past)) == (before, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        AddBox("a", "*", [1, 1, 5, 5]),  # only what is not the defect may be of any class
        ChangeMark("ID", label="*"),
        AddClass("*"),
        SetThreshold("*", 0.5),
        Paint("other size", "dent", [Stroke([5, 5], 2)], mark="ID"),
        Review("\ud800", done=True),
        MarkGood(["latin\udce4.png"], good=True),
        Paint("a", "dent", [Stroke([5, 5], float("nan"))]),
        Paint("a", "dent", [Stroke([5, 5], float("-inf"))]),
    ],
)
def test_whatever_is_taken_in_can_be_read_again(tmp_path: Path, change: Any) -> None:
    history = after(AddBox("a", "dent", [1, 1, 5, 5]))
    (mark,) = history.now.marks
    own = replace(change, mark=mark.id) if getattr(change, "mark", None) else change
    with suppress(DataError):
        history.apply(own, AROUND)
        write_state(tmp_path, history.now, history.version)
        assert read_state(tmp_path) == (history.now, history.version, "")


def test_a_mark_is_not_painted_on_when_its_image_has_another_size() -> None:
    history = after(AddBox("a", "dent", [1, 1, 5, 5]))
    (mark,) = history.now.marks
    larger = replace(AROUND, size=lambda name: (600, 800))
    with pytest.raises(DataError, match="marked at 80x60 pixels, it has 800x600 now; remove"):
        history.apply(Paint("a", "dent", [Stroke([5, 5], 2)], mark=mark.id), larger)


def test_a_slider_s_moves_are_undone_together() -> None:
    history = after(AddClass("dent"), *(SetThreshold("dent", value / 100) for value in range(10, 30)))
    history.undo()
    assert history.now.classes[0].threshold is None
    history.undo()
    with pytest.raises(DataError, match="nothing to undo"):
        history.undo()


@given(st.integers(0, 10_000))
def test_undo_and_redo_go_through_the_same_states(seed: int) -> None:
    dice = random.Random(seed)
    history, states = History(), [State()]
    for _ in range(12):
        name = dice.choice("abc")
        change = dice.choice(
            [
                AddBox(f"{name}.png", name, [1, 1, dice.randint(2, 20), 5]),
                AddClass(name),
                Review(f"{name}.png", done=dice.random() < 0.5),
                RenameClass(name, dice.choice("abc")),
                RemoveClass(name),
            ]
        )
        if history.apply(change, AROUND):
            states.append(history.now)
    assert history.version == len(states) - 1
    for state in reversed(states[:-1]):
        history.undo()
        assert history.now == state
    for state in states[1:]:
        history.redo()
        assert history.now == state
    assert history.version == 3 * (len(states) - 1)


def test_a_change_is_read_from_json_by_its_kind() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Change)
    strokes = '[{"points": [1, 2], "radius": 3}]'
    change = adapter.validate_json(f'{{"kind": "paint", "image": "a", "label": "b", "strokes": {strokes}}}')
    assert change == Paint("a", "b", [Stroke([1, 2], 3)])


def full_state() -> State:
    return after(
        AddBox("a.png", "dent", [1, 1, 5, 5]),
        Judge("b.png", "x", accept=False),
        Paint("ü/ß.png", "stain", [Stroke([5, 5, 9, 9], 2)]),
        SetThreshold("dent", 0.25),
        Review("b.png", done=True),
    ).now


def test_a_session_is_read_as_it_was_written(tmp_path: Path) -> None:
    prepare(tmp_path / "kept")
    state = full_state()
    write_state(tmp_path / "kept", state, 7)
    assert read_state(tmp_path / "kept") == (state, 7, "")
    assert read_state(tmp_path / "nothing") == (State(), 0, "")


@given(st.data())
def test_a_damaged_file_is_kept_aside_and_named(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("session")
    write_state(folder, full_state(), 7)
    whole = (folder / FILE).read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 3))
    (folder / FILE).write_bytes(whole[:cut])
    state, version, line = read_state(folder)
    assert (state, version) == (State(), 0)
    assert "damaged" in line
    assert "\n" not in line
    assert (folder / "session.damaged-1.json").read_bytes() == whole[:cut]
    assert "session.damaged-1.json" in line


def edited(folder: Path, edit: Any) -> str:
    write_state(folder, full_state(), 7)
    content = json.loads((folder / FILE).read_text())
    edit(content)
    (folder / FILE).write_text(json.dumps(content))
    state, version, line = read_state(folder)
    assert (state, version) == (State(), 0)
    return line


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["marks"][0].pop("box"),
        lambda content: content["marks"][0].update(label="../../x"),
        lambda content: content["marks"][0].update(box=[500, 500, 10, 10]),
        lambda content: content["marks"][1]["mask"].update(counts="PPPP"),
        lambda content: content["marks"].append(content["marks"][0]),
        lambda content: content["classes"][0].update(name="a/../b"),
        lambda content: content.update(format="something else"),
    ],
)
def test_a_file_that_was_tampered_with_is_damaged(tmp_path: Path, edit: Any) -> None:
    assert "damaged" in edited(tmp_path, edit)


def test_a_newer_file_is_kept_and_named_as_such(tmp_path: Path) -> None:
    line = edited(tmp_path, lambda content: content.update(format="unispector session 2"))
    assert "newer version" in line
    assert (tmp_path / "session.damaged-1.json").exists()
    assert "kept" in line


def test_a_session_that_cannot_be_kept_says_which_option_helps(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--session"):
        prepare(tmp_path / "file" / "session")
    (tmp_path / "lock").mkdir()
    with pytest.raises(DataError, match=r"lock: cannot be written .*; remove it, or .*--session"):
        lock(tmp_path)
