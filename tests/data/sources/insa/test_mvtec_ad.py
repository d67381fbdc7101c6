"""The MVTec AD layout: what is read, what is set aside, what is refused."""

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from releases import Components, components_of, convert, put, refused
from unispector.data.sources.insa.mvtec_ad import MVTEC_AD

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, ...] = (40, 60)) -> Path:
    return put(path, RNG.integers(0, 256, size, dtype=np.uint8))


def marked(root: Path, product: str, defect: str, number: str, size: tuple[int, ...] = (40, 60)) -> None:
    """A defect image and its mask of a few rectangles."""
    picture(root / product / "test" / defect / f"{number}.png", size)
    mask = np.zeros(size[:2], np.uint8)
    for top, left, height, width in RNG.integers((0, 0, 1, 1), (38, 58, 9, 9), (4, 4)):
        mask[top : top + height, left : left + width] = 255
    put(root / product / "ground_truth" / defect / f"{number}_mask.png", mask)


def plain(value: int) -> npt.NDArray[np.uint8]:
    return np.full((40, 60), value, np.uint8)


def expected(mask: Path, category: str, min_side: float) -> Components:
    return components_of(np.asarray(Image.open(mask).convert("L")) > 0, category, min_side)


def test_every_folder_is_a_class_and_every_component_an_instance(tmp_path, raw):
    marked(raw, "leather", "cut", "000", (40, 60, 3))
    marked(raw, "leather", "cut", "001", (40, 60, 3))
    marked(raw, "leather", "glue", "000", (40, 60, 3))
    marked(raw, "cable", "combined", "000", (50, 60, 3))
    marked(raw, "metal_nut", "bent", "000", (40, 60, 3))
    marked(raw, "grid", "bent", "000")  # a grey image

    found = convert("mvtec_ad", raw, tmp_path, min_side=0.09)

    assert set(found.annotations.class_names) <= MVTEC_AD.categories
    wanted = {}
    for mask in raw.glob("*/ground_truth/*/*"):
        product, _, defect, name = mask.relative_to(raw).parts
        image = f"{product}/test/{defect}/{name[:3]}.png"
        wanted[image] = expected(mask, f"{product}_{defect}", 0.09)
    assert found.components == {image: of for image, of in wanted.items() if of}
    assert found.report.images_read == 6
    assert sum(found.report.instances_read.values()) > len(found.annotations.instances) > 0
    products = {record.name: record.supercategory for record in found.annotations.categories}
    assert products["metal_nut_bent"] == "metal_nut"


def test_sets_aside_by_reason(tmp_path, raw):
    leather = raw / "leather"
    marked(raw, "leather", "cut", "000")
    for name in ("test/cut/001", "test/good/000", "train/good/000", "train/cut/000", "test/fold/000"):
        picture(leather / f"{name}.png")
    put(leather / "ground_truth/cut/002_mask.png", plain(255))
    put(leather / "ground_truth/fold/000_mask.png", plain(0))
    put(leather / "ground_truth/cut/000.png", plain(0))
    put(leather / "readme.txt", "x")
    put(leather / "test/cut/._000.png", "resource fork")

    found = convert("mvtec_ad", raw, tmp_path)

    assert {row[:2] for row in found.told} == {
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
    assert found.annotations.class_names == ("leather_cut",)
    assert (found.report.images_read, found.report.images_kept) == (2, 1)


def test_a_folder_around_the_products_and_an_archive_change_no_instance(tmp_path: Path) -> None:
    bare, inner, zipped = tmp_path / "bare", tmp_path / "inner", tmp_path / "zipped"
    marked(bare, "tile", "oil", "000")
    shutil.copytree(bare, inner / "mvtec")
    zipped.mkdir()
    shutil.make_archive(str(zipped / "tile"), "zip", bare, "tile")

    found = convert("mvtec_ad", bare, tmp_path, min_side=0).components

    assert convert("mvtec_ad", zipped, tmp_path, min_side=0).components == found
    deeper = {f"mvtec/{name}": of for name, of in found.items()}
    assert convert("mvtec_ad", inner, tmp_path, min_side=0).components == deeper


def test_two_copies_of_a_product_are_refused(tmp_path, raw):
    for folder in ("raw", "raw/copy"):
        marked(tmp_path / folder, "tile", "oil", "000")
    refused("mvtec_ad", raw, "products lie in another folder too; give the folder of one")


def test_refuses_an_archive_that_leaves_its_folder(raw):
    raw.mkdir()
    with zipfile.ZipFile(raw / "tile.zip", "w") as archive:
        archive.writestr("../../tile/test/oil/000.png", b"")
    message = r"tile.zip: the name '../../tile/test/oil/000.png' in it leaves"
    refused("mvtec_ad", raw, message)


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

    found = convert("mvtec_ad", raw, tmp_path)

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
    assert found.components == {name: of for name, of in wanted.items() if of}
    assert missing | orphans <= {row[:2] for row in found.told}
    counts = {reason: files for reason, (files, _) in found.dropped.items()}
    assert counts["image without its mask"] == len(missing) == 9
    assert counts["mask without its image"] == len(orphans) == 7
    assert counts["image without defects"] == 4 + 4
    assert found.report.images_read == len(wanted) == 11
    instances = Counter(category for of in wanted.values() for category, _, _ in of)
    assert found.report.instances_kept == dict(instances)
