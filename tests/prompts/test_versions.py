"""The prompts in production as text, and the command line that shows and changes them."""

import getpass
import io
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from unispector.cli.main import main
from unispector.ops.rle import encode_rle
from unispector.prompts.store import MarkedImage, PromptStore
from unispector.prompts.versions import list_classes, list_history, show_version, user_name


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def prompts(tmp_path: Path) -> PromptStore:
    store = PromptStore(tmp_path / "prompts")
    mask = np.zeros((1, 40, 50), dtype=bool)
    mask[0, 5:9, 5:9] = True
    both = [
        MarkedImage(picture(1), "a.png", [(1, 2, 9, 9), (20, 20, 9, 9)]),
        MarkedImage(picture(2), "b.png", masks_rle=encode_rle(mask)),
    ]
    store.add("scratch", both, "ann", "the first", {"found": "3 of 3"})
    store.add("dent", [MarkedImage(picture(1), "a.png", [(1, 2, 9, 9)])], "bob", "the second", {})
    return store


def test_lists(prompts):
    lines = list_classes(prompts).splitlines()
    assert lines[0] == "version 2, 2 classes"
    assert [re.split(r"  +", line.strip()) for line in lines[1:]] == [
        ["scratch", "2 images", "2 boxes, 1 masks"],
        ["dent", "1 images", "1 boxes"],
    ]
    rows = [re.split(r"  +", line) for line in list_history(prompts).splitlines()]
    assert [(row[0], *row[2:]) for row in rows] == [
        ("2", "bob", "2 classes", "the second"),
        ("1", "ann", "1 classes", "the first"),
    ]
    assert [row[1] for row in rows] == [each.time for each in prompts.history()]


def test_a_damaged_version_is_named_among_the_others(prompts):
    (prompts.folder / "versions/000001.json").write_text("")
    second, first = list_history(prompts).splitlines()
    assert second.endswith("the second")
    assert "versions/000001.json: damaged; restore the file" in first


def test_a_version_in_full(prompts):
    text = show_version(prompts, 1)
    assert text.startswith("version 1, 1 classes\n  scratch")
    for part in ("by", "ann", "the first", "found", "3 of 3", "a.png", "b.png"):
        assert part in text
    for prompt in prompts.version(1).classes["scratch"]:
        assert prompt.picture in text
    assert "bob" not in text
    assert show_version(prompts, 0) == "version 0, 0 classes"


def test_an_empty_store(tmp_path):
    assert list_classes(PromptStore(tmp_path / "new")) == "version 0, 0 classes"
    assert list_history(PromptStore(tmp_path / "new")).endswith("nothing was enrolled yet")


def test_an_account_without_a_name(monkeypatch):
    assert user_name() == getpass.getuser()

    def fail():
        raise KeyError("uid 1234")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert user_name() == "unknown"


def test_the_command_line_goes_back_and_forth(prompts, capsys):
    where = ["--store", str(prompts.folder)]
    assert main(["prompts", "revert", *where, "--by", "eve"]) == 0
    assert capsys.readouterr().out == "version 3: scratch\n"
    assert (prompts.current().by, prompts.current().note) == ("eve", "as version 1")
    assert main(["prompts", "revert", "2", *where]) == 0
    assert list(prompts.current().classes) == ["scratch", "dent"]
    assert main(["prompts", "remove", "scratch", *where, "--note", "false alarms"]) == 0
    assert (prompts.current().note, list(prompts.current().classes)) == ("false alarms", ["dent"])
    capsys.readouterr()
    assert main(["prompts", "list", *where]) == main(["prompts", "history", *where]) == 0
    shown = capsys.readouterr().out
    assert shown == f"{list_classes(prompts)}\n{list_history(prompts)}\n"
    assert main(["prompts", "show", "1", *where]) == 0
    assert capsys.readouterr().out == f"{show_version(prompts, 1)}\n"


def test_mistakes_are_one_line(prompts, capsys):
    where = ["--store", str(prompts.folder)]
    for arguments, message in (
        (["show", "7"], "no version 7 of the prompts"),
        (["revert", "7"], "no version 7 of the prompts"),
        (["remove", "crack"], "no class 'crack' to remove; it has scratch, dent"),
    ):
        assert main(["prompts", *arguments, *where]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert prompts.current().version == 2


@pytest.mark.integration
def test_a_refusal_has_exit_code_1(tmp_path, project_root, monkeypatch, capsys):
    """Noise, and marks where they happen to fall."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(project_root / "params.yaml", tmp_path)
    for kind in ("images", "masks"):
        (tmp_path / "noise" / kind).mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"noise/images/{number}.png").write_bytes(picture(number))
        mask = np.zeros((40, 50), np.uint8)
        mask[9 * number : 9 * number + 9, 11 * number : 11 * number + 13] = 255
        cv2.imwrite(str(tmp_path / f"noise/masks/{number}.png"), mask)
    arguments = ["prompts", "enroll", "masks", "noise", "--label", "ghost", "--model", "fast"]
    assert main(arguments) == 1
    told = capsys.readouterr().out
    assert told.startswith("ghost: refused: only 0 of 3 (0%)")
    assert told.endswith("image by image: reports/enroll/ghost/report.md\n")
    assert (tmp_path / "reports/enroll/ghost/report.md").is_file()
    assert PromptStore(tmp_path / "data/prompts").current().version == 0
