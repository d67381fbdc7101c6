"""The Real-IAD layout: what is read, what is set aside, what is refused."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, ConversionReport, convert_set
from unispector.data.sources.real_iad import REAL_IAD
from unispector.errors import DataError

Item = dict[str, str | None]


def picture(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path)
    return path


def spots(seed: int, value: int = 255) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return (ndimage.zoom(rng.random((8, 12)) > 0.7, 5, order=0) * value).astype(np.uint8)


def save_mask(path: Path, mask: npt.NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


class Release:
    """A release in the making: pictures of products, and what their annotation files will say."""

    def __init__(self, root: Path, images: str = "realiad_1024", jsons: str = "realiad_jsons") -> None:
        self.root = root
        self.images = root / images
        self.jsons = root / jsons
        self.content: dict[str, dict[str, Any]] = {}
        self.masks: dict[str, tuple[str, npt.NDArray[np.uint8]]] = {}

    def product(self, name: str) -> dict[str, Any]:
        empty = {"meta": {"prefix": f"{name}/", "normal_class": "OK"}, "train": [], "test": []}
        return self.content.setdefault(name, empty)

    def view(self, product: str, path: str, code: str, part: str = "test") -> Path:
        """A picture listed as `code`, without a mask."""
        picture(self.images / product / path)
        item: Item = {"category": product, "anomaly_class": code, "image_path": path, "mask_path": None}
        self.product(product)[part].append(item)
        return self.images / product / path

    def defect(self, product: str, path: str, mask_name: str | None = None) -> Path:
        """A picture of a defect, its code taken from the path, and its mask; the mask's path."""
        image = self.view(product, path, path.split("/")[1])
        mask = Path(path).with_suffix(".png") if mask_name is None else Path(path).with_name(mask_name)
        self.product(product)["test"][-1]["mask_path"] = mask.as_posix()
        pixels = spots(len(self.masks))
        name = image.relative_to(self.root).as_posix()
        self.masks[name] = (f"{product}_{path.split('/')[1]}", pixels)
        return save_mask(self.images / product / mask, pixels)

    def write(self) -> Path:
        self.jsons.mkdir(parents=True, exist_ok=True)
        for name, content in self.content.items():
            (self.jsons / f"{name}.json").write_text(json.dumps(content))
        return self.root


def convert(raw: Path, out: Path, min_side: float = 0.0) -> tuple[ConversionReport, Annotations]:
    out.mkdir(exist_ok=True)
    report = convert_set(
        "RealIAD", REAL_IAD, raw, ConversionFiles.beside(out / "set.json"), min_side=min_side
    )
    return report, Annotations.read(out / "set.json")


def found(annotations: Annotations) -> dict[str, list[tuple[str, tuple[float, ...], float]]]:
    names = {category.id: category.name for category in annotations.categories}
    return {
        image.file_name: sorted(
            (names[i.category_id], i.bbox, i.area) for i in annotations.instances_of(image.id)
        )
        for image in annotations.images
    }


def expected(release: Release) -> dict[str, list[tuple[str, tuple[float, ...], float]]]:
    """The same from the masks that were drawn, by scipy."""
    wanted = {}
    for name, (category, mask) in release.masks.items():
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        wanted[name] = sorted(
            (
                category,
                (float(x.start), float(y.start), float(x.stop - x.start), float(y.stop - y.start)),
                float((labels == label).sum()),
            )
            for label, (y, x) in enumerate(ndimage.find_objects(labels), start=1)
        )
    return wanted


def dropped(out: Path) -> list[tuple[str, str]]:
    with (out / "set.dropped.csv").open() as stream:
        return sorted((row["reason"], row["file_name"]) for row in csv.DictReader(stream))


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
def test_product_and_code_are_the_class(tmp_path: Path, images: str, jsons: str) -> None:
    release = small_release(tmp_path / "raw", images=images, jsons=jsons)

    report, annotations = convert(release.write(), tmp_path / "out")

    assert found(annotations) == expected(release)
    assert annotations.class_names == ("audiojack_BX", "audiojack_QS", "toy_brick_AK")
    assert set(annotations.class_names) <= REAL_IAD.categories
    assert report.images_read == report.images_kept == 5
    assert dropped(tmp_path / "out") == []


