"""Detection from files to files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unispector.detections import Detections
from unispector.errors import DataError
from unispector.inference import detect as module
from unispector.inference import targets as targets_module
from unispector.inference.detect import DetectionReport
from unispector.inference.detector import UniSpector
from unispector.inference.marking import Prompt
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.targets import Targets
from unispector.ops.images import as_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(tiny_model: Path) -> UniSpector:
    return UniSpector.load(tiny_model, "cpu")


@pytest.fixture(scope="module")
def bank(detector: UniSpector) -> PromptBank:
    return detector.encode(Prompt(PIXELS, [(5, 5, 20, 10)]))


Run = Callable[..., DetectionReport]


@pytest.fixture
def run(detector: UniSpector, bank: PromptBank, tmp_path: Path) -> Run:
    """`run("a.png", ...)`: detect on files of the folder, into `out`."""

    def detect(*names: str, **how: object) -> DetectionReport:
        targets = Targets.find([tmp_path / name for name in names])
        return module.detect(detector, bank, targets, tmp_path / "out", **how)  # type: ignore[arg-type]

    return detect


def save(folder: Path, *names: str) -> None:
    for name in names:
        Image.fromarray(PIXELS).save(folder / name)


def break_image(file: Path) -> None:
    Image.fromarray(PIXELS).save(file)
    file.write_bytes(file.read_bytes()[:300])


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_target_is_decoded_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.png" for number in range(3)]
    save(tmp_path, *names)
    read: list[Path] = []
    monkeypatch.setattr(
        targets_module, "as_pixels", lambda file, depth: read.append(file) or as_pixels(file, depth)
    )
    assert run(*names, batch_size=2).images == 3
    assert read == [tmp_path / name for name in names]


def test_the_record_is_coco_of_every_image(
    run: Run, detector: UniSpector, bank: PromptBank, tmp_path: Path
) -> None:
    save(tmp_path, "a.png", "b.png")
    run("a.png", "b.png", min_score=0.0)
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert list(record) == ["info", "images", "categories", "annotations"]
    assert list(record["images"][1]) == ["id", "file_name", "width", "height", "picture"]
    assert record["images"][1]["file_name"] == str(tmp_path / "b.png")
    found: Detections = detector.detect(tmp_path / "a.png", bank)
    assert [each["id"] for each in record["annotations"]] == list(range(1, 2 * len(found) + 1))
    assert len(found) > 1
    for number, annotation in enumerate(record["annotations"]):
        row = number % len(found)
        x0, y0, x1, y1 = found.boxes_xyxy[row].tolist()
        assert annotation["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.02)
        assert annotation["image_id"] == 1 + number // len(found)
        assert annotation["score"] == pytest.approx(float(found.scores[row]), abs=1e-5)
        assert annotation["segmentation"] == found.masks_rle[row]


def test_images_of_an_earlier_run_go_and_other_files_stay(run: Run, tmp_path: Path) -> None:
    save(tmp_path, "a.png", "b.png")
    out = tmp_path / "out"
    run("a.png")
    (out / "pictures" / "mine.png").write_bytes(b"mine")
    report = run("b.png", min_score=0.0)
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["b.png", "mine.png"]
    assert sorted(path.name for path in out.iterdir()) == ["detections.json", "pictures"]
    record = json.loads((out / "detections.json").read_text())
    scores = [each["score"] for each in record["annotations"]]
    assert report.highest == pytest.approx(max(scores), abs=1e-6)
    assert report.detections == report.drawn == len(scores) > 0


def test_an_unreadable_target_is_told_and_the_rest_written(run: Run, tmp_path: Path) -> None:
    save(tmp_path, "a.png", "c.png", "d.png")
    break_image(tmp_path / "b.png")
    break_image(tmp_path / "e.png")
    lines: list[str] = []
    report = run("a.png", "b.png", "c.png", "d.png", "e.png", tell=lines.append, batch_size=2)
    assert (report.images, report.unread) == (3, 2)
    assert [line.partition(": not a readable")[0] for line in lines] == [
        f"skipped: {tmp_path / 'b.png'}",
        f"skipped: {tmp_path / 'e.png'}",
    ]
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(image["file_name"]).name for image in record["images"]] == ["a.png", "c.png", "d.png"]
    assert [image["id"] for image in record["images"]] == [1, 2, 3]


def test_a_pipe_among_the_images_of_a_folder_is_not_waited_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save(tmp_path / "in", "a.png")
    os.mkfifo(tmp_path / "in" / "b.png")
    assert run("in").images == 1


def test_where_nothing_can_be_read_the_earlier_results_stay(run: Run, tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    run("a.png")
    before = content(tmp_path / "out")
    break_image(tmp_path / "b.png")
    break_image(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"b\.png: not a readable image"):
        run("b.png")
    lines: list[str] = []
    with pytest.raises(DataError, match=r"none of the 2 images can be read, so nothing was written"):
        run("b.png", "c.png", tell=lines.append)
    assert len(lines) == 2
    assert content(tmp_path / "out") == before


KILLED = """
import signal
import sys
from pathlib import Path
from unispector.inference import detect as module
from unispector.inference.detector import Prompt, UniSpector
from unispector.inference.targets import Targets

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its background jobs without
folder = Path(sys.argv[2])
detector = UniSpector.load(sys.argv[1], "cpu")
bank = detector.encode(Prompt(folder / "b.png", [(5, 5, 20, 10)]))
drawn, write = [], module.write_image

