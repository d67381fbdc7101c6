"""The VisA layout: mask values as classes of their object, the table as a check."""

from pathlib import Path

import numpy as np
import pytest

from releases import components_of, convert, put, put_image, refused
from unispector.data.sources.insa.visa import CLASSES, VISA

WIDTH, HEIGHT = 40, 30
TABLE = "image,label,mask"


def put_marked(root: Path, product: str, stem: str, *patches: tuple[int, int, int, int, int]) -> Path:
    """An anomalous image and its mask with patches value, x, y, w, h; the image's path."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value, x, y, w, h in patches:
        values[y : y + h, x : x + w] = value
    put(root / product / f"Data/Masks/Anomaly/{stem}.png", values)
    return put_image(root / product / f"Data/Images/Anomaly/{stem}.JPG", (WIDTH, HEIGHT))


@pytest.mark.parametrize("parent", ["", "VisA"])
def test_values_are_the_classes_of_the_object(tmp_path, parent):
    raw = tmp_path / "raw" / parent
    put_marked(raw, "pcb1", "000", (4, 2, 2, 5, 5), (1, 7, 2, 5, 5), (1, 20, 20, 4, 4))
    put_marked(raw, "pcb4", "000", (1, 2, 2, 5, 5))
    put_marked(raw, "cashew", "001", (8, 2, 2, 5, 5))
    lead = f"{parent}/" if parent else ""
    assert convert("visa", tmp_path / "raw", tmp_path, min_side=0.05).boxes == {
        f"{lead}cashew/Data/Images/Anomaly/001.JPG": [("cashew_same_colour_spot", (2, 2, 5, 5))],
        f"{lead}pcb1/Data/Images/Anomaly/000.JPG": [
            ("pcb1_bent", (7, 2, 5, 5)),
            ("pcb1_bent", (20, 20, 4, 4)),
            ("pcb1_missing", (2, 2, 5, 5)),
        ],
        f"{lead}pcb4/Data/Images/Anomaly/000.JPG": [("pcb4_burnt", (2, 2, 5, 5))],
    }


def test_noise_agrees_with_scipy_value_by_value(tmp_path):
    raw = tmp_path / "raw"
    put_marked(raw, "candle", "000")
    values = np.random.default_rng(0).choice(10, (HEIGHT, WIDTH), p=[0.82] + [0.02] * 9).astype(np.uint8)
    put(raw / "candle/Data/Masks/Anomaly/000.png", values)
    found = convert("visa", raw, tmp_path, min_side=0.05)
    names = [f"candle_{name.lower().replace(' ', '_')}" for name in CLASSES["candle"][:7]]
    counts = {value: len(components_of(values == value, "")) for value in range(1, 10)}
    read = found.report.instances_read
    assert {value: read[name] for value, name in enumerate(names, start=1)}.items() <= counts.items()
    assert found.dropped["class the benchmark leaves out: OTHER"] == (1, counts[8])
    assert found.dropped["unknown class: value 9"] == (1, counts[9])


def test_quirks_are_told_by_reason(tmp_path):
    raw = tmp_path / "raw"
    put_marked(raw, "fryum", "000", (1, 2, 2, 5, 5), (8, 20, 2, 5, 5), (200, 30, 2, 5, 5), (2, 0, 25, 1, 1))
    put_marked(raw, "fryum", "001", (8, 2, 2, 5, 5))
    put_marked(raw, "fryum", "002")
    put_marked(raw, "fryum", "003", (1, 2, 2, 5, 5)).unlink()
    put_marked(raw, "fryum", "004", (1, 2, 2, 5, 5))
    (raw / "fryum/Data/Masks/Anomaly/004.png").unlink()
    put_image(raw / "fryum/Data/Images/Normal/0000.JPG", (4, 4))
    put_marked(raw, "teapot", "000", (1, 2, 2, 5, 5))
    put(raw / "fryum/Data/Images/Anomaly/._000.JPG", "x")
    put(raw / "split_csv/1cls.csv", "x")
    rows = (
        TABLE,
        "fryum/Data/Images/Normal/0000.JPG,normal,",
        "fryum/Data/Images/Normal/0001.JPG,normal,",
        'fryum/Data/Images/Anomaly/000.JPG,"burnt, other",fryum/Data/Masks/Anomaly/000.png',
        "fryum/Data/Images/Anomaly/003.JPG,burnt,fryum/Data/Masks/Anomaly/003.png",
        "fryum/Data/Images/Anomaly/003.JPG,burnt,fryum/Data/Masks/Anomaly/003.png",
    )
    put(raw / "fryum/image_anno.csv", "\n".join(rows) + "\n")

    found = convert("visa", raw, tmp_path, min_side=0.05)

    images, masks = "fryum/Data/Images", "fryum/Data/Masks"
    assert found.boxes == {f"{images}/Anomaly/000.JPG": [("fryum_burnt", (2, 2, 5, 5))]}
    assert found.told == [
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
    ("rows", "message"),
    [
        ("image,label", "has no columns image, label and mask"),
        (f"{TABLE}\npcb1/a.JPG,melt, scratch,pcb1/a.png", "line 2 is not image,label,mask"),
        (f"{TABLE}\npcb1/a.JPG,melt", "line 2 is not image,label,mask"),
        (f"{TABLE}\n,melt,x.png", "line 2 is not image,label,mask"),
    ],
)
def test_a_bad_table_is_named(tmp_path, rows, message):
    put_marked(tmp_path / "raw", "pcb1", "000", (1, 2, 2, 5, 5))
    put(tmp_path / "raw/pcb1/image_anno.csv", f"{rows}\n")
    refused("visa", tmp_path / "raw", rf"pcb1/image_anno\.csv: .*{message}")


def test_the_classes_are_the_papers():
    assert len(VISA.categories) == 71
    assert len(CLASSES) == 12
    assert "pipe_fryum_small_cracks" in VISA.categories
    assert not any(name.endswith("other") for name in VISA.categories)
    assert (VISA.insa_name, VISA.domain, VISA.drops_small) == ("VisA", "cross", True)
