"""The images of a folder: what is passed over is told, and sizes are those of the file that is there now."""

import os
from pathlib import Path

import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.workbench.bench import folders
from unispector.workbench.folder import ImageFolder
from unispector.workbench.project import Project

LATIN = b"geh\xe4use"


def put(path: Path | bytes, width: int = 8) -> None:
    Image.new("L", (width, 6)).save(os.fsdecode(path), "PNG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "parts"
    root.mkdir()
    put(root / "a.png")
    put(os.fsencode(root) + b"/" + LATIN + b".png")
    (root / "sub").mkdir()
    put(os.fsencode(root / "sub") + b"/" + LATIN + b"2.png")
    os.mkdir(os.fsencode(root) + b"/" + LATIN)  # noqa: PTH102 - a name of bytes
    Path(os.fsdecode(os.fsencode(root) + b"/" + LATIN + b".txt")).touch()
    return root


def test_names_that_are_no_utf_8_are_passed_over_and_told_once(folder: Path) -> None:
    project = Project(folder)
    assert list(project.folder.files) == ["a.png"]
    (line,) = project.news(-1, -1, 0).messages
    assert line == (
        "'geh\\udce4use' and 2 more: the name is not UTF-8, so that it cannot be shown; rename it"
    )
    project.end()
    assert [each.name for each in folders(folder)] == ["..", "sub"]


def test_a_folder_whose_own_name_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + LATIN))
    root.mkdir()
    with pytest.raises(DataError, match="the folder's name is not UTF-8; rename it"):
        ImageFolder(root)


def test_a_subfolder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    folder = ImageFolder(tmp_path)
    assert list(folder.files) == ["a.png"]
    (line,) = folder.trouble
    assert line.startswith("'locked': the folder cannot be read")


def test_a_size_is_of_the_file_that_is_there_now(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    folder = ImageFolder(tmp_path)
    assert folder.size("a.png") == (6, 8)
    assert folder.holds("a.png", (6, 8))
    put(tmp_path / "a.png", width=80)
    folder.refresh()
    assert folder.size("a.png") == (6, 80)
    assert not folder.holds("a.png", (6, 8))
    (tmp_path / "a.png").write_bytes(b"garbage")
    folder.refresh()
    assert not folder.holds("a.png", (6, 80))
    assert not folder.holds("gone.png", (6, 80))


def test_names_are_sorted_as_people_do_whatever_their_case(tmp_path: Path) -> None:
    names = ["a.png", "B.png", "b/x.png", "C.png", "d.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(ImageFolder(tmp_path).files) == names
