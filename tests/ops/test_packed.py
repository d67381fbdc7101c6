"""Archives in place of folders: the same names, the same bytes, and no trust in what is inside."""

import multiprocessing
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from unispector.errors import DataError
from unispector.ops import packed

FILES = {
    "readme.txt": b"top",
    "set/a.txt": b"a" * 1000,
    "set/deep/ä b.bin": bytes(range(256)),
    "set/deep/._a": b"resource fork",
    "set/.git/config": b"hidden folder",
    "set/empty": b"",
    "other/x.txt": b"x",
}
VISIBLE = sorted(name for name in FILES if ".git" not in name)


def unpacked(root: Path) -> Path:
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(root: Path, folder: str, with_top: bool, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Replace a folder by its archive, made of the folder or of what is in it."""
    top = root / folder
    archive = root / f"{folder}.zip"
    with zipfile.ZipFile(archive, "w", method) as out:
        for path in sorted(top.rglob("*")):
            out.write(path, path.relative_to(top.parent if with_top else top))
    shutil.rmtree(top)
    return archive


def zip_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def test_a_file_in_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("[]")
    with pytest.raises(
        DataError, match=r"export\.json: a file; give the folder that holds it and the images"
    ):
        list(packed.list_files(tmp_path / "export.json"))


def test_a_plain_folder_is_listed_without_hidden_folders(tmp_path):
    assert sorted(packed.list_files(unpacked(tmp_path))) == VISIBLE


@pytest.mark.parametrize("with_top", [True, False])
@pytest.mark.parametrize("folders", [("set",), ("set/deep",), ("set/deep", "set", "other")])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_an_archive_stands_for_its_folder(tmp_path, folders, with_top, method):
    unpacked(tmp_path)
    for folder in folders[:1] if folders[0] == "set/deep" else folders:
        pack(tmp_path, folder, with_top, method)

    assert sorted(packed.list_files(tmp_path)) == VISIBLE
    for name in VISIBLE:
        assert packed.read_bytes(tmp_path / name) == FILES[name]
        assert packed.exists(tmp_path / name)
        with packed.open_file(tmp_path / name) as stream:
            stream.seek(min(1, len(FILES[name])))
            assert stream.read() == FILES[name][1:]


def test_paths_relative_to_the_working_folder(tmp_path, monkeypatch):
    pack(unpacked(tmp_path), "set", with_top=True)
    monkeypatch.chdir(tmp_path)
    assert packed.read_bytes("set/a.txt") == FILES["set/a.txt"]
    monkeypatch.chdir(tmp_path / "other")
    assert packed.read_bytes("../set/a.txt") == FILES["set/a.txt"]
    assert not packed.exists("a.txt")


def test_a_mac_archive_reads_like_any_other(tmp_path):
    zip_of(tmp_path / "x.zip", **{"x/a.txt": b"1", "__MACOSX/x/._a.txt": b"fork", "__MACOSX/._x": b"fork"})
    assert sorted(packed.list_files(tmp_path)) == ["__MACOSX/._x", "__MACOSX/x/._a.txt", "x/a.txt"]
    assert packed.read_bytes(tmp_path / "x/a.txt") == b"1"


def test_names_with_a_leading_dot_folder_are_tidied(tmp_path):
    zip_of(tmp_path / "x.zip", **{"./a.txt": b"1", "./b//c.txt": b"2"})
    assert list(packed.list_files(tmp_path)) == ["x/a.txt", "x/b/c.txt"]
    assert packed.read_bytes(tmp_path / "x/b/c.txt") == b"2"


def test_what_is_nowhere(tmp_path):
    pack(unpacked(tmp_path), "set", with_top=True)
    for name in ("set/none.txt", "none.txt", "none/none.txt", "readme.txt/none", "set.zip/a.txt", "set"):
        assert not packed.exists(tmp_path / name)
        for read in (packed.read_bytes, packed.open_file):
            with pytest.raises(FileNotFoundError, match=name):
                read(tmp_path / name)
    with pytest.raises(DataError, match="absent: no such folder"):
        list(packed.list_files(tmp_path / "absent"))


def test_the_inner_archive_comes_first_and_disk_before_archives(tmp_path):
    zip_of(tmp_path / "x.zip", **{"x/y/a": b"outer"})
    assert packed.read_bytes(tmp_path / "x/y/a") == b"outer"
    (tmp_path / "x/y").mkdir(parents=True)
    (tmp_path / "x/y/a").write_bytes(b"disk")
    assert packed.read_bytes(tmp_path / "x/y/a") == b"disk"


def test_an_archive_beside_its_folder_is_refused(tmp_path):
    zip_of(tmp_path / "x.zip", a=b"1")
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=r"x\.zip: lies beside the folder it stands for; remove one"):
        list(packed.list_files(tmp_path))


@pytest.mark.parametrize("name", ["../a", "x/../../a", "/etc/a", "C:/a", "c:a", "x\\..\\a"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    archive = tmp_path / "x.zip"
    zip_of(archive, **{"good": b"1", name: b"2"})
    for use in (lambda: list(packed.list_files(tmp_path)), lambda: packed.read_bytes(tmp_path / "x/good")):
        with pytest.raises(DataError, match=r"x\.zip: the name .* leaves its folder"):
            use()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 but no archive", b"\0" * 5000])
def test_what_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip: not a readable zip archive .*; fetch it again"):
        list(packed.list_files(tmp_path))


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damage_anywhere_gives_the_bytes_or_one_error(tmp_path, method):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", method) as out:
        out.writestr("a", FILES["set/a.txt"])
    whole = archive.read_bytes()
    refused = []
    for position in range(0, len(whole), 3):
        archive.unlink()
        archive.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        os.utime(archive, ns=(position, position))  # else it could pass for the one before
        try:
            listed = list(packed.list_files(tmp_path))
            assert all(packed.read_bytes(tmp_path / name) == FILES["set/a.txt"] for name in listed)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert not any("\n" in message for message in refused)


def test_an_encrypted_member_is_refused(tmp_path):
    archive = zip_of(tmp_path / "x.zip", a=b"secret")
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the local header's flag
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the index's
    archive.write_bytes(data)
    assert list(packed.list_files(tmp_path)) == ["x/a"]
    with pytest.raises(DataError, match=r"x/a: damaged in x\.zip .*encrypted"):
        packed.read_bytes(tmp_path / "x/a")


def test_a_bomb_is_refused_unread(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a", bytes(3_000_000))
    monkeypatch.setattr(packed, "MEMBER_LIMIT", 2_000_000)
    with pytest.raises(DataError, match=r"x/a: over 1 GiB when unpacked; take it out of x\.zip"):
        packed.read_bytes(tmp_path / "x/a")


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a", bytes(3_000_000))
    data = bytearray(archive.read_bytes())
    start = data.index(b"PK\x01\x02") + 24
    data[start : start + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"x/a: damaged in x\.zip"):
        packed.read_bytes(tmp_path / "x/a")


def test_a_replaced_archive_is_read_anew(tmp_path):
    zip_of(tmp_path / "x.zip", a=b"old")
    assert packed.read_bytes(tmp_path / "x/a") == b"old"
    zip_of(tmp_path / "new", a=b"newer", b=b"more")
    (tmp_path / "new").replace(tmp_path / "x.zip")
    assert packed.read_bytes(tmp_path / "x/a") == b"newer"
    assert list(packed.list_files(tmp_path)) == ["x/a", "x/b"]


def _read_in_turn(root: Path, names: list[str], good: "multiprocessing.Queue[bool]") -> None:
    good.put(all(packed.read_bytes(root / name) == name[2:].encode() * 5000 for name in names))


def test_forked_readers_do_not_disturb_each_other(tmp_path):
    names = [f"x/{number}" for number in range(60)]
    zip_of(tmp_path / "x.zip", **{name[2:]: name[2:].encode() * 5000 for name in names})
    packed.read_bytes(tmp_path / names[0])  # open before the fork
    context = multiprocessing.get_context("fork")
    good = context.Queue()
    readers = [
        context.Process(target=_read_in_turn, args=(tmp_path, names[::step], good)) for step in (1, -1, 1)
    ]
    for reader in readers:
        reader.start()
    _read_in_turn(tmp_path, names, good)
    for reader in readers:
        reader.join(30)
    assert [good.get(timeout=5) for _ in range(4)] == [True] * 4


def test_a_link_to_a_file_is_a_file_and_all_else_is_refused(tmp_path):
    root = tmp_path / "root"
    (root / "x").mkdir(parents=True)
    (tmp_path / "stored").write_bytes(b"data")
    (root / "x/a").symlink_to(tmp_path / "stored")
    (root / ".lock").symlink_to("someone@somewhere")
    assert sorted(packed.list_files(root)) == [".lock", "x/a"]
    assert packed.read_bytes(root / "x/a") == b"data"
    for target in ("nowhere", "odd", "..", tmp_path):
        (root / "x/odd").symlink_to(target)
        with pytest.raises(DataError, match=r"x/odd: neither a file nor a folder .*; put the files"):
            list(packed.list_files(root))
        (root / "x/odd").unlink()
    os.mkfifo(root / "x/odd")
    with pytest.raises(DataError, match=r"x/odd: neither a file nor a folder .*or remove it"):
        list(packed.list_files(root))
