"""The contract of all sources: painted annotations come back, damage is named by one error or counted.

What is wrong inside annotation files is in `test_annotation_files.py`.
"""

import itertools
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from releases import convert
from source_layouts import HEIGHT, LAYOUTS, MASKED, OWN, PAINTED, WIDTH
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.convert_release import convert_release
from unispector.data.sources import SOURCES
from unispector.errors import DataError
from unispector.ops.rle import segmentation_to_mask


@pytest.mark.parametrize("stems", [("a", "b", "c"), ("Kratzer ä 1", "b.c", "mask_2")])
@pytest.mark.parametrize("source", OWN)
def test_painted_annotations_come_back(source, stems, tmp_path, raw):
    painted = {stem: replace(one, stem=stem) for stem, one in zip(stems, PAINTED, strict=True)}
    LAYOUTS[source].write(raw, list(painted.values()))
    found = convert(source, raw, tmp_path)
    assert found.told == []
    assert {Path(file).stem for file in found.marks} == set(stems)
    for file, marks in found.marks.items():
        ((name, mark),) = marks
        one = painted[Path(file).stem]
        assert (name, mark.bbox) == (one.defect, pytest.approx(one.box))
        assert (segmentation_to_mask(mark.segmentation, HEIGHT, WIDTH) == one.mask).all()


@pytest.mark.parametrize("source", SOURCES)
def test_archives_in_place_of_folders_change_nothing(case_of, source) -> None:
    case = case_of(source)
    folders = [path for path in case.raw.iterdir() if path.is_dir()]
    # The release of Real-IAD has an archive already; one in another is not looked into.
    for folder in [path for path in folders if not list(path.rglob("*.zip"))]:
        shutil.make_archive(str(folder), "zip", case.raw, folder.name)
        shutil.rmtree(folder)
    case.counted()


def test_sound_releases(sound_releases) -> None:
    assert set(sound_releases) == set(SOURCES)
    for folder, result in sound_releases.values():
        assert len(result.images) >= 3, folder
        assert set(result.problems.values()) == {""}


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("take", [Path.unlink, replace_by_folder], ids=["removed", "folder"])
@pytest.mark.parametrize("source", SOURCES)
def test_an_image_that_is_missing_is_told(case_of, source, take) -> None:
    case = case_of(source)
    image = case.image
    take(case.raw / image)
    case.counted(*case.without_image(image), lost=(image,))


@pytest.mark.parametrize("source", SOURCES)
def test_a_class_may_lack_all_its_images(case_of, source) -> None:
    case = case_of(source)
    lost = case.of_its_class(case.image)
    rows = [row for image in lost for row in case.without_image(image)]
    for image in lost:
        (case.raw / image).unlink()
    case.counted(*rows, lost=lost)


@pytest.mark.parametrize("source", SOURCES)
def test_an_image_that_is_none_is_refused(case_of, source) -> None:
    case = case_of(source)
    (case.raw / case.image).write_bytes(b"no image")
    case.refused(rf"{re.escape(case.image)}: not a readable image .*; replace or remove the file$")


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("source", SOURCES)
def test_an_image_cut_off_is_named_by_the_survey(case_of, source) -> None:
    case = case_of(source)
    image = case.image
    cut(case.raw / image)
    problems = case.convert().problems
    assert {name for name, problem in problems.items() if problem} == {image}
    assert f"{case.raw / image}: not a readable image" in problems[image]
    assert problems[image].endswith("; replace or remove the file")


@pytest.mark.parametrize("source", ["gc10", "real_iad"])
def test_an_image_cut_off_does_not_pass_the_checks(case_of, source) -> None:
    case = case_of(source)
    image = case.image
    convert_release(source, case.raw, case.out / "good.json", min_side=0, workers=1)
    cut(case.raw / image)
    with pytest.raises(DataError, match=r"rule broken: image and masks decode: .*; all of it is") as caught:
        convert_release(source, case.raw, case.out / "bad.json", min_side=0, workers=1)
    assert str(caught.value).isprintable()
    assert f"{case.raw / image}: not a readable image" in str(caught.value)
    endings = ("checks.json", "dropped.csv", "json", "report.json", "survey.parquet")
    names = [f"{name}.{ending}" for name in ("bad", "good") for ending in endings]
    assert sorted(path.name for path in case.out.iterdir()) == names


def test_an_image_cut_off_is_named_though_its_mask_is_black(case_of) -> None:
    case = case_of("mvtec_ad")
    cut(case.raw / case.image)
    blacken(case.raw / case.mask(case.image))
    with pytest.raises(DataError, match=r"glue/000\.png: not a readable image .*; replace or remove"):
        case.convert()
    assert not (case.out / "set.parquet").exists()


def enlarge(path: Path) -> None:
    with Image.open(path) as mask:
        Image.new("L", (mask.width + 1, mask.height), 255).save(path)


