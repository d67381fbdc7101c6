"""YOLOE and YOLO11-seg over ultralytics, with tiny networks of random weights."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tiny_systems import loud_yolo, tiny_yolo
from unispector.benchmark.other_detectors import Entry, make_detector, run_benchmark
from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.data.protocol.split_tree import SplitTree
from unispector.data.transforms import resize_image
from unispector.errors import CheckpointError, ConfigError, DataError
from unispector.ops.files import read_image
from unispector.ops.rle import decode_rle
from unispector.project.paths import SPLITS
from unispector.systems.yolo import library, training
from unispector.systems.yolo.detectors import MOST, ClosedSetYolo, TunedYoloE, YoloE, _masks
from unispector.systems.yolo.training import _batch, _of_batch, prompt_cells

pytestmark = pytest.mark.skipif(not find_spec("ultralytics"), reason="the extra ultralytics is not installed")

SIDE = 64
NAMES = ("bright", "dark")


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """Import it as the systems do, before a test itself imports it."""
    library._tasks()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("yolo")


@pytest.fixture(scope="module")
def yoloe_file(folder):
    return loud_yolo(tiny_yolo("yoloe-11n-seg.yaml", folder), "YOLOESegModel", folder)


@pytest.fixture(scope="module")
def yolo11_file(folder):
    return loud_yolo(tiny_yolo("yolo11n-seg.yaml", folder), "SegmentationModel", folder)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Eight pictures of 80 x 120 pixels, each with a bright and a dark square, and the folder they lie in."""
    root = tmp_path_factory.mktemp("scenes")
    (root / "a").mkdir()
    rng = np.random.default_rng(0)
    images, instances = [], []
    for number in range(1, 9):
        pixels = rng.integers(110, 140, (80, 120, 3), dtype=np.uint8)
        images.append(ImageRecord(number, f"a/{number}.png", 120, 80))
        for label, value in enumerate((250, 5)):
            x, y = (int(v) for v in rng.integers((label * 60, 0), (label * 60 + 25, 45)))
            pixels[y : y + 30, x : x + 30] = value
            box = (float(x), float(y), 30.0, 30.0)
            instances.append(InstanceRecord(len(instances) + 1, number, label + 1, box, 900.0, None))
        Image.fromarray(pixels).save(root / f"a/{number}.png")
    categories = tuple(CategoryRecord(i, name, "") for i, name in enumerate(NAMES, start=1))
    return Annotations(tuple(images), tuple(instances), categories), root


def equal(one, other):
    return torch.equal(one.boxes_xyxy, other.boxes_xyxy) and (one.scores, one.masks_rle) == (
        pytest.approx(other.scores.tolist()),
        other.masks_rle,
    )


def judged(found, names=NAMES, hw=(80, 120)):
    """What the benchmark asks of a result, and that each mask stays in its box."""
    assert found.image_hw == hw
    assert set(found.class_names) <= set(names)
    assert 0 < len(found) <= MOST
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert (found.scores.diff() <= 0).all()
    height, width = hw
    x0, y0, x1, y1 = found.boxes_xyxy.T
    assert min(x0.min(), y0.min()) >= 0
    assert x1.max() <= width
    assert y1.max() <= height
    for box, code in zip(found.boxes_xyxy.tolist(), found.masks_rle, strict=True):
        mask = decode_rle(code)
        assert mask.shape == hw
        if mask.any():
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            assert min(columns[0] - int(box[0]), rows[0] - int(box[1])) >= 0
            assert columns[-1] < np.ceil(box[2]) + 1
            assert rows[-1] < np.ceil(box[3]) + 1


def test_yoloe_finds_the_same_twice_and_what_it_finds_can_be_judged(yoloe_file, scenes):
    annotations, root = scenes
    paths = [root / image.file_name for image in annotations.images[:2]]
    runs = []
    for _ in range(2):
        detector = YoloE(yoloe_file, side=SIDE)
        runs.append(list(detector.detect(paths, detector.encode_prompts(annotations, root))))
    assert all(equal(one, other) for one, other in zip(*runs, strict=True))
    for found in runs[0]:
        judged(found)
        assert set(found.labels.tolist()) == {0, 1}
    assert detector.parameters == sum(weight.numel() for weight in detector._network.parameters())


