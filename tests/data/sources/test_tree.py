"""A release by its file names: listing, accounting, annotation files, paths that such files name."""

import os
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.data.sources.tree import ReleaseTree
from unispector.errors import DataError


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2.png", "b/10.png", "a.json", ".DS_Store", "b/._2.png", ".git/config", "B/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as out:
        out.writestr("c/é.json", '\ufeff{"a": [1]}')
        out.writestr("c/._x", "")
    return ReleaseTree(tmp_path)


def test_files_are_sorted_and_hidden_ones_apart(tree):
    assert tree.files == ["B/x.png", "a.json", "b/10.png", "b/2.png", "c/é.json"]
    assert sorted(tree.hidden) == [".DS_Store", "b/._2.png", "c/._x"]
    assert "b/2.png" in tree
    assert "c/é.json" in tree
    for name in ("b", "b/3.png", "", "zzz", ".DS_Store", "c.zip"):
        assert name not in tree


def test_matching_is_by_the_whole_name_in_order(tree):
    assert [match[0] for match in tree.matching(r"b/(\d+)\.png")] == ["b/10.png", "b/2.png"]
    assert [match[1] for match in tree.matching(r"b/(\d+)\.png")] == ["10", "2"]
    assert list(tree.matching(r"\d+")) == []


def test_what_nothing_was_said_about(tree):
    assert list(tree.unaccounted()) == tree.files
    tree.account_for("b/2.png")
    tree.account_for("not there")
    tree.read_json("c/é.json")
    assert list(tree.unaccounted()) == ["B/x.png", "a.json", "b/10.png"]


def test_annotation_files_are_read_from_disk_and_archive(tree):
    assert tree.read_text("a.json") == "{}"
    assert tree.read_json("c/é.json") == {"a": [1]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "a.json: not valid JSON"),
        (b"", "a.json: not valid JSON"),
        (b"[" * 100_000, "a.json: not valid JSON"),
        (b"9" * 10_000, "a.json: not valid JSON"),
        ("{'ä'}".encode("latin-1"), "a.json: is not UTF-8"),
        (None, "a.json: cannot be read"),
    ],
)
def test_a_bad_annotation_file_is_one_line(tree, data, message):
    (tree.root / "a.json").unlink()
    if data is not None:
        (tree.root / "a.json").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        tree.read_json("a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "path", "name"),
    [
        ("", "x.jpg", "x.jpg"),
        ("a/b", "x.jpg", "a/b/x.jpg"),
        ("a/b", "../x.jpg", "a/x.jpg"),
        ("a/b", "../../x.jpg", "x.jpg"),
        ("a", "./c//x.jpg", "a/c/x.jpg"),
        ("a", "c\\x.jpg", "a/c/x.jpg"),
        ("a", "..\\images\\x.jpg", "images/x.jpg"),
        ("a", "x/../y.jpg", "a/y.jpg"),
        ("a", "..x.jpg", "a/..x.jpg"),
    ],
)
def test_paths_are_taken_from_their_folder(tree, folder, path, name):
    assert tree.below(folder, path, "a.json") == name


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("", "../x.jpg"),
        ("a", "../../x.jpg"),
        ("a", "../../a/x.jpg"),
        ("a", "/etc/passwd"),
        ("a", "C:\\x.jpg"),
        ("a", "c:x.jpg"),
        ("a", "\\\\server\\x.jpg"),
        ("a", "x\0.jpg"),
        ("a", "x\n.jpg"),
        ("a", "\ud800.jpg"),
    ],
)
def test_a_path_that_leaves_the_release_is_refused(tree, folder, path):
    with pytest.raises(DataError, match=r"a\.json: the path .* leaves the release or is no text") as caught:
        tree.below(folder, path, "a.json")
    assert str(caught.value).isprintable()


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b"]), max_size=7))
def test_below_agrees_with_the_file_system(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp()
    tree = ReleaseTree.__new__(ReleaseTree)
    tree.root = root
    path = "/".join(parts)
    depth, lowest = 1, 1
    for part in parts:
        depth += {"..": -1, "a": 1, "b": 1}.get(part, 0)
        lowest = min(lowest, depth)
    if path.startswith("/") or lowest < 0:
        with pytest.raises(DataError):
            tree.below("top", path, "a.json")
    else:
        expected = os.path.relpath(os.path.normpath(root / "top" / path), root)
        assert tree.below("top", path, "a.json") == ("" if expected == "." else expected)


def test_a_name_that_no_table_can_hold_is_refused(tmp_path):
    (tmp_path / "fine ö　.png").write_text("")
    assert len(ReleaseTree(tmp_path).files) == 1
    for name, told in ((os.fsdecode(b"\xe4.png"), r"'\\udce4\.png'"), ("Icon\r", r"'Icon\\r'")):
        (tmp_path / name).write_text("")
        with pytest.raises(DataError, match=rf"the file name {told} is not one line of UTF-8; rename"):
            ReleaseTree(tmp_path)
        (tmp_path / name).unlink()


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="absent: no such folder"):
        ReleaseTree(tmp_path / "absent")


def test_what_a_file_quotes_does_not_flood_the_message(tmp_path):
    error = ReleaseTree(tmp_path).error("a.json", f"it is a {'x' * 10**6!r}; correct it")
    assert len(str(error)) < 2100
    assert str(error).endswith("; correct it")