def slow(path, image):
    write(path, image)
    drawn.append(path)
    if len(drawn) == 2:
        print("now", flush=True)
        sys.stdin.read()

module.write_image = slow
names = ["b.png", "c.png", "d.png"]
module.detect(detector, bank, Targets.find([folder / name for name in names]), folder / "out")
"""


def test_a_kill_leaves_no_record_that_contradicts_the_images(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    save(tmp_path, "a.png", "b.png", "c.png", "d.png")
    out = tmp_path / "out"
    run("a.png", "b.png")
    earlier = (out / "detections.json").read_bytes()
    command = [sys.executable, "-c", KILLED, str(tiny_model), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "detections.json").exists()
    assert (out / "detections.earlier.json").read_bytes() == earlier
    assert {path.name for path in (out / "pictures").glob("[!.]*")} == {"a.png", "b.png", "c.png"}
    run("c.png")
    assert sorted(content(out)) == ["detections.json", "pictures/c.png"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_writes_what_was_found(tiny_model: Path, tmp_path: Path) -> None:
    save(tmp_path, "b.png", "c.png", "d.png")
    command = [sys.executable, "-c", KILLED, str(tiny_model), str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        time.sleep(0.2)  # it waits in a read by now
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert b"KeyboardInterrupt" in errors
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [image["picture"] for image in record["images"]] == ["pictures/b.png"]


def test_a_full_disk_names_the_folder_given(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, "a.png")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "out" / "pictures" / ".a.12ab.png"))

    monkeypatch.setattr(module, "write_image", full)
    with pytest.raises(DataError) as caught:
        run("a.png")
    told = (
        f"{tmp_path / 'out'}: cannot be written (No space left on device); check permissions and free space"
    )
    assert str(caught.value) == told


def test_a_folder_below_a_file_names_the_folder_given(run: Run, tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(DataError, match=r"out: cannot be written \("):
        run("a.png")


def test_classes_are_counted_apart(detector: UniSpector, tmp_path: Path) -> None:
    save(tmp_path, "a.png", "b.png")
    marks = [
        Prompt(PIXELS, [box], label=label) for label, box in (("x", (5, 5, 20, 10)), ("y", (9, 9, 30, 30)))
    ]
    bank = detector.encode(marks)
    found = detector.detect([tmp_path / "a.png", tmp_path / "b.png"], bank)
    least = float(found[0].scores.median())
    targets = Targets.find([tmp_path])
    report = module.detect(detector, bank, targets, tmp_path / "out", min_score=least)
    for number, each in enumerate(report.classes):
        scores = [float(s) for f in found for s, c in zip(f.scores, f.labels, strict=True) if c == number]
        assert each.name == "xy"[number]
        assert each.drawn == sum(score >= least for score in scores)
        assert each.highest == pytest.approx(max(scores), abs=1e-6)
    assert report.drawn == sum(each.drawn for each in report.classes)


FOREIGN = (
    "../a.png", "pictures/../a.png", "./pictures/b.png", "pictures//b.png", "pictures/b.png/", "pictures/..",
    "pictures/notes.txt", "pictures/\0.png", "pictures/\ud800.png", f"pictures/{'x' * 5000}.png", None, 5, [],
)  # fmt: skip
RECORDS = [json.dumps({"images": [{"picture": name}]}) for name in FOREIGN]


@pytest.mark.parametrize("record", [*RECORDS, '{"images": 3}', "no JSON", "[" * 200_000])
def test_a_foreign_file_of_detections_removes_nothing(run: Run, tmp_path: Path, record: str) -> None:
    out = tmp_path / "out"
    pictures = out / "pictures"
    pictures.mkdir(parents=True)
    save(tmp_path, "b.png")
    (tmp_path / "a.png").write_bytes(b"mine")
    (pictures / "notes.txt").write_bytes(b"mine")
    (out / "detections.json").write_text(record)
    run("b.png")
    images = json.loads((out / "detections.json").read_text())["images"]
    assert [image["picture"] for image in images] == ["pictures/b.png"]
    assert (tmp_path / "a.png").is_file()
    assert sorted(path.name for path in pictures.iterdir()) == ["b.png", "notes.txt"]


def test_nothing_is_removed_behind_a_link(run: Run, tmp_path: Path) -> None:
    album, out = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    out.mkdir()
    (album / "precious.png").write_bytes(b"mine")
    (out / "pictures").symlink_to(album)
    (out / "detections.json").write_text('{"images": [{"picture": "pictures/precious.png"}]}')
    save(tmp_path, "b.png")
    run("b.png")
    assert (album / "precious.png").is_file()
