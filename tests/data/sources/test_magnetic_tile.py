"""The Magnetic Tile layout: what is read, what is set aside, what is refused."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources.magnetic_tile import MAGNETIC_TILE
from unispector.errors import DataError


def put(root: Path, name: str, mask: npt.NDArray[np.uint8] | None, size: tuple[int, int] = (20, 30)) -> Path:
    """Write `<name>.jpg` of `size` (h, w) and, unless None, its mask."""
    path = root / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, 128, np.uint8)).save(path)
    if mask is not None:
        Image.fromarray(mask).save(path.with_suffix(".png"))
    return path


def spot(value: int = 255, size: tuple[int, int] = (20, 30)) -> npt.NDArray[np.uint8]:
    mask = np.zeros(size, np.uint8)
    mask[5:9, 10:16] = value
    return mask


def convert(raw: Path, out: Path) -> tuple[Annotations, ConversionReport]:
    files = ConversionFiles.beside(out / "set.json")
    report = convert_set("MagneticTile", MAGNETIC_TILE, raw, files, min_side=0.01)
    return Annotations.read(files.annotations), report


def told(out: Path) -> list[tuple[str, str]]:
    with (out / "set.dropped.csv").open(encoding="utf-8", newline="") as table:
        return sorted((row["reason"], row["file_name"]) for row in csv.DictReader(table))


def test_folders_name_the_defects(tmp_path):
    for name in ("MT_Fray/Imgs/b", "MT_Fray/Imgs/a", "MT_Crack/Imgs/a"):
        put(tmp_path / "raw", name, spot())

    annotations, _ = convert(tmp_path / "raw", tmp_path / "out")

    names = annotations.class_names
    assert names == ("magnetic_tile_crack", "magnetic_tile_fray")
    found = {
        image.file_name: [
            (names[instance.category_id - 1], instance.bbox)
            for instance in annotations.instances_of(image.id)
        ]
        for image in annotations.images
    }
    assert found == {
        "MT_Crack/Imgs/a.jpg": [("magnetic_tile_crack", (10.0, 5.0, 6.0, 4.0))],
        "MT_Fray/Imgs/a.jpg": [("magnetic_tile_fray", (10.0, 5.0, 6.0, 4.0))],
        "MT_Fray/Imgs/b.jpg": [("magnetic_tile_fray", (10.0, 5.0, 6.0, 4.0))],
    }


def test_grey_counts_above_127(tmp_path):
    put(tmp_path / "raw", "MT_Crack/Imgs/dark", spot(127))
    put(tmp_path / "raw", "MT_Crack/Imgs/light", spot(128))
    annotations, _ = convert(tmp_path / "raw", tmp_path / "out")
    assert [image.file_name for image in annotations.images] == ["MT_Crack/Imgs/light.jpg"]
    assert told(tmp_path / "out") == [("mask marks nothing", "MT_Crack/Imgs/dark.jpg")]


def test_quirks_are_told_by_reason(tmp_path):
    raw = tmp_path / "raw"
    put(raw, "MT_Crack/Imgs/a", spot())
    put(raw, "MT_Free/Imgs/good", np.zeros((20, 30), np.uint8))
    put(raw, "MT_Free/Imgs/bare", None)
    put(raw, "MT_Crack/Imgs/lonely", None)
    Image.fromarray(spot()).save(raw / "MT_Crack/Imgs/orphan.png")
    (raw / "MT_Crack/Imgs/notes.txt").write_text("x")
    (raw / "MT_Crack/Imgs/._a.jpg").write_bytes(b"resource fork")
    Image.fromarray(spot()).save(raw / "dataset.jpg")

    annotations, report = convert(raw, tmp_path / "out")

    assert [image.file_name for image in annotations.images] == ["MT_Crack/Imgs/a.jpg"]
    assert report.images_read == 1
    assert told(tmp_path / "out") == [
        ("file outside the layout", "MT_Crack/Imgs/notes.txt"),
        ("file outside the layout", "dataset.jpg"),
        ("hidden file", "MT_Crack/Imgs/._a.jpg"),
        ("image without defects", "MT_Free/Imgs/bare.jpg"),
        ("image without defects", "MT_Free/Imgs/good.jpg"),
        ("image without its mask", "MT_Crack/Imgs/lonely.jpg"),
        ("mask without its image", "MT_Crack/Imgs/orphan.png"),
    ]


def test_the_release_may_lie_deeper_and_in_capitals(tmp_path):
    put(tmp_path / "raw", "Magnetic-tile/MT_Crack/Imgs/a", spot()).rename(
        tmp_path / "raw/Magnetic-tile/MT_Crack/Imgs/a.JPG"
    )
    annotations, _ = convert(tmp_path / "raw", tmp_path / "out")
    assert annotations.images[0].file_name == "Magnetic-tile/MT_Crack/Imgs/a.JPG"


def test_refuses_a_broken_release_by_name(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    with pytest.raises(DataError, match=r"raw: no image with a marked defect; Magnetic Tile has MT_<Defect>"):
        convert(raw, out)
    image = put(raw, "MT_Crack/Imgs/a", spot(size=(21, 30)))
    with pytest.raises(DataError, match=r"a\.png: mask is 30x21 but its image is 30x20"):
        convert(raw, out)
    Image.fromarray(spot()).save(image.with_suffix(".png"))
    whole = image.read_bytes()
    image.write_bytes(whole[:30])
    with pytest.raises(DataError, match=r"a\.jpg: not a readable image"):
        convert(raw, out)
    image.write_bytes(whole)
    image.with_suffix(".jpeg").write_bytes(whole)
    with pytest.raises(DataError, match=r"a\.jpe?g: two images share this name"):
        convert(raw, out)
    image.with_suffix(".jpeg").unlink()
    assert len(convert(raw, out)[0].images) == 1


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The real release and the folder of its conversion."""
    raw = shared_data / "magnetic_tile"
    if not raw.is_dir():
        pytest.skip("the Magnetic Tile release is not at hand")
    out = tmp_path_factory.mktemp("magnetic_tile")
    convert(raw, out)
    return raw, out


