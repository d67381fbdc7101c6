"""Annotation files of every layout, damaged: one error names the file, or a skip is counted."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from source_layouts import ANNOTATED, ONE_FILE_EACH


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Replace the first place that a regular expression matches."""
    text, count = re.subn(pattern, lambda _: replacement, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


NO_TEXT = {
    **dict.fromkeys(("gc10", "voc", "cvat"), "not valid XML"),
    "visa": "has no columns image, label and mask",
}


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"", NO_TEXT | {"yolo": ""}),
        (b"\xff\xfe\x00\x01", dict.fromkeys(ANNOTATED, "is not UTF-8 text; save it as UTF-8")),
        (b"\0\1\2", NO_TEXT | {"yolo": r"line 1: '.*' is no finite number"}),
    ],
    ids=["empty", "binary", "control characters"],
)
@pytest.mark.parametrize("source", ANNOTATED)
def test_a_file_that_is_no_annotation(case_of, source, content, messages) -> None:
    case = case_of(source)
    image = case.image
    (case.raw / case.notes(image)).write_bytes(content)
    message = messages.get(source, "not valid JSON .*; restore the file")
    if message:
        case.refused(rf"{re.escape(case.notes(image))}: {message}")
    else:
        case.counted(("image without defects", image, 0), lost=(image,))


@pytest.mark.parametrize("source", ANNOTATED)
def test_a_file_cut_off_is_refused(case_of, source) -> None:
    case = case_of(source)
    file = case.notes(case.image)
    data = (case.raw / file).read_bytes()
    # Fields of a line are cut off whole; where one is only shortened, nobody could tell.
    end = {"visa": data.rfind(b","), "yolo": data.rfind(b" ")}.get(source, len(data) // 2)
    (case.raw / file).write_bytes(data[:end])
    case.refused(rf"{re.escape(file)}: ")


@pytest.mark.parametrize("source", [*ONE_FILE_EACH, "vision"])
def test_an_annotation_that_is_missing_is_told(case_of, source) -> None:
    case = case_of(source)
    image = case.image
    lost = (image,)
    if source == "vision":
        lost = tuple(name for name in case.sound.images if Path(name).parent == Path(image).parent)
    (case.raw / case.notes(image)).unlink()
    case.counted(*(("image without its annotation", name, 0) for name in lost), lost=lost)


def test_the_table_of_visa_is_a_check_only(case_of) -> None:
    case = case_of("visa")
    (case.raw / case.notes(case.image)).unlink()
    case.counted()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("real_iad", r"audiojack: no realiad_jsons/audiojack\.json tells its defects; fetch that file"),
        ("coco", "raw: no image with a marked defect; COCO has"),
        ("label_studio", "raw: no image with a marked defect; Label Studio has"),
        ("cvat", "raw: no image with a marked defect; CVAT has"),
    ],
)
def test_the_only_annotation_file_must_be_there(case_of, source, message) -> None:
    case = case_of(source)
    (case.raw / case.notes(case.image)).unlink()
    case.refused(message)


@pytest.mark.parametrize("source", ONE_FILE_EACH)
def test_an_annotation_of_no_image_is_told(case_of, source) -> None:
    case = case_of(source)
    image = case.image
    notes = case.raw / case.notes(image)
    stray = notes.with_stem("stray")
    stray.write_text(notes.read_text().replace(Path(image).name, "stray.jpg"))
    told = stray.relative_to(case.raw).as_posix(), len(case.sound.images[image])
    case.counted(("annotation without its image", *told))


def test_an_annotation_in_a_list_of_no_image_is_told(case_of) -> None:
    case = case_of("visa")
    with (case.raw / case.notes(case.image)).open("a") as table:
        table.write("pcb1/Data/Images/Anomaly/stray.JPG,bent,\n")
    case.counted(("annotation without its image", "pcb1/Data/Images/Anomaly/stray.JPG", 0))


@pytest.mark.parametrize("source", ["vision", "coco", "real_iad"])
def test_an_image_listed_twice(case_of, source) -> None:
    case = case_of(source)
    image = case.image
    notes = case.raw / case.notes(image)
    content = json.loads(notes.read_text())
    key, name = ("test", "image_path") if source == "real_iad" else ("images", "file_name")
    first = next(item for item in content[key] if image.endswith(item[name]))
    content[key].append(first | {"id": 999})
    notes.write_text(json.dumps(content))
    if source == "real_iad":
        case.refused(rf"audiojack\.json: {re.escape(image)} is listed twice; correct one of the entries")
    else:
        case.counted(("image listed twice", image, 0))


