"""The blocks of docs/tutorial.md and docs/thresholds.md run in order and find what the text says."""

import json
from pathlib import Path

import pytest

from documents import blocks, run_blocks
from unispector.inference.prompt_bank import PromptBank
from unispector.scores import DEFAULT_SCORE

DOCS = Path(__file__).parents[1] / "docs"
TUTORIAL, THRESHOLDS = (
    (DOCS / name).read_text(encoding="utf-8") for name in ("tutorial.md", "thresholds.md")
)
AFTER = "## It finds too little"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found_on(folder: Path) -> dict[str, int]:
    """Findings of each image in `found`."""
    record = json.loads((folder / "found" / "detections.json").read_text())
    ids = [each["image_id"] for each in record["annotations"] if each["score"] >= 0.3]
    return {Path(image["file_name"]).name: ids.count(image["id"]) for image in record["images"]}


def test_the_tutorial_runs_and_finds_every_bubble(folder: Path) -> None:
    names = run_blocks(TUTORIAL.partition(AFTER)[0], "docs/tutorial.md")
    assert len(names["found"]) >= 2  # type: ignore[arg-type]
    assert found_on(folder)["001.jpg"] >= 2
    assert min(found_on(folder).values()) >= 1
    assert PromptBank.load(folder / "bank.safetensors").counts == (5, 8, 7)


@pytest.mark.slow
def test_what_the_tutorial_advises_can_be_done(folder: Path) -> None:
    run_blocks(TUTORIAL, "docs/tutorial.md")
    assert (folder / "checkup" / "doctor.md").is_file()
    record = json.loads((folder / "found" / "detections.json").read_text())
    surest = {image["id"]: 0.0 for image in record["images"]}
    for each in record["annotations"]:
        surest[each["image_id"]] = max(surest[each["image_id"]], each["score"])
    oil = [surest[each["id"]] for each in record["images"] if "OilSpot" in each["file_name"]]
    bubbles = [surest[each["id"]] for each in record["images"] if "Bubble" in each["file_name"]]
    assert max(oil) < 0.3 < min(bubbles)


@pytest.mark.slow
def test_what_is_said_of_thresholds_can_be_done(folder: Path) -> None:
    run_blocks(THRESHOLDS, "docs/thresholds.md")
    bank = PromptBank.load(folder / "bank.safetensors")
    budgets = [each.budget for each in bank.calibrations]
    assert all(each is not None and each.high <= 1 / 20 for each in budgets)
    assert DEFAULT_SCORE not in bank.thresholds


@pytest.mark.parametrize("text", [TUTORIAL, THRESHOLDS], ids=["tutorial", "thresholds"])
def test_all_code_is_run(text: str) -> None:
    told = text.count("\n```") + text.count("\n    ```")
    plain = text.count("```\nmake setup") + text.count("```\nerror: ") + text.count("```\nbank.safetensors: ")
    assert told == 2 * (len(blocks(text, "bash", "python")) + plain)
