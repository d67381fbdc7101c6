"""The VisA layout: mask values as classes of their object, the table as a check."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.sources.visa import CLASSES, VISA
from unispector.errors import DataError

WIDTH, HEIGHT = 40, 30


def put(root: Path, product: str, stem: str, *patches: tuple[int, int, int, int, int]) -> Path:
    """An anomalous image and its mask with patches value, x, y, w, h."""
    image = root / product / f"Data/Images/Anomaly/{stem}.JPG"
    mask = root / product / f"Data/Masks/Anomaly/{stem}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(image, "JPEG")
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value, x, y, w, h in patches:
        values[y : y + h, x : x + w] = value
    Image.fromarray(values).save(mask)
    return image


def convert(tmp_path: Path) -> Annotations:
    files = ConversionFiles.beside(tmp_path / "out/set.json")
    convert_set("VisA", VISA, tmp_path / "raw", files, min_side=0.05)
    return Annotations.read(files.annotations)


def found(annotations: Annotations) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    names = {record.id: record.name for record in annotations.categories}
    return {
        record.file_name: [
            (names[instance.category_id], instance.bbox) for instance in annotations.instances_of(record.id)
        ]
        for record in annotations.images
    }


def told(tmp_path: Path) -> list[tuple[str, str, int]]:
    with (tmp_path / "out/set.dropped.csv").open(encoding="utf-8", newline="") as table:
        return sorted(
            (row["reason"], row["file_name"], int(row["instances"])) for row in csv.DictReader(table)
        )


def write_table(root: Path, product: str, *rows: str, header: str = "image,label,mask") -> None:
    (root / product / "image_anno.csv").write_text("\n".join([header, *rows]) + "\n")


@pytest.mark.parametrize("parent", ["", "VisA"])
def test_values_are_the_classes_of_the_object(tmp_path, parent):
    raw = tmp_path / "raw" / parent
    put(raw, "pcb1", "000", (4, 2, 2, 5, 5), (1, 7, 2, 5, 5), (1, 20, 20, 4, 4))
    put(raw, "pcb4", "000", (1, 2, 2, 5, 5))
    put(raw, "cashew", "001", (8, 2, 2, 5, 5))
    lead = f"{parent}/" if parent else ""
    assert found(convert(tmp_path)) == {
        f"{lead}cashew/Data/Images/Anomaly/001.JPG": [("cashew_same_colour_spot", (2, 2, 5, 5))],
        f"{lead}pcb1/Data/Images/Anomaly/000.JPG": [
            ("pcb1_bent", (7, 2, 5, 5)),
            ("pcb1_bent", (20, 20, 4, 4)),
            ("pcb1_missing", (2, 2, 5, 5)),
        ],
        f"{lead}pcb4/Data/Images/Anomaly/000.JPG": [("pcb4_burnt", (2, 2, 5, 5))],
    }


def test_noise_agrees_with_scipy_value_by_value(tmp_path):
    put(tmp_path / "raw", "candle", "000")
    values = np.random.default_rng(0).choice(10, (HEIGHT, WIDTH), p=[0.82] + [0.02] * 9).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "raw/candle/Data/Masks/Anomaly/000.png")
    convert(tmp_path)
    report = ConversionFiles.beside(tmp_path / "out/set.json").report.read_text()
    for value in range(1, 8):
        _, count = ndimage.label(values == value, structure=np.ones((3, 3)))
        name = CLASSES["candle"][value - 1].lower().replace(" ", "_")
        assert f'"candle_{name}": {count}' in report
    lost = {reason: count for reason, _, count in told(tmp_path)}
    for value, reason in ((8, "class the benchmark leaves out: OTHER"), (9, "unknown class: value 9")):
        assert lost[reason] == ndimage.label(values == value, structure=np.ones((3, 3)))[1]


def test_quirks_are_told_by_reason(tmp_path):
    raw = tmp_path / "raw"
    put(raw, "fryum", "000", (1, 2, 2, 5, 5), (8, 20, 2, 5, 5), (200, 30, 2, 5, 5), (2, 0, 25, 1, 1))
    put(raw, "fryum", "001", (8, 2, 2, 5, 5))
    put(raw, "fryum", "002")
    put(raw, "fryum", "003", (1, 2, 2, 5, 5)).unlink()
    put(raw, "fryum", "004", (1, 2, 2, 5, 5))
    (raw / "fryum/Data/Masks/Anomaly/004.png").unlink()
    normal = raw / "fryum/Data/Images/Normal/0000.JPG"
    normal.parent.mkdir(parents=True)
    Image.new("L", (4, 4)).save(normal, "JPEG")
    put(raw, "teapot", "000", (1, 2, 2, 5, 5))
    (raw / "fryum/Data/Images/Anomaly/._000.JPG").write_bytes(b"x")
    (raw / "split_csv").mkdir()
    (raw / "split_csv/1cls.csv").write_text("x")
    write_table(
        raw,
        "fryum",
        "fryum/Data/Images/Normal/0000.JPG,normal,",
        "fryum/Data/Images/Normal/0001.JPG,normal,",
        'fryum/Data/Images/Anomaly/000.JPG,"burnt, other",fryum/Data/Masks/Anomaly/000.png',
        "fryum/Data/Images/Anomaly/003.JPG,burnt,fryum/Data/Masks/Anomaly/003.png",
        "fryum/Data/Images/Anomaly/003.JPG,burnt,fryum/Data/Masks/Anomaly/003.png",
    )

    assert found(convert(tmp_path)) == {"fryum/Data/Images/Anomaly/000.JPG": [("fryum_burnt", (2, 2, 5, 5))]}
    images, masks = "fryum/Data/Images", "fryum/Data/Masks"
    assert told(tmp_path) == [
        ("annotation without its image", f"{images}/Anomaly/003.JPG", 0),
        ("annotation without its image", f"{images}/Normal/0001.JPG", 0),
        ("class the benchmark leaves out: OTHER", f"{images}/Anomaly/000.JPG", 1),
        ("class the benchmark leaves out: OTHER", f"{images}/Anomaly/001.JPG", 1),
        ("component too small", f"{images}/Anomaly/000.JPG", 1),
        ("file outside the layout", "split_csv/1cls.csv", 0),
        ("file outside the layout", "teapot/Data/Images/Anomaly/000.JPG", 0),
        ("file outside the layout", "teapot/Data/Masks/Anomaly/000.png", 0),
        ("hidden file", f"{images}/Anomaly/._000.JPG", 0),
        ("image without defects", f"{images}/Normal/0000.JPG", 0),
        ("image without its mask", f"{images}/Anomaly/004.JPG", 0),
        ("mask marks nothing", f"{images}/Anomaly/002.JPG", 0),
        ("mask without its image", f"{masks}/Anomaly/003.png", 0),
        ("unknown class: value 200", f"{images}/Anomaly/000.JPG", 1),
    ]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "image,label", "has no columns image, label and mask"),
        ([], "", "has no columns image, label and mask"),
        (["pcb1/a.JPG,melt, scratch,pcb1/a.png"], "image,label,mask", "line 2 is not image,label,mask"),
        (["pcb1/a.JPG,melt"], "image,label,mask", "line 2 is not image,label,mask"),
        ([",melt,x.png"], "image,label,mask", "line 2 is not image,label,mask"),
        (['pcb1/a.JPG,"melt,x.png'], "image,label,mask", "not valid CSV"),
        (["../../a.JPG,melt,x.png"], "image,label,mask", "the path '../../a.JPG' in it leaves the release"),
        (["/a.JPG,melt,x.png"], "image,label,mask", "the path '/a.JPG' in it leaves the release"),
    ],
)
def test_a_bad_table_is_named(tmp_path, rows, header, message):
    put(tmp_path / "raw", "pcb1", "000", (1, 2, 2, 5, 5))
    write_table(tmp_path / "raw", "pcb1", *rows, header=header)
    with pytest.raises(DataError, match=rf"pcb1/image_anno\.csv: .*{message}"):
        convert(tmp_path)


def test_damage_is_named(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(DataError, match=r"raw: no image with a marked defect; VisA has <object>/Data"):
        convert(tmp_path)
    image = put(raw, "pcb1", "000", (1, 2, 2, 5, 5))
    mask = raw / "pcb1/Data/Masks/Anomaly/000.png"
    good = image.read_bytes(), mask.read_bytes()
    image.with_suffix(".jpg").write_bytes(good[0])
    with pytest.raises(DataError, match=r"000\.jpg: two images share this name and so one mask"):
        convert(tmp_path)
    image.with_suffix(".jpg").unlink()
    image.write_bytes(good[0][:20])
    with pytest.raises(DataError, match=r"Anomaly/000\.JPG: not a readable image"):
        convert(tmp_path)
    image.write_bytes(good[0])
    mask.write_bytes(good[1][:-30])
    with pytest.raises(DataError, match=r"Anomaly/000\.png: not a readable image"):
        convert(tmp_path)
    Image.new("L", (HEIGHT, WIDTH)).save(mask)
    with pytest.raises(DataError, match=r"000\.png: mask is 30x40 but its image is 40x30"):
        convert(tmp_path)
    mask.write_bytes(good[1])
    (raw / "pcb1/image_anno.csv").write_bytes(b"image,label,mask\n\xff\n")
    with pytest.raises(DataError, match=r"image_anno\.csv: is not UTF-8"):
        convert(tmp_path)


def test_the_classes_are_the_papers():
    assert len(VISA.categories) == 71
    assert len(CLASSES) == 12
    assert "pipe_fryum_small_cracks" in VISA.categories
    assert not any(name.endswith("other") for name in VISA.categories)
    assert (VISA.insa_name, VISA.domain, VISA.drops_small) == ("VisA", "cross", True)