def blacken(path: Path) -> None:
    with Image.open(path) as mask:
        Image.new("L", mask.size).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "not a readable image .*; replace or remove"),
        (lambda path: path.write_bytes(b"no image"), "not a readable image .*; replace or remove"),
        (enlarge, r"mask is \d+x\d+ but its image is \d+x\d+; restore the mask"),
    ],
    ids=["cut off", "no image", "other size"],
)
@pytest.mark.parametrize("source", MASKED)
def test_a_bad_mask_is_refused(case_of, source, spoil, message) -> None:
    case = case_of(source)
    mask = case.mask(case.image)
    spoil(case.raw / mask)
    case.refused(rf"{re.escape(mask)}: {message}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "image without its mask"),
        (replace_by_folder, "image without its mask"),
        (blacken, "mask marks nothing"),
    ],
    ids=["removed", "folder", "black"],
)
@pytest.mark.parametrize("source", MASKED)
def test_masks_of_a_class_that_are_missing_or_black_are_told(case_of, source, spoil, reason) -> None:
    case = case_of(source)
    lost = case.of_its_class(case.image)
    for image in lost:
        spoil(case.raw / case.mask(image))
    case.counted(*((reason, image, 0) for image in lost), lost=lost)


@pytest.mark.parametrize("source", MASKED)
def test_a_mask_of_no_image_is_told(case_of, source) -> None:
    case = case_of(source)
    mask = Path(case.mask(case.image))
    stray = mask.with_name(mask.name.replace(Path(case.image).stem, "stray")).as_posix()
    shutil.copyfile(case.raw / mask, case.raw / stray)
    case.counted(("mask without its image", stray, 0))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("magnetic_tile", "two images share this name and so one mask; rename"),
        ("mvtec_ad", "two images share this name and so one mask; rename"),
        ("three_cad", "two images share this name and so one mask; rename"),
        ("visa", "two images share this name and so one mask; rename"),
        ("masks", r"has one mask, masks/dent/a\.png, with images/dent/a\.jpeg; rename one"),
        ("voc", r"a\.xml: may belong to JPEGImages/a\.jpe?g or JPEGImages/a\.jpe?g; rename one pair"),
        ("yolo", r"shares labels/a\.txt with images/a\.jpeg; rename one"),
    ],
)
def test_two_images_of_one_name_are_refused(case_of, source, message) -> None:
    case = case_of(source)
    image = case.raw / case.image
    shutil.copyfile(image, image.with_suffix(".jpeg"))
    case.refused(message)


@pytest.mark.parametrize(
    ("source", "place", "reason"),
    [
        ("gc10", "images/crease/{name}", "image listed twice"),
        ("labelme", "{stem}.jpeg", "image without its annotation"),
        ("real_iad", "{folder}/copy.jpg", "image without its annotation"),
        ("vision", "{folder}/copy.jpg", "image without its annotation"),
        ("coco", "{folder}/copy.jpg", "image without its annotation"),
        ("label_studio", "images/copy.jpg", "image without its annotation"),
        ("cvat", "images/copy.jpg", "image without its annotation"),
        ("masks", "images/copy.jpg", "image without its mask"),
    ],
)
def test_a_copy_of_an_image_is_told(case_of, source, place, reason) -> None:
    case = case_of(source)
    image = Path(case.image)
    copy = place.format(name=image.name, stem=image.stem, folder=image.parent)
    (case.raw / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(case.raw / image, case.raw / copy)
    case.counted((reason, copy, 0))


@pytest.mark.parametrize("source", SOURCES)
def test_a_link_to_a_file_is_that_file(case_of, source, tmp_path) -> None:
    """DVC's cache and those of hubs are made of such links."""
    case = case_of(source)
    image = case.raw / case.image
    shutil.move(image, tmp_path / "stored")
    image.symlink_to(tmp_path / "stored")
    case.counted()


@pytest.mark.parametrize("target", ["nowhere", "{name}", "{outside}", "{raw}", ".."])
@pytest.mark.parametrize("source", SOURCES)
def test_a_link_to_a_folder_or_to_nothing_is_refused(case_of, source, target, tmp_path) -> None:
    case = case_of(source)
    image = case.raw / case.image
    shutil.copytree(case.raw, tmp_path / "outside")
    image.unlink()
    image.symlink_to(target.format(name=image.name, outside=tmp_path / "outside", raw=case.raw))
    case.refused(rf"{re.escape(str(image))}: neither a file nor a folder .*; put the files themselves there")


@pytest.mark.parametrize("source", SOURCES)
def test_a_pipe_is_refused(case_of, source) -> None:
    case = case_of(source)
    image = case.raw / case.image
    image.unlink()
    os.mkfifo(image)
    case.refused(rf"{re.escape(str(image))}: neither a file nor a folder")


@pytest.mark.parametrize("source", SOURCES)
def test_a_release_of_nothing_is_refused(case_of, source) -> None:
    case = case_of(source)
    shutil.rmtree(case.raw)
    case.raw.mkdir()
    hint = "neither data.yaml nor classes.txt; add one"
    if source != "yolo":
        hint = f"no image with a marked defect; {SOURCES[source].title} has {SOURCES[source].layout}"
    case.refused(re.escape(f"raw: {hint}"))


def test_another_kind_of_release_is_refused(sound_releases, tmp_path) -> None:
    pairs = set(itertools.permutations(SOURCES, 2))
    pairs.remove(("coco", "vision"))  # VISION's annotation files are COCO files
    for source, kind in sorted(pairs):
        raw = sound_releases[kind][0]
        files = ConversionFiles.beside(tmp_path / "out/set.json")
        with pytest.raises(DataError, match=re.escape(str(raw))) as caught:
            convert_set("set", SOURCES[source], raw, files, min_side=0)
        assert str(caught.value).isprintable()
    assert not list(tmp_path.rglob("*.*"))
