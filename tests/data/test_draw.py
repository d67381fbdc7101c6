"""`unispector data draw`: from the command line to a set that converts."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from unispector.cli import main
from unispector.data.coco import Annotations


def test_a_drawn_set_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(80, 120, (100, 140, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.jpg"), image)
    size = ["--size", "96", "--classes", "2", "--images", "1", "--good", "1", "--without", "Uneven"]
    out = tmp_path / "set"
    assert main(["data", "draw", str(out), "--surfaces", str(tmp_path / "photos"), *size]) == 0
    assert f"{out}: 6 images, 4 classes" in capsys.readouterr().out
    assert main(["convert", "coco", str(out), "--out", str(tmp_path / "set.json"), "--workers", "1"]) == 0
    assert "image without defects: 2 files" in capsys.readouterr().out
    converted = Annotations.read(tmp_path / "set.json")
    assert len(converted.images) == 4
    assert {name[:3] for name in converted.class_names} == {"00_", "01_"}


def test_a_folder_without_pictures_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    assert main(["data", "draw", str(tmp_path / "set"), "--surfaces", str(tmp_path / "photos")]) == 1
    assert "photos: no image in this folder" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
