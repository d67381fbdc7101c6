"""A benchmark of two sets on which a tiny model with random weights has figures between 0 and 100."""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tiny import save_tiny, tiny_config, tiny_network
from unispector.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    SetConfig,
    SplitConfig,
    SweepConfig,
    TrainConfig,
)
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import BenchmarkSet, write_splits
from unispector.data.protocol.splits import SplitRules
from unispector.data.sources.reasons import DEFECT_FREE
from unispector.detections import Detections
from unispector.inference.detector import UniSpector
from unispector.ops.rle import segmentation_to_rle
from unispector.project.paths import MODELS, SPLITS, dropped_file

NAMES = ("bright", "dark", "half", "black")
GOOD = 6


@dataclass(frozen=True)
class Benchmark:
    """A project with data and without models, its parameters, and the sets' whole annotations."""

    root: Path
    config: Config
    annotations: dict[str, Annotations]


def found_exactly(truth, path, names):
    """Detections of all that the annotations say of an image, with score 1; none on a defect-free one."""
    by_name = {image.file_name: image for image in truth.images if path.parent.name != "good"}
    image = by_name.get(path.name)
    name_of = {category.id: category.name for category in truth.categories}
    instances = truth.instances_of(image.id) if image else ()
    own = [instance for instance in instances if name_of[instance.category_id] in names]
    hw = (image.height, image.width) if image else (1, 1)
    corners = torch.tensor([instance.bbox for instance in own]).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Detections(
        boxes_xyxy=corners,
        scores=torch.ones(len(own)),
        labels=torch.tensor([names.index(name_of[instance.category_id]) for instance in own]).long(),
        masks_rle=tuple(segmentation_to_rle(instance.segmentation, *hw) for instance in own),
        class_names=tuple(names),
        image_hw=hw,
    )


def make_model(directory, seed, prior):
    """A saved detector of the smallest kind with random weights, with or without similarity prior."""
    model = tiny_config(similarity_prior={"enabled": prior})
    network = tiny_network(model, seed)
    with torch.no_grad():
        network.heads.classes.mul_(3)  # else all scores are nearly alike
    return save_tiny(directory, network, model)


@pytest.fixture(scope="session")
def sharp_model(tmp_path_factory):
    """A model whose scores lie so far apart that rounding cannot change their order.

    It has no similarity prior, whose view of noise is much the same everywhere.
    """
    return make_model(tmp_path_factory.mktemp("sharp_model"), seed=3, prior=False)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory):
    """Like `sharp_model`, with other weights, and with the similarity prior."""
    return make_model(tmp_path_factory.mktemp("other_model"), seed=1, prior=True)


