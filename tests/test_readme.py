"""The README's examples run as they stand, with the model the package ships, on the images they draw."""

import json
import re
from pathlib import Path

import pytest

from documents import blocks, commands, run_blocks
from unispector.cli import main
from unispector.inference.prompt_bank import PromptBank

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
BASH = [code for _, code in blocks(README, "bash")]


MEASUREMENT = "unispector convert"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples ran, but that of a measurement, which needs a set of one's own."""
    folder = tmp_path_factory.mktemp("readme")
    text = README.replace(f"```bash\n{MEASUREMENT}", f"```\n{MEASUREMENT}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = run_blocks(text, "README.md")
    assert len(names["found"]) > 0  # type: ignore[arg-type]
    return folder


def test_the_quick_start_opens_the_page_or_has_four_lines() -> None:
    assert commands(BASH[0]) == [["ui"]]
    assert len(commands(BASH[1])) == 4


def test_the_python_example_saves_a_bank(project: Path) -> None:
    ((_, example),) = blocks(README, "python")
    assert len([line for line in example.splitlines() if line]) <= 10
    assert PromptBank.load(project / "found" / "bubble.safetensors").class_names == ("bubble",)


def test_the_command_line_example_finds_a_defect_on_every_image(project: Path) -> None:
    record = json.loads((project / "found" / "detections.json").read_text())
    assert record["categories"] == [{"id": 1, "name": "bubble"}]
    assert len(record["images"]) == 4
    assert all((project / "found" / image["picture"]).is_file() for image in record["images"])
    shown = {found["image_id"] for found in record["annotations"] if found["score"] >= 0.05}
    assert shown == {image["id"] for image in record["images"]}
    assert len(json.loads((project / "found/all/detections.json").read_text())["categories"]) == 3


def test_the_example_of_a_measurement_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = (code for code in BASH if code.startswith(MEASUREMENT))
    for arguments in commands(example):
        assert main(arguments) == 1
        assert "my-set" in capsys.readouterr().err


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
