"""The Magnetic Tile layout: what is read, and what is set aside."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from releases import Converted, components_of, convert, put, put_image
from unispector.data.sources.insa.magnetic_tile import MAGNETIC_TILE


def put_tile(root: Path, name: str, mask: npt.NDArray[np.uint8] | None) -> Path:
    """Write `<name>.jpg`, 30 x 20, and, unless None, its mask; the image's path."""
    if mask is not None:
        put(root / f"{name}.png", mask)
    return put_image(root / f"{name}.jpg", (30, 20))


def spot(value: int = 255) -> npt.NDArray[np.uint8]:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 10:16] = value
    return mask


def test_folders_name_the_defects(tmp_path, raw):
    for name in ("MT_Fray/Imgs/b", "MT_Fray/Imgs/a", "MT_Crack/Imgs/a"):
        put_tile(raw, name, spot())

    found = convert("magnetic_tile", raw, tmp_path)

    assert found.annotations.class_names == ("magnetic_tile_crack", "magnetic_tile_fray")
    assert found.boxes == {
        "MT_Crack/Imgs/a.jpg": [("magnetic_tile_crack", (10.0, 5.0, 6.0, 4.0))],
        "MT_Fray/Imgs/a.jpg": [("magnetic_tile_fray", (10.0, 5.0, 6.0, 4.0))],
        "MT_Fray/Imgs/b.jpg": [("magnetic_tile_fray", (10.0, 5.0, 6.0, 4.0))],
    }


def test_grey_counts_above_127(tmp_path, raw):
    put_tile(raw, "MT_Crack/Imgs/dark", spot(127))
    put_tile(raw, "MT_Crack/Imgs/light", spot(128))
    found = convert("magnetic_tile", raw, tmp_path)
    assert list(found.marks) == ["MT_Crack/Imgs/light.jpg"]
    assert found.told == [("mask marks nothing", "MT_Crack/Imgs/dark.jpg", 0)]


def test_quirks_are_told_by_reason(tmp_path, raw):
    put_tile(raw, "MT_Crack/Imgs/a", spot())
    put_tile(raw, "MT_Free/Imgs/good", np.zeros((20, 30), np.uint8))
    put_tile(raw, "MT_Free/Imgs/bare", None)
    put_tile(raw, "MT_Crack/Imgs/lonely", None)
    put(raw / "MT_Crack/Imgs/orphan.png", spot())
    put(raw / "MT_Crack/Imgs/notes.txt", "x")
    put(raw / "MT_Crack/Imgs/._a.jpg", "resource fork")
    put(raw / "dataset.jpg", spot())

    found = convert("magnetic_tile", raw, tmp_path)

    assert list(found.marks) == ["MT_Crack/Imgs/a.jpg"]
    assert found.report.images_read == 1
    assert found.told == [
        ("file outside the layout", "MT_Crack/Imgs/notes.txt", 0),
        ("file outside the layout", "dataset.jpg", 0),
        ("hidden file", "MT_Crack/Imgs/._a.jpg", 0),
        ("image without defects", "MT_Free/Imgs/bare.jpg", 0),
        ("image without defects", "MT_Free/Imgs/good.jpg", 0),
        ("image without its mask", "MT_Crack/Imgs/lonely.jpg", 0),
        ("mask without its image", "MT_Crack/Imgs/orphan.png", 0),
    ]


def test_the_release_may_lie_deeper_and_in_capitals(tmp_path, raw):
    image = put_tile(raw, "Magnetic-tile/MT_Crack/Imgs/a", spot())
    image.rename(image.with_suffix(".JPG"))
    found = convert("magnetic_tile", raw, tmp_path)
    assert list(found.marks) == ["Magnetic-tile/MT_Crack/Imgs/a.JPG"]


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Converted]:
    """The real release and its conversion."""
    raw = shared_data / "magnetic_tile"
    if not raw.is_dir():
        pytest.skip("the Magnetic Tile release is not at hand")
    return raw, convert("magnetic_tile", raw, tmp_path_factory.mktemp("magnetic_tile"))


def test_real_release_agrees_with_scipy(real):
    raw, found = real
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for mask in sorted(raw.glob("MT_*/Imgs/*.png")):
        category = f"magnetic_tile_{mask.parts[-3].removeprefix('MT_').lower()}"
        if category.endswith("free"):
            continue
        pixels = np.asarray(Image.open(mask)) > 127
        large = components_of(pixels, category, 0.01)
        before[category] += len(components_of(pixels, category))
        after[category] += len(large)
        image = mask.relative_to(raw).with_suffix(".jpg").as_posix()
        assert found.components.get(image, []) == large, mask.name

    counts = {"blowhole": (118, 118), "break": (126, 117), "crack": (70, 68), "fray": (41, 38)}
    counts |= {"uneven": (107, 99)}
    assert before == {f"magnetic_tile_{defect}": of[0] for defect, of in counts.items()}
    assert after == {f"magnetic_tile_{defect}": of[1] for defect, of in counts.items()}
    assert (found.report.instances_read, found.report.instances_kept) == (before, after)


def test_real_release_gives_the_published_counts(real):
    _, found = real
    assert [name for reason, name, _ in found.told if reason == "mask marks nothing"] == [
        "MT_Uneven/Imgs/exp3_num_45042.jpg",
        "MT_Uneven/Imgs/exp4_num_124690.jpg",
        "MT_Uneven/Imgs/exp4_num_352527.jpg",
        "MT_Uneven/Imgs/exp4_num_45057.jpg",
    ]
    # Of 392 images four masks are black, and four hold nothing but components under the size rule.
    assert len(found.marks) == 384
    folders = Counter(Path(name).parts[0] for name in found.marks)
    assert folders == {"MT_Blowhole": 115, "MT_Break": 85, "MT_Crack": 55, "MT_Fray": 32, "MT_Uneven": 97}
    assert "file outside the layout" not in found.dropped
    assert set(found.annotations.class_names) == MAGNETIC_TILE.categories
