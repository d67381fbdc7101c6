"""The MVTec AD layout: what is read, what is set aside, what is refused."""

import csv
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources.mvtec_ad import MVTEC_AD
from unispector.errors import DataError

RNG = np.random.default_rng(0)


def save(path: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def picture(path: Path, size: tuple[int, ...] = (40, 60)) -> Path:
    return save(path, RNG.integers(0, 256, size, dtype=np.uint8))


def marked(root: Path, product: str, defect: str, number: str, size: tuple[int, ...] = (40, 60)) -> None:
    """A defect image and its mask of a few rectangles."""
    picture(root / product / "test" / defect / f"{number}.png", size)
    mask = np.zeros(size[:2], np.uint8)
    for top, left, height, width in RNG.integers((0, 0, 1, 1), (38, 58, 9, 9), (4, 4)):
        mask[top : top + height, left : left + width] = 255
    save(root / product / "ground_truth" / defect / f"{number}_mask.png", mask)


def convert(raw: Path, out: Path, min_side: float = 0.0) -> tuple[ConversionReport, Annotations]:
    report = convert_set("MVTec", MVTEC_AD, raw, ConversionFiles.beside(out / "set.json"), min_side=min_side)
    return report, Annotations.read(out / "set.json")


def dropped(out: Path) -> set[tuple[str, str]]:
    with (out / "set.dropped.csv").open() as stream:
        return {(row["reason"], row["file_name"]) for row in csv.DictReader(stream)}


def by_image(annotations: Annotations) -> dict[str, list[tuple[str, tuple[float, ...], float]]]:
    """File -> (class, box, area) of its instances, sorted."""
    names = {category.id: category.name for category in annotations.categories}
    return {
        image.file_name: sorted(
            (names[i.category_id], i.bbox, i.area) for i in annotations.instances_of(image.id)
        )
        for image in annotations.images
    }


def expected(mask: Path, category: str, min_side: float) -> list[tuple[str, tuple[float, ...], float]]:
    """The same from a mask file, by scipy."""
    pixels = np.asarray(Image.open(mask).convert("L")) > 0
    labels, _ = ndimage.label(pixels, np.ones((3, 3)))
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if width >= min_side * pixels.shape[1] and height >= min_side * pixels.shape[0]:
            box = (float(columns.start), float(rows.start), float(width), float(height))
            found.append((category, box, float((labels == number).sum())))
    return sorted(found)


def test_every_folder_is_a_class_and_every_component_an_instance(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    marked(raw, "leather", "cut", "000", (40, 60, 3))
    marked(raw, "leather", "cut", "001", (40, 60, 3))
    marked(raw, "leather", "glue", "000", (40, 60, 3))
    marked(raw, "cable", "combined", "000", (50, 60, 3))
    marked(raw, "metal_nut", "bent", "000", (40, 60, 3))
    marked(raw, "grid", "bent", "000")  # a grey picture

    report, annotations = convert(raw, tmp_path, min_side=0.09)

    assert set(annotations.class_names) <= MVTEC_AD.categories
    wanted = {}
    for mask in raw.glob("*/ground_truth/*/*"):
        product, _, defect, name = mask.relative_to(raw).parts
        image = f"{product}/test/{defect}/{name[:3]}.png"
        wanted[image] = expected(mask, f"{product}_{defect}", 0.09)
    assert by_image(annotations) == {image: found for image, found in wanted.items() if found}
    assert report.images_read == 6
    assert sum(report.instances_read.values()) > len(annotations.instances) > 0
    assert {c.name: c.supercategory for c in annotations.categories}["metal_nut_bent"] == "metal_nut"


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    marked(raw, "leather", "cut", "000")
    picture(raw / "leather/test/cut/001.png")
    save(raw / "leather/ground_truth/cut/002_mask.png", np.full((40, 60), 255, np.uint8))
    picture(raw / "leather/test/good/000.png")
    picture(raw / "leather/train/good/000.png")
    picture(raw / "leather/train/cut/000.png")
    picture(raw / "leather/test/fold/000.png")
    save(raw / "leather/ground_truth/fold/000_mask.png", np.zeros((40, 60), np.uint8))
    save(raw / "leather/ground_truth/cut/000.png", np.zeros((40, 60), np.uint8))
    (raw / "leather/readme.txt").write_text("x")
    (raw / "leather/test/cut/._000.png").write_bytes(b"resource fork")

    report, annotations = convert(raw, tmp_path)

    assert dropped(tmp_path) == {
        ("image without its mask", "leather/test/cut/001.png"),
        ("mask without its image", "leather/ground_truth/cut/002_mask.png"),
        ("image without defects", "leather/test/good/000.png"),
        ("image without defects", "leather/train/good/000.png"),
        ("mask marks nothing", "leather/test/fold/000.png"),
        ("file outside the layout", "leather/ground_truth/cut/000.png"),
        ("file outside the layout", "leather/train/cut/000.png"),
        ("file outside the layout", "leather/readme.txt"),
        ("hidden file", "leather/test/cut/._000.png"),
    }
    assert annotations.class_names == ("leather_cut",)
    assert (report.images_read, report.images_kept) == (2, 1)


def test_folder_around_the_products_and_archives_change_no_instance(tmp_path: Path) -> None:
    plain, inner, zipped = tmp_path / "plain", tmp_path / "inner", tmp_path / "zipped"
    marked(plain, "tile", "oil", "000")
    shutil.copytree(plain, inner / "mvtec")
    zipped.mkdir()
    with zipfile.ZipFile(zipped / "tile.zip", "w") as archive:
        for file in plain.rglob("*.png"):
            archive.write(file, file.relative_to(plain).as_posix())

    found = by_image(convert(plain, tmp_path)[1])

    assert by_image(convert(zipped, tmp_path)[1]) == found
    assert by_image(convert(inner, tmp_path)[1]) == {f"mvtec/{name}": item for name, item in found.items()}


@pytest.mark.parametrize("damage", ["image", "mask"])
def test_a_broken_file_is_named(tmp_path: Path, damage: str) -> None:
    marked(tmp_path, "tile", "oil", "000")
    file = {"image": "test/oil/000.png", "mask": "ground_truth/oil/000_mask.png"}[damage]
    path = tmp_path / "tile" / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=f"{file}: not a readable image") as caught:
        convert(tmp_path, tmp_path)
    assert "\n" not in str(caught.value)


def test_refuses_a_damaged_release(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image with a marked defect; MVTec AD has <product>/test"):
        convert(tmp_path, tmp_path)

    marked(tmp_path, "tile", "oil", "000")
    save(tmp_path / "tile/ground_truth/oil/000_mask.png", np.full((40, 61), 255, np.uint8))
    with pytest.raises(DataError, match=r"000_mask.png: mask is 61x40 but its image is 60x40"):
        convert(tmp_path, tmp_path)

    twin = picture(tmp_path / "tile/test/oil/000.jpg")
    with pytest.raises(DataError, match=r"oil/000.png: two images share this name and so one mask"):
        convert(tmp_path, tmp_path)

    twin.unlink()
    marked(tmp_path, "copy/tile", "oil", "000")
    with pytest.raises(DataError, match="products lie in another folder too; give the folder of one release"):
        convert(tmp_path, tmp_path)
    assert not (tmp_path / "set.json").exists()


def test_refuses_an_archive_that_leaves_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tile.zip", "w") as archive:
        archive.writestr("../../tile/test/oil/000.png", b"")
    with pytest.raises(DataError, match=r"tile.zip: the name '../../tile/test/oil/000.png' in it leaves"):
        convert(tmp_path, tmp_path)


def test_the_73_published_folders() -> None:
    assert len(MVTEC_AD.categories) == 73
    assert (MVTEC_AD.insa_name, MVTEC_AD.domain) == ("MVTec", "in")
    products = (
        "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor"
    )
    products = (*products.split(), "wood", "zipper")
    folders = {
        name.removeprefix(f"{p}_") for p in products for name in MVTEC_AD.categories if name.startswith(p)
    }
    assert len(folders) == 48
    assert "wood_combined" in MVTEC_AD.categories


def test_real_leather(tmp_path: Path, shared_data: Path) -> None:
    raw = shared_data / "mvtec_ad_sample"
    if not raw.is_dir():
        pytest.skip("the MVTec AD sample is not at hand")

    report, annotations = convert(raw, tmp_path, min_side=0.01)

    wanted, missing, orphans = {}, set(), set()
    for image in (raw / "leather/test").glob("*/*.png"):
        mask = raw / "leather/ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        name = image.relative_to(raw).as_posix()
        if mask.exists():
            wanted[name] = expected(mask, f"leather_{image.parent.name}", 0.01)
        elif image.parent.name != "good":
            missing.add(("image without its mask", name))
    for mask in (raw / "leather/ground_truth").glob("*/*_mask.png"):
        name = f"leather/test/{mask.parent.name}/{mask.name.removesuffix('_mask.png')}.png"
        if name not in wanted:
            orphans.add(("mask without its image", mask.relative_to(raw).as_posix()))
    assert by_image(annotations) == {name: found for name, found in wanted.items() if found}
    assert missing | orphans <= dropped(tmp_path)
    counts = {item.reason: item.files for item in report.dropped}
    assert counts["image without its mask"] == len(missing) == 9
    assert counts["mask without its image"] == len(orphans) == 7
    assert counts["image without defects"] == 4 + 4
    assert report.images_read == len(wanted) == 11
    instances = Counter(category for found in wanted.values() for category, _, _ in found)
    assert report.instances_kept == dict(instances)
