"""insa-mini on disk: Magnetic Tile's layout, reproducible bytes, all or nothing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from unispector.config import MiniConfig
from unispector.data.mini import DEFECT_FREE, FAMILIES, generate_mini, render
from unispector.errors import DataError

SMALL = MiniConfig(seed=11, images_per_family=2, defect_free_images=1, size=64)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()
    }


def test_layout_is_magnetic_tiles(tmp_path: Path) -> None:
    report = generate_mini(SMALL, tmp_path / "raw")
    root = tmp_path / "raw" / "MagneticTile"
    assert {folder.name for folder in root.iterdir()} == {f"MT_{name}" for name in (*FAMILIES, DEFECT_FREE)}
    assert report.images == {DEFECT_FREE: 1} | dict.fromkeys(FAMILIES, 2)
    stems: list[str] = []
    for file in sorted(root.rglob("*.jpg")):
        assert file.parent.name == "Imgs"
        image, mask = Image.open(file), Image.open(file.with_suffix(".png"))
        assert (image.mode, mask.mode) == ("L", "L")
        assert image.size == mask.size
        exposure, number = file.stem.removeprefix("exp").split("_num_")
        assert 1 <= int(exposure) <= 6
        stems.append(number)
        assert np.asarray(mask).any() == (file.parent.parent.name != f"MT_{DEFECT_FREE}")
    assert len(stems) == len(set(stems)) == sum(report.images.values())
    assert report.image_bytes == sum(file.stat().st_size for file in root.rglob("*.*"))


def test_report_counts_the_components_of_the_written_masks(tmp_path: Path) -> None:
    report = generate_mini(SMALL, tmp_path / "raw")
    for name, count in report.instances.items():
        masks = (
            cv2.imread(str(file), 0) for file in (tmp_path / "raw").glob(f"MagneticTile/MT_{name}/Imgs/*.png")
        )
        assert count == sum(cv2.connectedComponents((mask > 127).astype(np.uint8))[0] - 1 for mask in masks)


def test_written_files_are_the_rendered_image(tmp_path: Path) -> None:
    generate_mini(SMALL, tmp_path / "raw")
    picture = render("Burn", 1, seed=11, size=64)
    (mask_file,) = (tmp_path / "raw/MagneticTile/MT_Burn/Imgs").glob("*_num_*2.png")
    np.testing.assert_array_equal(cv2.imread(str(mask_file), 0), picture.mask)
    written = cv2.imread(str(mask_file.with_suffix(".jpg")), 0).astype(int)
    assert np.abs(written - picture.image).mean() < 4, "JPEG at high quality changes little"


def test_two_runs_write_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    generate_mini(SMALL, tmp_path / "one")
    generate_mini(SMALL, tmp_path / "two")
    generate_mini(SMALL.model_copy(update={"seed": 12}), tmp_path / "three")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert set(contents(tmp_path / "one").values()).isdisjoint(
        data for name, data in contents(tmp_path / "three").items() if name.endswith(".jpg")
    )


def test_larger_counts_keep_the_existing_images(tmp_path: Path) -> None:
    generate_mini(SMALL, tmp_path / "few")
    generate_mini(
        SMALL.model_copy(update={"images_per_family": 4, "defect_free_images": 3}), tmp_path / "many"
    )
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert few.items() <= many.items()
    assert len(many) - len(few) == 2 * (2 * len(FAMILIES) + 2)


def test_existing_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    out.mkdir()
    (out / "stale.txt").write_text("old")
    generate_mini(SMALL, out)
    assert not (out / "stale.txt").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_interrupted_run_leaves_the_old_set_and_no_litter(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    generate_mini(SMALL, out)
    before = contents(out)

    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_mini(SMALL.model_copy(update={"seed": 99}), out, stop)
    assert contents(out) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_progress_counts_every_image_once(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = generate_mini(SMALL, tmp_path / "raw", lambda done, total: calls.append((done, total)))
    total = sum(report.images.values())
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_no_defect_free_images_is_legal(tmp_path: Path) -> None:
    report = generate_mini(SMALL.model_copy(update={"defect_free_images": 0}), tmp_path / "raw")
    assert report.images[DEFECT_FREE] == 0
    assert not list((tmp_path / "raw").glob(f"MagneticTile/MT_{DEFECT_FREE}/Imgs/*"))


def test_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written") as caught:
        generate_mini(SMALL, tmp_path / "file" / "raw")
    assert "\n" not in str(caught.value)


def test_too_many_images_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"params\.yaml"):
        generate_mini(SMALL.model_copy(update={"images_per_family": 100_000}), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