def _boxes(mask: Path) -> list[tuple[float, float, float, float]]:
    """Components of a mask file by scipy, as sorted x, y, w, h."""
    labels, _ = ndimage.label(np.asarray(Image.open(mask)) > 127, structure=np.ones((3, 3)))
    slices = ndimage.find_objects(labels)
    return sorted((x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in slices)


def test_real_release_agrees_with_scipy(real):
    raw, out = real
    annotations = Annotations.read(out / "set.json")
    report = ConversionFiles.beside(out / "set.json").report.read_text()
    ids = {image.file_name: image.id for image in annotations.images}
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for mask in sorted(raw.glob("MT_*/Imgs/*.png")):
        defect = mask.parts[-3].removeprefix("MT_").lower()
        if defect == "free":
            continue
        with Image.open(mask) as picture:
            width, height = picture.size
        boxes = _boxes(mask)
        large = [box for box in boxes if box[2] >= 0.01 * width and box[3] >= 0.01 * height]
        before[defect] += len(boxes)
        after[defect] += len(large)
        image_id = ids.get(mask.relative_to(raw).with_suffix(".jpg").as_posix(), 0)
        assert sorted(instance.bbox for instance in annotations.instances_of(image_id)) == large, mask.name

    assert before == {"blowhole": 118, "break": 126, "crack": 70, "fray": 41, "uneven": 107}
    assert after == {"blowhole": 118, "break": 117, "crack": 68, "fray": 38, "uneven": 99}
    for counts in (before, after):
        assert all(f'"magnetic_tile_{defect}": {count}' in report for defect, count in counts.items())


def test_real_release_gives_the_published_counts(real):
    _, out = real
    annotations = Annotations.read(out / "set.json")
    reasons = told(out)
    assert [name for reason, name in reasons if reason == "mask marks nothing"] == [
        "MT_Uneven/Imgs/exp3_num_45042.jpg",
        "MT_Uneven/Imgs/exp4_num_124690.jpg",
        "MT_Uneven/Imgs/exp4_num_352527.jpg",
        "MT_Uneven/Imgs/exp4_num_45057.jpg",
    ]
    # Of 392 images four masks are black, and four hold nothing but components under the size rule.
    assert len(annotations.images) == 384
    folders = Counter(Path(image.file_name).parts[0] for image in annotations.images)
    assert folders == {"MT_Blowhole": 115, "MT_Break": 85, "MT_Crack": 55, "MT_Fray": 32, "MT_Uneven": 97}
    assert "file outside the layout" not in {reason for reason, _ in reasons}
    assert set(annotations.class_names) == MAGNETIC_TILE.categories
