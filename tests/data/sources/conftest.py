"""Sound releases in every layout, and copies of them to be damaged."""

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unispector.config import MiniConfig
from unispector.data.coco import Annotations
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.mini import generate_mini
from unispector.data.sources import SOURCES
from unispector.data.survey import read_survey, survey_set
from unispector.errors import DataError

Row = tuple[str, str, int]

# Layout: the image that is damaged, its mask, and the file that annotates it.
PLACES = {
    "gc10": ("9/*.jpg", "", "lable/{stem}.xml"),
    "magnetic_tile": ("MT_Break/Imgs/*.jpg", "MT_Break/Imgs/{stem}.png", ""),
    "real_iad": (
        "realiad_1024/audiojack/NG/BX/*/*_C1_*.jpg",
        "{folder}/{stem}.png",
        "realiad_jsons/realiad_jsons/audiojack.json",
    ),
    "mvtec_ad": ("grid/test/glue/*.png", "grid/ground_truth/glue/{stem}_mask.png", ""),
    "three_cad": ("Iron_Stator/test/bruise/*.png", "Iron_Stator/ground_truth/bruise/{stem}.png", ""),
    "vision": ("Cable/train/0*.jpg", "", "Cable/train/_annotations.coco.json"),
    "visa": ("pcb1/Data/Images/Anomaly/*.JPG", "pcb1/Data/Masks/Anomaly/{stem}.png", "pcb1/image_anno.csv"),
    "coco": ("train/a.jpg", "", "train.json"),
    "voc": ("JPEGImages/a.jpg", "", "Annotations/{stem}.xml"),
    "yolo": ("images/a.jpg", "", "labels/{stem}.txt"),
    "labelme": ("a.jpg", "", "{stem}.json"),
    "masks": ("images/dent/a.jpg", "masks/dent/{stem}.png", ""),
}


@dataclass(frozen=True)
class Result:
    """What a conversion gave: instances and problem by image, the dropped files, the report's counts."""

    images: dict[str, list[Any]]
    problems: dict[str, str]
    rows: Counter[Row]
    counts: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Case:
    """A copy of a sound release, to be damaged; `sound` is what the original gives."""

    source: str
    raw: Path
    out: Path
    sound: Result

    @property
    def image(self) -> str:
        return min(self.raw.glob(PLACES[self.source][0])).relative_to(self.raw).as_posix()

    def mask(self, image: str) -> str:
        return PLACES[self.source][1].format(stem=Path(image).stem, folder=Path(image).parent.as_posix())

    def notes(self, image: str) -> str:
        return PLACES[self.source][2].format(stem=Path(image).stem)

    def of_its_class(self, image: str) -> tuple[str, ...]:
        """The images that show the class of an image's first instance."""
        category = self.sound.images[image][0][0]
        return tuple(
            name for name, marks in self.sound.images.items() if category in {mark[0] for mark in marks}
        )

    def without_image(self, image: str) -> list[Row]:
        """The rows that are told when an image is gone."""
        rows = [("mask without its image", self.mask(image), 0)] if self.mask(image) else []
        if "{stem}" in PLACES[self.source][2]:
            rows.append(("annotation without its image", self.notes(image), len(self.sound.images[image])))
        elif self.notes(image):
            marks = 0 if rows else len(self.sound.images[image])
            rows.append(("annotation without its image", image, marks))
        return rows

    def convert(self) -> Result:
        return convert(self.source, self.raw, self.out)

    def counted(self, *rows: Row, lost: tuple[str, ...] = ()) -> None:
        """Convert: `rows` are told besides, the images `lost` are gone, and nothing else has changed."""
        result = self.convert()
        assert result.rows - self.sound.rows == Counter(rows)
        assert not self.sound.rows - result.rows
        for reason in {*result.counts, *self.sound.counts}:
            before, after = (found.counts.get(reason, (0, 0)) for found in (self.sound, result))
            told = [row[2] for row in rows if row[0] == reason]
            assert after == (before[0] + len(told), before[1] + sum(told)), reason
        assert result.images == {name: of for name, of in self.sound.images.items() if name not in lost}
        assert set(result.problems.values()) == {""}

    def refused(self, message: str) -> None:
        """Convert: one line that names the file and how to mend it; files of an earlier run stay."""
        self.out.mkdir()
        earlier = {self.out / name for name in ("set.json", "set.report.json", "set.dropped.csv")}
        for path in earlier:
            path.write_text("of an earlier run")
        with pytest.raises(DataError, match=message) as caught:
            self.convert()
        told = str(caught.value)
        assert told.isprintable()
        assert str(self.raw) in told
        assert re.search(r"[;,] \w+ ", told), "how to mend it"
        assert set(self.out.iterdir()) == earlier
        assert {path.read_text() for path in earlier} == {"of an earlier run"}


