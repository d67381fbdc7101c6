"""The lot of defect-free images, from the table as `convert` writes it."""

import numpy as np
import pytest
from PIL import Image

from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.defect_free import defect_free_for_tests, defect_free_for_training, defect_free_images
from unispector.data.sources import Source
from unispector.data.sources.reasons import DEFECT_FREE
from unispector.data.sources.rows import Box, Dropped, Entry
from unispector.errors import DataError

HEADER = "reason,file_name,instances\n"


@pytest.fixture
def table(tmp_path):
    """Twenty defect-free images in a wild order, among others; one name needs quotes."""
    names = [f"good/{number}.png" for number in range(19)] + ['good/a "b", c.png']
    rows = [f'{DEFECT_FREE},"{name.replace(chr(34), chr(34) * 2)}",0\n' for name in reversed(names)]
    rows.insert(3, "broken image,bad/1.png,0\n")
    (tmp_path / "x.dropped.csv").write_text(HEADER + "".join(rows))
    return tmp_path / "x.dropped.csv", names


def test_a_lot_is_drawn_from_the_defect_free_only(table):
    file, names = table
    assert defect_free_images(file, 100, seed=0) == tuple(sorted(names))
    some = defect_free_images(file, 5, seed=0)
    assert len(set(some)) == 5
    assert set(some) < set(names)
    assert list(some) == sorted(some)
    assert defect_free_images(file, 0, seed=0) == ()


def test_the_lot_is_the_seeds_and_not_the_tables_order(table, tmp_path):
    file, _ = table
    lines = file.read_text().splitlines(keepends=True)
    (tmp_path / "other.csv").write_text(lines[0] + "".join(sorted(lines[1:])))
    assert defect_free_images(tmp_path / "other.csv", 5, seed=0) == defect_free_images(file, 5, seed=0)
    assert len({defect_free_images(file, 5, seed=seed) for seed in range(6)}) > 1


def test_every_image_has_its_chance(table):
    file, names = table
    drawn = [name for seed in range(200) for name in defect_free_images(file, 5, seed=seed)]
    counts = [drawn.count(name) for name in names]
    # 200 draws of 5 of 20: 50 each, give or take 6.
    assert min(counts) > 25
    assert max(counts) < 75


def lists(tmp_path, names):
    file = tmp_path / "y.dropped.csv"
    file.write_text(HEADER + "".join(f"{DEFECT_FREE},{name},0\n" for name in names))
    return file


def test_what_trains_is_never_tested_and_both_are_about_half(tmp_path):
    names = [f"good/{number}.png" for number in range(400)]
    file = lists(tmp_path, names)
    tested, trains = defect_free_for_tests(file, 999), defect_free_for_training(file, 999)
    assert not set(tested) & set(trains)
    assert set(tested) | set(trains) == set(names)
    assert list(tested) == sorted(tested)
    assert 160 < len(trains) < 240
    assert len(defect_free_for_tests(file, 7)) == len(defect_free_for_training(file, 7)) == 7
    assert set(defect_free_for_training(file, 7)) < set(trains)


def test_no_image_changes_its_half_when_a_set_grows(tmp_path):
    names = [f"good/{number}.png" for number in range(60)]
    before = set(defect_free_for_training(lists(tmp_path, names[::2]), 99))
    after = set(defect_free_for_training(lists(tmp_path, names), 99))
    assert before == after & set(names[::2])


def test_a_release_without_such_images_gives_none(tmp_path):
    (tmp_path / "x.csv").write_text(HEADER + "broken image,1.png,0\n")
    assert defect_free_images(tmp_path / "x.csv", 5, seed=0) == ()
    (tmp_path / "x.csv").write_text(HEADER)
    assert defect_free_images(tmp_path / "x.csv", 5, seed=0) == ()


@pytest.mark.parametrize(
    "content", [None, b"a,b\n1,2\n", b"\xff\xfe\x00", HEADER.encode() + b"x\x00,1,2\xff"]
)
def test_an_unusable_table_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.csv: no table of dropped files; run the convert stage again"):
        defect_free_images(tmp_path / "x.csv", 5, seed=0)


def rows(tree):
    """Images of `good` have no defect, the others one box each."""
    for match in tree.matching(r"(\w+)/.+\.png"):
        box = Box(match[1], (2.0, 3.0, 9.0, 8.0))
        yield Dropped(DEFECT_FREE, match[0]) if match[1] == "good" else Entry(match[0], "part", (box,))


def test_the_table_of_a_conversion_is_read(tmp_path):
    for name in ("good/ä, 2.png", "good/1.png", "hole/1.png"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "raw" / name)
    (tmp_path / "raw" / "note.txt").touch()
    files = ConversionFiles.beside(tmp_path / "set.json")
    source = Source(title="Test", layout="defect/name.png", published="nowhere", rows=rows)
    convert_set("Set", source, tmp_path / "raw", files, min_side=0.0)
    assert defect_free_images(files.dropped, 5, seed=0) == ("good/1.png", "good/ä, 2.png")
