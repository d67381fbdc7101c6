"""The Real-IAD layout: what is read, what is set aside, what is refused."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from releases import Components, components_of, convert, put, put_image, refused
from unispector.data.sources.insa.real_iad import REAL_IAD


def spots(seed: int, value: int = 255) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return (ndimage.zoom(rng.random((8, 12)) > 0.7, 5, order=0) * value).astype(np.uint8)


class Release:
    """A release in the making: images of products, and what their annotation files will say."""

    def __init__(self, root: Path, images: str = "realiad_1024", jsons: str = "realiad_jsons") -> None:
        self.root = root
        self.images = root / images
        self.jsons = root / jsons
        self.content: dict[str, dict[str, Any]] = {}
        self.expected: dict[str, Components] = {}

    def product(self, name: str) -> dict[str, Any]:
        empty = {"meta": {"prefix": f"{name}/", "normal_class": "OK"}, "train": [], "test": []}
        return self.content.setdefault(name, empty)

    def view(self, product: str, path: str, code: str, part: str = "test") -> Path:
        """An image listed as `code`, without a mask."""
        item = {"category": product, "anomaly_class": code, "image_path": path, "mask_path": None}
        self.product(product)[part].append(item)
        return put_image(self.images / product / path)

    def defect(self, product: str, path: str, mask_name: str | None = None) -> Path:
        """An image of a defect, its code taken from the path, and its mask; the mask's path.

        `expected` gets what scipy finds in the mask.
        """
        code = path.split("/")[1]
        image = self.view(product, path, code)
        mask = Path(path).with_suffix(".png") if mask_name is None else Path(path).with_name(mask_name)
        self.product(product)["test"][-1]["mask_path"] = mask.as_posix()
        pixels = spots(len(self.expected))
        self.expected[image.relative_to(self.root).as_posix()] = components_of(pixels, f"{product}_{code}")
        return put(self.images / product / mask, pixels)

    def write(self) -> Path:
        for name, content in self.content.items():
            put(self.jsons / f"{name}.json", content)
        return self.root


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "raw")


def small_release(root: Path, **folders: str) -> Release:
    """Two products with every quirk of names: double underscores, S0001 in each code's folder."""
    release = Release(root, **folders)
    for code in ("BX", "QS"):
        for view in (1, 3):
            stem = f"NG/{code}/S0001/audiojack__0001_NG_{code}_C{view}_20231021130716"
            release.defect("audiojack", f"{stem}.jpg")
    release.defect("toy_brick", "NG/AK/S0001/toy_brick_0001_NG_AK_C1_20231021130716.jpg")
    return release


@pytest.mark.parametrize("images", ["realiad_1024", "realiad-1024", ".", "Real-IAD/realiad_1024"])
@pytest.mark.parametrize("jsons", ["realiad_jsons", "realiad_jsons/realiad_jsons", "Real-IAD/realiad_jsons"])
def test_product_and_code_are_the_class(tmp_path, images, jsons, raw):
    release = small_release(raw, images=images, jsons=jsons)

    found = convert("real_iad", release.write(), tmp_path)

    assert found.components == release.expected
    assert found.annotations.class_names == ("audiojack_BX", "audiojack_QS", "toy_brick_AK")
    assert set(found.annotations.class_names) <= REAL_IAD.categories
    assert found.report.images_read == found.report.images_kept == 5
    assert found.told == []


def test_archives_of_products_and_of_annotation_files(tmp_path):
    release = small_release(tmp_path / "plain")
    root = release.write()
    packed = tmp_path / "packed"
    (packed / "realiad_1024").mkdir(parents=True)
    for folder, target in (
        (root / "realiad_1024/audiojack", packed / "realiad_1024/audiojack.zip"),
        (root / "realiad_1024/toy_brick", packed / "realiad_1024/toy_brick.zip"),
        (root / "realiad_jsons", packed / "realiad_jsons.zip"),
    ):
        with zipfile.ZipFile(target, "w") as archive:
            for file in sorted(folder.rglob("*.*")):
                archive.write(file, file.relative_to(folder.parent).as_posix())
            if folder.name == "realiad_jsons":  # the variants come in the same archive
                archive.writestr("realiad_jsons_sv/audiojack.json", "{}")

    found = convert("real_iad", packed, tmp_path)

    assert found.components == release.expected
    assert found.told == [("file outside the layout", "realiad_jsons/realiad_jsons_sv/audiojack.json", 0)]


