"""The pictures and the text of docs/gallery.md: what `fast` finds, the best and the worst of it.

    python benchmarks/gallery.py POOL --out docs

POOL is a folder of real sets, each with `annotations.json` (COCO) and its images; one set is drawn. Of each
class five images are prompts, drawn at random with a fixed seed, and eight others are searched. The strip
shows a prompt image, the two images that went best and the two that went worst. Takes five minutes on 2 CPU
cores.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from unispector.data.coco import Annotations, ImageRecord
from unispector.detections import Detections
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import match
from unispector.inference.detector import UniSpector
from unispector.ops.files import atomic_write_text
from unispector.ops.images import as_pixels
from unispector.prompts.doctor import of_class

PROMPTS, TARGETS, SHOWN, SIDE, SEED = 5, 8, 0.3, 210, 42
WHITE, GAP = (255, 255, 255), 6
DRAW = ("--parts", "1", "--classes", "3", "--images", "13", "--good", "0", "--seed", "7")

Pixels = npt.NDArray[np.uint8]

HEAD = f"""# Gallery

What the packaged model `fast` finds, good and bad. Of each class {PROMPTS} images are prompts, marked by
boxes, and {TARGETS} others are searched, all drawn at random with one seed; nothing was tried twice. A strip
shows one of the prompt images, then the two images that went best and **the two that went worst**. White:
what is marked by those who made the set. Coloured: what is found with a score of {SHOWN} or more. The line
below counts all {TARGETS} images; a defect is found where a box has an IoU of 0.5 with it. What is found in
the right place with another extent than its mark counts as wrong: see the holes.
`python benchmarks/gallery.py POOL --out docs` makes this page again.
"""


@dataclass(frozen=True)
class Row:
    """A class of the gallery."""

    title: str
    folder: str  # of the set
    label: str
    source: str  # where the images come from, and under which licence
    trained: str  # what `fast` saw of it in training


@dataclass(frozen=True)
class Judged:
    """One searched image."""

    image: ImageRecord
    found: Detections  # those that are shown
    defects: int
    hits: int
    alarms: int  # shown findings that are no defect, or one that was found already


UNSEEN = "The class was held out from training"
SEEN = "**The model was trained on this set**, on most of these images, too: expect less of a new one"
DRAWN = "The model was trained on other drawings of such defects"
ROWS = (
    Row("Oil spots on a drawn part", "drawn", "00_OilSpot", "Drawn by `unispector data draw`.", DRAWN),
    Row("Peeling on a drawn part", "drawn", "00_Delamination", "Drawn by `unispector data draw`.", DRAWN),
    Row(
        "Holes in fabric",
        "fabric_sach",
        "hole",
        "Images: Fabric-Defect-Detection by Sachithra-oshadha, CC BY 4.0, scaled down.",
        UNSEEN,
    ),
    Row(
        "Cracked glass of cars",
        "cardamage",
        "glass crack",
        "Images: CarDamageDetection by Batikanyilmaz1, CC BY 4.0, scaled down.",
        UNSEEN,
    ),
    Row(
        "Defects of welds",
        "weld_seg",
        "weld defect",
        "Images: weld-defect-segmentation by AbdulazizAnorboev, CC BY 4.0, scaled down.",
        SEEN,
    ),
    Row("Rust", "rust_seg", "corrosion", "Images: rusty-detector by Fenix-LAB, MIT, scaled down.", SEEN),
)


def judge(detector: UniSpector, own: Annotations, root: Path) -> tuple[ImageRecord, list[Judged]]:
    """A prompt image, and the searched ones, the best first."""
    order = np.random.default_rng(SEED).permutation(len(own.images))[: PROMPTS + TARGETS]
    images = [own.images[place] for place in order]
    prompts, targets = images[:PROMPTS], images[PROMPTS:]
    bank = detector.encode_annotations(own.keep_images({each.id for each in prompts}), root)
    judged = []
    for image in targets:
        found = detector.detect(root / image.file_name, bank).above(SHOWN)
        truth = GroundTruth(own.keep_images({image.id}))
        matches = match(truth, {image.id: truth.overlaps(image.id, found)}, "bbox")
        hits = int((matches.instance >= 0).sum())
        judged.append(Judged(image, found, len(matches.truth_ids), hits, len(found) - hits))
    judged.sort(key=lambda each: 2 * each.hits / (each.defects + each.hits + each.alarms), reverse=True)
    return prompts[0], judged


def panel(root: Path, own: Annotations, image: ImageRecord, found: Detections | None) -> Pixels:
    """A square picture of an image with its marks, and with what was found."""
    pixels = as_pixels(root / image.file_name)
    drawn = found.plot(root / image.file_name) if found is not None else pixels
    scale = SIDE / max(drawn.shape[:2])
    small = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    scale = SIDE / max(pixels.shape[:2])
    for mark in own.instances_of(image.id):
        left, top, width, height = (round(value * scale) for value in mark.bbox)
        cv2.rectangle(small, (left, top), (left + width, top + height), WHITE, 1, cv2.LINE_AA)
    high, wide = small.shape[:2]
    square = np.full((SIDE, SIDE + GAP, 3), 255, np.uint8)
    square[:high, :wide] = small
    return square


def main() -> None:
    """Draw, search, and write the strips and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pool", type=Path, help="folder of the real sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of gallery.md and images/")
    given = parser.parse_args()
    detector, text = UniSpector.load("fast"), [HEAD]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "unispector.cli", "data", "draw", f"{folder}/drawn", *DRAW]
        subprocess.run(command, check=True)  # noqa: S603 - our own
        for row in ROWS:
            root = (Path(folder) if row.folder == "drawn" else given.pool) / row.folder
            own = of_class(Annotations.read(root / "annotations.json"), row.label)
            prompt, judged = judge(detector, own, root)
            chosen = [*judged[:2], *judged[-2:]]
            panels = [
                panel(root, own, prompt, None),
                *(panel(root, own, each.image, each.found) for each in chosen),
            ]
            name = f"gallery-{row.folder}-{row.label.rpartition('_')[2].replace(' ', '-').lower()}.jpg"
            strip = cv2.cvtColor(np.concatenate(panels, axis=1), cv2.COLOR_RGB2BGR)
            _, coded = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 82])
            (given.out / "images" / name).write_bytes(coded.tobytes())
            hits, defects = sum(each.hits for each in judged), sum(each.defects for each in judged)
            alarms = sum(each.alarms for each in judged)
            count = f"{hits} of {defects} defects found, {alarms} findings that are none or double"
            text += [
                f"## {row.title}\n\n![One prompt image, then two searched images that went best and two that "
                f"went worst](images/{name})\n\n*{count}. {row.trained}. {row.source}*\n"
            ]
            print(f"{row.title}: {count}")
    atomic_write_text(given.out / "gallery.md", "\n".join(text))


if __name__ == "__main__":
    main()