def test_a_prompt_is_the_mean_of_its_images_embeddings_of_unit_length(yoloe_file, scenes):
    from ultralytics.data.augment import LoadVisualPrompt

    annotations, root = scenes
    detector = YoloE(yoloe_file, side=SIDE)
    names, embeddings = detector.encode_prompts(annotations, root)
    assert names == NAMES
    for label in range(2):
        each = []
        for image in annotations.images:
            pixels = torch.from_numpy(resize_image(read_image(root / image.file_name), SIDE))
            x, y, w, h = annotations.instances_of(image.id)[label].bbox
            box = torch.tensor([[x / 120, y / 80, (x + w) / 120, (y + h) / 80]]) * SIDE
            marks = LoadVisualPrompt().get_visuals([0], (SIDE, SIDE), box)
            with torch.no_grad():
                of_one = detector._network.get_visual_pe(pixels.permute(2, 0, 1)[None] / 255, marks[None])
            each.append(of_one[0, 0])
        wanted = functional.normalize(torch.stack(each).mean(0), dim=0)
        assert torch.allclose(embeddings[label], wanted, atol=1e-5)


def test_prompt_cells_are_ultralytics_own_but_for_boxes_without_one():
    from ultralytics.data.augment import LoadVisualPrompt

    lot = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, generator=lot) * 0.6
    boxes = torch.cat((corners, corners + 0.15 + 0.2 * torch.rand(50, 2, generator=lot)), 1)
    theirs = LoadVisualPrompt.make_mask(boxes * 16, 16, 16).float()
    assert torch.equal(prompt_cells(boxes, 16), theirs)
    tiny_box = torch.tensor([[0.51, 0.26, 0.52, 0.27]])
    assert not LoadVisualPrompt.make_mask(tiny_box * 16, 16, 16).any()
    assert prompt_cells(tiny_box, 16).nonzero().tolist() == [[0, 4, 8]]


def test_masks_are_the_resized_logits_inside_of_the_box():
    lot = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 12, 16, generator=lot)
    boxes = torch.tensor([[3.2, 5.1, 60.9, 39.5], [0.0, 0.0, 90.0, 50.0], [10.0, 10.0, 10.0, 10.0]])
    full = functional.interpolate(logits[None], (50, 90), mode="bilinear", align_corners=False)[0] > 0
    codes = list(_masks(boxes.numpy(), logits.numpy(), 50, 90))
    for mask, box, code in zip(full, [(3, 5, 61, 40), (0, 0, 90, 50), (10, 10, 11, 11)], codes, strict=True):
        inside = torch.zeros_like(mask)
        inside[box[1] : box[3], box[0] : box[2]] = True
        assert (decode_rle(code) == (mask & inside).numpy()).all()
    filled = decode_rle(next(_masks(boxes.numpy(), None, 50, 90)))
    assert filled.sum() == 58 * 35 == filled[5:40, 3:61].sum()


def test_a_class_without_a_prompt_is_named(yoloe_file, scenes):
    annotations, root = scenes
    bare = replace(annotations, instances=tuple(i for i in annotations.instances if i.category_id == 1))
    with pytest.raises(DataError, match="'dark' has no prompt"):
        YoloE(yoloe_file, side=SIDE).encode_prompts(bare, root)


def test_a_batch_prompts_with_the_mean_over_the_images_that_show_the_class():
    lot = torch.Generator().manual_seed(0)
    embeddings = torch.randn(3, 2, 5, generator=lot)
    marks = torch.ones(3, 2, 4, 4)
    marks[1, 0] = 0
    shared = _of_batch(embeddings, marks)
    sums = torch.stack([embeddings[0, 0] + embeddings[2, 0], embeddings[:, 1].sum(0)])
    assert torch.allclose(shared, functional.normalize(sums, dim=1).expand(3, 2, 5))


