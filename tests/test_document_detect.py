"""The blocks of docs/detect.md run in order, as they stand, with the model the package ships."""

import json
from pathlib import Path

import pytest
from PIL import Image

from documents import blocks, run_blocks

PROJECT = Path(__file__).parents[1]
TEXT = (PROJECT / "docs" / "detect.md").read_text(encoding="utf-8")


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_blocks(TEXT, "docs/detect.md")
    found = tmp_path / "found"
    assert len(names["sure"]) > 0  # type: ignore[arg-type]
    assert len(json.loads((found / "001.json").read_text())["shapes"]) == len(names["sure"])  # type: ignore[arg-type]
    assert len((found / "001.txt").read_text().splitlines()) == len(names["sure"])  # type: ignore[arg-type]
    assert Image.open(found / "001.png").size[0] >= 512
    assert [each["name"] for each in json.loads((found / "detections.json").read_text())["categories"]] == [
        "bubble",
        "other",
    ]


def test_all_code_of_the_document_is_run() -> None:
    assert TEXT.count("\n```") == 2 * len(blocks(TEXT, "bash", "python"))
