"""Detection from files to files."""

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