def test_a_batch_has_only_its_own_classes_where_it_prompts(scenes):
    annotations, root = scenes
    dark = replace(annotations, instances=tuple(i for i in annotations.instances if i.category_id == 2))
    dataset = training.InstanceDataset(
        dark, root, frame=training.Frame(SIDE, 2, "zero", 2), augment=None, box_share=1.0, seed=0
    )
    samples = [dataset.sample(i) for i in range(3)]
    prompted, classes = _batch(samples, 2, prompted=True)
    assert classes == 1
    assert prompted["cls"].flatten().tolist() == [0, 0, 0]
    assert prompted["visuals"].shape == (3, 1, 8, 8)
    closed, classes = _batch(samples, 2, prompted=False)
    assert classes == 2
    assert closed["cls"].flatten().tolist() == [1, 1, 1]
    assert closed["batch_idx"].tolist() == [0, 1, 2]
    assert closed["masks"].shape == (3, 16, 16)
    wanted = samples[0].targets.masks[0].view(16, 4, 16, 4).float().mean((1, 3))
    assert torch.equal(closed["masks"][0], wanted)


def test_training_changes_all_but_the_fixed_weights_and_is_read_again(
    yoloe_file, scenes, tmp_path, monkeypatch
):
    annotations, root = scenes
    monkeypatch.setattr(training, "EPOCHS", 1)
    detector = TunedYoloE(yoloe_file, side=SIDE)
    before = {name: weight.clone() for name, weight in detector._network.named_parameters()}
    detector.fit(annotations, root, tmp_path)
    after = dict(detector._network.named_parameters())
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name.split(".")[2] for name in same} <= {"dfl", "reprta"}, same  # of texts, not of boxes
    again = YoloE(str(tmp_path / "weights.pt"), side=SIDE)
    prompts = [each.encode_prompts(annotations, root) for each in (detector, again)]
    path = root / annotations.images[0].file_name
    found = [next(each.detect([path], own)) for each, own in zip((detector, again), prompts, strict=True)]
    judged(found[0])
    assert equal(*found)