def make_images(folder, seed, count):
    """Noise of many sizes with a square in each; where the squares are."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, squares = [], []
    for number in range(1, count + 1):
        height, width = (int(side) for side in rng.integers(60, 100, 2))
        pixels = rng.integers(96, 160, (height, width, 3), dtype=np.uint8)
        x, y, side = (int(value) for value in rng.integers((4, 2, 10), (30, 30, 24)))
        pixels[y : y + side, x : x + side] = (255, 60, 128, 0)[number % len(NAMES)]
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
        images.append(ImageRecord(number, f"{number}.png", width, height))
        squares.append((float(x), float(y), float(side), float(side)))
    return images, squares


def of_squares(images, squares):
    """The squares as instances; each image shows one class."""
    classes = tuple(CategoryRecord(number, name, "part") for number, name in enumerate(NAMES, start=1))
    instances = [
        InstanceRecord(image.id, image.id, image.id % len(NAMES) + 1, box, box[2] * box[3], None)
        for image, box in zip(images, squares, strict=True)
    ]
    return Annotations(tuple(images), tuple(instances), classes)


def as_found(detector, bank, squares, folder):
    """What the model itself finds of an image's class: its second and its fourth detection.

    Image 1 has the best detection of another class besides.
    """
    found = detector.detect([folder / image.file_name for image in squares.images], bank)
    instances = []
    for image, detections in zip(squares.images, found, strict=True):
        own = image.id % len(NAMES)
        rows = torch.nonzero(detections.labels == own).flatten()[1:4:2].tolist()
        if image.id == 1:
            rows += torch.nonzero(detections.labels == 2).flatten()[:1].tolist()
        for row in rows:
            left, top, right, bottom = detections.boxes_xyxy[row].tolist()
            box = (left, top, right - left, bottom - top)
            label, code = int(detections.labels[row]), dict(detections.masks_rle[row])
            number = len(instances) + 1
            instances.append(InstanceRecord(number, image.id, label + 1, box, box[2] * box[3], code))
    return Annotations(squares.images, tuple(instances), squares.categories)


def write_dropped(root, name, good):
    """The table of files `convert` left out: defect-free ones, and one that is not even there."""
    file = root / dropped_file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("reason", "file_name", "instances"))
        writer.writerow(("no mask file", "lost.png", 0))
        writer.writerows((DEFECT_FREE, image, 0) for image in good)


@pytest.fixture(scope="session")
def benchmark(sharp_model, tmp_path_factory):
    """One in-domain set with defect-free images, and one cross-domain set without."""
    root = tmp_path_factory.mktemp("benchmark")
    detector = UniSpector.load(sharp_model)
    sets = []
    for seed, (name, domain) in enumerate((("tile", "in"), ("steel", "cross"))):
        folder = root / "data" / "raw" / f"raw-{name}"
        squares = of_squares(*make_images(folder, seed, 24))
        bank = detector.encode_annotations(squares, folder)
        annotations = as_found(detector, bank, squares, folder)
        sets.append(BenchmarkSet(name, f"raw-{name}", domain, annotations))
    good, _ = make_images(root / "data" / "raw" / "raw-tile" / "good", 9, GOOD)
    write_dropped(root, "tile", [f"good/{image.file_name}" for image in good])
    write_dropped(root, "steel", [])
    rules = SplitRules(unseen_fraction=0.5, prompts_per_class=2, tail_images=3, seen_test_fraction=0.5)
    write_splits(sets, rules, [42, 82], [1, 2], root / SPLITS)
    config = Config(
        data=DataConfig(
            sets={s.name: SetConfig(source="magnetic_tile", path=s.folder, domain=s.domain) for s in sets}
        ),
        split=SplitConfig(seeds=(42,), prompt_seeds=(1, 2)),
        train=TrainConfig(seeds=(42,), ablation_seeds=(42,)),
        sweep=SweepConfig(sets=()),
        evaluate=EvaluateConfig(
            pictures=3,
            failures=1,
            batch_size=4,
            picture_score=0.2,
            detections=20,
            resamples=20,
            good_images=2,
            alarm_score=0.3,
            alarm_rate=5.0,
        ),
    )
    return Benchmark(root, config, {s.name: s.annotations for s in sets})


@pytest.fixture(scope="session")
def new_project(benchmark, sharp_model, other_model, tmp_path_factory):
    """`new_project()` -> the folder of a project of its own with the benchmark's data and models."""

    def make(variants=("unispector", "base", "untrained")):
        root = tmp_path_factory.mktemp("project")
        (root / "data").symlink_to(benchmark.root / "data")
        for variant in variants:
            (root / MODELS / variant).mkdir(parents=True)
            model = other_model if variant == "base" else sharp_model
            (root / MODELS / variant / "seed42").symlink_to(model)
        return root

    return make


@pytest.fixture(scope="session")
def short(benchmark):
    """Parameters of the shortest evaluation: the main model alone, one draw of prompts."""
    split = benchmark.config.split.model_copy(update={"prompt_seeds": (1,)})
    train = benchmark.config.train.model_copy(update={"ablation_seeds": ()})
    return benchmark.config.model_copy(update={"split": split, "train": train})


@pytest.fixture(scope="session")
def detector(sharp_model):
    return UniSpector.load(sharp_model)


@pytest.fixture(scope="session")
def truth_for(benchmark, detector):
    """`truth_for(set, bank)` -> annotations of all images of a set that a model finds with this bank."""

    def make(name, bank):
        return as_found(detector, bank, benchmark.annotations[name], benchmark.root / f"data/raw/raw-{name}")

    return make
