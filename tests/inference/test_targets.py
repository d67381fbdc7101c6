"""What `detect` looks at: files, folders, patterns, frames."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.inference.targets import Target, Targets, passed_over


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images at three depths, a note, and a hidden image."""
    for name in ("b.png", "a.JPG", "line/c.png", "line/deep/d.tif", ".hidden.png", "x[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        kind = "TIFF" if name.endswith("tif") else None
        Image.new("RGB", (8, 6), "red").save(tmp_path / name, kind)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def video(file: Path, frames: int, code: str) -> Path:
    """Frame n has grey level 8 n."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*code), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"OpenCV cannot write {code}")
    for number in range(frames):
        writer.write(np.full((48, 64, 3), number * 8, np.uint8))
    writer.release()
    return file


def test_images_of_subfolders_that_are_not_looked_at_are_told(folder: Path) -> None:
    (folder / "line/.unispector").mkdir()
    Image.new("RGB", (8, 6)).save(folder / "line/.unispector/thumbnail.png")
    (line,) = passed_over([folder, folder / "line/deep", folder / "b.png", "camera:0"])
    assert line == f'{folder}: 2 images in subfolders not looked at; name "{folder}/**/*" to take all'
    assert len(Targets.find([f"{folder}/**/*"]).sources) == 5
    (line,) = passed_over([folder / "line"])
    assert ": 1 image in subfolders" in line


CODES = {"mp4": "mp4v", "avi": "MJPG"}


def names(targets: Targets, folder: Path) -> list[str]:
    return [source.relative_to(folder).as_posix() for source in targets.sources]


def errors(read: list[Target]) -> list[str]:
    return [str(each.pixels) for each in read if isinstance(each.pixels, DataError)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [".hidden.png", "a.JPG", "b.png", "x[1].png"]),
        ("b.png", ["b.png"]),
        ("*.png", ["b.png", "x[1].png"]),
        ("*", ["a.JPG", "b.png", "x[1].png"]),
        ("**/*.png", ["b.png", "line/c.png", "x[1].png"]),
        ("**/*", ["a.JPG", "b.png", "line/c.png", "line/deep/d.tif", "x[1].png"]),
        ("line/**", ["line/c.png", "line/deep/d.tif"]),
        ("[ab].*", ["a.JPG", "b.png"]),
        ("x[1].png", ["x[1].png"]),
    ],
)
def test_folders_and_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(Targets.find([folder / pattern]), folder) == expected


def test_patterns_work_from_here_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    targets = Targets.find(["line/*.png", "b.png"])
    assert targets.sources == (Path("line/c.png"), Path("b.png"))
    assert targets.total == 2
    assert [each.name for each in targets.read()] == ["line/c.png", "b.png"]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("none.png", "none.png: no such image or folder"),
        ("none.mp4", "none.mp4: no such image or folder"),
        ("*.bmp", r"\*.bmp: no image or video matches \(.avi, .bmp"),
        ("*.txt", "no image or video matches"),
        ("none/*", "no image or video matches"),
        ("empty", "empty: no image in this folder .*; name its subfolders"),
    ],
)
def test_what_is_not_there_is_told(folder: Path, named: str, told: str) -> None:
    (folder / "empty" / "below").mkdir(parents=True)
    with pytest.raises(DataError, match=told):
        Targets.find([folder / "b.png", folder / named])


@pytest.mark.parametrize("suffix", CODES)
def test_frames_of_a_video(tmp_path: Path, suffix: str) -> None:
    clip = video(tmp_path / f"clip.{suffix}", 30, CODES[suffix])
    targets = Targets.find([clip], frame_step=12)
    assert targets.total is None
    read = list(targets.read())
    assert [each.name for each in read] == [str(tmp_path / f"clip-{n:06d}") for n in (0, 12, 24)]
    assert [each.stem for each in read] == ["clip-000000", "clip-000012", "clip-000024"]
    for number, each in enumerate(read):
        assert isinstance(each.pixels, np.ndarray)
        assert each.pixels.shape == (48, 64, 3)
        assert each.pixels.mean() == pytest.approx(number * 12 * 8, abs=4)
    assert len(list(Targets.find([clip], frames=7).read())) == 7
    assert len(list(Targets.find([clip]).read())) == 30


def test_a_frame_keeps_its_colours(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))  # red, as OpenCV writes it
    writer.release()
    (read,) = Targets.find([tmp_path / "a.avi"]).read()
    assert isinstance(read.pixels, np.ndarray)
    assert read.pixels.mean((0, 1)) == pytest.approx((250, 0, 0), abs=12)


def test_a_damaged_video_is_told(tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.avi", 30, "MJPG")
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 100)
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    read = list(Targets.find([clip, tmp_path / "junk.mp4", tmp_path / "a.png"]).read())
    seen = sum(isinstance(each.pixels, np.ndarray) for each in read)
    cut, junk = errors(read)
    assert cut == f"{clip}: damaged, ends after {seen - 1} of 30 frames; replace the file"
    assert f"{tmp_path / 'junk.mp4'}: not a readable video" in junk
    assert isinstance(read[-1].pixels, np.ndarray)
    # FFmpeg takes its level of messages from the environment when it is first used.
    code = "from unispector.inference.targets import Targets; import sys; t = Targets.find(sys.argv[1:])"
    code += "; print(*t.read())"
    command = [sys.executable, "-c", code, clip, tmp_path / "junk.mp4", "camera:97"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stderr, done.stdout.count("DataError")) == ("", 3)


@pytest.mark.skipif(Path("/dev/video0").exists(), reason="there is a camera")
def test_without_a_camera_one_line_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    targets = Targets.find(["camera:0"], frames=3)
    assert targets.total is None
    told = errors(list(targets.read()))
    assert told == ["camera:0: no such camera, or another program uses it; check the number"]
    assert capfd.readouterr().err == ""


class Camera:
    """A camera that gives `shots` frames, each darker by one."""

    def __init__(self, shots: int) -> None:
        self.shots, self.number = shots, -1

    def isOpened(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return -1.0

    def grab(self) -> bool:
        self.number += 1
        return self.number < self.shots

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 5, 3), 200 - self.number, np.uint8)

    def release(self) -> None:
        pass


def test_a_camera_is_looked_at_until_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened.append(number) or Camera(10))
    read = list(Targets.find(["camera:2"], frame_step=3, frames=2).read())
    assert opened == [2]
    assert [each.name for each in read] == ["camera-2-000000", "camera-2-000003"]
    assert [int(each.pixels[0, 0, 0]) for each in read] == [200, 197]  # type: ignore[index]
    unplugged = list(Targets.find(["camera:2"], frame_step=3).read())
    assert errors(unplugged) == ["camera:2: the camera stopped after 10 frames"]
    assert len(unplugged) == 5


def test_an_unreadable_image_is_told_in_its_place(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"junk")
    read = list(Targets.find([folder]).read())
    assert [Path(each.name).name for each in read] == [".hidden.png", "a.JPG", "b.png", "x[1].png"]
    (told,) = errors(read)
    assert told.startswith(f"{folder / 'b.png'}: not a readable image")
