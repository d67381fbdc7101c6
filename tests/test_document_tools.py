"""The blocks of docs/tools.md run in order, as they stand, with the model the package ships."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from defusedxml.ElementTree import parse

from documents import blocks, commands
from unispector.cli import main
from unispector.data.coco import Annotations

PROJECT = Path(__file__).parents[1]
TEXT = (PROJECT / "docs" / "tools.md").read_text(encoding="utf-8")


def run(code: str) -> None:
    assert [main(arguments) for arguments in commands(code)] == [0] * len(code.splitlines())


def submit(tasks: Path, images: Path, folder: Path) -> None:
    """What Label Studio exports when somebody has submitted all predictions as they are."""
    content = json.loads(tasks.read_text())
    for task in content:
        task["annotations"] = task.pop("predictions")
    shutil.copytree(images, folder / "media")
    (folder / "export.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where all blocks but FiftyOne's and the service's were run."""
    folder = tmp_path_factory.mktemp("tools")
    drawn, out, back = (code for _, code in blocks(TEXT, "bash"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(drawn)
        run(out)
        (python,) = (code for _, code in blocks(TEXT, "python"))
        exec(compile(python, "docs/tools.md", "exec"), {})
        submit(folder / "tasks/tasks.json", folder / "demo/images/00_Bubble", folder / "corrected")
        shutil.copytree("demo/images/00_Bubble", "cvat-export/images")
        shutil.copyfile("cvat-upload/annotations.xml", "cvat-export/annotations.xml")
        run(back)
    return folder


def test_what_goes_out_comes_back(ran: Path) -> None:
    record = json.loads((ran / "found/detections.json").read_text())
    sure = [mark for mark in record["annotations"] if mark["score"] >= 0.3]
    assert sure
    assert len(Annotations.read(ran / "corrected.json").instances) == len(sure)
    assert len(Annotations.read(ran / "cvat-set.json").instances) == len(record["annotations"])


def test_the_python_block(ran: Path) -> None:
    (task,) = json.loads((ran / "task.json").read_text())
    tag = parse(ran / "task.xml").find("PolygonLabels")
    marks = task["predictions"][0]["result"]
    assert {mark["from_name"] for mark in marks} == {tag.get("name")}
    assert len(parse(ran / "annotations.xml").findall("image/box")) == len(marks) > 0


def test_the_service_is_started_as_the_document_says(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("unispector.serving.serve.serve", lambda *arguments: started.append(arguments))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "key")
    ((_, code),) = blocks(TEXT, "sh")
    (line,) = (line for line in code.splitlines() if line.startswith("unispector"))
    run(f"{line}\n")
    ((*_, studio),) = started
    assert (studio.url, studio.api_key, studio.folder) == ("http://localhost:8080", "key", None)


def test_fiftyone_reads_what_was_found(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fiftyone = pytest.importorskip("fiftyone", reason="fiftyone is not installed")
    monkeypatch.chdir(ran)
    (code,) = re.findall(r"^```python fiftyone\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    try:
        exec(compile(code, "docs/tools.md", "exec"), names)
    except fiftyone.core.config.FiftyOneConfigError as error:
        pytest.skip(f"fiftyone has no database here: {error}")
    record = json.loads((ran / "found/detections.json").read_text())
    scores = sorted(mark["score"] for mark in record["annotations"])
    kept = sum(score >= 0.3 for score in scores)
    assert f"{kept} of {len(scores)}" in capsys.readouterr().out
    found = [
        each for sample in names["dataset"] for each in (sample.found.detections if sample.found else [])
    ]
    assert sorted(each.confidence for each in found) == pytest.approx(scores)
    assert all(each.mask.any() and each.label == "bubble" for each in found)
    names["dataset"].delete()


def test_all_code_of_the_document_is_run() -> None:
    assert TEXT.count("\n```") == 2 * (len(blocks(TEXT, "bash", "python", "sh")) + 1)