def test_sets_aside_by_reason(release, tmp_path):
    release.defect("usb", "NG/AK/S0001/a.jpg")
    release.view("usb", "NG/AK/S0001/hidden.jpg", "OK")
    release.view("usb", "OK/S0001/good.jpg", "OK", part="train")
    release.view("usb", "OK/S0002/good.jpg", "OK")
    release.view("usb", "NG/AK/S0002/bare.jpg", "AK")
    release.defect("usb", "NG/AK/S0003/lost_mask.jpg").unlink()
    orphan = release.defect("usb", "NG/AK/S0004/lost_image.jpg")
    orphan.with_suffix(".jpg").unlink()
    put_image(release.images / "usb/NG/HS/S0001/unlisted.jpg")
    put(release.images / "usb/NG/AK/S0001/hidden.png", spots(0))
    black = release.defect("usb", "NG/HS/S0001/black.jpg")
    put(black, np.zeros((40, 60), np.uint8))
    release.product("zipper")["test"].append(
        {"category": "zipper", "anomaly_class": "HS", "image_path": "NG/HS/S0001/a.jpg", "mask_path": "m.png"}
    )
    root = release.write()
    for name in ("usb_sv", "usb_fuiad_0.1"):
        put(release.jsons / f"{name}.json", {})
    put_image(root / "realiad_raw/usb/NG/AK/S0001/a.jpg")
    put(release.images / "usb/NG/AK/S0001/._a.jpg", "resource fork")

    found = convert("real_iad", root, tmp_path)

    usb = "realiad_1024/usb"
    assert [row[:2] for row in found.told] == [
        ("annotation without its image", f"{usb}/NG/AK/S0004/lost_image.jpg"),
        ("annotation without its image", "realiad_1024/zipper/NG/HS/S0001/a.jpg"),
        ("file outside the layout", f"{usb}/NG/AK/S0001/hidden.png"),
        ("file outside the layout", "realiad_jsons/usb_fuiad_0.1.json"),
        ("file outside the layout", "realiad_jsons/usb_sv.json"),
        ("file outside the layout", "realiad_raw/usb/NG/AK/S0001/a.jpg"),
        ("hidden file", f"{usb}/NG/AK/S0001/._a.jpg"),
        ("image without defects", f"{usb}/OK/S0001/good.jpg"),
        ("image without defects", f"{usb}/OK/S0002/good.jpg"),
        ("image without its annotation", f"{usb}/NG/HS/S0001/unlisted.jpg"),
        ("image without its mask", f"{usb}/NG/AK/S0002/bare.jpg"),
        ("image without its mask", f"{usb}/NG/AK/S0003/lost_mask.jpg"),
        ("mask marks nothing", f"{usb}/NG/HS/S0001/black.jpg"),
        ("mask without its image", f"{usb}/NG/AK/S0004/lost_image.png"),
        ("view that shows no defect", f"{usb}/NG/AK/S0001/hidden.jpg"),
    ]
    assert found.annotations.class_names == ("usb_AK",)
    assert (found.report.images_read, found.report.images_kept) == (2, 1)


@pytest.mark.parametrize(
    ("on_disk", "listed"),
    [
        ("a.png", "a.png"),
        ("a.png", "a_mask.png"),
        ("a_mask.png", "a.png"),
        ("a_mask.png", None),
        ("other.png", "other.png"),
    ],
)
def test_mask_is_the_listed_one_or_else_the_one_of_the_images_name(release, tmp_path, on_disk, listed):
    release.defect("mint", "NG/ZW/S0001/a.jpg", on_disk)
    release.product("mint")["test"][0]["mask_path"] = listed and f"NG/ZW/S0001/{listed}"
    found = convert("real_iad", release.write(), tmp_path)
    assert found.components == release.expected
    assert found.told == []