def test_two_trainings_are_equal(yolo11_file, scenes, tmp_path, monkeypatch):
    annotations, root = scenes
    monkeypatch.setattr(training, "EPOCHS", 1)
    states = []
    for number in range(2):
        detector = ClosedSetYolo(yolo11_file, side=SIDE)
        detector.fit(annotations, root, tmp_path / str(number))
        states.append(detector._network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def named(annotations, set_name):
    """As the merged training file names the classes."""
    categories = tuple(replace(each, name=f"{set_name}/{each.name}") for each in annotations.categories)
    return replace(annotations, categories=categories)


def test_a_closed_set_knows_its_classes_by_their_set_and_nothing_else(
    yolo11_file, scenes, tmp_path, monkeypatch
):
    annotations, root = scenes
    monkeypatch.setattr(training, "EPOCHS", 1)
    detector = ClosedSetYolo(yolo11_file, side=SIDE)
    detector.fit(named(annotations, "a-set"), root, tmp_path)
    path = root / annotations.images[0].file_name
    assert detector.encode_prompts(annotations, root / "a") == {"bright": 0, "dark": 1}
    assert (
        detector.encode_prompts(annotations, root / "b") == {}
    )  # another set, whose classes have these names
    judged(next(detector.detect([path], {"dark": 1, "bright": 0})))
    assert len(next(detector.detect([path], {}))) == 0
    other = replace(annotations, categories=(replace(annotations.categories[0], name="hole"),))
    assert detector.encode_prompts(other, root / "a") == {}


@pytest.mark.slow
def test_a_trained_closed_set_finds_what_it_was_shown(yolo11_file, scenes, tmp_path, monkeypatch):
    annotations, root = scenes
    monkeypatch.setattr(training, "EPOCHS", 150)
    monkeypatch.setattr(training, "RATE", 2e-3)
    detector = ClosedSetYolo(yolo11_file, side=SIDE)
    detector.fit(named(annotations, "a-set"), root, tmp_path)
    prompts = detector.encode_prompts(annotations, root / "a")
    hits = []
    for image in annotations.images:
        found = next(detector.detect([root / image.file_name], prompts))
        for instance in annotations.instances_of(image.id):
            best = int((found.labels == instance.category_id - 1).nonzero()[0])
            x, y, w, h = (int(value) for value in instance.bbox)
            truth = np.zeros((80, 120), dtype=bool)
            truth[y : y + h, x : x + w] = True
            mask = decode_rle(found.masks_rle[best])
            hits.append((mask & truth).sum() / (mask | truth).sum() > 0.5)
    assert np.mean(hits) > 0.8


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.pt", "no such file"),
        (lambda folder: written(folder / "damaged.pt", b"no zip"), "cannot load it"),
        (lambda folder: written(folder / "evil.pt", pickle.dumps(Evil(), 2)), "cannot load it"),
        (lambda folder: saved(folder / "evil2.pt", {"model": Evil()}), "cannot load it"),
        (lambda folder: saved(folder / "state.pt", {"model": {"a": torch.zeros(1)}}), "cannot load it"),
        (lambda folder: folder / "yolo99.yaml", "cannot load it"),
    ],
)
def test_weights_that_cannot_be_read_are_one_line_and_run_no_code(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        YoloE(str(make(tmp_path)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil-was-here").exists()


def written(path, data):
    path.write_bytes(data)
    return path


def saved(path, value):
    torch.save(value, path)
    return path


EARLIER = """
import sys
from ultralytics.nn import tasks
from unispector.errors import CheckpointError
from unispector.systems.yolo.library import load_network
try:
    load_network(sys.argv[1], "YOLOESegModel")
except CheckpointError:
    print("refused")
"""


def test_weights_run_no_code_whoever_imported_the_package_before(tmp_path, project_root):
    file = saved(tmp_path / "evil.pt", {"model": Evil()})
    env = {key: value for key, value in os.environ.items() if key != "ULTRALYTICS_SAFE_LOAD"}
    env |= {"YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true", "PYTHONPATH": str(project_root)}
    done = subprocess.run(
        [sys.executable, "-c", EARLIER, file],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "refused\n", done.stderr
    assert not (tmp_path / "evil-was-here").exists()


def test_another_kind_of_network_is_refused(yolo11_file, yoloe_file):
    with pytest.raises(CheckpointError, match="holds a SegmentationModel; this system takes a YOLOESegModel"):
        YoloE(yolo11_file)
    with pytest.raises(CheckpointError, match="takes a SegmentationModel"):
        ClosedSetYolo(yoloe_file)


LOOK = """
import socket, sys
def refuse(*_): raise AssertionError("network")
socket.socket.connect = refuse
import cv2, numpy, torch
from unispector.systems import catalogue
from unispector.systems.yolo import detectors, library, world
assert "ultralytics" not in sys.modules
def habits():
    return cv2.getNumThreads(), numpy.get_printoptions(), torch.save, repr(torch.arange(40) * 1e6)
known = habits()
library.load_network("yoloe-11n-seg.yaml", "YOLOESegModel")
from ultralytics.utils import ONLINE
from ultralytics.utils.events import Events
assert not ONLINE and not Events().enabled
assert known == habits()
"""


def test_the_package_comes_only_when_asked_for_and_is_silent_and_leaves_no_trace(tmp_path, project_root):
    env = {key: value for key, value in os.environ.items() if not key.startswith("YOLO")}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(project_root), "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == "ultralytics is used, whose licence is AGPL-3.0\n"
    assert not list(tmp_path.iterdir())


def test_the_benchmark_runs_them(
    benchmark, new_project, short, yoloe_file, yolo11_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "EPOCHS", 1)
    project = new_project(variants=())
    prompted = Entry("yoloe", lambda _: YoloE(yoloe_file, side=SIDE), "yoloe")
    assert len(run_benchmark(prompted, short, project, tmp_path / "e").rows) == 3
    known = []

    class Watched(ClosedSetYolo):
        def detect(self, images, prompts):
            known.append(set(prompts))
            return super().detect(images, prompts)

    closed = Entry("closed", lambda _: Watched(yolo11_file, side=SIDE), "yolo11-seg")
    report = run_benchmark(closed, short, project, tmp_path / "c")
    assert [(row.data_set, row.subset) for row in report.rows][:2] == [("tile", "unseen"), ("tile", "seen")]
    unseen, seen, elsewhere = known
    assert unseen == elsewhere == set()  # of which it finds nothing
    assert seen == {name.partition("/")[2] for name in taught(project)}
    assert [path.name for path in (tmp_path / "c/trained").rglob("*.pt")] == ["weights.pt"]


def taught(project):
    return Annotations.read(SplitTree(project / SPLITS).training(42)).class_names


def test_the_command_makes_them(yoloe_file):
    assert type(make_detector("yoloe", yoloe_file)) is YoloE
    with pytest.raises(ConfigError, match="prompted by boxes alone"):
        make_detector("yoloe", yoloe_file, "mask")
