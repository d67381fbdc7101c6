"""insa-mini on disk: reproducible bytes for any number of workers, all or nothing."""

from pathlib import Path

import cv2
import pytest

from unispector.config import MiniConfig
from unispector.data.mini import generate_mini
from unispector.errors import DataError
from unispector.ops.parallel import worker_count

SMALL = MiniConfig(seed=11, images_per_class=1, defect_free_images=1, size=64)
LARGER = SMALL.model_copy(update={"images_per_class": 6, "defect_free_images": 2})
CLASSES = {"GC10": 10, "MagneticTile": 5, "RealIAD": 6, "MVTec": 6, "3CAD": 4, "VISION": 4, "VisA": 5}


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def made(config: MiniConfig, folder: Path) -> Path:
    generate_mini(config, folder / "raw", workers=1)
    return folder / "raw"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return made(SMALL, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    return made(LARGER, tmp_path_factory.mktemp("larger"))


def pictures(root: Path) -> dict[str, bytes]:
    drawn = {file for ending in ("jpg", "JPG", "png") for file in root.rglob(f"[!.]*.{ending}")}
    return {str(file.relative_to(root)): file.read_bytes() for file in drawn}


def test_report_tells_sets_classes_and_bytes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    out = tmp_path / "raw"
    report = generate_mini(SMALL, out, lambda done, total: calls.append((done, total)))
    assert {folder.name for folder in out.iterdir()} == set(report.images) == set(CLASSES)
    assert report.classes == CLASSES
    total = sum(report.images.values())
    assert calls == [(done, total) for done in range(1, total + 1)]
    assert report.image_bytes == sum(len(data) for data in contents(out).values())
    assert report.images["MagneticTile"] == len(list(out.glob("MagneticTile/MT_*/Imgs/*.jpg")))
    grids = [cv2.imread(str(file), 0) for file in out.glob("MVTec/*/ground_truth/*/*.png")]
    assert report.instances["MVTec"] == sum(cv2.connectedComponents(mask)[0] - 1 for mask in grids)


def test_two_workers_write_the_same_bytes_as_one(larger: Path, tmp_path: Path) -> None:
    report = generate_mini(LARGER, tmp_path / "raw", workers=2)
    assert worker_count(2, sum(report.images.values())) == 2, "too few images to start workers"
    assert contents(tmp_path / "raw") == contents(larger)


def test_another_seed_changes_every_image(small: Path, tmp_path: Path) -> None:
    generate_mini(SMALL.model_copy(update={"seed": 12}), tmp_path / "raw")
    one = set(pictures(small).values())
    other = pictures(tmp_path / "raw")
    assert len(other) > 60
    assert {name for name, data in other.items() if data in one} == set()


def test_larger_counts_keep_the_existing_images(small: Path, larger: Path) -> None:
    assert pictures(small).items() < pictures(larger).items()


def test_existing_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    out.mkdir()
    (out / "stale.txt").write_text("old")
    generate_mini(SMALL, out)
    assert not (out / "stale.txt").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_interrupted_run_leaves_the_old_set_and_no_litter(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    out.mkdir()
    (out / "old.txt").write_text("old")

    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_mini(SMALL, out, stop)
    assert contents(out) == {"old.txt": b"old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_no_defect_free_images_is_legal(tmp_path: Path) -> None:
    generate_mini(SMALL.model_copy(update={"defect_free_images": 0}), tmp_path / "raw")
    assert not list((tmp_path / "raw").glob("*/MT_Free/*"))
    assert not [file for file in (tmp_path / "raw").rglob("*") if file.name in ("good", "OK", "Normal")]


def test_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written") as caught:
        generate_mini(SMALL, tmp_path / "file" / "raw")
    assert "\n" not in str(caught.value)


def test_too_many_images_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"params\.yaml"):
        generate_mini(SMALL.model_copy(update={"images_per_class": 90_000}), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
