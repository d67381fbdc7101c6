"""Findings on disk: read again after a crash, of the newest prompts, with their verdicts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unispector.detections import Detections
from unispector.ops.rle import encode_rle
from unispector.workbench.findings import KEPT_RUNS, MOST, Results, result_of, verdicts
from unispector.workbench.folder import ImageFile
from unispector.workbench.marks import Mark

HW = (60, 80)
FILES = {name: ImageFile(name, "1") for name in ("a.png", "b.png", "c.png")}


def detections(count: int = 3, seed: int = 0) -> Detections:
    random = np.random.default_rng(seed)
    masks = np.zeros((count, *HW), bool)
    boxes = []
    for row in range(count):
        left, top = random.integers(0, 60), random.integers(0, 40)
        masks[row, top : top + 12, left : left + 15] = True
        boxes.append([left, top, left + 15, top + 12])
    return Detections(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(random.uniform(0.02, 1, count), dtype=torch.float32),
        labels=torch.tensor(random.integers(0, 2, count)),
        masks_rle=tuple(encode_rle(masks)),
        class_names=("dent", "stain"),
        image_hw=HW,
    )


def test_the_best_findings_are_kept_best_first() -> None:
    found = detections(150)
    kept = result_of(FILES["a.png"], found).findings
    expected = sorted(found.scores.tolist(), reverse=True)[:MOST]
    assert [own.score for own in kept] == pytest.approx(expected, abs=1e-4)
    assert len({own.id for own in kept}) == len(kept)
    best = int(found.scores.argmax())
    left, top, right, bottom = found.boxes_xyxy[best].tolist()
    assert kept[0].box == (left, top, right - left, bottom - top)
    assert kept[0].mask == found.masks_rle[best]


def test_what_scores_next_to_nothing_is_left_out() -> None:
    found = detections(3)
    low = Detections(**{**vars(found), "scores": torch.tensor([0.5, 0.0099, 0.0101])})
    assert [own.score for own in result_of(FILES["a.png"], low).findings] == [0.5, 0.0101]


def test_a_file_that_a_crash_cut_off_gives_what_was_whole(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.begin("k1", FILES)
    whole = {name: result_of(FILES[name], detections(seed=n)) for n, name in enumerate(FILES)}
    for own in whole.values():
        results.add(own)
    file = tmp_path / "k1.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    again = Results(tmp_path)
    again.begin("k1", FILES)
    assert again.done(FILES) == {"a.png", "b.png"}
    again.add(whole["c.png"])
    for name, own in whole.items():
        assert again.whole(name) == own
    third = Results(tmp_path)
    third.begin("k1", FILES)
    assert third.done(FILES) == set(FILES)
    assert third.whole("c.png") == whole["c.png"]


def test_results_of_a_changed_file_or_of_other_prompts_do_not_count(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.begin("k1", FILES)
    for name, file in FILES.items():
        results.add(result_of(file, detections(seed=len(name))))
    changed = {**FILES, "a.png": ImageFile("a.png", "2")}
    assert results.done(changed) == {"b.png", "c.png"}
    results.begin("k2", changed)
    assert results.done(changed) == set()
    assert results.summary("b.png") is not None  # shown as outdated until it is replaced
    results.begin("k1", changed)
    assert results.done(changed) == {"b.png", "c.png"}


def test_files_of_old_prompts_go_but_none_that_is_shown(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.begin("k0", FILES)
    results.add(result_of(FILES["a.png"], detections()))
    for number in range(1, KEPT_RUNS + 3):
        results.begin(f"k{number}", FILES)
    kept = {file.stem for file in tmp_path.glob("*.jsonl")}
    assert "k0" in kept
    assert f"k{KEPT_RUNS + 2}" in kept
    assert "k1" not in kept
    assert results.whole("a.png") is not None


def test_a_mark_at_a_finding_s_place_judges_it(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.begin("k1", FILES)
    found = result_of(FILES["a.png"], detections(1))
    results.add(found)
    summary = results.summary("a.png")
    assert summary is not None
    own = found.findings[0]
    other = "stain" if own.label == "dent" else "dent"
    near = (own.box[0] + 1, own.box[1], own.box[2], own.box[3])

    def mark(label: str, negative: bool, box: tuple[float, ...] = near) -> Mark:
        return Mark("1", "a.png", label, box, HW, negative=negative)  # type: ignore[arg-type]

    assert verdicts(summary, []) == [0]
    assert verdicts(summary, [mark(own.label, negative=False)]) == [1]
    assert verdicts(summary, [mark(own.label, negative=True)]) == [2]
    assert verdicts(summary, [mark("*", negative=True)]) == [2]
    assert verdicts(summary, [mark(other, negative=True)]) == [0]
    assert verdicts(summary, [mark(own.label, negative=True, box=(0, 59, 1, 1))]) == [0]
