import errno
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.ops.files import (
    DAY,
    atomic_path,
    atomic_write_bytes,
    atomic_write_text,
    read_class_mask,
    read_image,
    read_image_size,
    read_mask,
    remove_leftovers,
    replaced_folder,
    sha256_of_tree,
)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    atomic_write_text(path, "old")
    atomic_write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    atomic_write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(path.parent.iterdir()) == [path]


def write_half(path):
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        temporary.write_text("half")
        raise RuntimeError("power cut")


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="power cut"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file(tmp_path):
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught, atomic_path(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_content_is_on_the_disk_before_its_name_and_then_the_name(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, Path.replace

    def synced(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink())
        if done[-1] != tmp_path:
            assert done[-1].read_text() == "new"
        fsync(handle)

    def replaced(path: Path, target: Path) -> Path:
        done.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    atomic_write_text(tmp_path / "file", "new")
    temporary, *rest = done
    assert temporary.parent == tmp_path
    assert rest == ["replace", tmp_path]


def test_a_folder_that_cannot_be_synced_is_no_error_but_a_file_is(tmp_path, monkeypatch):
    def refuse(kind):
        def fsync(handle: int) -> None:
            if kind(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "fsync", fsync)

    refuse(stat.S_ISDIR)
    atomic_write_text(tmp_path / "file", "one")
    refuse(stat.S_ISREG)
    with pytest.raises(OSError, match="Invalid argument"):
        atomic_write_text(tmp_path / "file", "two")
    assert (tmp_path / "file").read_text() == "one"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_read_image_is_exact_rgb(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == picture).all()


def test_read_image_replicates_grey_and_drops_alpha(tmp_path, picture):
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png") == picture[:, :, :1]).all()
    Image.fromarray(np.dstack([picture, picture[:, :, 0]])).save(tmp_path / "alpha.png")
    assert (read_image(tmp_path / "alpha.png") == picture).all()


def test_read_image_keeps_the_upper_byte_of_16_bits(tmp_path, picture):
    deep = picture[:, :, 0].astype(np.uint16) * 256 + 17
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png") == picture[:, :, :1]).all()


def test_read_image_refuses_floats(tmp_path):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff.*8 bits"):
        read_image(tmp_path / "float.tiff")


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_read_image_applies_exif_orientation(tmp_path, picture, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == np.rot90(picture, turns)).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_files_are_refused_by_name(tmp_path, picture, suffix, share):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(picture).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=f"cut{suffix}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such image"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match=str(tmp_path)):
        read_image(tmp_path)


def test_read_mask_keeps_black_black_in_every_mode(tmp_path):
    marked = np.random.default_rng(1).random((20, 30)) < 0.3
    grey = Image.fromarray((marked * 255).astype(np.uint8))
    red = Image.fromarray((marked[:, :, None] * np.array([200, 0, 0])).astype(np.uint8))
    palette = Image.fromarray((~marked).astype(np.uint8), mode="P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    deep = Image.fromarray(marked.astype(np.uint16) * 40000)
    for name, image in {"l": grey, "1": grey.convert("1"), "p": palette, "i": deep, "r": red}.items():
        image.save(tmp_path / f"{name}.png")
        mask = read_mask(tmp_path / f"{name}.png")
        assert mask.dtype == np.uint8
        assert ((mask > 0) == marked).all(), name


def test_read_mask_keeps_labels(tmp_path):
    labels = np.random.default_rng(1).integers(0, 7, (20, 30)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    assert (read_mask(tmp_path / "labels.png") == labels).all()


def test_read_class_mask_takes_the_indices_of_a_palette(tmp_path):
    labels = np.random.default_rng(1).integers(0, 7, (20, 30)).astype(np.uint8)
    coloured = Image.fromarray(labels, mode="P")
    coloured.putpalette(list(np.random.default_rng(2).integers(0, 256, 768)))
    coloured.save(tmp_path / "p.png")
    Image.fromarray(labels).save(tmp_path / "l.png")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "i.png")
    Image.fromarray(np.dstack([labels] * 3)).save(tmp_path / "rgb.png")
    for name in ("p", "l", "i", "rgb"):
        mask = read_class_mask(tmp_path / f"{name}.png")
        assert mask.dtype == np.uint8
        assert (mask == labels).all(), name
    Image.fromarray(labels > 3).save(tmp_path / "1.png")
    assert (read_class_mask(tmp_path / "1.png") == (labels > 3)).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp"])
@pytest.mark.parametrize("orientation", [None, *range(10)])
def test_read_image_size_is_the_size_of_the_upright_image(tmp_path, picture, suffix, orientation):
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif)
    height, width, _ = read_image(path).shape
    assert read_image_size(path) == (width, height)


def test_read_image_size_finds_an_orientation_after_the_pixels(tmp_path, picture):
    path = tmp_path / "late.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(path, exif=exif)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    assert read_image(path).shape == (60, 40, 3)
    assert read_image_size(path) == (40, 60)


def test_read_image_size_needs_the_header_only(tmp_path, picture):
    path = tmp_path / "cut.png"
    Image.fromarray(picture).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read_image_size(path) == (60, 40)
    for length in (0, 5, 20):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.png: not a readable image"):
            read_image_size(path)
    path.unlink()
    with pytest.raises(DataError, match=r"cut\.png: no such image"):
        read_image_size(path)


def test_read_image_size_survives_an_orientation_that_is_no_number(tmp_path, picture):
    path = tmp_path / "odd.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(path, exif=exif)
    data = path.read_bytes()
    entry = data.index(b"\x01\x12\x00\x03")  # tag, type SHORT
    path.write_bytes(data[: entry + 2] + b"\x00\x07" + data[entry + 4 :])  # type UNDEFINED: bytes
    assert read_image_size(path) == (60, 40)
    assert read_image(path).shape == (40, 60, 3)


def test_files_in_an_archive_read_like_any_other(tmp_path, picture):
    path = tmp_path / "set" / "a.png"
    path.parent.mkdir()
    Image.fromarray(picture).save(path)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
        out.write(path, "set/a.png")
    path.unlink()
    path.parent.rmdir()
    assert (read_image(path) == picture).all()
    assert (read_mask(path) == picture.max(axis=2)).all()
    assert read_image_size(path) == (60, 40)


def test_tree_hash_sees_names_and_bytes_but_not_place_or_order(tmp_path):
    for root in ("a", "b"):
        (tmp_path / root / "sub").mkdir(parents=True)
        (tmp_path / root / "x.txt").write_text("1")
        (tmp_path / root / "sub" / "y.txt").write_text("2")
    loose = tmp_path / "loose.txt"
    loose.write_text("3")
    first = sha256_of_tree([tmp_path / "a", loose])
    assert sha256_of_tree([loose, tmp_path / "b"]) == first
    assert len(first) == 64
    (tmp_path / "b" / "x.txt").rename(tmp_path / "b" / "z.txt")
    renamed = sha256_of_tree([tmp_path / "b", loose])
    (tmp_path / "a" / "x.txt").write_text("other")
    changed = sha256_of_tree([tmp_path / "a", loose])
    assert len({first, renamed, changed}) == 3


def test_tree_hash_refuses_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="gone"):
        sha256_of_tree([tmp_path / "gone"])


