"""Pictures of textured patches on noise, and prompts of them."""

import numpy as np
from PIL import Image

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.ops.rle import decode_rle

NAMES = ("checks", "stripes")


def picture(path, seed, height, width, patches):
    """Smooth grey noise with textured patches (class name -> x, y, w, h)."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(120, 6, (height, width, 1)).repeat(3, 2)
    rows, columns = np.mgrid[:height, :width]
    textures = {"checks": (rows // 6 + columns // 6) % 2, "stripes": columns // 3 % 2}
    for name, (x, y, w, h) in patches.items():
        area = np.s_[y : y + h, x : x + w]
        pixels[area] = textures[name][area][..., None] * 200 + 20
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def prompt_file(folder, marks, names=NAMES, size=(240, 320)):
    """Images 0.png, 1.png, ... with these patches, and the annotations of their boxes."""
    images, instances = [], []
    for number, patches in enumerate(marks):
        picture(folder / f"{number}.png", number, *size, patches)
        images.append(ImageRecord(number, f"{number}.png", size[1], size[0]))
        for name, box in patches.items():
            row = (len(instances) + 1, number, names.index(name) + 1, tuple(map(float, box)))
            instances.append(InstanceRecord(*row, float(box[2] * box[3]), None))
    categories = tuple(CategoryRecord(i, name, "") for i, name in enumerate(names, start=1))
    return Annotations(tuple(images), tuple(instances), categories)


MARKS = (
    {"checks": (40, 40, 90, 80)},
    {"checks": (180, 100, 80, 100), "stripes": (20, 20, 80, 90)},
    {"stripes": (150, 60, 100, 80)},
)


def iou(mask, box):
    x, y, w, h = box
    filled = np.zeros_like(mask)
    filled[y : y + h, x : x + w] = True
    return (mask & filled).sum() / (mask | filled).sum()


def assert_found(detector, prompts, folder):
    """Each texture's best finding on a picture of another size is its patch, boxed tightly."""
    patches = {"checks": (60, 30, 120, 110), "stripes": (260, 180, 110, 90)}
    picture(folder / "target.png", 9, 300, 400, patches)
    (found,) = detector.detect([folder / "target.png"], prompts)
    assert found.class_names == NAMES
    assert found.image_hw == (300, 400)
    for label, name in enumerate(NAMES):
        best = int((found.labels == label).nonzero()[0])
        mask = decode_rle(found.masks_rle[best])
        assert iou(mask, patches[name]) > 0.5
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert found.boxes_xyxy[best].tolist() == tight
