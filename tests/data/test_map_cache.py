"""Maps on disk: what was written comes back, whatever happened in between."""

import errno
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.data import map_cache
from unispector.data.map_cache import MapCache, Maps

SHAPES = ((3, 4, 5), (7, 1, 2))


def draw(seed: int) -> Maps:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator).half() for shape in SHAPES)


def same(found: Maps | None, expected: Maps) -> bool:
    return found is not None and all(map(torch.equal, found, expected))


def make(folder: Path, images: int = 6, views: int = 2) -> MapCache:
    return MapCache(folder, images, views, SHAPES)


@settings(deadline=None, max_examples=30)
@given(writes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 99)), max_size=20))
def test_the_last_write_of_a_view_comes_back(writes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    wanted: dict[tuple[int, int], int] = {}
    for index, view, seed in writes:
        make(folder).write(index, view, draw(seed))
        wanted[index, view] = seed
    cache = make(folder)
    for index in range(6):
        for view in range(2):
            found = cache.read(index, view)
            seed = wanted.get((index, view))
            assert found is None if seed is None else same(found, draw(seed))
    assert cache.share() == len(wanted) / 12


def test_maps_of_zeros_and_single_images_are_kept(tmp_path):
    cache = MapCache(tmp_path, 1, 1, [(1, 1, 1)])
    assert (cache.share(), cache.read(0, 0)) == (0, None)
    cache.write(0, 0, (torch.zeros(1, 1, 1).half(),))
    assert cache.share() == 1
    assert same(cache.read(0, 0), (torch.zeros(1, 1, 1).half(),))


def test_more_views_find_those_of_before(tmp_path):
    make(tmp_path, views=1).write(3, 0, draw(1))
    more = make(tmp_path, views=4)
    assert same(more.read(3, 0), draw(1))
    assert more.read(3, 3) is None
    assert more.share() == 1 / 24


def test_the_files_are_as_large_as_told(tmp_path):
    cache = make(tmp_path)
    for view in range(2):
        for index in range(6):
            cache.write(index, view, draw(index))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == cache.size


@pytest.mark.parametrize("place", ["record", "checksum", "end"])
def test_a_damaged_record_is_as_good_as_none(place, tmp_path):
    cache = make(tmp_path)
    for index in range(6):
        cache.write(index, 0, draw(index))
    file = tmp_path / "view0.maps"
    content = bytearray(file.read_bytes())
    record = (len(content) - 4096) // 6
    if place == "end":
        del content[-1:]
    else:
        content[4096 + 5 * record + 17 if place == "record" else 5 * 4] ^= 1
    file.write_bytes(content)
    assert cache.read(5, 0) is None
    assert all(same(cache.read(index, 0), draw(index)) for index in range(5))
    cache.write(5, 0, draw(77))
    assert same(cache.read(5, 0), draw(77))


def test_a_record_whose_write_was_cut_off_is_as_good_as_none(tmp_path, monkeypatch):
    """As of a process that is killed: part of the record is there, its checksum is not."""
    cache, write, calls = make(tmp_path), os.pwrite, []

    def killed(file: int, data: memoryview, place: int) -> int:
        calls.append(place)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(file, data[:50], place)

    monkeypatch.setattr(os, "pwrite", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.write(2, 1, draw(1))
    monkeypatch.undo()
    assert (cache.read(2, 1), cache.share()) == (None, 0)
    cache.write(2, 1, draw(2))
    assert same(cache.read(2, 1), draw(2))


def test_writes_that_are_cut_short_go_on(tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: write(file, data[:13], place))
    cache = make(tmp_path)
    cache.write(4, 0, draw(3))
    assert same(cache.read(4, 0), draw(3))


def test_a_full_disk_is_told_once_and_what_is_kept_stays(tmp_path, monkeypatch, caplog):
    cache, write = make(tmp_path), os.pwrite
    cache.write(0, 0, draw(0))

    def full(file: int, data: memoryview, place: int) -> int:
        if len(data) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, place)

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        cache.write(1, 0, draw(1))
        cache.write(2, 0, draw(2))
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
    assert "GiB more are needed" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert same(cache.read(0, 0), draw(0))
    assert (cache.read(1, 0), cache.read(2, 0)) == (None, None)


def test_room_is_left_for_checkpoints(tmp_path, monkeypatch, caplog):
    cache = make(tmp_path)
    free = map_cache.RESERVE + 2 * 74  # a record has 2 * (60 + 14) bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    cache.write(0, 0, draw(0))
    assert same(cache.read(0, 0), draw(0))
    free -= 1
    cache.write(1, 0, draw(1))
    assert cache.read(1, 0) is None
    assert "of which 2 stay free" in caplog.text