OUTSIDE = '<!DOCTYPE x [<!ENTITY b SYSTEM "file:///etc/passwd">]>'
VOC = [
    ("<name>[^<]*</name>", "", r"object 1 \(None\): it has no name"),
    ("<name>[^<]*</name>", "<name>\t</name>", r"object 1 \('\\t'\): '.*' is no name"),
    (r"<xmin>\d+", "<xmin>nan", r"object 1 \('\w+'\): xmin: 'nan' is no finite number"),
    (r"<xmin>\d+", "<xmin>1e999", "'1e999' is no finite number"),
    (r"<ymin>\d+", "<ymin>left", "'left' is no finite number"),
    (r"<ymax>\d+</ymax>", "", "a number is missing"),
    (r"<width>\d+", "<width>wide", "<size>: 'wide' is no finite number"),
    (r"<width>\d+", "<width>-5", "<size>: -5x.* is no size in pixels"),
    (r"<width>\d+", "<width>1.5", r"<size>: 1\.5x.* is no size in pixels"),
    ("(?s)<bndbox>.*?</bndbox>", "", r"object 1 \('\w+'\): xmin: a number is missing"),
    ("</annotation>", "", "not valid XML"),
    ("<annotation>", "<annotation>&bomb;", "not valid XML"),
    ("<annotation>", '<!DOCTYPE x [<!ENTITY b "b">]><annotation>', r"not valid XML \(EntitiesForbidden"),
    ("<annotation>", f"{OUTSIDE}<annotation>&b;", r"not valid XML \(EntitiesForbidden"),
    ("(?s).*", "<html/>", "no Pascal VOC annotation, its root is <html>"),
]
COCO = [
    ('"image_id": ?', '"image_di": ', r"annotations\[0\]: image_id None is no id"),
    ('"file_name": ?', '"filename": ', r"images\[0\]: file_name None is no text"),
    (r'(?<="segmentation": \[\[)[^,]*', "NaN", r"annotations\[0\]: a polygon is no list of numbers"),
    (r'(?<="segmentation": \[\[)[^,]*', '"x"', r"annotations\[0\]: a polygon is no list of numbers"),
    (r'"category_id": \d+', '"category_id": 77', r"annotations\[0\]: there is no category with the id 77"),
    (r'"image_id": \d+', '"image_id": 77', r"annotations\[0\]: there is no image with the id 77"),
    (r'(?<="segmentation": ).*?\]\]', '{"size": [1, 2], "counts": [1, [2]]}', "no run-length code"),
    (r'(?<="segmentation": ).*?\]\]', r'{"size": [1, 2], "counts": "\ud800"}', "no run-length code"),
    (r'"name": "[^"]*"', r'"name": "a\nb"', r"categories\[0\]: name 'a\\nb' is no text"),
    (r'"name": "[^"]*"', r'"name": "a\rb"', r"categories\[0\]: name 'a\\rb' is no text"),
    ('"annotations"', '"annotation"', ""),
    ("(?s).*", "[]", ""),
]
WRONG = {
    "gc10": VOC,
    "voc": VOC,
    "vision": COCO,
    "coco": COCO,
    "real_iad": [
        ('"image_path"', '"path"', r"train\.0\.image_path: Field required; restore"),
        ('(?<="anomaly_class": )"OK"', "3", "anomaly_class: Input should be a valid string; restore"),
        ('(?<="anomaly_class": )"BX"', '""', r"anomaly_class of .*\.jpg: it has no name; restore"),
        ('(?<="anomaly_class": )"BX"', r'"\ud800"', r"anomaly_class of .*\.jpg: .* is no name"),
        ('"meta"', '"mate"', "meta: Field required; restore the file"),
        ("(?s).*", "[]", "the file: .*; restore the file"),
    ],
    "visa": [
        ("image,label,mask", "image,mask", "has no columns image, label and mask; restore"),
        (r"\.JPG,\w+,", ".JPG,", r"line \d+ is not image,label,mask; restore"),
        (r"\.JPG,(\w+),", '.JPG,"bent,', r"not valid CSV .*; restore"),
    ],
    "labelme": [
        ('"label"', '"table"', r"shape 1 is not as LabelMe writes it \('label'\); mend it"),
        ('"label": "dent"', r'"label": "\u0007"', r"shape 1 .* is no name"),
        (r'"points": \[\[\d+', '"points": [[NaN', "shape 1 .*nan is no finite number"),
        (r'"points": \[\[\d+', '"points": [["x"', "shape 1 .*'x' is no finite number"),
        ('"imageWidth": 40', '"imageWidth": "wide"', "imageWidth, imageHeight: 'wide' is no finite number"),
        ('"shapes"', '"shape"', "no LabelMe annotation"),
        ("(?s).*", "[]", "no LabelMe annotation"),
    ],
    "label_studio": [
        ('"data"', '"date"', "task 1 has no `data`; export the project as JSON, not as JSON-MIN"),
        (r'"image": "[^"]*"', '"text": "part 7"', "task 1 has 0 images in `data`; export"),
        (r'"image": "[^"]*"', '"image": "/data/local-files/?d=.."', "task 1 has an image of the address"),
        (r'"x": [\d.]+', '"x": NaN', r"task 1 is not as Label Studio writes it \(nan is no finite number\)"),
        (r'"x": [\d.]+', '"z": 1', r"task 1 is not as Label Studio writes it \('x'\); export it again"),
        ('"original_width": 40', '"original_width": "wide"', "'wide' is no finite number"),
        ('"original_width": 40', '"original_width": null', "lacks original_width or original_height"),
        (r'"rectanglelabels": \["dent"\]', '"rectanglelabels": [7]', "7 is no name"),
        (r'"result": \[', '"result": [3, ', "has `result` that are no list of records"),
        ("d=images/b", "d=images/a", "task 2 annotates images/a.jpg, as does task 1 of export.json; remove"),
    ],
    "cvat": [
        ('label="dent"', "", "image 1 .*: it has no name; correct"),
        ('xtl="4.00', 'xtl="nan', "image 1 .*: 'nan' is no finite number; correct"),
        ('xtl="4', 'xtl="40', "the box of 'dent' ends before it begins"),
        ('name="images/a.jpg"', "", r"image 1 \(None\): its name is no text"),
        ('width="40"', 'width="4.5"', "is no size in pixels"),
        ("<image ", "<track/><image ", "has tracks of a video; export the task as 'CVAT for images 1.1'"),
        ("<image ", "&bomb;<image ", "not valid XML"),
        ("<annotations>", f"{OUTSIDE}<annotations>&b;", r"not valid XML \(EntitiesForbidden"),
        ("(?s).*", "<html/>", "no CVAT annotation, its root is <html>"),
    ],
    "yolo": [
        (r"^\d", "7", r"line 1: class 7 has no name in data\.yaml or classes\.txt; correct it"),
        (r"^\d", "dent", "line 1: 'dent' is no finite number"),
        (r" [\d.]+\n", "\n", "line 1: 3 numbers after the class are neither a box nor a polygon"),
        (r"^0 \S+", "0 nan", "line 1: 'nan' is no finite number"),
        (r"^0 \S+", "0 40", "line 1: coordinates must be shares of the image"),
    ],
}


