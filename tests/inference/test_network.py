"""Batches are bounded by images and by pixels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unispector.inference import network
from unispector.inference.network import batches

SIDES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=20)


@given(sides=SIDES, most=st.integers(1, 8), pixels=st.integers(1, 900))
def test_batches_are_small_and_lose_nothing(sides, most, pixels):
    images = [np.zeros((*hw, 3), dtype=np.uint8) for hw in sides]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "PIXELS_AT_ONCE", pixels)
        found = list(batches(iter(images), most))
    assert [id(image) for batch in found for image in batch] == [id(image) for image in images]
    for number, batch in enumerate(found):
        sizes = [image.shape[0] * image.shape[1] for image in batch]
        assert 1 <= len(batch) <= most
        assert sum(sizes[:-1]) < pixels
        if number + 1 < len(found) and len(batch) < most:  # no smaller than need be
            assert sum(sizes) >= pixels


def test_no_image_is_read_before_those_of_the_batch_are_looked_at():
    read = []
    images = (read.append(number) or np.zeros((4, 4, 3), np.uint8) for number in range(5))
    for number, batch in enumerate(batches(images, 2)):
        assert len(batch) == len(read) - 2 * number <= 2


def test_files_count_by_their_header_and_what_cannot_be_read_counts_nothing(tmp_path: Path, monkeypatch):
    image = Image.new("L", (30, 20))
    file, broken = tmp_path / "a.png", tmp_path / "b.png"
    image.save(file)
    broken.write_bytes(b"no image")
    monkeypatch.setattr(network, "PIXELS_AT_ONCE", 1200)  # two of three have so many
    assert list(batches([file, broken, image, str(file)], 8)) == [[file, broken, image], [str(file)]]
