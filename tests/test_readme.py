"""The README's examples run as they stand, with the model the package ships, on two images."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unispector.cli import main
from unispector.inference.prompt_bank import PromptBank

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the images that the README names."""
    generator = np.random.default_rng(0)
    for name in ("bad_part.png", "next_part.png"):
        pixels = generator.integers(0, 256, (160, 240, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_example_runs(project: Path) -> None:
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 10
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert PromptBank.load(project / "crack.safetensors").class_names == ("crack",)
    assert names["found"].image_hw == (160, 240)  # type: ignore[attr-defined]


def test_the_command_line_example_runs(project: Path) -> None:
    (example,) = blocks("bash")
    program, *arguments = shlex.split(example.replace("\\\n", " "))
    assert program == "unispector"
    assert main(arguments) == 0
    record = json.loads((project / "found" / "detections.json").read_text())
    assert record["categories"] == [{"id": 1, "name": "crack"}]
    assert (project / "found" / record["images"][0]["picture"]).is_file()


def test_what_the_readme_links_and_lists_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (PROJECT / target).exists(), target
    for name in re.findall(r"`make (\w+)`", README):
        assert re.search(rf"^{name}:", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE), name


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`unispector ([a-z]+(?: [a-z]+)?)", README))))
def test_every_command_it_names_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    usage = capsys.readouterr().out
    verb = command.partition(" ")[0]  # the second word may be an argument
    shapes = (
        f"Usage: unispector {command}",
        *(f"Usage: unispector {verb} [OPTIONS] {mark}" for mark in "[{"),
    )
    assert usage.startswith(shapes)