@pytest.mark.parametrize(
    ("source", "pattern", "replacement", "message"),
    [(source, *change) for source, changes in WRONG.items() for change in changes],
)
def test_wrong_content_is_refused(case_of, source, pattern, replacement, message) -> None:
    case = case_of(source)
    file = case.notes(case.image)
    edit(case.raw / file, pattern, replacement)
    if source == "coco" and not message:  # a JSON of another kind may lie among one's own files
        case.refused("raw: no image with a marked defect; COCO has")
    else:
        case.refused(rf"{re.escape(file)}: .*{message}")


@pytest.mark.parametrize(
    ("source", "pattern", "replacement"),
    [
        ("voc", "(?s)<xmin>.*?</xmax>", "<xmin>900</xmin><ymin>1</ymin><xmax>910</xmax>"),
        ("coco", r'"bbox": .*?\]\]', '"bbox": [-9, 5, 9, 9], "segmentation": []'),
        ("coco", r'"bbox": .*?\]\]', '"bbox": [3.1, 5, 0.2, 9], "segmentation": []'),
        ("coco", r'"bbox": .*?\]\]', '"segmentation": [[41, 5, 50, 5, 50, 9]]'),
        ("labelme", r'"points": .*?\]\]', '"points": [[41, 5], [50, 5], [50, 9]]'),
        ("label_studio", r'"x": [\d.]+', '"x": 101'),
        ("cvat", 'xtl="[^"]*" (.*?) xbr="[^"]*"', 'xtl="41" ytl="5" xbr="50"'),
        ("yolo", " .*", " 0.5 0.5 0.0001 0.2"),
        ("yolo", " .*", " 0.5 0.5 0 0"),
    ],
)
def test_a_mark_that_covers_no_pixel_of_its_image_is_told(case_of, source, pattern, replacement) -> None:
    case = case_of(source)
    image = case.image
    assert len(case.sound.images[image]) == 1
    edit(case.raw / case.notes(image), pattern, replacement)
    case.counted(("region without a pixel of its image", image, 1), lost=(image,))


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ("gc10", r"<width>\d+"),
        ("voc", r"<width>\d+"),
        ("vision", r'"width": \d+'),
        ("coco", r'"width": \d+'),
        ("labelme", r'"imageWidth": \d+'),
        ("label_studio", r'"original_width": \d+'),
        ("cvat", r'width="\d+'),
    ],
)
def test_another_size_than_the_images_is_refused(case_of, source, pattern) -> None:
    case = case_of(source)
    file = case.notes(case.image)
    edit(case.raw / file, pattern, f"{pattern.removesuffix(chr(92) + 'd+')}99")
    case.refused(rf"{re.escape(case.image)}: the image is \d+x\d+ but its annotation says 99x\d+; restore")


