"""Releases are copied whole, packed where they are many, and read the same either way."""

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.data import packing
from unispector.data.packing import bring_in, holds_release, plan_archives
from unispector.errors import DataError
from unispector.ops import packed


@pytest.fixture
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LOOSE_FILES", 5)
    monkeypatch.setattr(packing, "ARCHIVE_FILES", 6)


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 3)


RELEASE = (
    "readme.txt",
    *(f"all/cable/NG/{number}.jpg" for number in range(4)),
    *(f"all/pcb/NG/{kind}/{number}.jpg" for kind in "ab" for number in range(3)),
    "all/list.json",
    *(f"flat/{number}.jpg" for number in range(9)),
)


@pytest.mark.usefixtures("_small_limits")
def test_the_outermost_folders_that_are_not_too_large_become_archives() -> None:
    plan = plan_archives(RELEASE)
    assert {folder: len(files) for folder, files in plan.items()} == {
        "": 2,
        "all/cable": 4,
        "all/pcb": 6,
        "flat": 9,  # too large, but there is no folder in it to pack instead
    }
    assert plan[""] == ["readme.txt", "all/list.json"]
    assert plan_archives(RELEASE[:5]) == {"": list(RELEASE[:5])}


@pytest.mark.usefixtures("_small_limits")
def test_a_folder_of_archives_is_not_packed() -> None:
    names = ["zips/a.zip", *(f"zips/{number}.txt" for number in range(3)), "x/1", "x/2", "x/3"]
    assert set(plan_archives(names)) == {"", "x"}


names = st.lists(st.sampled_from(["a", "b", "c", "dd"]), min_size=1, max_size=4).map("/".join)


@given(st.lists(names, unique=True, max_size=40), st.integers(0, 10), st.integers(1, 10))
def test_every_file_is_in_the_plan_once(files: list[str], loose: int, limit: int) -> None:
    before = packing.LOOSE_FILES, packing.ARCHIVE_FILES
    packing.LOOSE_FILES, packing.ARCHIVE_FILES = loose, limit
    try:
        plan = plan_archives(files)
    finally:
        packing.LOOSE_FILES, packing.ARCHIVE_FILES = before
    assert sorted(file for members in plan.values() for file in members) == sorted(files)
    for folder, members in plan.items():
        assert all(file.startswith(f"{folder}/") for file in members if folder)
        nested = [other for other in plan if folder and other.startswith(f"{folder}/")]
        assert not nested


@pytest.mark.usefixtures("_small_limits")
def test_packed_releases_read_like_loose_ones(tmp_path: Path) -> None:
    release, folder = tmp_path / "release", tmp_path / "data/raw/Set"
    write(release, *RELEASE, ".git/HEAD", "all/._x.jpg")
    steps: list[tuple[int, int]] = []

    bring_in(release, folder, lambda done, total: steps.append((done, total)))

    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "cable.zip", "flat.zip", "list.json", "pcb.zip", "readme.txt",
    ]  # fmt: skip
    assert sorted(packed.list_files(folder)) == sorted(RELEASE)
    assert all(packed.read_bytes(folder / name) == name.encode() * 3 for name in RELEASE)
    assert steps == [(number, len(RELEASE)) for number in range(1, len(RELEASE) + 1)]
    assert holds_release(folder, release)
    with zipfile.ZipFile(folder / "all/pcb.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}

    write(release, "all/cable/NG/new.jpg")
    assert not holds_release(folder, release)


@pytest.mark.usefixtures("_small_limits")
def test_equal_releases_give_equal_bytes(tmp_path: Path) -> None:
    for turn, release in enumerate((tmp_path / "one", tmp_path / "two")):
        write(release, *RELEASE[:: 1 - 2 * turn])
        bring_in(release, tmp_path / f"copy{turn}")
    files = sorted(path.relative_to(tmp_path / "copy0") for path in (tmp_path / "copy0").rglob("*.*"))
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "copy0" / file).read_bytes() == (tmp_path / "copy1" / file).read_bytes()


def write_tar(path: Path, *names: str, kind: str = "xz") -> None:
    with tarfile.open(path, f"w:{kind}") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))


def test_tars_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    write_tar(tmp_path / "release/Cable.tar.xz", "Cable/train/1.jpg", "Cable/train/._1.jpg")
    write(tmp_path / "release", "notes.txt")
    bring_in(tmp_path / "release", tmp_path / "Set")
    assert sorted(packed.list_files(tmp_path / "Set")) == ["Cable/train/1.jpg", "notes.txt"]
    assert holds_release(tmp_path / "Set", tmp_path / "release")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Set", "release"]


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/outside.jpg", "a/../../../outside.jpg"])
def test_a_tar_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "release").mkdir()
    write_tar(tmp_path / "release/bad.tar.xz", name)
    if PurePosixPath(name).is_absolute():  # the leading slash is dropped: it stays inside
        bring_in(tmp_path / "release", tmp_path / "Set")
        assert (tmp_path / "Set/etc/outside.jpg").is_file()
        return
    with pytest.raises(DataError, match=r"bad.tar.xz: cannot be unpacked"):
        bring_in(tmp_path / "release", tmp_path / "Set")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_a_broken_tar_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path / "release", "x.tar.gz")
    with pytest.raises(DataError, match=r"x.tar.gz: cannot be unpacked"):
        bring_in(tmp_path / "release", tmp_path / "Set")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2"])
def test_a_tar_that_is_cut_off_or_damaged_is_refused(tmp_path: Path, kind: str) -> None:
    """`tarfile` by itself takes a missing or damaged header for the end and gives what came before it."""
    suffix = f".tar.{kind}" if kind else ".tar"
    archive = tmp_path / f"release/x{suffix}"
    archive.parent.mkdir()
    write_tar(archive, *(f"x/{number}.jpg" for number in range(6)), kind=kind)
    whole = archive.read_bytes()
    # A plain one ends in padding; one of gzip begins with a name and a time that matter to nothing.
    first, last = (0, 6 * 1024) if not kind else (24 if kind == "gz" else 0, len(whole))
    for place in sorted({first + (last - first) * step // 24 for step in range(1, 24)}):
        for broken in (whole[:place], whole[:place] + b"\xff" * 8 + whole[place + 8 :]):
            archive.write_bytes(broken)
            folder = tmp_path / f"copy{place}-{len(broken)}"
            if not kind and place % 1024 >= 512 and len(broken) == len(whole):
                continue  # in a file's bytes, for which a plain archive has no checksum
            with pytest.raises(DataError, match=rf"x{suffix}: cannot be unpacked \(.*\); fetch it again"):
                bring_in(archive.parent, folder)
            assert not folder.exists()
    archive.write_bytes(whole)
    bring_in(archive.parent, tmp_path / "copy")
    assert len(list((tmp_path / "copy/x").iterdir())) == 6


@pytest.mark.parametrize("target", ["x", "nowhere"])
def test_links_that_lead_to_no_file_are_refused_beside_a_tar_too(tmp_path: Path, target: str) -> None:
    write(tmp_path / "release", "x/1.jpg")
    write_tar(tmp_path / "release/y.tar.xz", "y/1.jpg")
    (tmp_path / "release/link").symlink_to(target)
    with pytest.raises(DataError, match="link: neither a file nor a folder but a link to nowhere or to a"):
        bring_in(tmp_path / "release", tmp_path / "copy")
    (tmp_path / "release/link").unlink()
    (tmp_path / "release/link.jpg").symlink_to("x/1.jpg")
    bring_in(tmp_path / "release", tmp_path / "copy")
    assert (tmp_path / "copy/link.jpg").read_bytes() == b"x/1.jpg" * 3