def test_archives_of_products_and_of_annotation_files(tmp_path: Path) -> None:
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

    assert found(convert(packed, tmp_path / "out")[1]) == expected(release)
    assert dropped(tmp_path / "out") == [
        ("file outside the layout", "realiad_jsons/realiad_jsons_sv/audiojack.json")
    ]


def test_sets_aside_by_reason(tmp_path: Path) -> None:
    release = Release(tmp_path / "raw")
    release.defect("usb", "NG/AK/S0001/a.jpg")
    release.view("usb", "NG/AK/S0001/hidden.jpg", "OK")
    release.view("usb", "OK/S0001/good.jpg", "OK", part="train")
    release.view("usb", "OK/S0002/good.jpg", "OK")
    release.view("usb", "NG/AK/S0002/bare.jpg", "AK")
    release.defect("usb", "NG/AK/S0003/lost_mask.jpg").unlink()
    orphan = release.defect("usb", "NG/AK/S0004/lost_image.jpg")
    orphan.with_suffix(".jpg").unlink()
    picture(release.images / "usb/NG/HS/S0001/unlisted.jpg")
    save_mask(release.images / "usb/NG/AK/S0001/hidden.png", spots(0))
    black = release.defect("usb", "NG/HS/S0001/black.jpg")
    save_mask(black, np.zeros((40, 60), np.uint8))
    release.product("zipper")["test"].append(
        {"category": "zipper", "anomaly_class": "HS", "image_path": "NG/HS/S0001/a.jpg", "mask_path": "m.png"}
    )
    root = release.write()
    for name in ("usb_sv", "usb_fuiad_0.1"):
        (release.jsons / f"{name}.json").write_text("{}")
    picture(root / "realiad_raw/usb/NG/AK/S0001/a.jpg")
    (release.images / "usb/NG/AK/S0001/._a.jpg").write_bytes(b"resource fork")

    report, annotations = convert(root, tmp_path / "out")

    usb = "realiad_1024/usb"
    assert dropped(tmp_path / "out") == [
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
    assert annotations.class_names == ("usb_AK",)
    assert (report.images_read, report.images_kept) == (2, 1)


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
def test_mask_is_the_listed_one_or_else_the_one_of_the_images_name(
    tmp_path: Path, on_disk: str, listed: str | None
) -> None:
    release = Release(tmp_path / "raw")
    release.defect("mint", "NG/ZW/S0001/a.jpg", on_disk)
    release.product("mint")["test"][0]["mask_path"] = listed and f"NG/ZW/S0001/{listed}"
    assert found(convert(release.write(), tmp_path / "out")[1]) == expected(release)
    assert dropped(tmp_path / "out") == []


@pytest.mark.parametrize(("listed", "other"), [("a_mask.png", "a.png"), ("a.png", "a_mask.png")])
def test_listed_mask_comes_before_one_of_the_images_name(tmp_path: Path, listed: str, other: str) -> None:
    release = Release(tmp_path / "raw")
    mask = release.defect("mint", "NG/ZW/S0001/a.jpg", listed)
    save_mask(mask.with_name(other), np.full((40, 60), 255, np.uint8))
    assert found(convert(release.write(), tmp_path / "out")[1]) == expected(release)
    assert dropped(tmp_path / "out") == [
        ("file outside the layout", f"realiad_1024/mint/NG/ZW/S0001/{other}"),
    ]


def test_grey_edges_of_a_mask_do_not_count(tmp_path: Path) -> None:
    release = Release(tmp_path / "raw")
    path = release.defect("mint", "NG/ZW/S0001/a.jpg")
    mask = np.asarray(Image.open(path))
    save_mask(path, np.where(mask > 0, 250, 100).astype(np.uint8))
    assert found(convert(release.write(), tmp_path / "out")[1]) == expected(release)


def test_an_unknown_product_or_code_is_read_for_the_class_check_to_find(tmp_path: Path) -> None:
    release = Release(tmp_path / "raw")
    release.defect("capacitor", "NG/AK/S0001/a.jpg")
    release.defect("usb", "NG/XX/S0001/a.jpg")
    names = convert(release.write(), tmp_path / "out")[1].class_names
    assert names == ("capacitor_AK", "usb_XX")
    assert not set(names) & REAL_IAD.categories


def test_paths_are_relative_to_the_prefix(tmp_path: Path) -> None:
    release = Release(tmp_path / "raw")
    release.defect("usb", "NG/AK/S0001/a.jpg")
    content = release.product("usb")
    content["meta"] = {"prefix": "usb/NG", "normal_class": "OK", "pre_transform": None}
    for key in ("image_path", "mask_path"):
        content["test"][0][key] = content["test"][0][key].removeprefix("NG/").replace("/", "\\")
    assert found(convert(release.write(), tmp_path / "out")[1]) == expected(release)


def set_item(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["test"][0].update({key: value})


def set_meta(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["meta"].update({key: value})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (set_item("image_path", "../../../etc/a.jpg"), "leaves the release"),
        (set_item("mask_path", "/etc/passwd"), "leaves the release"),
        (set_item("mask_path", "..\\..\\..\\x.png"), "leaves the release"),
        (set_meta("prefix", "/srv/usb/"), "leaves the release"),
        (set_item("image_path", "../zipper/NG/AK/S0001/a.jpg"), "outside the folder realiad_1024/usb/"),
        (set_meta("prefix", ""), "outside the folder realiad_1024/usb/"),
        (set_item("image_path", 7), r"test.0.image_path: Input should be a valid string; restore the file"),
        (lambda content: content["test"][0].pop("mask_path"), r"test.0.mask_path: Field required"),
        (lambda content: content.pop("train"), "train: Field required"),
        (lambda content: content["meta"].pop("prefix"), r"meta.prefix: Field required"),
        (lambda content: content["test"].append(content["test"][0]), "NG/AK/S0001/a.jpg is listed twice"),
        (
            lambda content: content["test"].append(
                content["test"][0] | {"image_path": "NG/AK/S0001/b.jpg", "mask_path": "NG/AK/S0001/a.png"}
            ),
            "NG/AK/S0001/a.png is listed twice",
        ),
    ],
)
def test_refuses_a_wrong_annotation_file(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    release = Release(tmp_path / "raw")
    release.defect("usb", "NG/AK/S0001/a.jpg")
    picture(release.images / "usb/NG/AK/S0001/b.jpg")
    spoil(release.product("usb"))
    with pytest.raises(DataError, match=rf"realiad_jsons/usb.json: .*{message}") as caught:
        convert(release.write(), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/set.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\ufeff", '{"meta": '])
def test_refuses_an_annotation_file_that_is_none(tmp_path: Path, text: str) -> None:
    release = Release(tmp_path / "raw")
    release.defect("usb", "NG/AK/S0001/a.jpg")
    root = release.write()
    (release.jsons / "usb.json").write_text(text)
    with pytest.raises(DataError, match=r"realiad_jsons/usb.json: .*restore the file") as caught:
        convert(root, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_refuses_a_damaged_release(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    with pytest.raises(DataError, match="no image with a marked defect; Real-IAD has realiad_1024/<product>"):
        convert(raw, out)

    release = Release(raw)
    mask = release.defect("usb", "NG/AK/S0001/a.jpg")
    with pytest.raises(DataError, match=r"realiad_1024/usb: no realiad_jsons/usb.json .*fetch that file"):
        convert(raw, out)

    release.write()
    save_mask(mask, spots(0)[:-1])
    with pytest.raises(DataError, match=r"S0001/a.png: mask is 60x39 but its image is 60x40"):
        convert(raw, out)

    for file in (mask, mask.with_suffix(".jpg")):
        file.write_bytes(file.read_bytes()[:20])
        with pytest.raises(DataError, match=f"{file.name}: not a readable image"):
            convert(raw, out)

    (raw / "realiad_jsons/realiad_jsons").mkdir()
    (raw / "realiad_jsons/realiad_jsons/usb.json").write_text("{}")
    with pytest.raises(DataError, match=r"realiad_jsons/usb.json is of the same product; keep one"):
        convert(raw, out)

    picture(raw / "usb/NG/AK/S0001/a.jpg")
    with pytest.raises(DataError, match="products lie in another folder too; keep one copy"):
        convert(raw, out)


def test_what_is_known_of_the_release() -> None:
    assert len(REAL_IAD.categories) == 30 * 8
    assert (REAL_IAD.insa_name, REAL_IAD.domain) == ("RealIAD", "in")
    assert {"audiojack_BX", "transistor1_QS", "zipper_ZW"} <= REAL_IAD.categories