@pytest.mark.parametrize(("listed", "other"), [("a_mask.png", "a.png"), ("a.png", "a_mask.png")])
def test_listed_mask_comes_before_one_of_the_images_name(release, tmp_path, listed, other):
    mask = release.defect("mint", "NG/ZW/S0001/a.jpg", listed)
    put(mask.with_name(other), np.full((40, 60), 255, np.uint8))
    found = convert("real_iad", release.write(), tmp_path)
    assert found.components == release.expected
    assert found.told == [("file outside the layout", f"realiad_1024/mint/NG/ZW/S0001/{other}", 0)]


def test_grey_edges_of_a_mask_do_not_count(release, tmp_path):
    path = release.defect("mint", "NG/ZW/S0001/a.jpg")
    put(path, np.where(np.asarray(Image.open(path)) > 0, 250, 100).astype(np.uint8))
    assert convert("real_iad", release.write(), tmp_path).components == release.expected


def test_an_unknown_product_or_code_is_read_for_the_class_check_to_find(release, tmp_path):
    release.defect("capacitor", "NG/AK/S0001/a.jpg")
    release.defect("usb", "NG/XX/S0001/a.jpg")
    names = convert("real_iad", release.write(), tmp_path).annotations.class_names
    assert names == ("capacitor_AK", "usb_XX")
    assert not set(names) & REAL_IAD.categories


def test_paths_are_relative_to_the_prefix(release, tmp_path):
    release.defect("usb", "NG/AK/S0001/a.jpg")
    content = release.product("usb")
    content["meta"] = {"prefix": "usb/NG", "normal_class": "OK", "pre_transform": None}
    for key in ("image_path", "mask_path"):
        content["test"][0][key] = content["test"][0][key].removeprefix("NG/").replace("/", "\\")
    assert convert("real_iad", release.write(), tmp_path).components == release.expected


def set_item(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["test"][0].update({key: value})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (set_item("image_path", "../zipper/NG/AK/S0001/a.jpg"), "outside the folder realiad_1024/usb/"),
        (lambda content: content["meta"].update(prefix=""), "outside the folder realiad_1024/usb/"),
        (set_item("image_path", 7), r"test.0.image_path: Input should be a valid string; restore the file"),
        (lambda content: content["test"][0].pop("mask_path"), r"test.0.mask_path: Field required"),
        (lambda content: content.pop("train"), "train: Field required"),
        (lambda content: content["meta"].pop("prefix"), r"meta.prefix: Field required"),
        (
            lambda content: content["test"].append(
                content["test"][0] | {"image_path": "NG/AK/S0001/b.jpg", "mask_path": "NG/AK/S0001/a.png"}
            ),
            "NG/AK/S0001/a.png is listed twice",
        ),
    ],
)
def test_refuses_a_wrong_annotation_file(release, spoil, message):
    release.defect("usb", "NG/AK/S0001/a.jpg")
    put_image(release.images / "usb/NG/AK/S0001/b.jpg")
    spoil(release.product("usb"))
    refused("real_iad", release.write(), rf"realiad_jsons/usb.json: .*{message}")


@pytest.mark.parametrize("text", ["7", "\ufeff"])
def test_refuses_an_annotation_file_that_is_none(release, text):
    release.defect("usb", "NG/AK/S0001/a.jpg")
    put(release.write() / "realiad_jsons/usb.json", text)
    refused("real_iad", release.root, "realiad_jsons/usb.json: .*restore the file")


def test_refuses_a_product_that_is_there_twice(release):
    release.defect("usb", "NG/AK/S0001/a.jpg")
    raw = release.write()
    second = put(raw / "realiad_jsons/realiad_jsons/usb.json", {})
    refused("real_iad", raw, "realiad_jsons/usb.json is of the same product; keep one")
    second.unlink()
    put_image(raw / "usb/NG/AK/S0001/a.jpg")
    refused("real_iad", raw, "products lie in another folder too; keep one copy")


def test_what_is_known_of_the_release():
    assert len(REAL_IAD.categories) == 30 * 8
    assert (REAL_IAD.insa_name, REAL_IAD.domain) == ("RealIAD", "in")
    assert {"audiojack_BX", "transistor1_QS", "zipper_ZW"} <= REAL_IAD.categories