# Source, the path in its annotation file, and the way from what it is relative to out of the release.
PATHS = [
    ("vision", '"file_name": "(0.*?)"', "../../../"),
    ("coco", '"file_name": "(.*?)"', "../"),
    ("labelme", '"imagePath": "(.*?)"', "../"),
    ("real_iad", '"image_path": "(NG/BX.*?)"', "../../../"),
    ("real_iad", '"mask_path": "(NG/BX.*?)"', "../../../"),
    ("real_iad", '"prefix": "(.*?)"', "../../"),
    ("visa", r"\n(pcb1/Data/Images/Anomaly/000\.JPG),", "../"),
    ("visa", r",(pcb1/Data/Masks/Anomaly/000\.png)\n", "../"),
]


@pytest.mark.parametrize(
    "path", ["{up}outside/x.jpg", "{root}/outside/x.jpg", "{up}outside\\x.jpg", "x\0.jpg", "C:\\x.jpg"]
)
@pytest.mark.parametrize(("source", "pattern", "up"), PATHS)
def test_a_path_that_leaves_the_release_is_refused(case_of, tmp_path, source, pattern, up, path) -> None:
    case = case_of(source)
    with Image.open(case.raw / case.image) as image:  # which could be used
        (tmp_path / "outside").mkdir()
        image.save(tmp_path / "outside/x.jpg")
    hostile = path.format(up=up.replace("/", "\\") if "\\" in path else up, root=tmp_path)
    written = hostile if source == "visa" else json.dumps(hostile)[1:-1]
    file = case.raw / case.notes(case.image)
    text = file.read_text()
    found = re.search(pattern, text)
    assert found
    file.write_text(text[: found.start(1)] + written + text[found.end(1) :])
    case.refused(rf"{re.escape(str(file))}: .* (leaves the release or )?is no text; correct it")


@pytest.mark.parametrize("source", ["gc10", "voc"])
@pytest.mark.parametrize("path", ["../../outside/x.jpg", "/etc/passwd", "b.jpg"])
def test_the_paths_in_an_xml_file_are_not_looked_at(case_of, source, path) -> None:
    case = case_of(source)
    written = f"<filename>{path}</filename><path>{path}</path>"
    edit(case.raw / case.notes(case.image), "<filename>[^<]*</filename>", written)
    case.counted()


def test_a_mask_of_another_product_is_refused(case_of) -> None:
    case = case_of("real_iad")
    file = case.notes(case.image)
    edit(case.raw / file, '"mask_path": "NG/BX', '"mask_path": "../toy_brick/NG/BX')
    case.refused(rf"{re.escape(file)}: realiad_1024/toy_brick/.* is outside the folder .*/audiojack/")
