"""The images of a folder."""

from pathlib import Path

from unispector.workbench.folder import ImageFolder


def test_names_are_sorted_as_people_do_whatever_their_case(tmp_path: Path) -> None:
    names = ["a.png", "B.png", "b/x.png", "C.png", "d.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(ImageFolder(tmp_path).files) == names