def test_a_replaced_folder_is_whole_or_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "folder"
    for content in ("one", "two"):
        with replaced_folder(folder) as temporary:
            (temporary / content).write_text(content)
            assert temporary.parent == folder.parent
        assert [path.name for path in folder.iterdir()] == [content]

    def fail() -> None:
        with replaced_folder(folder) as temporary:
            (temporary / "three").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    replace = Path.replace

    def refuse_the_new(path: Path, target: Path) -> Path:
        if (path / "three").exists():
            raise OSError("no space")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse_the_new)
    with pytest.raises(OSError, match="no space"), replaced_folder(folder) as temporary:
        (temporary / "three").write_text("three")
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    assert [path.name for path in folder.iterdir()] == ["two"]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("ink", [255, 0])
@pytest.mark.parametrize("ground", [255, 0])
def test_a_mask_on_a_transparent_ground_is_what_is_not_transparent(tmp_path, mode, ink, ground):
    marked = np.random.default_rng(1).random((20, 30)) < 0.3
    grey = np.where(marked, ink, ground).astype(np.uint8)
    image = Image.fromarray(np.dstack([grey, marked.astype(np.uint8) * 255]), "LA").convert(mode)
    if mode == "P":
        image = Image.fromarray(marked.astype(np.uint8), "P")
        image.putpalette([ground] * 3 + [ink] * 3)
        image.info["transparency"] = 0
    image.save(tmp_path / "a.png")
    assert ((read_mask(tmp_path / "a.png") > 0) == marked).all()


def test_black_in_an_opaque_mask_stays_black(tmp_path):
    marked = np.random.default_rng(1).random((20, 30)) < 0.3
    opaque = np.dstack([marked.astype(np.uint8) * 255] * 3 + [np.full((20, 30), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "a.png")
    assert ((read_mask(tmp_path / "a.png") > 0) == marked).all()


def test_what_cannot_be_written_is_named_as_the_user_named_it(tmp_path, monkeypatch):
    def no_space(self, *_):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(OSError, match="No space") as caught:
        atomic_write_text(tmp_path / "a.json", "x")
    assert caught.value.filename == str(tmp_path / "a.json")


LEFT = ".report.0a1b2c3d~.json", ".folder.0a1b2c3d~", ".CURRENT.ffffffff~"
OTHERS = (
    ".report.20261130", ".env.12345678.json", "report.0a1b2c3d~.json", ".report.0a1b2c3~.json",
    ".report.0A1B2C3D~.json", ".git", "report.json",
)  # fmt: skip


def left_in(folder, names, age):
    for name in names:
        (folder / name).mkdir() if "folder" in name else (folder / name).write_text("half")
        os.utime(folder / name, (time.time() - age, time.time() - age))


def test_what_killed_writers_left_goes_a_day_later_and_nothing_else(tmp_path):
    left_in(tmp_path, (*LEFT, *OTHERS), DAY + 60)
    left_in(tmp_path, [".young.0a1b2c3d~.json"], DAY - 600)
    atomic_write_text(tmp_path / "new.txt", "new")
    assert {path.name for path in tmp_path.iterdir()} == {*OTHERS, ".young.0a1b2c3d~.json", "new.txt"}


def test_the_only_copy_of_a_folder_stays(tmp_path):
    for name in ("gone", "there"):
        (tmp_path / f".{name}.0a1b2c3d~.old").mkdir()
        (tmp_path / f".{name}.0a1b2c3d~.old/a").write_text("kept")
    (tmp_path / "there").mkdir()
    remove_leftovers(tmp_path, age=0)
    assert {path.name for path in tmp_path.iterdir()} == {"there", ".gone.0a1b2c3d~.old"}


KILLED = """
import os, signal, sys
from pathlib import Path
from unispector.ops import files
files._sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
files.atomic_write_text(Path(sys.argv[1]), "half")
"""


def test_a_killed_writer_leaves_what_the_rule_knows(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "CURRENT")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [left]
    remove_leftovers(tmp_path, age=0)
    assert list(tmp_path.iterdir()) == []