def convert(source: str, raw: Path, out: Path) -> Result:
    """Conversion and survey."""
    files = ConversionFiles.beside(out / "set.json")
    report = convert_set("set", SOURCES[source], raw, files, min_side=0)
    annotations = Annotations.read(files.annotations)
    survey_set(annotations, SOURCES[source], raw, out / "set.parquet", min_side=0)
    survey = read_survey(out / "set.parquet")
    assert not survey["mask_difference"].any()
    with files.dropped.open(encoding="utf-8", newline="") as table:
        lines = list(csv.DictReader(table))
    names = annotations.class_names
    images = {
        image.file_name: [
            (names[mark.category_id - 1], mark.bbox, mark.segmentation)
            for mark in annotations.instances_of(image.id)
        ]
        for image in annotations.images
    }
    return Result(
        images=images,
        problems=dict(zip(survey["file_name"], survey["problem"], strict=True)),
        rows=Counter((line["reason"], line["file_name"], int(line["instances"])) for line in lines),
        counts={item.reason: (item.files, item.instances) for item in report.dropped},
    )


@pytest.fixture(scope="session")
def sound_releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Result]]:
    """Layout -> a sound release, and what its conversion gives."""
    root = tmp_path_factory.mktemp("sound")
    generate_mini(MiniConfig(images_per_class=1, defect_free_images=2, size=64), root / "mini", workers=1)
    own_sets(root / "own")
    releases = {}
    for source in PLACES:
        name = SOURCES[source].insa_name
        folder = root / "mini" / name if name else root / "own" / source
        releases[source] = folder, convert(source, folder, root / "out" / source)
    return releases


@pytest.fixture
def case_of(sound_releases: dict[str, tuple[Path, Result]], tmp_path: Path) -> Callable[[str], Case]:
    """Copies the sound release of a layout."""

    def copy(source: str) -> Case:
        folder, result = sound_releases[source]
        return Case(source, shutil.copytree(folder, tmp_path / "raw"), tmp_path / "out", result)

    return copy


def own_sets(root: Path) -> None:
    """Images a and b with a dent, c with a scratch, in the five layouts of own data."""
    names = {"dent": 0, "scratch": 1}
    categories = [{"id": id_, "name": name} for name, id_ in names.items()]
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    _put(root / "yolo/data.yaml", "path: ../elsewhere\ntrain: /images\nnames: [dent, scratch]\n")
    for number, (stem, defect) in enumerate({"a": "dent", "b": "dent", "c": "scratch"}.items(), start=1):
        file, x, y, w, h = f"{stem}.jpg", 4 * number, 5, 12, 8
        picture = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        for folder in ("coco/train", "voc/JPEGImages", "yolo/images", "labelme", f"masks/images/{defect}"):
            _put(root / folder / file, picture)
        mask = np.zeros((30, 40), np.uint8)
        mask[y : y + h, x : x + w] = 255
        _put(root / f"masks/masks/{defect}/{stem}.png", mask)

        corners = [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]
        record = {"id": number, "image_id": number, "category_id": names[defect], "bbox": [x, y, w, h]}
        polygon = [float(value) for corner in corners for value in corner]
        content["images"].append({"id": number, "file_name": f"train/{file}", "width": 40, "height": 30})
        content["annotations"].append({**record, "segmentation": [polygon]})
        shape = {"label": defect, "points": corners, "shape_type": "polygon"}
        sides = {"imageWidth": 40, "imageHeight": 30}
        _put(root / f"labelme/{stem}.json", {"imagePath": file, "shapes": [shape], **sides})
        shares = f"{(x + w / 2) / 40} {(y + h / 2) / 30} {w / 40} {h / 30}"
        _put(root / f"yolo/labels/{stem}.txt", f"{names[defect]} {shares}\n")
        box = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        item = f"<object><name>{defect}</name><bndbox>{box}</bndbox></object>"
        body = f"<filename>{file}</filename><size><width>40</width><height>30</height></size>"
        _put(root / f"voc/Annotations/{stem}.xml", f"<annotation>{body}{item}</annotation>")
    _put(root / "coco/train.json", content)


def _put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
