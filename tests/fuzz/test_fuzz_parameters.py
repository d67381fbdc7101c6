"""Parameters and arguments, mutated: in force as they are written, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fuzz.mutations import (
    CORPUS,
    NUMBERS,
    TEXTS,
    bounded,
    changed_bytes,
    changed_json,
    changed_words,
    check_line,
    examples,
    outcome,
)
from unispector.cli.main import main
from unispector.config import load_config

IMAGES = str(CORPUS / "annotations/coco")
ARGUMENTS = [
    [
        "detect",
        IMAGES,
        "--prompt",
        f"{IMAGES}/a.png",
        "--box",
        "4,5,12,8",
        "--label",
        "dent",
        "--out",
        "found",
    ],
    ["detect", f"{IMAGES}/b.png", "--bank", "bank.safetensors", "--min-score", "0.5", "--out", "found"],
    ["detect", f"{IMAGES}/b.png", "--prompt", f"{IMAGES}/a.png", "--mask", f"{IMAGES}/a.png", "--tile", "64"],
    ["inspect", IMAGES, "--out", "found.parquet", "--bank", "bank.safetensors", "--workers", "1"],
    ["convert", "coco", IMAGES, "--out", "set.json", "--min-side", "0.1", "--workers", "1"],
    ["export", "detections.json", "cvat", "--out", "tasks", "--shape", "box", "--min-score", "0.1"],
    ["prompts", "list", "--store", "prompts"],
    ["prompts", "show", "1", "--store", "prompts"],
    ["prompts", "revert", "1", "--store", "prompts"],
    ["prompts", "remove", "dent", "--store", "prompts"],
    ["params", "show", "--params", "params.yaml", "--preset", "paper"],
    ["params", "use", "paper", "--params", "params.yaml", "--dry-run"],
    ["data", "add", "coco", IMAGES, "--name", "x"],
    ["report", "--show"],
    ["weights", "convert", "a.pth", "--out", "b.safetensors"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parameters")


def check(path: Path, content: bytes) -> None:
    """Read a file of parameters; what is taken says what the file says."""
    path.write_bytes(content)
    config = outcome(lambda: load_config(path), str(path))
    if config is not None:
        written = yaml.safe_load(content) or {}
        check_values(written, config.model_dump(mode="json"))


def check_values(written: Any, taken: Any) -> None:
    """Check that every number and text in force is the written one; lists and tagged unions apart."""
    for key, value in written.items():
        if isinstance(value, dict) and isinstance(taken.get(key), dict):
            check_values(value, taken[key])
        elif is_number(value) and is_number(taken.get(key)):
            assert taken[key] == value, key


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@given(data=st.data())
@examples(60)
def test_text(folder: Path, project_root: Path, data: st.DataObject) -> None:
    text = (project_root / "params.yaml").read_text()
    check(folder / "params.yaml", data.draw(changed_words(text)).encode("utf-8", "surrogatepass"))


@given(data=st.data())
@examples(60)
def test_bytes(folder: Path, project_root: Path, data: st.DataObject) -> None:
    check(folder / "params.yaml", data.draw(changed_bytes((project_root / "params.yaml").read_bytes())))


@given(data=st.data())
@examples(80)
def test_values(folder: Path, project_root: Path, data: st.DataObject) -> None:
    values = data.draw(changed_json(yaml.safe_load((project_root / "params.yaml").read_text()), most=2))
    check(folder / "params.yaml", json.dumps(values).encode())


@given(data=st.data())
@examples(100)
def test_arguments(folder: Path, project_root: Path, tiny_model: Path, data: st.DataObject) -> None:
    words = list(data.draw(st.sampled_from(ARGUMENTS)))
    if words[0] in ("detect", "inspect"):
        words += ["--model", str(tiny_model)]
    odd = st.sampled_from(
        [*TEXTS, *map(str, NUMBERS), "4,5,12", "4,5,12,8,9", "nan,1,2,3", "-h", "--", "--out", "auto"]
    )
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(1, len(words) - 1))
        words[at] = data.draw(odd).replace("\0", "")  # no system passes that on
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "params.yaml").write_text((project_root / "params.yaml").read_text())
        patch.setattr("typer.echo", lines := Lines())
        with bounded():
            code = main(words)
    assert code in (0, 1, 2)
    told = [line for line in lines.told if line.startswith("error:")]
    assert len(told) == (code > 0), (words, told)
    for line in told:
        check_line(line)


class Lines:
    """Takes the place of `typer.echo`."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, text: object = "", **_: object) -> None:
        self.told.append(str(text))
