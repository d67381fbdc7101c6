"""Where each source's release keeps what the contract of all sources damages, and writers of own data.

A new source enters `LAYOUTS`, with a writer of painted annotations unless insa-mini draws its release.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from releases import filled, put

WIDTH, HEIGHT = 40, 30
CLASSES = ("dent", "scratch")


@dataclass(frozen=True)
class Painted:
    """An image of noise, 40 x 30, with one box of a defect (x, y, w, h)."""

    stem: str
    defect: str
    box: tuple[int, int, int, int]

    @property
    def file(self) -> str:
        return f"{self.stem}.jpg"

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(self.box[0]).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        x, y, w, h = self.box
        return filled((slice(y, y + h), slice(x, x + w)), size=(WIDTH, HEIGHT))

    @property
    def corners(self) -> list[list[int]]:
        x, y, w, h = self.box
        return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def write_coco(root: Path, painted: Sequence[Painted]) -> None:
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": id_, "name": name} for id_, name in enumerate(CLASSES)],
    }
    for number, one in enumerate(painted, start=1):
        file = put(root / "train" / one.file, one.image).relative_to(root).as_posix()
        polygon = [float(value) for corner in one.corners for value in corner]
        content["images"].append({"id": number, "file_name": file, "width": WIDTH, "height": HEIGHT})
        record = {"id": number, "image_id": number, "category_id": CLASSES.index(one.defect)}
        content["annotations"].append({**record, "bbox": one.box, "segmentation": [polygon]})
    put(root / "train.json", content)


def write_voc(root: Path, painted: Sequence[Painted]) -> None:
    for one in painted:
        put(root / "JPEGImages" / one.file, one.image)
        x, y, w, h = one.box
        box = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        item = f"<object><name>{one.defect}</name><bndbox>{box}</bndbox></object>"
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        body = f"<annotation><filename>{one.file}</filename>{size}{item}</annotation>"
        put(root / f"Annotations/{one.stem}.xml", body)


def write_yolo(root: Path, painted: Sequence[Painted]) -> None:
    put(root / "data.yaml", f"path: ../elsewhere\ntrain: /images\nnames: [{', '.join(CLASSES)}]\n")
    for one in painted:
        put(root / "images" / one.file, one.image)
        x, y, w, h = one.box
        shares = f"{(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}"
        put(root / f"labels/{one.stem}.txt", f"{CLASSES.index(one.defect)} {shares}\n")


def write_labelme(root: Path, painted: Sequence[Painted]) -> None:
    for one in painted:
        put(root / one.file, one.image)
        shape = {"label": one.defect, "points": one.corners, "shape_type": "polygon"}
        sides = {"imageWidth": WIDTH, "imageHeight": HEIGHT}
        put(root / f"{one.stem}.json", {"imagePath": one.file, "shapes": [shape], **sides})


def write_masks(root: Path, painted: Sequence[Painted]) -> None:
    for one in painted:
        put(root / "images" / one.defect / one.file, one.image)
        put(root / f"masks/{one.defect}/{one.stem}.png", one.mask.astype(np.uint8) * 255)


def write_label_studio(root: Path, painted: Sequence[Painted]) -> None:
    tasks = []
    for number, one in enumerate(painted, start=1):
        put(root / "images" / one.file, one.image)
        x, y, w, h = one.box
        place = {
            "x": 100 * x / WIDTH,
            "y": 100 * y / HEIGHT,
            "width": 100 * w / WIDTH,
            "height": 100 * h / HEIGHT,
        }
        mark = {
            "id": f"m{number}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "image_rotation": 0,
            "value": {**place, "rotation": 0, "rectanglelabels": [one.defect]},
        }
        data = {"image": f"/data/local-files/?d=images/{quote(one.file)}"}
        annotation = {"id": number, "was_cancelled": False, "result": [mark]}
        tasks.append({"id": number, "data": data, "annotations": [annotation], "predictions": []})
    put(root / "export.json", tasks)


def write_cvat(root: Path, painted: Sequence[Painted]) -> None:
    items = []
    for number, one in enumerate(painted):
        put(root / "images" / one.file, one.image)
        x, y, w, h = one.box
        corners = f'xtl="{x}.00" ytl="{y}.00" xbr="{x + w}.00" ybr="{y + h}.00"'
        box = f'<box label="{one.defect}" source="manual" occluded="0" {corners} z_order="0"></box>'
        sides = f'width="{WIDTH}" height="{HEIGHT}"'
        items.append(f'<image id="{number}" name="images/{one.file}" {sides}>{box}</image>')
    put(root / "annotations.xml", f"<annotations><version>1.1</version>{''.join(items)}</annotations>")


@dataclass(frozen=True)
class Layout:
    """How a source's release is laid out."""

    image: str  # glob of the images; the first one is damaged
    mask: str = ""  # the mask of an image; "" = the layout has none
    notes: str = ""  # the file that annotates an image; "" = the layout has none
    # Writer of a release; None = insa-mini draws it.
    write: Callable[[Path, Sequence[Painted]], None] | None = None


LAYOUTS = {
    "gc10": Layout("9/*.jpg", notes="lable/{stem}.xml"),
    "magnetic_tile": Layout("MT_Break/Imgs/*.jpg", "MT_Break/Imgs/{stem}.png"),
    "real_iad": Layout(
        "realiad_1024/audiojack/NG/BX/*/*_C1_*.jpg",
        "{folder}/{stem}.png",
        "realiad_jsons/realiad_jsons/audiojack.json",
    ),
    "mvtec_ad": Layout("grid/test/glue/*.png", "grid/ground_truth/glue/{stem}_mask.png"),
    "three_cad": Layout("Iron_Stator/test/bruise/*.png", "Iron_Stator/ground_truth/bruise/{stem}.png"),
    "vision": Layout("Cable/train/0*.jpg", notes="Cable/train/_annotations.coco.json"),
    "visa": Layout(
        "pcb1/Data/Images/Anomaly/*.JPG", "pcb1/Data/Masks/Anomaly/{stem}.png", "pcb1/image_anno.csv"
    ),
    "coco": Layout("train/*.jpg", notes="train.json", write=write_coco),
    "voc": Layout("JPEGImages/*.jpg", notes="Annotations/{stem}.xml", write=write_voc),
    "yolo": Layout("images/*.jpg", notes="labels/{stem}.txt", write=write_yolo),
    "labelme": Layout("*.jpg", notes="{stem}.json", write=write_labelme),
    "label_studio": Layout("images/*.jpg", notes="export.json", write=write_label_studio),
    "cvat": Layout("images/*.jpg", notes="annotations.xml", write=write_cvat),
    "masks": Layout("images/dent/*.jpg", "masks/dent/{stem}.png", write=write_masks),
}
PAINTED = (
    Painted("a", "dent", (4, 5, 12, 8)),
    Painted("b", "dent", (8, 5, 12, 8)),
    Painted("c", "scratch", (12, 5, 12, 8)),
)
OWN = [source for source, layout in LAYOUTS.items() if layout.write is not None]
MASKED = [source for source, layout in LAYOUTS.items() if layout.mask]
ANNOTATED = [source for source, layout in LAYOUTS.items() if layout.notes]
ONE_FILE_EACH = [source for source, layout in LAYOUTS.items() if "{stem}" in layout.notes]
