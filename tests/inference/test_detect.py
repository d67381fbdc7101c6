"""Detection from files to files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unispector.inference import detect as module
from unispector.inference import marking
from unispector.inference.marking import Prompt
from unispector.ops.files import read_image


def test_a_target_is_decoded_once(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.fromarray(pixels).save(file)
    read: list[Path] = []
    for place in (module, marking):
        monkeypatch.setattr(place, "read_image", lambda file: read.append(file) or read_image(file))
    prompts = [Prompt(pixels, [(5, 5, 20, 10)])]
    report = module.detect(tiny_model, files, prompts, tmp_path / "out", batch_size=2)
    assert report.images == 3
    assert read == files


def test_images_of_an_earlier_run_go_and_other_files_stay(tiny_model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    out, prompts = tmp_path / "out", [Prompt(pixels, [(5, 5, 20, 10)])]
    module.detect(tiny_model, [tmp_path / "a.png"], prompts, out)
    (out / "pictures" / "mine.png").write_bytes(b"mine")
    report = module.detect(tiny_model, [tmp_path / "b.png"], prompts, out)
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["b.png", "mine.png"]
    record = json.loads((out / "detections.json").read_text())
    scores = [each["score"] for each in record["annotations"]]
    assert report.highest == pytest.approx(max(scores), abs=1e-6)


FOREIGN = (
    "../a.png", "pictures/../a.png", "./pictures/b.png", "pictures//b.png", "pictures/b.png/", "pictures/..",
    "pictures/notes.txt", "pictures/\0.png", "pictures/\ud800.png", f"pictures/{'x' * 5000}.png", None, 5, [],
)  # fmt: skip
RECORDS = [json.dumps({"images": [{"picture": name}]}) for name in FOREIGN]


@pytest.mark.parametrize("record", [*RECORDS, '{"images": 3}', "no JSON", "[" * 200_000])
def test_a_foreign_file_of_detections_removes_nothing(tiny_model: Path, tmp_path: Path, record: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    out = tmp_path / "out"
    pictures = out / "pictures"
    pictures.mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes(b"mine")
    (pictures / "notes.txt").write_bytes(b"mine")
    (out / "detections.json").write_text(record)
    module.detect(tiny_model, [tmp_path / "b.png"], [Prompt(pixels, [(5, 5, 20, 10)])], out)
    images = json.loads((out / "detections.json").read_text())["images"]
    assert [image["picture"] for image in images] == ["pictures/b.png"]
    assert (tmp_path / "a.png").is_file()
    assert sorted(path.name for path in pictures.iterdir()) == ["b.png", "notes.txt"]


def test_nothing_is_removed_behind_a_link(tiny_model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    album, out = tmp_path / "album", tmp_path / "out"
    album.mkdir()
    out.mkdir()
    (album / "precious.png").write_bytes(b"mine")
    (out / "pictures").symlink_to(album)
    (out / "detections.json").write_text('{"images": [{"picture": "pictures/precious.png"}]}')
    Image.fromarray(pixels).save(tmp_path / "b.png")
    module.detect(tiny_model, [tmp_path / "b.png"], [Prompt(pixels, [(5, 5, 20, 10)])], out)
    assert (album / "precious.png").is_file()
