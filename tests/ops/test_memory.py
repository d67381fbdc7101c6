"""An image that does not fit into the memory that is left is refused before it is decoded."""

import numpy as np
import psutil
import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.ops import memory
from unispector.ops.files import read_image, read_mask
from unispector.ops.images import as_pixels


def test_what_is_free_is_what_the_system_says():
    assert memory.free_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_container_may_have_less(tmp_path, monkeypatch):
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_GROUPS", ((limit, used), (tmp_path / "none", used)))
    limit.write_text("3000000\n")
    used.write_text("1000000\n")
    assert memory.free_bytes() == 2_000_000
    limit.write_text("max\n")
    assert memory.free_bytes() > 2_000_000
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.free_bytes() is None


@pytest.mark.parametrize("read", [read_image, read_mask, as_pixels])
def test_an_image_is_read_only_where_it_fits(read, tmp_path, monkeypatch):
    file = tmp_path / "large.png"
    Image.fromarray(np.zeros((4000, 3000), dtype=np.uint8)).save(file)
    needed = 12_000_000 * memory.PEAK_BYTES
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    assert read(file).shape[:2] == (4000, 3000)
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    with pytest.raises(DataError, match=r"large\.png: 12 million pixels take 206 MiB to decode"):
        read(file)
