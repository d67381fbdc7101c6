"""The Magnetic Tile layout: what is read, what is set aside, what is refused."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from unispector.data.convert import convert_set
from unispector.data.sources import SOURCES
from unispector.data.sources.rows import SourceImage
from unispector.errors import DataError

REAL = Path("../shared/data/magnetic_tile")
read = SOURCES["magnetic_tile"].read


def put(root: Path, name: str, mask: npt.NDArray[np.uint8] | None, size: tuple[int, int] = (20, 30)) -> Path:
    """Write `<name>.jpg` of `size` (h, w) and, unless None, its mask."""
    path = root / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size, 128, np.uint8))
    if mask is not None:
        cv2.imwrite(str(path.with_suffix(".png")), mask)
    return path


def spot(value: int = 255, size: tuple[int, int] = (20, 30)) -> npt.NDArray[np.uint8]:
    mask = np.zeros(size, np.uint8)
    mask[5:9, 10:16] = value
    return mask


def rows(root: Path) -> list[SourceImage]:
    return list(read(root).images)


def test_rows_carry_file_size_and_defect(tmp_path: Path) -> None:
    put(tmp_path, "MT_Fray/Imgs/b", spot())
    put(tmp_path, "MT_Fray/Imgs/a", spot())
    put(tmp_path, "MT_Crack/Imgs/a", spot())

    found = rows(tmp_path)

    assert [row.file_name for row in found] == [
        "MT_Crack/Imgs/a.jpg",
        "MT_Fray/Imgs/a.jpg",
        "MT_Fray/Imgs/b.jpg",
    ]
    assert [row.defects for row in found] == [("crack",), ("fray",), ("fray",)]
    assert all((row.width, row.height) == (30, 20) for row in found)
    assert (found[0].masks[0] == (spot() > 0)).all()
    assert read(tmp_path).product == "magnetic_tile"


@pytest.mark.parametrize(("value", "count"), [(127, 0), (128, 1)])
def test_grey_counts_above_127(tmp_path: Path, value: int, count: int) -> None:
    put(tmp_path, "MT_Crack/Imgs/a", spot(value))
    row = rows(tmp_path)[0]
    assert row.masks.shape == (count, 20, 30)
    assert len(row.defects) == count


def test_diagonal_neighbours_are_one_component_and_a_gap_makes_two(tmp_path: Path) -> None:
    diagonal = np.zeros((20, 30), np.uint8)
    diagonal[[3, 4, 5], [3, 4, 5]] = 255
    apart = diagonal.copy()
    apart[4, 4] = 100
    put(tmp_path, "MT_Crack/Imgs/a", diagonal)
    put(tmp_path, "MT_Crack/Imgs/b", apart)
    joined, split = rows(tmp_path)
    assert len(joined.masks) == 1
    assert joined.masks[0].sum() == 3
    assert [mask.sum() for mask in split.masks] == [1, 1]


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    put(tmp_path, "MT_Crack/Imgs/a", spot())
    put(tmp_path, "MT_Free/Imgs/good", np.zeros((20, 30), np.uint8))
    cv2.imwrite(str(tmp_path / "MT_Crack/Imgs/orphan.png"), spot())
    (tmp_path / "MT_Crack/Imgs/notes.txt").write_text("x")
    (tmp_path / "MT_Crack/Imgs/._a.jpg").write_bytes(b"resource fork")
    (tmp_path / "README.md").write_text("x")

    dropped = {item.reason: item.file_name for item in read(tmp_path).dropped}

    assert dropped == {
        "image without defects": "MT_Free/Imgs/good.jpg",
        "mask without an image": "MT_Crack/Imgs/orphan.png",
        "neither image nor mask": "MT_Crack/Imgs/notes.txt",
    }
    assert [row.file_name for row in rows(tmp_path)] == ["MT_Crack/Imgs/a.jpg"]


def test_refuses_a_broken_release_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: no such folder"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no folder of defect images; expected MT_<Defect>/Imgs"):
        read(tmp_path)
    (tmp_path / "MT_Crack").mkdir()
    with pytest.raises(DataError, match=r"MT_Crack/Imgs: no .jpg images"):
        read(tmp_path)
    lonely = put(tmp_path, "MT_Crack/Imgs/lonely", None)
    with pytest.raises(DataError, match=r"lonely.jpg: no mask lonely.png"):
        read(tmp_path)
    cv2.imwrite(str(lonely.with_suffix(".png")), spot(size=(21, 30)))
    with pytest.raises(DataError, match=r"lonely.png: mask is 30x21 but its image is 30x20"):
        rows(tmp_path)
    cv2.imwrite(str(lonely.with_suffix(".png")), spot())
    data = lonely.read_bytes()
    lonely.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"lonely.jpg: not a readable image"):
        rows(tmp_path)
    lonely.with_suffix(".jpeg").write_bytes(data)
    with pytest.raises(DataError, match="two images share this name"):
        read(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the Magnetic Tile release is not at hand")
def test_real_release_gives_the_published_counts() -> None:
    annotations, report = convert_set("MagneticTile", read(REAL), 0.01)

    before = {"blowhole": 118, "break": 126, "crack": 70, "fray": 41, "uneven": 107}
    after = {"blowhole": 118, "break": 117, "crack": 68, "fray": 38, "uneven": 99}
    assert report.instances_read == {f"magnetic_tile_{name}": count for name, count in before.items()}
    assert report.instances_kept == {f"magnetic_tile_{name}": count for name, count in after.items()}
    dropped = {item.reason: item for item in report.dropped}
    assert dropped["mask marks nothing"].files == (
        "MT_Uneven/Imgs/exp3_num_45042.jpg",
        "MT_Uneven/Imgs/exp4_num_124690.jpg",
        "MT_Uneven/Imgs/exp4_num_352527.jpg",
        "MT_Uneven/Imgs/exp4_num_45057.jpg",
    )
    usable = report.images_read - len(dropped["mask marks nothing"].files)
    assert (report.images_read, usable) == (392, 388)
    # Four images hold nothing but components under the size rule.
    assert report.images_kept == len(annotations.images) == 384
    folders = Counter(Path(image.file_name).parts[0] for image in annotations.images)
    assert folders == {"MT_Blowhole": 115, "MT_Break": 85, "MT_Crack": 55, "MT_Fray": 32, "MT_Uneven": 97}
